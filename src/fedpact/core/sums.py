"""Exact sums of float64 numbers and of their squares, whatever their size.

A float64 is m·2^e with whole numbers m and e, so a sum of such numbers, or of their squares, is one long
integer times a power of two. It travels as digits of 40 bits, one int64 each, that are added one by one.

`wide.Wide` is the shorter form of this for numbers of a known size. Features have none: the squares of
seconds since 1970, or of concentrations in mol/l, need more bits on either side than it has.
"""

import math
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

# The smallest float64 is 2^-1074; its 53 bits, which frexp brings to the left, reach down to here.
_FRACTION_BITS = 1126
_DIGIT_BITS = 40
_BLOCK = 1 << 16
_HALF_BITS = 27
_HALF = (1 << _HALF_BITS) - 1

# The largest float64 is below 2^1024; 40 bits are left for the number of rows.
SUM_DIGITS = math.ceil((_FRACTION_BITS + 1024 + 40) / _DIGIT_BITS)
SQUARES_DIGITS = math.ceil((2 * _FRACTION_BITS + 2 * 1024 + 40) / _DIGIT_BITS)


def sum_of(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the digits [SUM_DIGITS] of Σ value; every value is finite.

    >>> float(sum_in(sum_of(np.array([1e300, 0.1, -1e300]))))
    0.1
    """
    total = 0
    for whole, exponent in _blocks(values):
        total += _sum(whole, exponent, 1)
    return _digits(total, SUM_DIGITS)


def sum_of_squares(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the digits [SQUARES_DIGITS] of Σ value²; every value is finite."""
    total = 0
    for whole, exponent in _blocks(values):
        high, low = whole >> _HALF_BITS, whole & _HALF
        total += _sum(high * high, exponent, 2) << 2 * _HALF_BITS
        total += _sum(high * low, exponent, 2) << 1 + _HALF_BITS
        total += _sum(low * low, exponent, 2)
    return _digits(total, SQUARES_DIGITS)


def sum_in(digits: NDArray[np.int64]) -> Fraction:
    """Return the sum in added digits of `sum_of`."""
    return Fraction(_integer(digits), 1 << _FRACTION_BITS)


def sum_of_squares_in(digits: NDArray[np.int64]) -> Fraction:
    """Return the sum in added digits of `sum_of_squares`."""
    return Fraction(_integer(digits), 1 << 2 * _FRACTION_BITS)


def square_root(number: Fraction) -> float:
    """Return the square root of a number ≥ 0, which itself may be too large or too small for a float64."""
    # 64 bits of the root are computed, eleven more than are kept.
    shift = max(0, 64 - (number.numerator.bit_length() - number.denominator.bit_length()) // 2)
    root = math.isqrt((number.numerator << 2 * shift) // number.denominator)
    return float(Fraction(root, 1 << shift))


def _blocks(values: NDArray[np.float64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int32]]]:
    """Yield m and e + 1126 of value = m·2^e, |m| ≤ 2^53, a block at a time."""
    for start in range(0, values.size, _BLOCK):
        fraction, exponent = np.frexp(values[start : start + _BLOCK])
        yield (fraction * 2.0**53).astype(np.int64), exponent + np.int32(_FRACTION_BITS - 53)


def _sum(integers: NDArray[np.int64], exponent: NDArray[np.int32], times: int) -> int:
    """Return Σ integer·2^(times·exponent) of a block; |integer| ≤ 2^54."""
    total = 0
    for half, shift in ((integers >> _HALF_BITS, _HALF_BITS), (integers & _HALF, 0)):
        # bincount adds in float64, which is exact here: 2^16 rows below 2^28 stay far below 2^53.
        sums = np.bincount(exponent, weights=half)
        for e in np.flatnonzero(sums).tolist():
            total += int(sums[e]) << times * e + shift
    return total


def _digits(total: int, count: int) -> NDArray[np.int64]:
    low = [(total >> _DIGIT_BITS * i) & ((1 << _DIGIT_BITS) - 1) for i in range(count - 1)]
    # The shift keeps the sign, so only the last digit can be negative.
    return np.array([*low, total >> _DIGIT_BITS * (count - 1)], np.int64)


def _integer(digits: NDArray[np.int64]) -> int:
    return sum(digit << _DIGIT_BITS * i for i, digit in enumerate(digits.tolist()))
