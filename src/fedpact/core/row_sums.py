"""Fixed-point sums over the rows of an array: the integers of `fedpact.core.exact`, many vectors at a time."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.stack import Array, beside, doubles, on_host, whole

# Of 64 Ki elements the two scratch arrays stay in the cache of one core.
_BLOCK = 1 << 16
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
