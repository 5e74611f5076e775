"""Randomised Hadamard rotation: what is large in a few parameters is spread over all, so that few bits do for each.

Suresh et al., "Distributed Mean Estimation with Limited Communication", ICML 2017, section 3; Ailon and Chazelle, "The
fast Johnson–Lindenstrauss transform and approximate nearest neighbors", SIAM J. Comput. 2009.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpact.channel.linear_map import Floats, LinearMap
from fedpact.channel.projection import signs_of
from fedpact.channel.transform import Transform, check_averages
from fedpact.core.seeds import Seed
from fedpact.core.vector import Layout

# Two to this power is the size of the matrices that the rotation is a product of.
_RADIX_BITS = 5


@dataclass(frozen=True)
class Hadamard(LinearMap):
    """Rotate the trained parameters of each averaged vector by random signs and a Hadamard matrix.

    The rotation is H·D / √B with the signs D drawn from the round's seed, over B parameters, a power of two. Where the
    number d of parameters is none, B is the largest below it, and the first B are rotated and then the last B: each
    parameter is in one of the two, norms are kept, and nothing is padded. The server rotates the mean back.

    By itself it saves nothing; it makes what `Quantize`, `RandomK` and others behind it do cheaper or more exact. A
    `RandomK` behind it is the subsampled randomised Hadamard transform.

    Behind it a vector has one parameter array [d], and its buffers as they were.
    """

    whole_models: ClassVar[bool] = True

    def check(self, before: Sequence[Transform], algorithm: Any, layout: Layout | None) -> None:
        """Refuse sums of statistics. What clients keep of what they sent still agrees, but for rounding."""
        check_averages(self, algorithm)

    def size_behind(self, size: int) -> int:
        return size

    def forward(self, values: Floats, seed: Seed) -> Floats:
        rotated = values.astype(np.float64)
        for part, signs in _parts(values.size, seed):
            rotated[part] = transformed(rotated[part] * signs)
        return rotated

    def backward(self, values: Floats, size: int, seed: Seed) -> Floats:
        rotated = values.astype(np.float64)
        for part, signs in reversed(_parts(size, seed)):
            rotated[part] = transformed(rotated[part]) * signs
        return rotated


def _parts(size: int, seed: Seed) -> list[tuple[slice, NDArray[np.int8]]]:
    length = 1 << (size.bit_length() - 1)
    starts = [0] if length == size else [0, size - length]
    return [
        (slice(start, start + length), signs_of(seed.child("part", i).generator(), length))
        for i, start in enumerate(starts)
    ]


def transformed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return H·x / √B, the orthonormal Walsh–Hadamard transform of B numbers, a power of two: its own inverse."""
    bits = values.size.bit_length() - 1
    while bits:
        step = min(bits, _RADIX_BITS)
        bits -= step
        # The first axis becomes the last: once each has been, they are again in their order.
        values = values.reshape(1 << step, -1).T @ _matrix(step)
    return values.reshape(-1)


@lru_cache
def _matrix(bits: int) -> NDArray[np.float64]:
    matrix = np.ones((1, 1))
    for _ in range(bits):
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix / np.sqrt(len(matrix))
