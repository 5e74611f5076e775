"""How many training rows of each class all clients have: an exact sum, in one round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fedpact.core.algorithm import ClientState
from fedpact.core.messages import Aggregate, Task, Update
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed
from fedpact.data.preprocess.estimate import Estimating, ask, reply


@dataclass(frozen=True)
class ClassCounts:
    """An algorithm of one task: clients count their training rows class by class, the server sees the sums.

    Args:
        classes: how many classes there are.
        classes_of: what finds the class indexes of a client's training rows; where a row has several labels, each is
            counted.
    """

    classes: int
    classes_of: Callable[[ClientData], NDArray[np.int64]]

    releases: ClassVar[Literal["averaged", "summed"]] = "summed"

    def init(self, model: Any, seed: Seed) -> Estimating:
        """Return the state before the first round."""
        return Estimating()

    def task(self, state: Estimating) -> Task | None:
        """Ask every client, once."""
        return ask(state) if state.round == 0 else None

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return how many training rows of each class the client has, "classes" [classes].

        Raises:
            DataError: its rows do not fit; the client is named.
        """
        counts = np.bincount(self.classes_of(data).reshape(-1), minlength=self.classes)
        return reply(task, data, {"classes": counts}), kept

    def server(self, model: Any, state: Estimating, aggregate: Aggregate) -> Estimating:
        """Return the counts over all clients."""
        return Estimating(1, aggregate.sum("classes").tolist())

    def fitted(self, state: Estimating) -> tuple[int, ...]:
        """Return the counts [classes], once there is no task left."""
        return tuple(state.found)
