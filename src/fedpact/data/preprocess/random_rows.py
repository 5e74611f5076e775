"""Random resampling: rows of rare classes once more, or fewer rows of common ones, drawn at each client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpact.core.seeds import Seed
from fedpact.core.settings import check_numbers
from fedpact.data.preprocess.resample import Resampling, shortages


@dataclass(frozen=True)
class OverSample(Resampling):
    """Repeat random training rows of a client's rare classes, until each has as many as its commonest.

    As imbalanced-learn's RandomOverSampler, at each client for itself: rows are drawn with replacement, from a stream
    of the job's seed with the client's name, and follow its own. A client counts as many rows in a mean over clients as
    it trains on. One that has no row of a class has none afterwards, and the result's notes name it.

    It stands at the end of `preprocess`, and leaves rows of tests and predictions alone.

    Args:
        ratio: how many rows a class is to have at least, as a share of the client's commonest class, in (0, 1].

    Raises:
        ConfigError: the ratio is out of its range.
    """

    ratio: float = 1.0

    def __post_init__(self) -> None:
        check_numbers(self, "ratio", positive=True, at_most=1)

    def resample(
        self, x: NDArray[Any], labels: NDArray[np.int64], counts: NDArray[np.int64], seed: Seed
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return the rows, and behind them the repeated ones, class by class."""
        random = seed.generator()
        repeated = [
            random.choice(np.flatnonzero(labels == each), lacking)
            for each, lacking in shortages(labels, self.ratio)
        ]
        if not repeated:
            return x, labels
        index = np.concatenate([np.arange(len(labels)), *repeated])
        return x[index], labels[index]


@dataclass(frozen=True)
class UnderSample(Resampling):
    """Keep random training rows of a client's common classes, as many as it has of its rarest.

    As imbalanced-learn's RandomUnderSampler, at each client for itself: rows are drawn without replacement, from a
    stream of the job's seed with the client's name, and stay in their order; they are the same in every round. A client
    counts as many rows in a mean over clients as it trains on, which tells the server how many it has of its rarest
    class: with a single row of that class it keeps one of each. One that has rows of one class alone keeps them all.

    It stands at the end of `preprocess`, and leaves rows of tests and predictions alone.

    Args:
        ratio: the client's rarest class is to be at least this share of each other one, in (0, 1].

    Raises:
        ConfigError: the ratio is out of its range.
    """

    ratio: float = 1.0

    adds: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_numbers(self, "ratio", positive=True, at_most=1)

    def resample(
        self, x: NDArray[Any], labels: NDArray[np.int64], counts: NDArray[np.int64], seed: Seed
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return the rows that are kept."""
        present, rows = np.unique(labels, return_counts=True)
        most = int(rows.min() / self.ratio) if len(present) else 0
        if not len(present) or rows.max() <= most:
            return x, labels
        random = seed.generator()
        kept = [
            random.choice(places, most, replace=False) if len(places) > most else places
            for places in (np.flatnonzero(labels == each) for each in present)
        ]
        index = np.sort(np.concatenate(kept))
        return x[index], labels[index]
