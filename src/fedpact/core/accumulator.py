"""The sum of a cohort's updates as they arrive: exact, the same bits for any order, and refused by name."""

import math
from collections.abc import Callable, Mapping, Set
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import UpdateError
from fedpact.core.exact import WEIGHT_UNIT, FixedPointSum, quantised_weights, weight_units
from fedpact.core.messages import Aggregate, Integers, Statistic, Task, Term, Update, UpdateKind, Updates
from fedpact.core.stack import Stack
from fedpact.core.vector import Layout, Vector
from fedpact.core.wide import WIDE_LIMIT, WIDE_UNIT, Wide, wide_units

_LARGEST_COUNT = np.iinfo(np.int64).max


class Accumulator:
    """Adds updates up as they arrive, exactly; its memory is one accumulator, whatever the cohort.

    Args:
        task: the task answered.
        limit: the declared range of every averaged value.
        total_weight: an upper bound on the sum of the cohort's weights.
        population: how many clients there were to sample from.
        integers: called with a vector's name and size for an int64 array to sum it in; None for arrays of its own.
        expected: averaged vector → its layout, where it is known; None for those of the task, widened.
        fraction_bits: vectors are summed in steps of 2^-fraction_bits; None for the finest that cannot overflow.
    """

    def __init__(
        self,
        task: Task,
        limit: float,
        total_weight: float,
        population: int,
        integers: Callable[[str, int], NDArray[np.int64]] | None = None,
        expected: Mapping[str, Layout] | None = None,
        fraction_bits: int | None = None,
    ) -> None:
        self.task = task
        self.limit = limit
        self.total_weight = total_weight
        self.population = population
        self._integers = integers
        self._expected = expected
        self._fraction_bits = fraction_bits
        self._total: Integers | None = None
        self.clients: set[str] = set()
        # In multiples of 2^-64.
        self._weight = 0
        self.kind: UpdateKind | None = None
        self._averaged: dict[str, FixedPointSum] = {}
        self._summed: dict[str, Term] = {}
        # In multiples of 2^-140.
        self._metrics: dict[str, int] = {}
        self._answers: dict[str, Any] = {}

    @property
    def count(self) -> int:
        """How many updates were added."""
        return len(self.clients)

    @property
    def weight(self) -> Fraction:
        """The sum of their weights."""
        return Fraction(self._weight, WEIGHT_UNIT)

    def add(self, update: Update) -> None:
        """Add one update; one that is refused leaves no trace.

        Raises:
            UpdateError: it answers another version, is of another kind or has other arrays than the task or the
                rest, is its client's second, or holds a value that is NaN, infinite or out of range.
            ConfigError: the declared range is too wide for the total weight (see `FixedPointSum`).
        """
        if update.version != self.task.version:
            raise UpdateError(
                f'client "{update.client}" answered version {update.version} of the model; '
                f"this round is at version {self.task.version}."
            )
        sender = f'client "{update.client}"'
        weight = weight_units(update.weight, update.client)
        terms = {name: _integers(value, f"{sender}: {name}") for name, value in update.summed.items()}
        self._check(sender, {update.client}, update.kind, update.averaged, terms, update.integers)
        # What can be refused is computed first, so that nothing is kept of an update that is.
        summed = self._summed_with(sender, terms)
        averaged = self._averaged or self._sums_like(update.averaged)
        added: list[str] = []
        total = self._total
        try:
            for name, vector in update.averaged.items():
                averaged[name].add(vector, update.weight, update.client)
                added.append(name)
            # After the vectors: where training diverged, it is they that tell which weight did.
            metrics = self._metrics_with(_metrics(update.metrics, sender))
            if update.integers:
                total = self._total_with(update.integers, sender)
        except UpdateError:
            for name in added:
                averaged[name].remove(update.averaged[name], update.weight)
            raise
        if self.task.answers == "collect":
            self._answers[update.client] = update.answer
        self._total = total
        self._keep({update.client}, update.kind, averaged, summed, metrics, weight)

    def add_stack(self, updates: Updates) -> dict[str, UpdateError]:
        """Add the updates of many clients, with the same bits as one by one; return client → why it was refused.

        Raises:
            UpdateError: it is not one client that is at fault: they answer another version, are of another kind or
                have other arrays than the task or the rest, or weigh more than was declared.
        """
        if updates.version != self.task.version:
            raise UpdateError(
                f"updates answer version {updates.version} of the model; this round is at version "
                f"{self.task.version}."
            )
        clients = set(updates.clients)
        self._check(f'client "{updates.clients[0]}"', clients, updates.kind, updates.averaged, {})
        averaged = self._averaged or self._sums_like(updates.averaged)
        refused: dict[int, UpdateError] = {}
        for name, stack in updates.averaged.items():
            refused = averaged[name].refusals(stack, updates.clients) | refused
        # After the vectors: where training diverged, it is they that tell which weight did.
        for name, numbers in updates.metrics.items():
            for i in np.flatnonzero(~(np.abs(numbers) < WIDE_LIMIT)).tolist():
                try:
                    _metrics({name: float(numbers[i])}, f'client "{updates.clients[i]}"')
                except UpdateError as error:
                    refused.setdefault(i, error)
        errors = {updates.clients[i]: error for i, error in sorted(refused.items())}
        if refused:
            updates = updates.take([i for i in range(len(updates.clients)) if i not in refused])
        if not updates.clients:
            return errors
        names = tuple(updates.metrics)
        sums = (
            Wide.of(np.array([updates.metrics[name] for name in names])).sum(axis=1).units() if names else []
        )
        metrics = self._metrics_with(dict(zip(names, sums, strict=True)))
        # The weights are the same for all vectors, so it is the first that refuses, or none.
        for name, stack in updates.averaged.items():
            averaged[name].add_stack(stack, updates.weights, updates.clients)
        _, weight = quantised_weights(updates.weights, updates.clients)
        self._keep(set(updates.clients), updates.kind, averaged, {}, metrics, int(weight * WEIGHT_UNIT))
        return errors

    def merge(self, other: "Accumulator") -> None:
        """Add another partial sum of the same task; one that is refused leaves no trace.

        Raises:
            UpdateError: it answers another version, is of another kind, has other arrays, a client is in both,
                or the weights add up to more than was declared.
        """
        if other.kind is None:
            return
        if other.task.version != self.task.version:
            raise UpdateError("two partial sums of different versions of the model cannot be merged.")
        sender = "a partial sum"
        self._check(sender, other.clients, other.kind, other._averaged, other._summed, other._total)
        summed, metrics = self._summed_with(sender, other._summed), self._metrics_with(other._metrics)
        averaged = self._averaged or self._sums_like(other._averaged)
        for name, partial in other._averaged.items():
            if partial.layout != averaged[name].layout:
                raise UpdateError(f'two partial sums of "{name}" have different layouts.')
        # The weights are the same for all vectors, so it is the first that refuses, or none.
        for name, partial in other._averaged.items():
            averaged[name].merge(partial)
        self._answers.update(other._answers)
        if other._total is not None:
            self._total = self._total_with(other._total, sender)
        self._keep(other.clients, other.kind, averaged, summed, metrics, other._weight)

    def __getstate__(self) -> dict[str, Any]:
        # A partial sum goes to whoever gave the task: its arrays would only double what travels.
        task = replace(self.task, arrays={}, parameters={})
        return {**vars(self), "task": task, "_integers": None, "_expected": None}

    def _layout(self, name: str) -> Layout | None:
        """Return the layout that an averaged vector has to have, where it is known."""
        if self._expected is not None:
            return self._expected.get(name)
        return self.task.arrays[name].layout.wide if name in self.task.arrays else None

    def _sums_like(self, vectors: Mapping[str, Vector | Stack | FixedPointSum]) -> dict[str, FixedPointSum]:
        sums = {}
        for name, vector in vectors.items():
            integers = self._integers(name, vector.layout.size) if self._integers else None
            sums[name] = FixedPointSum(
                vector.layout, self.limit, self.total_weight, integers, self._fraction_bits
            )
        return sums

    def _total_with(self, sent: Integers, sender: str) -> Integers:
        """Add integers to the total, in place once there is one; what is refused leaves it as it was."""
        total = self._total
        if total is None:
            arrays = {}
            for name, array in sent.arrays.items():
                if isinstance(array, np.ndarray):
                    sum = (
                        self._integers(name, array.size) if self._integers else np.empty(array.size, np.int64)
                    )
                    sum[:] = array
                else:
                    sum = array
                arrays[name] = sum
            return replace(sent, arrays=arrays)
        expected = (total.step, total.ring_bits, total.numbers, total.layouts)
        if (sent.step, sent.ring_bits, sent.numbers, sent.layouts) != expected or any(
            len(sent.arrays.get(name, ())) != len(array) for name, array in total.arrays.items()
        ):
            raise UpdateError(
                f"{sender} sent integers of other vectors, or of another grid, than the rest of its cohort; every "
                "client of a round runs the same channel."
            )
        for name, array in sent.arrays.items():
            if isinstance(array, np.ndarray):
                total.arrays[name][:] += array
        return replace(
            total,
            arrays={
                name: array if isinstance(array, np.ndarray) else array + sent.arrays[name]
                for name, array in total.arrays.items()
            },
        )

    def add_nothing(self, zeros: Integers) -> None:
        """Make the sum over no client of an accumulator that is empty."""
        self.kind, self._total = self.task.kind or "delta", zeros

    def integers(self) -> Integers:
        """Return the sum of the vectors as integers, where they were summed on a grid.

        Raises:
            UpdateError: nothing was added.
        """
        if self._total is not None:
            return self._total
        if not self._averaged:
            raise UpdateError("no update arrived, so there is nothing to aggregate.")
        first = next(iter(self._averaged.values()))
        return Integers(
            2.0**-first.fraction_bits,
            {name: partial.integers for name, partial in self._averaged.items()},
            {name: partial.layout for name, partial in self._averaged.items()},
        )

    def _summed_with(self, sender: str, terms: Mapping[str, Term]) -> dict[str, Term]:
        return {
            name: _plus(self._summed[name], term, f"{sender}: {name}") if name in self._summed else term
            for name, term in terms.items()
        }

    def _metrics_with(self, numbers: Mapping[str, int]) -> dict[str, int]:
        return {name: self._metrics.get(name, 0) + number for name, number in numbers.items()}

    def _keep(
        self,
        clients: Set[str],
        kind: UpdateKind,
        averaged: dict[str, FixedPointSum],
        summed: Mapping[str, Term],
        metrics: Mapping[str, int],
        weight: int,
    ) -> None:
        self.clients |= clients
        self.kind = kind
        self._averaged = averaged
        self._summed.update(summed)
        self._metrics.update(metrics)
        self._weight += weight

    def aggregate(self, means: bool = True) -> Aggregate:
        """Return the aggregate of all that was added.

        Args:
            means: whether to take the means of the vectors.

        Raises:
            UpdateError: nothing was added.
        """
        if self.kind is None:
            raise UpdateError("no update arrived, so there is nothing to aggregate.")
        return Aggregate(
            kind=self.kind,
            count=self.count,
            weight=float(self.weight),
            population=self.population,
            means={name: partial.mean() for name, partial in self._averaged.items()} if means else {},
            sums=dict(self._summed),
            metrics={name: total / WIDE_UNIT for name, total in self._metrics.items()},
            answers=dict(sorted(self._answers.items())),
        )

    def _check(
        self,
        sender: str,
        clients: Set[str],
        kind: UpdateKind,
        averaged: Mapping[str, Vector | Stack | FixedPointSum],
        summed: Mapping[str, Term],
        sent: Integers | None = None,
    ) -> None:
        twice = min(clients & self.clients, default=None)
        if twice is not None:
            raise UpdateError(
                f'client "{twice}" has answered this round before; one answer of a client counts.'
            )
        # By the task where it says so, for else a wrong answer that comes first would decide for all.
        wanted, whose = (self.kind, "the others sent") if self.kind else (self.task.kind, "the task asks for")
        if wanted not in (None, kind):
            raise UpdateError(f"{sender} sent a {kind} where {whose} a {wanted}; the two cannot be added.")
        layouts = {name: vector.layout for name, vector in averaged.items()}
        for name, layout in (sent.layouts if sent else layouts).items():
            known = self._layout(name)
            if known is not None and layout != known:
                raise UpdateError(
                    f"{sender} sent other arrays than the round expects: {known.difference(layout)}."
                )
        if self.kind is None:
            return
        if (sent is None) != (self._total is None):
            raise UpdateError(f"{sender} did not send integers where its cohort did, or the other way round.")
        for given, expected in ((averaged, self._averaged), (summed, self._summed)):
            if given.keys() != expected.keys():
                raise UpdateError(
                    f"{sender} sent the arrays {_names(given)}; the rest of its cohort sent {_names(expected)}."
                )
        for name, term in summed.items():
            if term.shape != self._summed[name].shape:
                raise UpdateError(
                    f"{sender}: {name} has shape {term.shape}, the others {self._summed[name].shape}."
                )


def _names(arrays: Mapping[str, Any]) -> str:
    return ", ".join(f'"{name}"' for name in sorted(arrays)) or "none"


def _integers(value: Statistic, name: str) -> Term:
    if isinstance(value, Wide):
        return value
    array = np.asarray(value)
    if array.dtype.kind == "u" and array.size and array.max() > _LARGEST_COUNT:
        raise UpdateError(f"{name} is {array.max()}; a count must be below 2^63.")
    return array.astype(np.int64) if array.dtype.kind in "iub" else Wide.of(array, name)


def _metrics(values: Mapping[str, float], sender: str) -> dict[str, int]:
    for name, value in values.items():
        if not math.isfinite(value):
            raise _diverged(f"{sender}: {name}", value)
        if not abs(value) < WIDE_LIMIT:
            Wide.of(value, f"{sender}: {name}")
    return {name: wide_units(float(value)) for name, value in values.items()}


def _diverged(name: str, value: float) -> UpdateError:
    return UpdateError(
        f"{name} is {value:g}, so training diverged; lower the learning rate or look for such values in the "
        "client's rows."
    )


def _plus(a: Term, b: Term, name: str) -> Term:
    if isinstance(a, Wide) and isinstance(b, Wide):
        return a + b
    if isinstance(a, Wide) or isinstance(b, Wide):
        raise UpdateError(f"{name} is a count at one client and a real number at another; send one dtype.")
    total: NDArray[np.int64] = a + b
    # A sum that wrapped has a sign that neither term has.
    if np.any((a ^ total) & (b ^ total) < 0):
        raise UpdateError(f"{name} makes the sum of counts exceed 2^63.")
    return total
