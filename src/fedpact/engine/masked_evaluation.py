"""Judging a model under a mask: the server learns the statistics of all held-out rows, and of no client its own."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fedpact.channel.channel import Channel
from fedpact.channel.mask import Mask
from fedpact.channel.quantize import Quantize
from fedpact.core.algorithm import ClientState
from fedpact.core.grid import Grid
from fedpact.core.messages import Aggregate, Recipients, Task, Update
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed
from fedpact.core.vector import Vector
from fedpact.engine.evaluation import Evaluate
from fedpact.learn.metrics import COUNTS, shapes

_COUNTS = "counts"


@dataclass(frozen=True)
class Whole(Quantize):
    """Whole numbers as they are, up to a largest one."""

    def grid(self, limit: float, most: float) -> Grid:
        """Return the grid of the whole numbers."""
        return Grid(1.0, limit)


@dataclass(frozen=True)
class EvaluateMasked(Evaluate):
    """As `Evaluate`, in a form that a mask can hide: counts as one vector, other sums as metrics."""

    releases: ClassVar[Literal["averaged", "summed"]] = "averaged"

    @staticmethod
    def of(weights: Vector, to: Recipients) -> Task:
        """Return the task to judge these weights."""
        return Task("evaluate", arrays={"model": weights}, to=to, weighting="uniform")

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return the statistics of the client's held-out rows."""
        update, kept = super().client(model, task, data, kept, seed)
        sums = {name: np.asarray(array, np.float64) for name, array in update.summed.items()}
        counts = {name: array for name, array in sums.items() if name in COUNTS}
        others = {
            f"{name} {i}": float(number)
            for name, array in sums.items()
            if name not in COUNTS
            for i, number in enumerate(array.ravel())
        }
        averaged = {_COUNTS: Vector.from_arrays(counts)}
        return replace(update, averaged=averaged, summed={}, metrics=others, answer=None), kept

    @staticmethod
    def sums(model: Any, aggregate: Aggregate) -> dict[str, NDArray[np.float64]]:
        """Return the statistics of all held-out rows."""
        found = {}
        schema = model.schema
        for name, shape in shapes(schema.kind, max(2, len(schema.classes))).items():
            if name in COUNTS:
                found[name] = np.rint(aggregate.means[_COUNTS][name].astype(np.float64) * aggregate.weight)
            else:
                numbers = [aggregate.metrics[f"{name} {i}"] for i in range(int(np.prod(shape)))]
                found[name] = np.array(numbers).reshape(shape)
        return found


def masked_channel(mask: Mask, clients: int) -> Channel:
    """Return a channel for the statistics of so many clients, at most, under this mask."""
    most = (2 ** (mask.bits - 1) - 1) // max(1, clients)
    return Channel((Whole(range=float(max(1, most)), stochastic=False), mask), EvaluateMasked())
