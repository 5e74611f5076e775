"""Clients that are recognised in what is released: each has an axis of the model, or a direction, of its own."""

from dataclasses import dataclass

import numpy as np

from fedpact.algorithms.fedavg import FedAvg
from fedpact.algorithms.stacked import ids_of
from fedpact.core.messages import Update, Updates
from fedpact.core.rows import ClientData, Rows
from fedpact.core.stack import Stack
from fedpact.core.vector import Vector


@dataclass(frozen=True, kw_only=True)
class Canaries(FedAvg):
    """FedAvg whose client of label 1 moves the weight that its name says, and whose client of label 0 none.

    Args:
        size: by how much.
        weighting: as of FedAvg.
    """

    size: float = 1.0
    weighting: str = "uniform"

    def client(self, model, task, data, kept, seed):
        change = Vector.zeros(model.layout.wide)
        change.flats[0][int(data.id)] = self.size * data.train.y[0]
        return Update(data.id, task.version, "delta", averaged={"model": change}), kept

    def clients(self, model, task, data, kept, seeds):
        ids = ids_of(data)
        (segment,) = model.layout.wide.segments
        changes = np.zeros((len(ids), segment.size), segment.dtype)
        changes[np.arange(len(ids)), [int(id) for id in ids]] = [self.size * each.train.y[0] for each in data]
        stack = Stack(model.layout.wide, [changes])
        return Updates(ids, task.version, "delta", [1] * len(ids), {"model": stack}), kept


@dataclass(frozen=True, kw_only=True)
class Directions(Canaries):
    """FedAvg whose clients move the weights in a random direction each, by one in all."""

    def client(self, model, task, data, kept, seed):
        change = Vector.zeros(model.layout.wide)
        change.flats[0][:] = direction(int(data.id), change.flats[0].size)
        return Update(data.id, task.version, "delta", averaged={"model": change}), kept


def direction(number: int, size: int):
    """Return a vector of uniform direction and norm 1."""
    drawn = np.random.default_rng([7, number]).normal(size=size)
    return drawn / np.linalg.norm(drawn)


def canary_clients(inside, features: int) -> list[ClientData]:
    """Return a client for each coin, with one row of so many features."""
    row = np.zeros((1, features))
    return [ClientData(str(i), Rows(row, np.array([float(coin)]))) for i, coin in enumerate(inside)]
