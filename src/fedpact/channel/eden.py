"""EDEN: a few bits for each parameter, by the best quantiser of the normal distribution behind a random rotation.

Vargaftik et al., "EDEN: Communication-Efficient and Robust Distributed Mean Estimation for Federated Learning", ICML
2022, Algorithm 1; the quantiser is that of Lloyd, "Least squares quantization in PCM", and Max, "Quantizing for minimum
distortion", IRE Transactions on Information Theory 1960.
"""

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpact.channel.bits import bytes_of, pack_bits, unpack_bits
from fedpact.channel.linear_map import Floats, parameter_count
from fedpact.channel.packer import Packer, check_code, check_held
from fedpact.channel.rotation import rotated, rotated_back
from fedpact.core.packed import Packed
from fedpact.core.seeds import Seed
from fedpact.core.settings import check_choice
from fedpact.core.vector import Layout


@dataclass(frozen=True)
class Eden(Packer):
    """Send which of 2^bits centroids Q is nearest to each number of R·x·√d / ‖x‖, and a scale S; x counts as S·R⁻¹·Q.

    R is a rotation of the client's own in the round, and S = ‖x‖² / ⟨R·x, Q⟩ makes the expectation x. The squared error
    expected is 0.571, 0.133, 0.0358 and 0.00959 times ‖x‖² for 1 to 4 bits. Of d trained parameters ⌈d · bits / 8⌉ + 8
    bytes are sent.

    That is so of a uniformly random R and many parameters; the one here, of random signs and Hadamard matrices, comes
    as near as can be measured.

    Args:
        bits: 1 to 4.

    Raises:
        ConfigError: bits is none of these.
    """

    bits: int = 2

    whole_models: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_choice(self, "bits", (1, 2, 3, 4))

    def pack(self, values: Floats, layout: Layout, seed: Seed, sender: str) -> Packed:
        centroids = normal_centroids(self.bits)
        with np.errstate(over="ignore", invalid="ignore"):
            turned = rotated(values, seed)
            squared = float(turned @ turned)
        check_held(squared, sender)
        unit = math.sqrt(squared / turned.size)
        borders = (centroids[1:] + centroids[:-1]) / 2
        nearest = np.searchsorted(borders * unit, turned, side="right")
        scale = squared / float(turned @ centroids[nearest]) if squared else 0.0
        return Packed(layout, {"centroids": pack_bits(nearest, self.bits)}, {"scale": scale})

    def unpack(self, packed: Packed, seed: Seed, sender: str) -> Floats:
        size = parameter_count(packed.layout)
        check_code(packed, sender, {"centroids": (np.uint8, bytes_of(size, self.bits))}, ("scale",))
        nearest = unpack_bits(packed.arrays["centroids"], self.bits, size)
        return rotated_back(normal_centroids(self.bits)[nearest] * packed.numbers["scale"], seed)


@lru_cache
def normal_centroids(bits: int) -> NDArray[np.float64]:
    """Return the 2^bits numbers, ascending, that a standard normal one is rounded to with the least squared error."""
    half = 1 << (bits - 1)
    positive = [(i + 0.5) * 2.0 / half for i in range(half)]
    moved = math.inf
    # Each is the mean of what is nearest to it; Lloyd's iteration, by symmetry for the positive ones alone.
    while moved > 1e-13:
        borders = [0.0, *((a + b) / 2 for a, b in itertools.pairwise(positive)), math.inf]
        means = [_mean_between(a, b) for a, b in itertools.pairwise(borders)]
        moved = max(abs(a - b) for a, b in zip(means, positive, strict=True))
        positive = means
    return np.array([-x for x in reversed(positive)] + positive)


def _mean_between(low: float, high: float) -> float:
    """Return the mean of a standard normal number that is known to be between two, 0 ≤ low < high."""
    density = (math.exp(-low * low / 2) - math.exp(-high * high / 2)) / math.sqrt(2 * math.pi)
    mass = (math.erfc(low / math.sqrt(2)) - math.erfc(high / math.sqrt(2))) / 2
    return density / mass
