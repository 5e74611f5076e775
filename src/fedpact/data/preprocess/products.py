"""Exact sums of products of columns, by matrix products that round nothing.

A column is shifted by a centre and scaled by a power of two, so that its values lie below 2^16, and each is rounded
to a multiple of 2^-60 and cut into four whole numbers of at most 20 bits. Products of these, added up over 4,096
rows, stay below 2^53: a matrix product in float64 adds them without rounding, in whatever order it likes (Ozaki et
al., "Error-free transformations of matrix multiplication by using fast routines of matrix multiplication and its
applications", Numerical Algorithms 59, 2012). So a sum of products is the same bits for any partition of the rows.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BITS = 20
_SLICES = 4
_LIMBS = 2 * _SLICES - 1
_ROWS = 1 << 12
# Of blocks of so many numbers four slices are 128 MiB.
_BLOCK = 1 << 22

DIGITS = _SLICES
# A sum in added digits is a whole number of these.
UNIT_BITS = _BITS * (_LIMBS - 1)
LIMIT = 2.0**16


def exponent_of(deviation: float) -> int:
    """Return the exponent of the power of two just above a standard deviation; 0 for none.

    Of n rows none lies further than √n standard deviations from the mean.
    """
    return int(np.frexp(deviation)[1]) if deviation else 0


def scaled(values: NDArray[np.float64], centre: float, exponent: int) -> NDArray[np.float64]:
    """Return (value − centre)/2^exponent [n], scaled before the difference is taken: it cannot overflow."""
    difference: NDArray[np.float64] = np.ldexp(values, -exponent) - np.ldexp(np.float64(centre), -exponent)
    return difference


def products(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the digits [p, q, DIGITS] of Σ left·right over the rows; every |value| is below `LIMIT`.

    Args:
        left: columns [n, p].
        right: columns [n, q].
    """
    limbs = np.zeros((_LIMBS, left.shape[1], right.shape[1]), np.int64)
    for rows in _blocks(len(left), max(left.shape[1], right.shape[1])):
        cut, others = slices(left[rows]), slices(right[rows])
        for i in range(_SLICES):
            for j in range(_SLICES):
                limbs[i + j] += (cut[i].T @ others[j]).astype(np.int64)
        limbs = _carried(limbs)
    return _digits(limbs)


def gram(columns: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the digits [d·(d + 1)/2, DIGITS] of Σ x_i·x_j over the rows, for i ≤ j, row by row of that triangle.

    Args:
        columns: [n, d]; every |value| is below `LIMIT`.
    """
    d = columns.shape[1]
    limbs = np.zeros((_LIMBS, d, d), np.int64)
    for rows in _blocks(len(columns), d):
        cut = slices(columns[rows])
        for i in range(_SLICES):
            limbs[2 * i] += (cut[i].T @ cut[i]).astype(np.int64)
            for j in range(i):
                crossed = (cut[i].T @ cut[j]).astype(np.int64)
                limbs[i + j] += crossed + crossed.T
        limbs = _carried(limbs)
    return _digits(limbs)[np.triu_indices(d)]


def projected(values: NDArray[np.float64], directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return values·directions [n, l]: of each row the same bits, whichever rows it is among, right to about 2^-53.

    Args:
        values: [n, d]; every |value| is below `LIMIT`.
        directions: [d, l], orthogonal and of length 1.
    """
    made = np.empty((len(values), directions.shape[1]))
    for rows in _blocks(len(values), values.shape[1]):
        limbs = np.zeros((_LIMBS, *made[rows].shape), np.int64)
        # The sums that must stay exact are those over columns here.
        for start in range(0, values.shape[1], _ROWS):
            part = slice(start, start + _ROWS)
            cut, others = slices(values[rows, part]), slices(directions[part])
            for i in range(_SLICES):
                for j in range(_SLICES):
                    limbs[i + j] += (cut[i] @ others[j]).astype(np.int64)
        total = np.zeros(made[rows].shape)
        for i, limb in reversed(list(enumerate(_carried(limbs)))):
            total += limb * 2.0 ** (-_BITS * i)
        made[rows] = total
    return made


def units_in(digits: NDArray[np.int64]) -> NDArray[Any]:
    """Return the sums in added digits as Python's whole numbers [...], in units of 2^-UNIT_BITS."""
    wide = digits.astype(object)
    total = wide[..., 0]
    for i in range(1, DIGITS):
        total = (total << 2 * _BITS) + wide[..., i]
    return np.asarray(total, object)


def covariance_in(
    units: NDArray[Any], n: int, left: Sequence[int], right: Sequence[int]
) -> NDArray[np.float64]:
    """Return Σ x·y/n − (Σ x/n)·(Σ y/n) [p, q], rounded once.

    Args:
        units: Σ x·y of each pair of columns [p, q], as `units_in` gives it.
        n: the number of rows.
        left: Σ x of each column, in the same units.
        right: Σ y of each.
    """
    whole = (n << UNIT_BITS) * units - np.multiply.outer(np.array(left, object), np.array(right, object))
    divisor = n * n << 2 * UNIT_BITS
    return np.array([[each / divisor for each in row] for row in whole.tolist()], np.float64).reshape(
        units.shape
    )


def slices(values: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Return whole numbers s_0 … s_3 of at most 20 bits, value = Σ s_i·2^(−20i) to the nearest multiple of 2^-60."""
    rest, found = values.copy(), []
    for i in range(_SLICES):
        # Products with powers of two, and these differences, are exact.
        whole = (
            np.rint(rest * 2.0 ** (_BITS * i)) if i == _SLICES - 1 else np.trunc(rest * 2.0 ** (_BITS * i))
        )
        rest -= whole * 2.0 ** (-_BITS * i)
        found.append(whole)
    return found


def _blocks(n: int, columns: int) -> Iterator[slice]:
    rows = max(1, min(_ROWS, _BLOCK // max(columns, 1)))
    for start in range(0, n, rows):
        yield slice(start, start + rows)


def _carried(limbs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the same numbers with every limb but the first in [0, 2^20)."""
    for i in range(_LIMBS - 1, 0, -1):
        limbs[i - 1] += limbs[i] >> _BITS
        limbs[i] &= (1 << _BITS) - 1
    return limbs


def _digits(limbs: NDArray[np.int64]) -> NDArray[np.int64]:
    pairs = [(limbs[i] << _BITS) + limbs[i + 1] for i in range(1, _LIMBS, 2)]
    return np.stack([limbs[0], *pairs], axis=-1)
