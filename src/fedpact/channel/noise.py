"""Central Gaussian noise on the exact sum, from the operating system's entropy.

Dwork and Roth, "The Algorithmic Foundations of Differential Privacy", 2014, appendix A (the Gaussian
mechanism); McMahan et al., "Learning Differentially Private Recurrent Language Models", ICLR 2018 (clients'
updates as what is protected).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.channel.channel import RoundContext, Transform
from fedpact.channel.clip import Clip
from fedpact.core.errors import ChannelError
from fedpact.core.messages import Aggregate, Update


@dataclass(frozen=True)
class GaussianNoise:
    """The server adds N(0, (multiplier · clip norm)²) to every element of the sum before it divides.

    The clip norm is that of the Clip before it, which bounds what one client can change. All clients must
    weigh the same, for otherwise nothing bounds a weight. Training metrics are not released, since they
    would be released without noise. The noise is a float: it does not withstand attacks on the least
    significant bits of what is released (Mironov, "On significance of the least significant bits for
    differential privacy", CCS 2012).

    Args:
        multiplier: the standard deviation in units of the clip norm, > 0.

    Raises:
        ChannelError: the multiplier is not a positive number.
    """

    multiplier: float

    def __post_init__(self) -> None:
        if not (isfinite(self.multiplier) and self.multiplier > 0):
            raise ChannelError(
                f"GaussianNoise: multiplier is {self.multiplier}; it must be a positive number."
            )

    @property
    def bound(self) -> float:
        """Noise bounds nothing."""
        return inf

    def check(self, before: Sequence[Transform], algorithm: Any) -> None:
        """Require exactly one Clip before it, and equal weights."""
        if sum(isinstance(stage, Clip) for stage in before) != 1:
            raise ChannelError(
                "GaussianNoise needs one Clip before it, which bounds what a client can change: write "
                "[Clip(1.0), GaussianNoise(...)]."
            )
        if getattr(algorithm, "weighting", None) != "uniform":
            raise ChannelError(
                "GaussianNoise needs clients of equal weight, since nothing bounds a number of examples: set "
                f'weighting="uniform" in {type(algorithm).__name__}.'
            )

    def encode(self, update: Update, context: RoundContext) -> Update:
        """Keep the training metrics at the client."""
        return replace(update, metrics={})

    def decode(self, aggregate: Aggregate, context: RoundContext) -> Aggregate:
        """Add noise to the mean: that of the sum, divided by the number of clients like the sum itself."""
        scale = self.multiplier * context.sensitivity / aggregate.weight
        noisy = {name: vector.copy() for name, vector in aggregate.means.items()}
        for vector in noisy.values():
            for flat in vector.flats:
                flat += scale * secret_gaussian(flat.size)
        return replace(aggregate, means=noisy)


def secret_gaussian(size: int) -> NDArray[np.float64]:
    """Return standard normal numbers from the operating system's entropy (Box and Muller)."""
    half = -(-size // 2)
    bits = np.frombuffer(os.urandom(16 * half), np.uint64).reshape(2, half) >> 11
    # In (0, 1], so that the logarithm is finite.
    radius = np.sqrt(-2.0 * np.log((bits[0] + 1.0) * 2.0**-53))
    angle = (2.0 * np.pi * 2.0**-53) * bits[1]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:size]
