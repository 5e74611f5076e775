"""How many rows of each class all clients train on, where they resample them: an exact sum, in one round."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedpact.core.algorithm import ClientState
from fedpact.core.messages import Task, Update
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed
from fedpact.data.preprocess.class_counts import ClassCounts
from fedpact.data.preprocess.estimate import reply


@dataclass(frozen=True, kw_only=True)
class TrainedClasses(ClassCounts):
    """`ClassCounts` behind the whole preparation of a client's rows, resampling and all.

    Args:
        prepare: makes a client's raw rows into what is trained on.
    """

    prepare: Callable[[ClientData], ClientData]

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return how many of the rows that the client trains on are of each class, "classes" [classes]."""
        classes = np.asarray(self.prepare(data).train.y)
        counts = np.bincount(classes.reshape(-1), minlength=len(self.labels.classes))
        return reply(task, data, {"classes": counts}), kept
