"""How many rows there are, how many of them have a value, and how many have each label at each client."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedpact.core.algorithm import ClientState
from fedpact.core.messages import Aggregate, Task, Update
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed
from fedpact.data.preprocess.columns import Value, as_categories, as_frame, column
from fedpact.data.preprocess.estimate import Collected, Columnwise, Estimating, reply
from fedpact.data.wording import at_client


@dataclass(frozen=True)
class Present(Columnwise):
    """The number of rows, and of those with a value in each column, in one round.

    Args:
        names: columns.
    """

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return how many rows there are, and in how many each column has a value."""
        with at_client(data.id):
            frame = as_frame(data.train.x)
            counts = [len(frame), *(int(column(frame, name).notna().sum()) for name in self.names)]
        return reply(task, data, {"rows": np.array(counts, np.int64)}), kept

    def server(self, model: Any, state: Estimating, aggregate: Aggregate) -> Estimating:
        """Keep the sums."""
        return Estimating(state.round + 1, aggregate.sum("rows").tolist())

    def rows(self, state: Estimating) -> int:
        """Return the number of rows."""
        return int(state.found[0])

    def fitted(self, state: Estimating) -> Mapping[str, int]:
        """Return column → how many rows have a value."""
        return dict(zip(self.names, state.found[1:], strict=True))


@dataclass(frozen=True)
class LabelBalance(Collected, Columnwise):
    """How many rows of each client have each of some labels, and how many have others, in one round.

    The server sees each client's counts: that is what is asked for.

    Args:
        names: the one column of the labels.
        labels: the labels to count.
    """

    labels: tuple[Value, ...]

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return the client's rows of each label, and of all others together."""
        with at_client(data.id):
            codes, own = as_categories(as_frame(data.train.x), self.names[0])
        rows = dict(zip(own, np.bincount(codes[codes >= 0], minlength=len(own)).tolist(), strict=True))
        counts = [rows.pop(label, 0) for label in self.labels]
        return reply(task, data, answer=[*counts, sum(rows.values())]), kept

    def server(self, model: Any, state: Estimating, aggregate: Aggregate) -> Estimating:
        """Keep the answers."""
        return Estimating(state.round + 1, dict(aggregate.answers))

    def fitted(self, state: Estimating) -> Mapping[str, list[int]]:
        """Return client → its rows of each label, in order, and of others."""
        return dict(state.found)
