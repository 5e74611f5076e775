"""A rotation behind which any vector looks normal, coordinate by coordinate: two randomised Hadamard rotations.

Vargaftik et al., "DRIVE: One-bit Distributed Mean Estimation", NeurIPS 2021 (Hadamard in the place of a uniformly
random rotation).
"""

import math

import numpy as np
from numpy.typing import NDArray

from fedpact.channel.hadamard import Hadamard
from fedpact.channel.linear_map import Floats
from fedpact.core.seeds import Seed

_HADAMARD = Hadamard()
_GOLDEN = (math.sqrt(5) - 1) / 2


def rotated(values: Floats, seed: Seed) -> NDArray[np.float64]:
    """Return R·x, of the same size whatever it is: nothing is padded.

    Of a vector with a single large number one Hadamard rotation leaves numbers of two sizes; and where the size is no
    power of two, it leaves what is in the first and in the last part almost to itself. So there are two, and numbers
    are shuffled between them so that each part has as many from everywhere.
    """
    once = _HADAMARD.forward(values, seed.child("first"))
    return np.asarray(_HADAMARD.forward(once[_shuffle(once.size)], seed.child("second")), np.float64)


def rotated_back(values: Floats, seed: Seed) -> NDArray[np.float64]:
    """Return x of R·x."""
    shuffled = np.empty(values.size)
    shuffled[_shuffle(values.size)] = _HADAMARD.backward(values, values.size, seed.child("second"))
    return np.asarray(_HADAMARD.backward(shuffled, shuffled.size, seed.child("first")), np.float64)


def _shuffle(size: int) -> NDArray[np.int64] | slice:
    if size & (size - 1) == 0:
        return slice(None)
    # Multiples of the golden ratio, modulo 1, are spread the most evenly.
    stride = round(size * _GOLDEN)
    while math.gcd(stride, size) != 1:
        stride += 1
    return np.arange(size) * stride % size
