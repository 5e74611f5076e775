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
# Some slices of a block of 2^13 numbers stay in the cache of one core.
_BLOCK_BITS = 13
_SPREAD_BLOCK = 1 << 16
_HALF_BITS = 27
_HALF = (1 << _HALF_BITS) - 1

# Σ slice over a block, and Σ slice·slice, stay below 2^53 units, whatever their order.
_SUM_SLICES, _SUM_BITS = 2, 53 - _BLOCK_BITS
_SQUARES_SLICES, _SQUARES_BITS = 4, (53 - _BLOCK_BITS) // 2
# Where more numbers of a block than these are spread, slicing takes longer than it saves.
_MOST_SPREAD = 1 << _BLOCK_BITS - 3
# Within these exponents no product of slices leaves the range of a normal float64.
_LEAST_EXPONENT, _MOST_EXPONENT = -400, 500

# The largest float64 is below 2^1024; 40 bits are left for the number of rows.
SUM_DIGITS = math.ceil((_FRACTION_BITS + 1024 + 40) / _DIGIT_BITS)
SQUARES_DIGITS = math.ceil((2 * _FRACTION_BITS + 2 * 1024 + 40) / _DIGIT_BITS)


def sum_of(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the digits [SUM_DIGITS] of Σ value; every value is finite.

    >>> float(sum_in(sum_of(np.array([1e300, 0.1, -1e300]))))
    0.1
    """
    total = 0
    sliced = _Sliced(values.size, _SUM_SLICES, _SUM_BITS)
    for spread in sliced.blocks(values):
        total += sliced.sum() + _spread_sum(spread)
    return _digits(total, SUM_DIGITS)


def sum_of_squares(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the digits [SQUARES_DIGITS] of Σ value²; every value is finite."""
    squares = 0
    sliced = _Sliced(values.size, _SQUARES_SLICES, _SQUARES_BITS)
    for spread in sliced.blocks(values):
        squares += sliced.sum_of_squares() + _spread_squares(spread)
    return _digits(squares, SQUARES_DIGITS)


def sums_of(values: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return what `sum_of` and `sum_of_squares` do, in one pass."""
    total = squares = 0
    sliced = _Sliced(values.size, _SQUARES_SLICES, _SQUARES_BITS)
    for spread in sliced.blocks(values):
        total += sliced.sum() + _spread_sum(spread)
        squares += sliced.sum_of_squares() + _spread_squares(spread)
    return _digits(total, SUM_DIGITS), _digits(squares, SQUARES_DIGITS)


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


class _Sliced:
    """A block of numbers as a sum of slices, each of whole multiples of one power of two for all numbers.

    That power is added and taken away again, as Rump, Ogita and Oishi do ("Accurate Floating-Point Summation Part I",
    SIAM J. Sci. Comput. 31, 2008, algorithm 3.2): what the addition rounds off is the next slice's. Sums and products
    of slices are then exact in float64, and so of any order: the fastest will do.
    """

    def __init__(self, size: int, slices: int, bits: int) -> None:
        self._bits = bits
        self._memory = np.ones((slices + 1, min(size, 1 << _BLOCK_BITS)))
        self._rest = np.empty(self._memory.shape[1])
        # A row of ones and the block's slices; and the exponents of these slices' units.
        self._rows = self._memory[:1, :0]
        self._exponents: list[int] = []

    def blocks(self, values: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
        """Slice block after block, and yield the numbers of it whose bits reach further down than the slices do.

        Behind a block of many such numbers all others are yielded, unsliced.
        """
        for start in range(0, values.size, 1 << _BLOCK_BITS):
            spread = self._slice(values[start : start + (1 << _BLOCK_BITS)])
            yield spread
            if spread.size > _MOST_SPREAD:
                self._rows, self._exponents = self._memory[:1, :0], []
                yield values[start + (1 << _BLOCK_BITS) :]
                return

    def sum(self) -> int:
        """Return Σ number · 2^1126 of the block, without those that were yielded."""
        sums = (self._rows[1:] @ self._rows[0]).tolist()
        return sum(
            _whole(each, e) << e + _FRACTION_BITS for each, e in zip(sums, self._exponents, strict=True)
        )

    def sum_of_squares(self) -> int:
        """Return Σ number² · 2^2252 of the block, without those that were yielded."""
        products = (self._rows[1:] @ self._rows[1:].T).tolist()
        total = 0
        for row, one in zip(products, self._exponents, strict=True):
            for product, other in zip(row, self._exponents, strict=True):
                total += _whole(product, one + other) << one + other + 2 * _FRACTION_BITS
        return total

    def _slice(self, block: NDArray[np.float64]) -> NDArray[np.float64]:
        top = math.frexp(max(float(block.max()), -float(block.min())))[1]
        self._exponents = []
        if not _LEAST_EXPONENT <= top <= _MOST_EXPONENT:
            self._rows = self._memory[:1, : block.size]
            return block
        rest, source = self._rest[: block.size], block
        for each in self._memory[1:, : block.size]:
            exponent = top - self._bits
            self._exponents.append(exponent)
            # The last bit of what lies around this is 2^exponent; the half more keeps both signs' sums around it.
            rounder = math.ldexp(1.5, 52 + exponent)
            np.add(source, rounder, out=each)
            each -= rounder
            np.subtract(source, each, out=rest)
            source, top = rest, exponent - 1
            if not rest.any():
                spread = np.empty(0, np.int64)
                break
        else:
            spread = np.flatnonzero(rest)
        self._rows = self._memory[: 1 + len(self._exponents), : block.size]
        self._rows[1:, spread] = 0.0
        return block[spread]


def _whole(multiple: float, exponent: int) -> int:
    return int(math.ldexp(multiple, -exponent))


def _spread_sum(values: NDArray[np.float64]) -> int:
    return sum(_sum(whole, exponent, 1) for whole, exponent in _spread_blocks(values))


def _spread_squares(values: NDArray[np.float64]) -> int:
    total = 0
    for whole, exponent in _spread_blocks(values):
        high, low = whole >> _HALF_BITS, whole & _HALF
        total += _sum(high * high, exponent, 2) << 2 * _HALF_BITS
        total += _sum(high * low, exponent, 2) << 1 + _HALF_BITS
        total += _sum(low * low, exponent, 2)
    return total


def _spread_blocks(values: NDArray[np.float64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int32]]]:
    """Yield m and e + 1126 of value = m·2^e, |m| ≤ 2^53, a block at a time."""
    for start in range(0, values.size, _SPREAD_BLOCK):
        fraction, exponent = np.frexp(values[start : start + _SPREAD_BLOCK])
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
