"""Random sparsification: the same random coordinates of all clients, drawn anew each round.

Konečný et al., "Federated Learning: Strategies for Improving Communication Efficiency", 2016, section 2 (random mask),
with a mask that all clients share, so that what they send can be summed as it is: Chen et al., "The Fundamental Price
of Secure Aggregation in Differentially Private Federated Learning", ICML 2022.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fedpact.channel.linear_map import Floats, LinearMap, amount_of, check_amount
from fedpact.core.seeds import Seed
from fedpact.core.settings import check_flags


@dataclass(frozen=True)
class RandomK(LinearMap):
    """Send k of the d trained parameters of each averaged vector; the others are 0 in the mean.

    The server multiplies the k means by d / k, so that the mean expected is the mean of all, with a squared error of
    (d / k − 1) · ‖x‖²; or leaves them as they are.

    Behind it a vector has one parameter array [k], and its buffers whole.

    Args:
        fraction: k / d, in (0, 1]. Give this or k.
        k: how many to send; d where it has no more.
        unbiased: whether the server multiplies by d / k.

    Raises:
        ConfigError: not one of `fraction` and `k` is given, or it is out of its range.
    """

    fraction: float | None = None
    k: int | None = None
    unbiased: bool = True

    def __post_init__(self) -> None:
        check_amount(self)
        check_flags(self, "unbiased")

    def bound(self, before: float, state: object) -> float:
        """Return the bound before it: part of an update is no larger than all of it."""
        return before

    def size_behind(self, size: int) -> int:
        return amount_of(self, size)

    def forward(self, values: Floats, seed: Seed) -> Floats:
        return values[_chosen(seed, values.size, self.size_behind(values.size))]

    def backward(self, values: Floats, size: int, seed: Seed) -> Floats:
        scattered = np.zeros(size)
        scattered[_chosen(seed, size, values.size)] = values
        if self.unbiased:
            scattered *= size / values.size
        return scattered


# All clients of a round, when they are simulated in one process, ask for the same.
@lru_cache(maxsize=2)
def _chosen(seed: Seed, size: int, k: int) -> NDArray[np.int64]:
    chosen = seed.generator().choice(size, k, replace=False, shuffle=False)
    chosen.sort()
    chosen.flags.writeable = False
    return chosen
