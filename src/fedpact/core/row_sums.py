"""Fixed-point sums over the rows of an array: the integers of `fedpact.core.exact`, many vectors at a time."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.stack import Array, beside, doubles, on_host, whole

# Of 64 Ki elements the two scratch arrays stay in the cache of one core.
_BLOCK = 1 << 16
_UNIT_STEPS = 1.5 * 2.0**52
_UNIT_STEPS_BITS = np.float64(_UNIT_STEPS).view(np.int64)
# On a device they take 256 MiB each: enough for every core of it to have work.
_DEVICE_BLOCK = 1 << 25


def add_rows(integers: NDArray[np.int64], rows: NDArray[Any], scales: NDArray[np.float64]) -> None:
    """Add Σ round(scale · row) to integers, block by block, each in the cache."""
    columns = max(1, min(rows.shape[1], _BLOCK))
    deep = min(len(rows), max(1, _BLOCK // columns))
    numbers, rounded = np.empty((deep, columns)), np.empty((deep, columns), np.int64)
    for left in range(0, rows.shape[1], columns):
        total = integers[left : left + columns]
        for first in range(0, len(rows), deep):
            block = rows[first : first + deep, left : left + columns]
            height, width = block.shape
            product, terms = numbers[:height, :width], rounded[:height, :width]
            product[...] = block
            product *= scales[first : first + deep, None]
            np.rint(product, out=product)
            terms[...] = product
            total += terms[0] if height == 1 else terms.sum(axis=0)


def rounded(numbers: NDArray[np.float64], largest: float) -> NDArray[np.int64]:
    """Return numbers rounded to integers, half to even, in their own memory; `largest` bounds their size.

    Below 2^51, 1.5·2^52 is added, which leaves no bit for a fraction: the processor rounds, and the integer is what the
    bits of the sum differ by. To round and to convert, one after the other, takes half as long again.
    """
    integers = numbers.view(np.int64)
    if largest < 2.0**51:
        numbers += _UNIT_STEPS
        integers -= _UNIT_STEPS_BITS
    else:
        np.rint(numbers, out=numbers)
        integers[...] = numbers.copy()
    return integers


def sum_of_rows(rows: Array, scales: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return Σ round(scale · row) of a tensor, computed on its device."""
    deep, total = max(1, _DEVICE_BLOCK // max(1, rows.shape[1])), None
    factors = beside(scales, rows)[:, None]
    for first in range(0, len(rows), deep):
        product = doubles(rows[first : first + deep])
        product *= factors[first : first + deep]
        # Half to even, as numpy's rint.
        terms = whole(product.round_()).sum(0)
        total = terms if total is None else total + terms
    return on_host(total)
