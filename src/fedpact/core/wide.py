"""Exact sums of statistics whose size nobody knows beforehand: six int64 an element, which have no order either.

Any float64 below 2^99 is held to a resolution of 2^-140. For vectors of a declared range see `fedpact.core.exact`.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import UpdateError

_LIMBS = 6
_LIMB_BITS = 40
# The unit of limb i is 2^(60 − 40·i): 2^60, 2^20 and so on to 2^-140.
_UNITS = tuple(2.0 ** (60 - _LIMB_BITS * i) for i in range(_LIMBS))
_RESOLUTION = 140
WIDE_LIMIT = 2.0**99
WIDE_UNIT = 1 << _RESOLUTION
# So many limbs of up to 2^40 add up to 2^62.
_WIDE_BLOCK = 1 << 22


# Arrays have no one truth value, so two are compared by identity; `exact` gives numbers to compare.
@dataclass(frozen=True, eq=False)
class Wide:
    """float64 numbers as wide fixed-point integers, six int64 each; adding 2^23 of any size cannot overflow.

    >>> a, b = Wide.of([1e20, 0.1]), Wide.of([1.0, 0.2])
    >>> (a + b).exact()[0] - 10**20
    Fraction(1, 1)

    Args:
        limbs: int64 [6, ...], most significant first.
    """

    limbs: NDArray[np.int64]

    @classmethod
    def of(cls, values: Any, name: str = "a statistic") -> "Wide":
        """Encode float64 values of any shape, rounded to the nearest multiple of 2^-140.

        Raises:
            UpdateError: a value is NaN, infinite, or 2^99 or more.
        """
        rest = np.array(values, dtype=np.float64)
        _check_below(WIDE_LIMIT, rest, name, "only finite numbers below 2^99 can be summed")
        limbs = np.empty((_LIMBS, *rest.shape), np.int64)
        for i, unit in enumerate(_UNITS[:-1]):
            # Division by a power of two and the subtraction are exact, so no bit is lost on the way.
            whole = np.trunc(rest / unit)
            rest -= whole * unit
            limbs[i] = whole
        limbs[-1] = np.rint(rest / _UNITS[-1])
        return cls(limbs)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the numbers."""
        return self.limbs.shape[1:]

    def __add__(self, other: "Wide") -> "Wide":
        # Carried, so that no limb but the first grows with the number of terms.
        return Wide(_carried(self.limbs + other.limbs))

    def sum(self, axis: int = 0) -> "Wide":
        """Return the exact sum along an axis of the numbers."""
        terms = np.moveaxis(self.limbs, axis if axis < 0 else axis + 1, 0)
        total = np.zeros(terms.shape[1:], np.int64)
        for start in range(0, len(terms), _WIDE_BLOCK):
            total = _carried(total + terms[start : start + _WIDE_BLOCK].sum(axis=0))
        return Wide(total)

    def units(self) -> list[int]:
        """Return the numbers, flattened, as multiples of 2^-140."""
        shifts = [_LIMB_BITS * i for i in reversed(range(_LIMBS))]
        columns = self.limbs.reshape(_LIMBS, -1).T.tolist()
        return [sum(limb << shift for limb, shift in zip(column, shifts, strict=True)) for column in columns]

    def exact(self) -> list[Fraction]:
        """Return the numbers, flattened, as exact fractions."""
        return [Fraction(whole, WIDE_UNIT) for whole in self.units()]

    def numbers(self) -> NDArray[np.float64]:
        """Return the numbers as float64, to within two units in the last place."""
        limbs = _carried(self.limbs)
        negative = limbs[0] < 0
        # Below zero the limbs after the first are positive and would cancel against it: decode the absolute
        # value.
        limbs = _carried(np.where(negative, -limbs, limbs))
        total = np.zeros(self.shape)
        for limb, unit in zip(limbs[::-1], _UNITS[::-1], strict=True):
            total += limb * unit
        return np.where(negative, -total, total)


def wide_units(value: float) -> int:
    """Return a finite number rounded to the nearest multiple of 2^-140, as `Wide` has it: for a few at a time.

    >>> [wide_units(value) for value in (2.0**-140, 1.5 * 2.0**-140, -0.25)] == [1, 2, -(2**138)]
    True
    """
    numerator, denominator = value.as_integer_ratio()
    if denominator <= WIDE_UNIT:
        return numerator * (WIDE_UNIT // denominator)
    # Half to even, as numpy's rint.
    return round(Fraction(numerator, denominator // WIDE_UNIT))


def _carried(limbs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the same numbers with every limb but the first in [0, 2^40)."""
    limbs = limbs.copy()
    for i in range(_LIMBS - 1, 0, -1):
        limbs[i - 1] += limbs[i] >> _LIMB_BITS
        limbs[i] &= (1 << _LIMB_BITS) - 1
    return limbs


def _check_below(limit: float, values: NDArray[np.float64], name: str, rule: str) -> None:
    # A NaN fails both comparisons, since it makes min and max NaN.
    if values.size and not (values.min() > -limit and values.max() < limit):
        flat = values.ravel()
        bad = flat[np.argmax(~(np.abs(flat) < limit))]
        raise UpdateError(f"{name} is {bad:g}; {rule}.")
