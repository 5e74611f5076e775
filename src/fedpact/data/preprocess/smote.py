"""Synthetic rows of rare classes, on segments between a client's own: SMOTE, its borderline variants, and ADASYN.

Chawla et al., "SMOTE: Synthetic Minority Over-sampling Technique", JAIR 16, 2002; Han et al., "Borderline-SMOTE: A New
Over-Sampling Method in Imbalanced Data Sets Learning", ICIC 2005; He et al., "ADASYN: Adaptive Synthetic Sampling
Approach for Imbalanced Learning", IJCNN 2008. As imbalanced-learn computes them.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError, DependencyError
from fedpact.core.seeds import Seed
from fedpact.core.settings import check_choice, check_counts, check_numbers
from fedpact.data.agree import Labels
from fedpact.data.preprocess.resample import Resampling, shortages

Kind = Literal["regular", "borderline-1", "borderline-2"]

# Among so many nearest rows of all classes a row of borderline SMOTE is in danger: imbalanced-learn's own number.
_DANGER_AMONG = 10


class _Synthetic(Resampling):
    """A step that puts new rows between those of a rare class and their neighbours."""

    neighbors: int
    ratio: float

    computes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_counts(self, "neighbors")
        check_numbers(self, "ratio", positive=True, at_most=1)

    def check(self, labels: Labels, shape: tuple[int, ...]) -> None:
        super().check(labels, shape)
        name = type(self).__name__
        if len(shape) != 1:
            raise ConfigError(
                f"{name} puts rows between rows of numbers, and these examples are arrays of shape {shape}; use "
                "OverSample."
            )
        try:
            import imblearn  # noqa: F401
        except ModuleNotFoundError:
            raise DependencyError(
                f'{name} needs imbalanced-learn: pip install "fedpact[imbalance]".'
            ) from None

    def resample(
        self, x: NDArray[Any], labels: NDArray[np.int64], counts: NDArray[np.int64], seed: Seed
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return the rows, and behind them the synthetic ones, class by class."""
        random = np.random.RandomState(seed.generator().bit_generator)
        examples, classes = [x], [labels]
        for each, lacking in shortages(labels, self.ratio):
            of_class = np.flatnonzero(labels == each)
            if len(of_class) == 1:
                made = np.repeat(x[of_class], lacking, axis=0)
            else:
                made = self._made(x, labels, each, len(of_class), lacking, random)
            examples.append(made)
            classes.append(np.full(len(made), each, np.int64))
        return np.concatenate(examples), np.concatenate(classes)

    def _made(
        self,
        x: NDArray[Any],
        labels: NDArray[np.int64],
        each: int,
        rows: int,
        lacking: int,
        random: np.random.RandomState,
    ) -> NDArray[Any]:
        """Return synthetic rows of a class of two rows or more [m, features]."""
        sampler = self._sampler({each: rows + lacking}, len(labels), rows, random)
        made, _ = sampler.fit_resample(x, labels)
        return made[len(labels) :]

    @abstractmethod
    def _sampler(
        self, wanted: dict[int, int], rows: int, of_class: int, random: np.random.RandomState
    ) -> Any:
        """Return imbalanced-learn's sampler.

        Args:
            wanted: the class → how many rows of it there are to be.
            rows: how many rows there are.
            of_class: how many of them are of the class.
            random: what it draws from.
        """
        ...


@dataclass(frozen=True)
class SMOTE(_Synthetic):
    """Put random points between rows of a client's rare classes, until each has as many as its commonest.

    Each is on the segment from a row of the class to one of its nearest neighbours of the same class. kind="regular"
    starts from any row of the class; "borderline-1" from those in danger: of their 10 nearest rows half or more, but
    not all, are of other classes; "borderline-2" also goes from those up to half the way to neighbours of other
    classes. All neighbours are the client's own: nothing leaves it. A row's distance to another is Euclidean, so put
    Standardize before it. A column of zeros and ones, such as OneHot makes, is a number like others: between two rows
    of different categories it has the fractions in between.

    The rows are those of imbalanced-learn (SMOTE, BorderlineSMOTE), drawn from a stream of the job's seed with the
    client's name. A client counts as many rows in a mean over clients as it trains on. At a client with no row of a
    class none is made, and the result's notes name it; a single row is repeated; of k rows each has k − 1 neighbours at
    most; and where no row is in danger, the borderline variants make none.

    It stands at the end of `preprocess`, and leaves rows of tests and predictions alone.

    Args:
        neighbors: among how many nearest neighbours the other end of a segment is drawn.
        ratio: how many rows a class is to have, as a share of the client's commonest class, in (0, 1].
        kind: which rows and neighbours segments lie between.

    Raises:
        ConfigError: a setting is out of its range.
    """

    neighbors: int = 5
    ratio: float = 1.0
    kind: Kind = "regular"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "kind", get_args(Kind))

    def _sampler(
        self, wanted: dict[int, int], rows: int, of_class: int, random: np.random.RandomState
    ) -> Any:
        from imblearn import over_sampling

        # The second variant's neighbours are of all classes.
        among = rows if self.kind == "borderline-2" else of_class
        settings = {
            "sampling_strategy": wanted,
            "k_neighbors": min(self.neighbors, among - 1),
            "random_state": random,
        }
        if self.kind == "regular":
            return over_sampling.SMOTE(**settings)
        nearest = min(_DANGER_AMONG, rows - 1)
        return over_sampling.BorderlineSMOTE(**settings, m_neighbors=nearest, kind=self.kind)


@dataclass(frozen=True)
class ADASYN(_Synthetic):
    """Put random points between rows of a client's rare classes, most beside those that are hard to tell.

    As SMOTE's, each is on the segment from a row of the class to one of its nearest neighbours of the same class; but
    rows are drawn from in proportion to the share of other classes among their nearest neighbours of all classes. How
    many there are is rounded row by row, so a class has about as many as wanted.

    The rows are those of imbalanced-learn's ADASYN, drawn from a stream of the job's seed with the client's name. A
    client counts as many rows in a mean over clients as it trains on. At a client with no row of a class none is made,
    and the result's notes name it; a single row is repeated; of k rows each has k − 1 neighbours at most; and where no
    row has a neighbour of another class, or the few that are wanted round to none, none is made.

    It stands at the end of `preprocess`, and leaves rows of tests and predictions alone. For columns of zeros and ones
    and for distances see `SMOTE`.

    Args:
        neighbors: how many nearest neighbours are looked at.
        ratio: how many rows a class is to have, as a share of the client's commonest class, in (0, 1].

    Raises:
        ConfigError: a setting is out of its range.
    """

    neighbors: int = 5
    ratio: float = 1.0

    def _made(
        self,
        x: NDArray[Any],
        labels: NDArray[np.int64],
        each: int,
        rows: int,
        lacking: int,
        random: np.random.RandomState,
    ) -> NDArray[Any]:
        try:
            return super()._made(x, labels, each, rows, lacking, random)
        except (RuntimeError, ValueError):
            # What imbalanced-learn raises where no neighbour is of another class, and where all rounds to none: of
            # finite rows and checked settings, nothing else.
            return x[:0]

    def _sampler(
        self, wanted: dict[int, int], rows: int, of_class: int, random: np.random.RandomState
    ) -> Any:
        from imblearn import over_sampling

        nearest = min(self.neighbors, of_class - 1)
        return over_sampling.ADASYN(sampling_strategy=wanted, n_neighbors=nearest, random_state=random)
