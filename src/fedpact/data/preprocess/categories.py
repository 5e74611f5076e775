"""The categories of all clients' rows, how many rows have each, and the most frequent of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpact.core.algorithm import ClientState
from fedpact.core.errors import DataError
from fedpact.core.messages import Aggregate, Task, Update
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed
from fedpact.data.preprocess.columns import Value, as_categories, in_order
from fedpact.data.preprocess.estimate import (
    Columnwise,
    Estimating,
    ask,
    check_counts,
    column_by_column,
    reply,
)
from fedpact.data.wording import at_client

# A column with more values than this holds names or measurements, not categories.
MOST_CATEGORIES = 10_000


@dataclass(frozen=True)
class Categories(Columnwise):
    """The categories of each column: those of all clients, in an order that no client decides, in one round.

    Each client's own categories reach the server in clear, without their numbers of rows; see `FitPipeline.hidden`.

    Args:
        names: columns of at most 10,000 categories.
    """

    @property
    def told(self) -> tuple[str, ...]:
        """The names of categories."""
        return ("the names of each client's categories",) if self.names else ()

    @property
    def named(self) -> tuple[str, ...]:
        """All columns."""
        return self.names

    def task(self, state: Estimating) -> Task | None:
        """Ask every client, once; nobody where there is no column."""
        return ask(state, "collect") if self.names and state.round == 0 else None

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return each column's categories.

        Raises:
            DataError: a column has more of them than categories can be.
        """
        answer = [in_order(set(categories)) for _, categories in _categorical(data, self.names)]
        for name, categories in zip(self.names, answer, strict=True):
            if len(categories) > MOST_CATEGORIES:
                raise DataError(
                    f'client "{data.id}": column "{name}" has {len(categories):,} different values, and '
                    f"categories are {MOST_CATEGORIES:,} at most; leave it out, or declare its categories."
                )
        return reply(task, data, answer=answer), kept

    def server(self, model: Any, state: Estimating, aggregate: Aggregate) -> Estimating:
        """Unite the clients' categories.

        Raises:
            DataError: a column has no value at any client.
        """
        united = [in_order(set().union(*lists)) for lists in zip(*aggregate.answers.values(), strict=True)]
        check_counts(self.names, [len(categories) for categories in united])
        return Estimating(state.round + 1, united)

    def fitted(self, state: Estimating) -> Mapping[str, tuple[Value, ...]]:
        """Return column → categories."""
        return {name: tuple(each) for name, each in zip(self.names, state.found or (), strict=True)}


@dataclass(frozen=True)
class Declarable(Columnwise):
    """An estimate of columns whose categories may be declared; those of others clients name in a round before.

    Args:
        names: columns of at most 10,000 categories.
        declared: column → its categories, where they are known beforehand.
    """

    declared: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)

    @property
    def told(self) -> tuple[str, ...]:
        """The names of categories that are not declared."""
        return self._collecting.told

    @property
    def named(self) -> tuple[str, ...]:
        """The columns whose categories are not declared."""
        return tuple(name for name in self.names if name not in self.declared)

    @property
    def _collecting(self) -> Categories:
        return Categories(self.named)


@dataclass(frozen=True)
class Counts(Declarable):
    """The number of rows of each category of each column, in two rounds; in one where all categories are declared.

    The server sees each client's categories, where they are not declared, and the sums of the counts.

    Args:
        names: columns of at most 10,000 categories.
        declared: column → its categories, where they are known beforehand; others are then not counted.
    """

    rounds: ClassVar[int] = 2

    def init(self, model: Any, seed: Seed) -> Estimating:
        """Return the state before the first round, which is the second where nothing has to be collected."""
        if self.named:
            return Estimating()
        return Estimating(1, [list(self.declared[name]) for name in self.names])

    def task(self, state: Estimating) -> Task | None:
        """Ask for the categories, then for the number of rows of each."""
        if not self.names or state.round >= self.rounds:
            return None
        if state.round == 0:
            return self._collecting.task(state)
        return ask(state, categories=state.found)

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return each column's categories, or the number of rows of each."""
        if task.answers == "collect":
            return self._collecting.client(model, task, data, kept, seed)
        counts = []
        for (codes, own), asked in zip(
            _categorical(data, self.names), task.parameters["categories"], strict=True
        ):
            rows = dict(zip(own, np.bincount(codes[codes >= 0], minlength=len(own)).tolist(), strict=True))
            counts += [rows.get(category, 0) for category in asked]
        return reply(task, data, {"counts": np.array(counts, np.int64)}), kept

    def server(self, model: Any, state: Estimating, aggregate: Aggregate) -> Estimating:
        """Unite the clients' categories, then add up their rows.

        Raises:
            DataError: a column has no value at any client.
        """
        if state.round == 0:
            collecting = self._collecting
            united = collecting.fitted(collecting.server(model, state, aggregate))
            return Estimating(1, [list({**united, **self.declared}[name]) for name in self.names])
        ends = np.cumsum([len(categories) for categories in state.found])
        counts = np.split(aggregate.sum("counts"), ends[:-1])
        return Estimating(2, [[each, rows.tolist()] for each, rows in zip(state.found, counts, strict=True)])

    def fitted(self, state: Estimating) -> Mapping[str, Any]:
        """Return column → {category: rows}, in the order of the categories."""
        return {
            name: dict(zip(*each, strict=True))
            for name, each in zip(self.names, state.found or (), strict=True)
        }


@dataclass(frozen=True)
class Modes(Counts):
    """The most frequent category of each column, in two rounds; of equally frequent ones the first in order.

    Args:
        names: columns of at most 10,000 categories.
    """

    def fitted(self, state: Estimating) -> Mapping[str, Value]:
        """Return column → its most frequent category."""
        return {name: max(rows, key=lambda each: rows[each]) for name, rows in super().fitted(state).items()}


def _categorical(data: ClientData, names: Sequence[str]) -> Iterator[tuple[NDArray[np.int64], list[Value]]]:
    for name, frame in column_by_column(data, names):
        with at_client(data.id):
            coded = as_categories(frame, name)
        yield coded
