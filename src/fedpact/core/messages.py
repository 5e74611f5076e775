"""What goes between a server and its clients: a Task down, an Update up, and the Aggregate of a cohort."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedpact.core.packed import Packed
from fedpact.core.stack import Stack
from fedpact.core.vector import Layout, Vector
from fedpact.core.wide import Wide

UpdateKind = Literal["delta", "model", "gradient", "statistics"]
Statistic = NDArray[np.int64] | NDArray[np.float64] | Wide
# A statistic as integers, which is how it enters a sum.
Term = NDArray[np.int64] | Wide


@dataclass(frozen=True)
class Cohort:
    """The clients sampled for this round, as many as the job asks for."""


@dataclass(frozen=True)
class Everyone:
    """Every client that is there."""


@dataclass(frozen=True)
class Cycle:
    """One client a round, each in turn.

    Args:
        shuffle: draw a new order for every pass over the clients, instead of the order of their names.
    """

    shuffle: bool = False


@dataclass(frozen=True)
class Named:
    """These clients."""

    ids: tuple[str, ...]


Recipients = Cohort | Everyone | Cycle | Named


@dataclass(frozen=True)
class Task:
    """What clients are asked to do.

    Args:
        verb: what to do ("train", "gradient", "newton", "statistics", "evaluate"): an algorithm's own word.
        version: the number of server steps behind the model sent along; updates must answer to it.
        arrays: vectors sent down, such as "model".
        parameters: plain data sent down.
        kind: what kind of update is asked for, and no other is taken; None where they need only be of one kind.
        to: who is asked.
        answers: "sum" (added exactly, the server sees the sum alone) or "collect" (each answer, in clear).
        weighting: whether an update's weight is the client's number of examples or 1.
        sent_bytes: the bytes in which a channel sends the arrays to one client; None for the arrays as they are.
    """

    verb: str
    version: int = 0
    arrays: Mapping[str, Vector] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    kind: UpdateKind | None = None
    to: Recipients = Cohort()
    answers: Literal["sum", "collect"] = "sum"
    weighting: Literal["examples", "uniform"] = "examples"
    sent_bytes: int | None = None

    @property
    def nbytes(self) -> int:
        """The bytes of the arrays, as sent to one client."""
        if self.sent_bytes is not None:
            return self.sent_bytes
        return sum(vector.layout.nbytes for vector in self.arrays.values())


# Arrays have no one truth value, so these are compared by identity.
@dataclass(frozen=True, eq=False)
class Integers:
    """An update's averaged vectors as integers, or the sum of such.

    Args:
        step: what an integer of 1 stands for.
        arrays: vector → int64 [size], weight · value / step, in the order of the vector's elements. Of a masked update
            they are residues modulo 2^ring_bits.
        layouts: vector → its layout.
        ring_bits: the bits of the ring in which they are summed; None for int64, which they do not leave.
        numbers: what the numbers are called that travel beside them, under a mask.
        nbytes: the bytes in which they are sent.
    """

    step: float
    arrays: Mapping[str, NDArray[np.int64]]
    layouts: Mapping[str, Layout]
    ring_bits: int | None = None
    numbers: tuple[str, ...] = ()
    nbytes: int = 0


@dataclass(frozen=True, eq=False)
class Update:
    """What one client answers.

    Args:
        client: who answers.
        version: the version of the task answered.
        kind: what `averaged` holds: a "delta" (model − model received), a "model", a "gradient"; or nothing
            but "statistics".
        weight: the client's weight in the mean of `averaged`: its number of examples, or 1, or a real.
        averaged: vectors combined as Σ weight·vector / Σ weight; one by the name of an array of the task has
            that array's layout, widened.
        summed: statistics combined as Σ value: int64 counts, float64 numbers, or `Wide` fixed point.
        metrics: numbers combined as Σ value, for the record only (training loss, rows seen).
        answer: plain data, for tasks that collect answers.
        packed: vectors on their way that a channel stage took out of `averaged` and, at the server, puts back.
        integers: the averaged vectors in the place of `averaged`, once a channel has made them integers.
        notes: what channel stages measured at the client: it stays there, and is added up in a simulation alone.
    """

    client: str
    version: int
    kind: UpdateKind
    weight: float = 1
    averaged: Mapping[str, Vector] = field(default_factory=dict)
    summed: Mapping[str, Statistic] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    answer: Any = None
    packed: Mapping[str, Packed] = field(default_factory=dict)
    integers: Integers | None = None
    notes: Mapping[str, float] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """The bytes of the arrays and numbers, as sent to the server."""
        vectors = sum(vector.layout.nbytes for vector in self.averaged.values())
        packed = sum(vector.nbytes for vector in self.packed.values())
        integers = self.integers.nbytes if self.integers else 0
        arrays = sum(a.limbs.nbytes if isinstance(a, Wide) else a.nbytes for a in self.summed.values())
        return vectors + packed + integers + arrays + 8 * len(self.metrics)


@dataclass(frozen=True, eq=False)
class Updates:
    """What many clients answer, stacked: the fields of as many `Update`s, each an array over the clients.

    Args:
        clients: who answers.
        version: the version of the task answered.
        kind: what `averaged` holds.
        weights: each client's weight.
        averaged: stacks of vectors.
        metrics: numbers [clients].
        notes: what channel stages measured at the clients, added up over them.
    """

    clients: Sequence[str]
    version: int
    kind: UpdateKind
    weights: Sequence[float]
    averaged: Mapping[str, Stack]
    metrics: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    notes: Mapping[str, float] = field(default_factory=dict)

    def one(self, place: int) -> Update:
        """Return the update of one of the clients, copied."""
        return Update(
            client=self.clients[place],
            version=self.version,
            kind=self.kind,
            weight=self.weights[place],
            averaged={name: stack.row(place) for name, stack in self.averaged.items()},
            metrics={name: float(numbers[place]) for name, numbers in self.metrics.items()},
        )

    @property
    def nbytes(self) -> int:
        """The bytes of the arrays and numbers of one of the clients, as sent to the server."""
        return sum(s.layout.nbytes for s in self.averaged.values()) + 8 * len(self.metrics)

    def take(self, places: Sequence[int]) -> "Updates":
        """Return the updates of the clients at these places."""
        return Updates(
            clients=[self.clients[i] for i in places],
            version=self.version,
            kind=self.kind,
            weights=[self.weights[i] for i in places],
            averaged={name: stack.take(places) for name, stack in self.averaged.items()},
            metrics={name: numbers[places] for name, numbers in self.metrics.items()},
        )


@dataclass(frozen=True, eq=False)
class Aggregate:
    """The exact sum of a cohort's updates.

    Args:
        kind: the kind of every update in it.
        count: how many updates are in it.
        weight: the sum of their weights.
        population: how many clients there were to sample from.
        means: the weighted means of `averaged`.
        sums: the sums of `summed`, exact.
        metrics: the sums of `metrics`.
        answers: client → answer, for tasks that collect them.
    """

    kind: UpdateKind
    count: int
    weight: float
    population: int
    means: Mapping[str, Vector] = field(default_factory=dict)
    sums: Mapping[str, Term] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    answers: Mapping[str, Any] = field(default_factory=dict)

    def sum(self, name: str) -> NDArray[Any]:
        """Return a summed statistic as int64 counts or float64 numbers."""
        total = self.sums[name]
        return total.numbers() if isinstance(total, Wide) else total
