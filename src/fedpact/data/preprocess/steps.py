"""What a step of preprocessing is: a specification, and the fitted step that it becomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError
from fedpact.core.seeds import Seed
from fedpact.data.agree import Labels
from fedpact.data.preprocess.columns import Columns
from fedpact.data.preprocess.estimate import Estimate

if TYPE_CHECKING:
    import pandas as pd


class Step(Protocol):
    """A step as a job names it: a frozen dataclass of settings."""

    def estimate(self, columns: Columns) -> Estimate:
        """Return what finds out about all clients' rows; an estimate of no columns where nothing has to be.

        Args:
            columns: the columns that the step is given.

        Raises:
            ConfigError: the step does not fit the columns.
        """
        ...

    def fitted(self, columns: Columns, estimates: Mapping[str, Any]) -> FittedStep:
        """Return the step that the estimates, column by column, make of it."""
        ...


@runtime_checkable
class LabelledStep(Step, Protocol):
    """A step that is fitted to the labels too; its `estimate` is for rows without any, and may refuse them."""

    def labelled_estimate(self, columns: Columns, labels: Labels) -> Estimate:
        """Return what finds out about all clients' rows, as `Step.estimate` does.

        Its clients are given labels as a model is: class indexes int64 [n], or numbers float64 [n].

        Args:
            columns: the columns that the step is given.
            labels: what the labels are.

        Raises:
            ConfigError: the step does not fit the columns, or the labels.
        """
        ...


class FittedStep(Protocol):
    """A fitted step: plain data, the same at every client."""

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the prepared table; columns that the step does not know stay as they are.

        Raises:
            DataError: a column is missing, or holds what the step cannot prepare.
        """
        ...

    def columns_out(self, columns: Columns) -> Columns:
        """Return the columns that the step makes of these."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return the step as plain data."""
        ...


@runtime_checkable
class CrossFittedStep(Protocol):
    """A fitted step that prepares the rows it was fitted to otherwise than all others: without what they gave to it.

    It is a `FittedStep` as well; `transform` is for all other rows, those of tests and predictions.
    """

    def transform_training(self, frame: pd.DataFrame, client: str) -> pd.DataFrame:
        """Return the prepared table of a client's training rows: all of them, in the order they were fitted in.

        Raises:
            DataError: as `transform`.
        """
        ...


@runtime_checkable
class RowStep(Protocol):
    """A fitted step that leaves rows out: of training and of tests, never of those that are to be predicted.

    It is a `FittedStep` as well; `transform` is for the rows that are kept, and for all that are to be predicted.
    """

    def rows_kept(self, frame: pd.DataFrame, training_of: str | None) -> NDArray[np.bool_]:
        """Return which rows stay [n], told from what the steps before it made of them.

        Args:
            frame: the rows.
            training_of: the client whose training rows these are; None for test rows.

        Raises:
            DataError: as `transform`.
        """
        ...


@runtime_checkable
class ResamplingStep(Protocol):
    """A step at the end of preprocessing that chooses which training rows a client learns from, and how often.

    It is a `Step` as well, though it is never fitted as one: it has the same columns before and behind it, and leaves
    rows of tests and predictions alone. All random choices are drawn from the seed that it is given. It asks for the
    counts of classes by `counts_classes`, and for examples that are floats by `computes`. By `alone` it refuses all
    others beside it; of those that add rows, and of those that do not, one may stand there (`adds`).
    """

    counts_classes: ClassVar[bool]
    computes: ClassVar[bool]
    alone: ClassVar[bool]
    adds: ClassVar[bool]

    def check(self, labels: Labels, shape: tuple[int, ...]) -> None:
        """Make sure that rows like these can be resampled.

        Args:
            labels: what the labels are.
            shape: the shape of one example.

        Raises:
            ConfigError: they cannot.
            DependencyError: it takes a library that is not installed.
        """
        ...

    def resample(
        self, x: NDArray[Any], labels: NDArray[np.int64], counts: NDArray[np.int64], seed: Seed
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return one client's training rows anew: examples [m, ...], and class indexes [m].

        Args:
            x: the examples [n, ...].
            labels: class indexes [n].
            counts: how many training rows of each class all clients have [classes]; may be empty where the step does
                not ask for it.
            seed: the stream of this step at this client.
        """
        ...


@runtime_checkable
class RawStep(Protocol):
    """A step that takes some columns as they are in the clients' tables, whatever they hold.

    It is a `Step` as well. Clients need not agree on the kinds of these columns, which are "other" for all steps before
    it.
    """

    def raw_columns(self) -> tuple[str, ...]:
        """Return the columns."""
        ...


def as_names(step: str, columns: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return a step's setting `columns` as a tuple.

    Raises:
        ConfigError: it is no list of names.
    """
    if columns is None:
        return None
    if isinstance(columns, str) or not all(isinstance(name, str) for name in columns):
        raise ConfigError(f"{step}: columns is {columns!r}; it must be a list of column names.")
    return tuple(columns)
