"""The largest of many numbers: the same ones on every machine."""

import numpy as np
from numpy.typing import NDArray


def largest(sizes: NDArray[np.floating], k: int) -> NDArray[np.bool_]:
    """Return which are the k largest of some numbers; of equal ones, those that come first.

    >>> largest(np.array([1.0, 3.0, 2.0, 2.0]), 2)
    array([False,  True,  True, False])
    """
    if k >= sizes.size:
        return np.ones(sizes.size, np.bool_)
    if k <= 0:
        return np.zeros(sizes.size, np.bool_)
    # The k-th largest number is one whatever the order of equal ones, in which partitions differ by processor.
    least = np.partition(sizes, sizes.size - k)[sizes.size - k]
    chosen = sizes > least
    equal = np.flatnonzero(sizes == least)
    chosen[equal[: k - np.count_nonzero(chosen)]] = True
    return chosen
