"""Resampling: at the end of preprocessing, a client's training rows are chosen anew, class by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError
from fedpact.core.seeds import Seed
from fedpact.data import STEPS
from fedpact.data.agree import Labels
from fedpact.data.preprocess.columns import Columns
from fedpact.data.preprocess.steps import ResamplingStep


class Resampling:
    """What all steps that resample have in common."""

    counts_classes: ClassVar[bool] = False
    computes: ClassVar[bool] = False
    alone: ClassVar[bool] = False
    adds: ClassVar[bool] = True

    def check(self, labels: Labels, shape: tuple[int, ...]) -> None:
        """Make sure that each row has a class.

        Raises:
            ConfigError: the labels are numbers, or there are several for each row.
        """
        name = type(self).__name__
        if labels.kind == "regression":
            raise ConfigError(
                f"{name} resamples classes, and these labels are numbers to predict; leave it out."
            )
        if labels.positions:
            raise ConfigError(
                f"{name} needs one label for each row, and these rows have arrays of labels; leave it out."
            )

    def estimate(self, columns: Columns) -> NoReturn:
        """Raise ConfigError: it prepares no columns."""
        raise misplaced(self)

    def fitted(self, columns: Columns, estimates: Mapping[str, Any]) -> NoReturn:
        """Raise ConfigError: it prepares no columns."""
        raise misplaced(self)


@dataclass(frozen=True)
class Resampler:
    """The steps that resample, with all that they need: the same at every client, in every round.

    A client's rows are resampled once, from streams of the job's seed with its name, and so to the same bits in every
    round, engine, process and resumed run, whatever other clients there are.

    Args:
        steps: the steps.
        stream: the key of the stream that they draw from, in hexadecimal.
        counts: how many training rows of each class all clients have; () where no step asks for it.
    """

    steps: tuple[ResamplingStep, ...]
    stream: str
    counts: tuple[int, ...] = ()

    @property
    def computes(self) -> bool:
        """Whether a step computes with the examples, and so needs floats."""
        return any(step.computes for step in self.steps)

    def resample(
        self, x: NDArray[Any], labels: NDArray[np.int64], client: str
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return a client's prepared training rows anew: examples [m, ...], and class indexes [m].

        Args:
            x: the examples [n, ...], in the order in which the client has them.
            labels: class indexes [n].
            client: the client.
        """
        root = Seed(bytes.fromhex(self.stream))
        for place, step in enumerate(self.steps):
            seed = root.child("step", place, "client", client)
            x, labels = step.resample(x, labels, np.array(self.counts, np.int64), seed)
        return x, labels

    def to_json(self) -> dict[str, Any]:
        """Return the resampler as plain data."""
        steps = [STEPS.describe(step) for step in self.steps]
        return {"steps": steps, "stream": self.stream, "counts": list(self.counts)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Resampler:
        """Return the resampler that `to_json` wrote down.

        Raises:
            ConfigError: a step is none that this version knows.
        """
        return cls(tuple(map(STEPS.build, data["steps"])), data["stream"], tuple(data["counts"]))


def resampling_apart(steps: Sequence[Any]) -> tuple[tuple[Any, ...], tuple[ResamplingStep, ...]]:
    """Return the steps that prepare columns, and those behind them that resample.

    Raises:
        ConfigError: one that resamples is not at the end, or two do not go together.
    """
    resampling = tuple(step for step in steps if isinstance(step, ResamplingStep))
    first = len(steps) - len(resampling)
    for step in steps[:first]:
        if isinstance(step, ResamplingStep):
            raise misplaced(step)
    _check_together(resampling)
    return tuple(steps[:first]), resampling


def misplaced(step: Any) -> ConfigError:
    """Return the error of a step that resamples and has steps that prepare columns behind it."""
    return ConfigError(
        f"{type(step).__name__} resamples prepared training rows; put it at the end of preprocess, behind all steps "
        "that prepare columns."
    )


def _check_together(steps: Sequence[ResamplingStep]) -> None:
    names = [type(step).__name__ for step in steps]
    for step, name in zip(steps, names, strict=True):
        if len(steps) > 1 and step.alone:
            raise ConfigError(
                f"preprocess resamples by {' and '.join(names)}, and {name} counts on rows that nothing else "
                "resamples; leave one out."
            )
    adding = [name for step, name in zip(steps, names, strict=True) if step.adds]
    for same in (adding, [name for name in names if name not in adding]):
        if len(same) > 1:
            raise ConfigError(
                f"preprocess resamples by {' and '.join(same)}, the second of which would find little left to do; "
                "leave one out."
            )


def shortages(labels: NDArray[np.int64], ratio: float) -> list[tuple[int, int]]:
    """Return each class that is rarer at a client than ratio · its commonest, and how many rows it lacks for that.

    As imbalanced-learn's `sampling_strategy`, rounded down. A class of which the client has no row is not among them.
    """
    present, rows = np.unique(labels, return_counts=True)
    if not len(present):
        return []
    wanted = int(rows.max() * ratio)
    return [(c, wanted - n) for c, n in zip(present.tolist(), rows.tolist(), strict=True) if n < wanted]
