"""The grid on which averaged values are summed: multiples of one step, so that a value is an integer."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import UpdateError
from fedpact.core.exact import quantised_weight
from fedpact.core.messages import Integers
from fedpact.core.vector import Vector

# Of 64 Ki elements the scratch arrays stay in the cache of one core.
_BLOCK = 1 << 16


@dataclass(frozen=True)
class Grid:
    """Multiples of a step, the same for all clients of a round.

    A value v of a client of weight w is summed as the integer nearest to w · v / step; or, where levels are given, as
    w times one of so many odd numbers, −(levels − 1) to levels − 1, which divide the range evenly and need few bits.

    Args:
        step: what an integer of 1 stands for.
        limit: every |v| ≤ limit.
        most: the largest weight of a client.
        levels: to how many numbers a value is rounded; None for all integers.
        at_random: whether a value is rounded up or down at random, in place of to the nearest.
    """

    step: float
    limit: float
    most: float = 1.0
    levels: int | None = None
    at_random: bool = False

    @property
    def largest(self) -> int:
        """The largest integer that a client's value can become."""
        if self.levels:
            return math.ceil((self.levels - 1) * self.most)
        return math.ceil(self.limit * self.most / self.step)

    @property
    def spacing(self) -> int:
        """How far apart the integers are that a value of weight 1 can become."""
        return 2 if self.levels else 1

    @property
    def bits(self) -> int:
        """In how many bits a client's integer is sent."""
        return math.ceil(math.log2(self.levels)) if self.levels else (2 * self.largest).bit_length()

    @classmethod
    def within(cls, bits: int, limit: float, clients: float = 1, most: float = 1.0) -> "Grid":
        """Return the finest grid, by powers of two, on which a sum of so many values is below 2^(bits − 1) in size."""
        fraction_bits = bits - 1 - math.ceil(math.log2(limit * most * clients))
        grid = cls(2.0**-fraction_bits, limit, most)
        # Where the product is a power of two itself, the sum would be exactly 2^(bits − 1).
        return grid if grid.largest * clients < 2 ** (bits - 1) else cls(2 * grid.step, limit, most)

    @classmethod
    def of_levels(cls, bits: int, limit: float, most: float = 1.0, at_random: bool = False) -> "Grid":
        """Return the grid of 2^bits levels from −limit to limit."""
        return cls(limit / (2**bits - 1), limit, most, 2**bits, at_random)

    def integers(
        self,
        vectors: Mapping[str, Vector],
        weight: float,
        client: str,
        generator: np.random.Generator | None = None,
    ) -> Integers:
        """Return a client's vectors as integers.

        Args:
            vectors: vector by name.
            weight: the client's.
            client: its name, for messages.
            generator: to round up or down at random, so that the mean of what a value may become is the value; None
                for the nearest.

        Raises:
            UpdateError: a value is NaN, infinite or beyond the limit; or the weight is beyond the largest or, with
                levels, not whole.
        """
        if not weight <= self.most:
            raise UpdateError(
                f'client "{client}" gave its update the weight {weight:g}; the most declared is {self.most:g}.'
            )
        if self.levels and weight != int(weight):
            raise UpdateError(
                f'client "{client}" gave its update the weight {weight:g}; rounded to {self.levels} levels, updates '
                "have whole weights."
            )
        term = float(quantised_weight(weight, client))
        arrays = {}
        for name, vector in vectors.items():
            integers = np.empty(vector.layout.size, np.int64)
            offset = 0
            for flat in vector.flats:
                for start in range(0, flat.size, _BLOCK):
                    block = flat[start : start + _BLOCK]
                    # A NaN fails both comparisons.
                    if not (float(block.min()) >= -self.limit and float(block.max()) <= self.limit):
                        raise self._refusal(vector, offset + start, client)
                    out = integers[offset + start : offset + start + block.size]
                    if self.levels:
                        self._to_levels(block, out, generator)
                        out *= int(term)
                    else:
                        numbers = np.multiply(block, term / self.step, dtype=np.float64)
                        out[:] = _rounded(numbers, generator)
                offset += flat.size
            arrays[name] = integers
        layouts = {name: vector.layout for name, vector in vectors.items()}
        sent = -(-sum(array.size for array in arrays.values()) * self.bits // 8)
        return Integers(self.step, arrays, layouts, nbytes=sent)

    def _to_levels(
        self, block: NDArray[np.floating], out: NDArray[np.int64], generator: np.random.Generator | None
    ) -> None:
        assert self.levels
        numbers = np.multiply(block, 0.5 / self.step, dtype=np.float64)
        numbers += 0.5 * (self.levels - 1)
        out[:] = np.clip(_rounded(numbers, generator), 0, self.levels - 1)
        out *= 2
        out -= self.levels - 1

    def _refusal(self, vector: Vector, start: int, client: str) -> UpdateError:
        values = np.concatenate(vector.flats, dtype=np.float64)[start:]
        place = int(np.argmax(~(np.abs(values) <= self.limit)))
        return UpdateError(
            f'client "{client}": {vector.layout.locate(start + place)} is {values[place]:.9g}, outside the range of '
            f"±{self.limit:g} that the channel's integers hold; clip the update, or widen the range."
        )


def _rounded(numbers: NDArray[np.float64], generator: np.random.Generator | None) -> NDArray[np.float64]:
    """Return numbers rounded to whole ones, in their own memory."""
    if generator is None:
        return np.rint(numbers, out=numbers)
    numbers += generator.random(numbers.size)
    return np.floor(numbers, out=numbers)


def means_of(total: Integers, divisor: float) -> dict[str, Vector]:
    """Return the means that a sum of integers stands for: integer · step / divisor, in the layouts of the vectors.

    Raises:
        UpdateError: the divisor is 0.
    """
    if not divisor:
        raise UpdateError("there is no mean: no update with a positive weight arrived.")
    means = {}
    for name, layout in total.layouts.items():
        mean, offset = Vector.zeros(layout), 0
        for flat in mean.flats:
            flat[:] = total.arrays[name][offset : offset + flat.size] * (total.step / divisor)
            offset += flat.size
        means[name] = mean
    return means


def signed(residues: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """Return the integers in [−2^(bits − 1), 2^(bits − 1)) that are these modulo 2^bits."""
    half = np.int64(1 << (bits - 1))
    return ((residues + half) & np.int64((1 << bits) - 1)) - half
