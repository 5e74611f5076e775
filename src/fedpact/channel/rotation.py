"""A rotation behind which any vector looks normal, coordinate by coordinate: two randomised Hadamard rotations.

Vargaftik et al., "DRIVE: One-bit Distributed Mean Estimation", NeurIPS 2021 (Hadamard in the place of a uniformly
random rotation).
"""

import numpy as np
from numpy.typing import NDArray

from fedpact.channel.hadamard import Hadamard
from fedpact.channel.linear_map import Floats
from fedpact.core.seeds import Seed

_HADAMARD = Hadamard()


def rotated(values: Floats, seed: Seed) -> NDArray[np.float64]:
    """Return R·x, of the same size whatever it is: nothing is padded.

    Of a size that is no power of two, one Hadamard rotation leaves the two halves almost to themselves: so between the
    two of them every other coordinate goes to the front, which leaves none to itself. And of a vector with a single
    large number, one leaves numbers of two sizes.
    """
    once = _HADAMARD.forward(values, seed.child("first"))
    return np.asarray(_HADAMARD.forward(np.concatenate([once[::2], once[1::2]]), seed.child("second")))


def rotated_back(values: Floats, seed: Seed) -> NDArray[np.float64]:
    """Return x of R·x."""
    once = _HADAMARD.backward(values, values.size, seed.child("second"))
    mixed, half = np.empty(once.size), -(-once.size // 2)
    mixed[::2], mixed[1::2] = once[:half], once[half:]
    return np.asarray(_HADAMARD.backward(mixed, mixed.size, seed.child("first")))
