"""Estimates: what preprocessing has to know of all clients' rows, column by column.

Each is an Algorithm whose answers are added exactly, so that it depends on the rows alone and not on
how they are spread over clients. Only training rows count, and missing values are left out. Sums and counts
are all that the server sees, except for categories: each client names its own, unless sums are masked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fedpact.core.algorithm import Algorithm
from fedpact.core.errors import DataError
from fedpact.core.messages import Everyone, Task, Update
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed
from fedpact.data.preprocess.columns import as_frame, as_numbers
from fedpact.data.wording import at_client

if TYPE_CHECKING:
    import pandas as pd

# Values that are prepared at once: few beside a large client's, and all of a small one's.
_VALUES_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Estimating:
    """The state of an estimate.

    Args:
        round: the number of rounds done.
        found: what is known so far, as plain data.
    """

    round: int = 0
    found: Any = None


class Estimate(Algorithm[Estimating], Protocol):
    """An algorithm that finds something out about each of some columns."""

    def fitted(self, state: Estimating) -> Mapping[str, Any]:
        """Return column → what was found, once there is no task left."""
        ...


class Collected:
    """An algorithm of one task, whose answers the server reads one by one."""

    releases: ClassVar[Literal["averaged", "summed"]] = "summed"

    def init(self, model: Any, seed: Seed) -> Estimating:
        """Return the state before the first round."""
        return Estimating()

    def task(self, state: Estimating) -> Task | None:
        """Ask every client, once."""
        return ask(state, "collect") if state.round == 0 else None


@dataclass(frozen=True)
class Columnwise:
    """An estimate of some columns: its columns, and its tasks.

    Args:
        names: the columns.
    """

    names: tuple[str, ...]

    rounds: ClassVar[int] = 1
    releases: ClassVar[Literal["averaged", "summed"]] = "summed"

    @property
    def told(self) -> tuple[str, ...]:
        """What the server sees of each client besides its part of sums, in phrases."""
        return ()

    @property
    def named(self) -> tuple[str, ...]:
        """The columns of which each client names its categories, in the task that collects answers."""
        return ()

    def init(self, model: Any, seed: Seed) -> Estimating:
        """Return the state before the first round."""
        return Estimating()

    def task(self, state: Estimating) -> Task | None:
        """Ask every client, round after round; nobody where there is no column."""
        return ask(state) if self.names and state.round < self.rounds else None


def ask(state: Estimating, answers: Literal["sum", "collect"] = "sum", **parameters: Any) -> Task:
    """Return a task for every client, whose weight in it is 1: how many rows it has stays its own."""
    return Task(
        "statistics",
        state.round,
        parameters=parameters,
        kind="statistics",
        to=Everyone(),
        answers=answers,
        weighting="uniform",
    )


def reply(
    task: Task, data: ClientData, summed: Mapping[str, NDArray[np.int64]] | None = None, answer: Any = None
) -> Update:
    """Return a client's answer to such a task."""
    return Update(data.id, task.version, "statistics", summed=summed or {}, answer=answer)


def present_numbers(data: ClientData, names: Sequence[str]) -> Iterator[NDArray[np.float64]]:
    """Yield the values of each column of the training rows, without missing ones."""
    for name, frame in column_by_column(data, names):
        with at_client(data.id):
            values = as_numbers(frame, name)
        yield values[~np.isnan(values)]


def column_by_column(data: ClientData, names: Sequence[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield each column of the training rows and a table that has it, made for few columns at a time if on demand."""
    at_once = max(1, _VALUES_AT_ONCE // max(1, len(data.train)))
    for first in range(0, len(names), at_once):
        some = names[first : first + at_once]
        with at_client(data.id):
            frame = as_frame(data.train.x, some)
        for name in some:
            yield name, frame


def check_counts(names: Sequence[str], counts: Sequence[int] | NDArray[np.int64]) -> None:
    """Raise DataError if a column has no value at any client."""
    for name, count in zip(names, counts, strict=True):
        if count == 0:
            raise DataError(
                f'column "{name}" has no value at any client; leave it out, or fill it with '
                'Impute("constant", fill_value=...).'
            )
