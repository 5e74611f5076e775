"""Exact sums: numbers become integers before they are added, so a sum has no order.

`FixedPointSum` is for model-sized vectors: one int64 an element. The scale is a power of two, chosen so that the
declared range times the total weight fits; what would not fit is refused by name. What is far smaller than the range
is rounded. For statistics whose size nobody knows beforehand there is `fedpact.core.wide`.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError, UpdateError
from fedpact.core.row_sums import add_rows, rounded, sum_of_rows
from fedpact.core.stack import Stack, extremes, is_numpy, on_host
from fedpact.core.vector import Layout, Vector

# One bit is the sign; one is left free, so that the sum of all roundings cannot overflow either.
_BITS = 62
# Steps of more than 2^-16 would round the changes of an ordinary step of training to 0.
_LEAST_FRACTION_BITS = 16
# Of 64 Ki elements the two scratch arrays stay in the cache of one core.
_BLOCK = 1 << 16
WEIGHT_UNIT = 2**64
# The declared range and the total weight stay within what keeps every scale a normal float64.
_LARGEST = 2.0**64
# A total of real weights is itself rounded; the bit left free has room for this much more.
_EXCESS = 1 + 2.0**-40


def quantised_weight(weight: float, client: str = "") -> Fraction:
    """Return a client's weight as it enters a sum: rounded down to a multiple of 2^-64.

    Raises:
        UpdateError: it is NaN, infinite or negative.
    """
    return Fraction(weight_units(weight, client), WEIGHT_UNIT)


def quantised_weights(
    weights: Sequence[float], clients: Sequence[str]
) -> tuple[NDArray[np.float64], Fraction]:
    """Return many clients' weights as they enter a sum, and their total.

    Raises:
        UpdateError: one is NaN, infinite or negative.
    """
    # Most cohorts have few different weights.
    known = {weight: weight_units(weight, clients[weights.index(weight)]) for weight in set(weights)}
    if len(known) == 1:
        (unit,) = known.values()
        return np.full(len(weights), unit / WEIGHT_UNIT), Fraction(unit * len(weights), WEIGHT_UNIT)
    units = [known[weight] for weight in weights]
    # Exact: of a float64 that is rounded down to a multiple of 2^-64 no more bits are left than it had.
    return np.array(units, np.float64) * (1 / WEIGHT_UNIT), Fraction(sum(units), WEIGHT_UNIT)


def weight_units(weight: float, client: str = "") -> int:
    """Return a client's weight as it enters a sum: rounded down to a multiple of 2^-64, as how many of these.

    Raises:
        UpdateError: it is NaN, infinite or negative.
    """
    if not 0 <= weight < math.inf:
        raise UpdateError(
            f'client "{client}" gave its update the weight {weight:g}; a weight is a finite number, 0 or more.'
        )
    # Down, so that weights whose sum is the total declared do not exceed it.
    numerator, denominator = float(weight).as_integer_ratio()
    return numerator * WEIGHT_UNIT // denominator


class FixedPointSum:
    """A running sum Σ weight·vector in int64 fixed point: the same bits for any order and grouping.

    Each term is round(weight · value · 2^fraction_bits); with range · total_weight · 2^fraction_bits ≤ 2^62
    nothing can overflow. So a term is exact to 2^-fraction_bits / 2, whatever its size, and one below that
    is 0: a range of 2^16 and a total of 2^10 give steps of 2^-36. A range and total that would give steps
    of more than 2^-16 are refused. The memory is one int64 an element, whatever the number of vectors.

    Args:
        layout: the layout of the vectors: float32 and float64 alone (see `Layout.wide`).
        limit: the declared range: every |value| ≤ limit.
        total_weight: an upper bound on the sum of all weights.
        integers: where to sum, int64 [layout.size]; it is set to 0. None for an array of its own.
        fraction_bits: steps are 2^-fraction_bits; None for the finest that cannot overflow.

    Raises:
        ConfigError: the range or the total is not a number that sums can be scaled by, or their product is
            more than 2^46.
        UpdateError: the layout holds other dtypes.
    """

    def __init__(
        self,
        layout: Layout,
        limit: float,
        total_weight: float,
        integers: NDArray[np.int64] | None = None,
        fraction_bits: int | None = None,
    ) -> None:
        if not 1 / _LARGEST <= limit <= _LARGEST:
            raise ConfigError(f"the declared range is ±{limit:g}; it must be between 2^-64 and 2^64.")
        if not 0 <= total_weight <= _LARGEST:
            raise ConfigError(
                f"the declared total of all weights is {total_weight:g}; it must be between 0 and 2^64."
            )
        for segment in layout.segments:
            if segment.dtype not in ("float32", "float64"):
                raise UpdateError(
                    f'"{segment.entries[0].name}" is {segment.dtype}; only float32 and float64 are averaged: '
                    "send what `Vector.minus` or `Vector.widened` returns."
                )
        self.layout = layout
        self.limit = float(limit)
        self.total_weight = float(total_weight)
        self.fraction_bits = _BITS - math.ceil(math.log2(self.limit * max(self.total_weight, 1.0)))
        if self.fraction_bits < _LEAST_FRACTION_BITS:
            widest = _BITS - _LEAST_FRACTION_BITS - math.ceil(math.log2(max(self.total_weight, 1.0)))
            raise ConfigError(
                f"with a declared range of ±{self.limit:g} and a total weight of {self.total_weight:g}, changes "
                f"would be rounded to multiples of {2.0**-self.fraction_bits:g}, and smaller ones to 0; declare "
                f"an update_range of 2^{widest} or less."
            )
        if fraction_bits is not None:
            self.fraction_bits = min(self.fraction_bits, fraction_bits)
        self.integers: NDArray[np.int64] = np.empty(layout.size, np.int64) if integers is None else integers
        self.integers[:] = 0
        # In multiples of 2^-64: fractions take five times as long to be added and compared.
        self._weight = 0
        self._most = int(self.total_weight * _EXCESS * WEIGHT_UNIT)
        self.count = 0

    @property
    def weight(self) -> Fraction:
        """The sum of all weights."""
        return Fraction(self._weight, WEIGHT_UNIT)

    def add(self, vector: Vector, weight: float = 1, client: str = "") -> None:
        """Add weight · vector.

        Raises:
            UpdateError: a value is NaN, infinite or outside the declared range, the vector has another
                layout, or the weights add up to more than was declared. The sum is then as it was before.
        """
        units = weight_units(weight, client)
        self._check_layout(vector.layout, client)
        self._check_weight(units, weight, client)
        # Exact: of a float64 that is rounded down to a multiple of 2^-64 no more bits are left than it had.
        term = units / WEIGHT_UNIT
        bad = self._accumulate(vector, term, 1, self.layout.size)
        if bad is not None:
            # Integers can be taken back without a trace: the blocks before the bad one were already added.
            self._accumulate(vector, term, -1, bad)
            raise self._refusal(vector, bad, client)
        self._weight += units
        self.count += 1

    def refusals(self, stack: Stack, clients: Sequence[str]) -> dict[int, UpdateError]:
        """Return which of these clients' vectors cannot be added, by their place, and why.

        Raises:
            UpdateError: the stack has another layout.
        """
        self._check_layout(stack.layout, clients[0])
        fits = np.ones(len(clients), np.bool_)
        for flat in stack.flats:
            # Most often all fit: of all at once the extremes take less time than of each.
            if flat.shape[1] and not (float(flat.min()) >= -self.limit and float(flat.max()) <= self.limit):
                # A NaN fails both comparisons; in float64, for else the limit would be rounded to float32 first.
                low, high = (on_host(each).astype(np.float64) for each in extremes(flat))
                fits &= (low >= -self.limit) & (high <= self.limit)
        return {i: self._refusal(stack.row(i), 0, clients[i]) for i in np.flatnonzero(~fits).tolist()}

    def add_stack(self, stack: Stack, weights: Sequence[float], clients: Sequence[str]) -> None:
        """Add Σ weight·vector over clients whose vectors `refusals` does not name: the bits of as many `add`.

        Of tensors the sum is taken where they are, and one vector of integers comes back.

        Raises:
            UpdateError: the stack has another layout, or the weights add up to more than was declared. The sum is
                then as it was before.
        """
        self._check_layout(stack.layout, clients[0])
        terms, total = quantised_weights(weights, clients)
        units = int(total * WEIGHT_UNIT)
        self._check_weight(units, float(total), clients[-1])
        scales = terms * 2.0**self.fraction_bits
        start = 0
        for flat in stack.flats:
            integers = self.integers[start : start + flat.shape[1]]
            if is_numpy(flat):
                add_rows(integers, flat, scales)
            else:
                integers += sum_of_rows(flat, scales)
            start += flat.shape[1]
        self._weight += units
        self.count += len(clients)

    def _check_layout(self, layout: Layout, client: str) -> None:
        if layout != self.layout:
            raise UpdateError(
                f'client "{client}" sent other arrays than the round expects: {self.layout.difference(layout)}.'
            )

    def _check_weight(self, units: int, weight: float, client: str) -> None:
        if self._weight + units > self._most:
            raise UpdateError(
                f'client "{client}" gave its update the weight {weight:g}; with {float(self.weight):g} added '
                f"before, that is more than the total of {self.total_weight:g} declared for this round."
            )

    def remove(self, vector: Vector, weight: float = 1) -> None:
        """Take back a vector that was added with this weight; the bits are then as they were before."""
        units = weight_units(weight)
        self._accumulate(vector, units / WEIGHT_UNIT, -1, self.layout.size)
        self._weight -= units
        self.count -= 1

    def merge(self, other: "FixedPointSum") -> None:
        """Add another partial sum of the same round.

        Raises:
            UpdateError: the other sum has another layout or scale, or the weights exceed the total declared.
        """
        if other.layout != self.layout or other.fraction_bits != self.fraction_bits:
            raise UpdateError("two partial sums of different layouts or scales cannot be merged.")
        if self._weight + other._weight > self._most:
            raise UpdateError(
                f"two partial sums weigh {float(self.weight + other.weight):g} together, more than the total "
                f"of {self.total_weight:g} declared for this round."
            )
        self.integers += other.integers
        self._weight += other._weight
        self.count += other.count

    def mean(self) -> Vector:
        """Return Σ weight·vector / Σ weight, in the layout of the vectors.

        Raises:
            UpdateError: nothing was added.
        """
        if not self._weight:
            raise UpdateError("there is no mean: no update with a positive weight arrived.")
        factor = float(1 / self.weight) * 2.0**-self.fraction_bits
        result = Vector.zeros(self.layout)
        offset = 0
        for flat in result.flats:
            for start in range(0, flat.size, _BLOCK):
                out = flat[start : start + _BLOCK]
                out[:] = self.integers[offset + start : offset + start + out.size] * factor
            offset += flat.size
        return result

    def _accumulate(self, vector: Vector, weight: float, sign: int, stop: int) -> int | None:
        """Add sign·weight·vector before element `stop`; return where a block that is refused starts, or None."""
        scale = sign * weight * 2.0**self.fraction_bits
        numbers = np.empty(_BLOCK)
        offset = 0
        for flat in vector.flats:
            for start in range(0, flat.size, _BLOCK):
                if offset + start >= stop:
                    return None
                block = flat[start : start + _BLOCK]
                # A NaN fails both comparisons, since it makes min and max NaN. As Python floats, for else
                # the limit would be rounded to float32 first.
                least, most = float(block.min()), float(block.max())
                if not (least >= -self.limit and most <= self.limit):
                    return offset + start
                product = numbers[: block.size]
                product[:] = block
                product *= scale
                largest = max(-least, most) * abs(scale)
                self.integers[offset + start : offset + start + block.size] += rounded(product, largest)
            offset += flat.size
        return None

    def _refusal(self, vector: Vector, start: int, client: str) -> UpdateError:
        values = np.concatenate(vector.flats, dtype=np.float64)[start:]
        index = start + int(np.argmax(~(np.abs(values) <= self.limit)))
        value = float(values[index - start])
        where = f'client "{client}": {self.layout.locate(index)} is {value:.9g}'
        if math.isfinite(value):
            return UpdateError(
                f"{where}, outside the declared range of ±{self.limit:g}; lower the learning rate, clip the "
                "update, or declare a wider range with update_range."
            )
        return UpdateError(
            f"{where}; the update is refused. Lower the learning rate or look for such values in the "
            "client's rows."
        )
