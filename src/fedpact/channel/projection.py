"""Sparse random projection: each number sent is a sum of a few parameters with random signs.

Achlioptas, "Database-friendly random projections", JCSS 2003, and Li, Hastie and Church, "Very sparse random
projections", KDD 2006, at their sparsest: one entry a column, as in Weinberger et al., "Feature hashing for large scale
multitask learning", ICML 2009; under secure aggregation: Chen et al., "The Fundamental Price of Secure Aggregation in
Differentially Private Federated Learning", ICML 2022.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fedpact.channel.linear_map import Floats, LinearMap, amount_of, check_amount
from fedpact.core.seeds import Seed


@dataclass(frozen=True)
class Projection(LinearMap):
    """Send k random sums in the place of the d trained parameters of each averaged vector.

    The parameters are dealt at random to k buckets of g = ⌊d / k⌋ or g + 1 each, and a bucket sends Σ ±x / √(its size):
    rows of norm 1 with no column in common, so the projection has norm exactly 1 whatever is drawn, which a dense one
    has not. The server gives each parameter ± √(its bucket's size) times the bucket: the mean expected is the mean of
    all, with a squared error of (g − 1) · ‖x‖² where all buckets have g.

    Unlike with `RandomK`, each parameter has an influence in every round, and large ones are never missed.

    Behind it a vector has one parameter array [k], and its buffers whole.

    Args:
        fraction: k / d, in (0, 1]. Give this or k.
        k: how many sums to send; d where there are no more parameters.

    Raises:
        ConfigError: not one of `fraction` and `k` is given, or it is out of its range.
    """

    fraction: float | None = None
    k: int | None = None

    def __post_init__(self) -> None:
        check_amount(self)

    def size_behind(self, size: int) -> int:
        return amount_of(self, size)

    def forward(self, values: Floats, seed: Seed) -> Floats:
        return _of_round(seed, values.size, self.size_behind(values.size)).sums(values)

    def backward(self, values: Floats, size: int, seed: Seed) -> Floats:
        return _of_round(seed, size, values.size).estimates(values)


@dataclass(frozen=True, eq=False)
class Buckets:
    """Parameters dealt to buckets: each to one, with a sign.

    Args:
        order: the parameters [d], bucket by bucket.
        signs: the sign of each, in this order.
        starts: where each bucket starts in it [k].
        sizes: how many each has [k].
    """

    order: NDArray[np.int64]
    signs: NDArray[np.int8]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def sums(self, values: Floats) -> NDArray[np.float64]:
        """Return Σ ±x / √(its size) of each bucket [k]: a linear map of norm 1."""
        signed = np.multiply(values[self.order], self.signs, dtype=np.float64)
        return np.add.reduceat(signed, self.starts) / np.sqrt(self.sizes)

    def estimates(self, sums: Floats) -> NDArray[np.float64]:
        """Return the unbiased estimates of the parameters [d]: ± √(its size) times the bucket of each."""
        out = np.empty(self.order.size)
        out[self.order] = np.repeat(sums * np.sqrt(self.sizes), self.sizes) * self.signs
        return out


def dealt(seed: Seed, size: int, k: int) -> Buckets:
    """Return so many parameters dealt to k buckets, 1 ≤ k ≤ size."""
    generator = seed.generator()
    order = generator.permutation(size)
    signs = signs_of(generator, size)
    starts = np.arange(k, dtype=np.int64) * size // k
    sizes = np.diff(starts, append=size)
    return Buckets(order, signs, starts, sizes)


# All clients of a round, when they are simulated in one process, ask for the same.
_of_round = lru_cache(maxsize=2)(dealt)


def signs_of(generator: np.random.Generator, size: int) -> NDArray[np.int8]:
    """Return random signs, 1 or −1."""
    bits = np.unpackbits(np.frombuffer(generator.bytes(-(-size // 8)), np.uint8), count=size)
    return (2 * bits.view(np.int8) - 1).astype(np.int8)
