"""Estimates: what preprocessing has to know of all clients' rows, column by column.

Each is an Algorithm whose answers are added exactly, so that it depends on the rows alone and not on
how they are spread over clients. Only training rows count, and missing values are left out. Sums and counts
are all that the server sees, except for categories: each client names its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fedpact.core.algorithm import Algorithm
from fedpact.core.errors import DataError
from fedpact.core.messages import Everyone, Task, Update
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed
from fedpact.data.preprocess.columns import as_frame, as_numbers
from fedpact.data.wording import at_client


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
    with at_client(data.id):
        frame = as_frame(data.train.x)
    for name in names:
        with at_client(data.id):
            values = as_numbers(frame, name)
        yield values[~np.isnan(values)]


def check_counts(names: Sequence[str], counts: Sequence[int] | NDArray[np.int64]) -> None:
    """Raise DataError if a column has no value at any client."""
    for name, count in zip(names, counts, strict=True):
        if count == 0:
            raise DataError(
                f'column "{name}" has no value at any client; leave it out, or fill it with '
                'Impute("constant", fill_value=...).'
            )
