"""How many training rows of each class all clients have: an exact sum, in one round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from fedpact.core.algorithm import ClientState
from fedpact.core.messages import Aggregate, Task, Update
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed
from fedpact.data.agree import Labels, labels_of
from fedpact.data.preprocess.estimate import Estimating, ask, reply
from fedpact.data.preprocess.pipeline import Pipeline
from fedpact.data.preprocess.steps import RowStep
from fedpact.data.wording import at_client


@dataclass(frozen=True)
class ClassCounts:
    """An algorithm of one task: clients count their training rows class by class, the server sees the sums.

    Rows that a step leaves out are not counted; where a row has several labels, each is.

    Args:
        labels: what the labels are; classes.
        pipeline: what prepares the rows, as plain data; None for arrays that are read as they are.
    """

    labels: Labels
    pipeline: Mapping[str, Any] | None = None

    releases: ClassVar[Literal["averaged", "summed"]] = "summed"

    def init(self, model: Any, seed: Seed) -> Estimating:
        """Return the state before the first round."""
        return Estimating()

    def task(self, state: Estimating) -> Task | None:
        """Ask every client, once."""
        return ask(state, pipeline=self.pipeline) if state.round == 0 else None

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return how many training rows of each class the client has, "classes" [classes].

        Raises:
            DataError: its rows do not fit; the client is named.
        """
        with at_client(data.id, "training"):
            classes = self.labels.encode(labels_of(data.train))
            if task.parameters["pipeline"] is not None:
                pipeline = Pipeline.from_json(task.parameters["pipeline"])
                if any(isinstance(step, RowStep) for step in pipeline.steps):
                    _, places = pipeline.selected(data.train.x, training_of=data.id)
                    classes = classes[places]
        counts = np.bincount(classes.reshape(-1), minlength=len(self.labels.classes))
        return reply(task, data, {"classes": counts}), kept

    def server(self, model: Any, state: Estimating, aggregate: Aggregate) -> Estimating:
        """Return the counts over all clients."""
        return Estimating(1, aggregate.sum("classes").tolist())

    def fitted(self, state: Estimating) -> tuple[int, ...]:
        """Return the counts [classes], once there is no task left."""
        return tuple(state.found)
