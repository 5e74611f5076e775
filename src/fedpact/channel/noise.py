"""Central Gaussian noise on the exact sum, from the operating system's entropy.

Dwork and Roth, "The Algorithmic Foundations of Differential Privacy", 2014, appendix A (the Gaussian
mechanism); McMahan et al., "Learning Differentially Private Recurrent Language Models", ICLR 2018 (clients'
updates as what is protected).
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.channel.channel import RoundContext, Transform, check_may_change
from fedpact.channel.clip import Clip
from fedpact.core.errors import ChannelError
from fedpact.core.messages import Aggregate, Update, Updates
from fedpact.core.settings import check_numbers
from fedpact.core.vector import Layout

# Of 64 Ki elements the scratch arrays of a draw stay in the cache of one core.
_BLOCK = 1 << 16


@dataclass(frozen=True)
class GaussianNoise:
    """The server adds N(0, (multiplier · clip norm)²) to every element of the sum before it divides.

    The clip norm is that of the Clip before it, which bounds what one client can change. All clients must
    weigh the same, for otherwise nothing bounds a weight. A model with buffers, such as batch norm's, is
    refused: no Clip bounds them, and noise would make a running variance negative. Training metrics are not
    released, since they would be released without noise. The noise is a float: it does not withstand
    attacks on the least significant bits of what is released (Mironov, "On significance of the least
    significant bits for differential privacy", CCS 2012).

    Args:
        multiplier: the standard deviation in units of the clip norm, > 0.

    Raises:
        ConfigError: the multiplier is not a positive number.
    """

    multiplier: float

    def __post_init__(self) -> None:
        check_numbers(self, "multiplier", positive=True)

    def bound(self, before: float, state: Any = None) -> float:
        """Return the bound before it: the noise is added at the server and changes no update."""
        return before

    def check(self, before: Sequence[Transform], algorithm: Any, layout: Layout | None) -> None:
        """Require exactly one Clip before it, equal weights, and a model without buffers."""
        check_may_change(self, algorithm)
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
        _refuse_buffers([] if layout is None else [layout])

    def encode(self, update: Update, context: RoundContext) -> Update:
        """Keep the training metrics at the client.

        Raises:
            ChannelError: the update has buffers.
        """
        _refuse_buffers(vector.layout for vector in update.averaged.values())
        return replace(update, metrics={})

    def encode_stack(self, updates: Updates, context: RoundContext) -> Updates:
        """Keep the training metrics at the clients.

        Raises:
            ChannelError: the updates have buffers.
        """
        _refuse_buffers(stack.layout for stack in updates.averaged.values())
        return replace(updates, metrics={})

    def decode(self, aggregate: Aggregate, context: RoundContext) -> Aggregate:
        """Add noise to the mean: that of the sum, divided by the number of clients like the sum itself."""
        scale = self.multiplier * context.sensitivity / aggregate.weight
        noisy = {name: vector.copy() for name, vector in aggregate.means.items()}
        for vector in noisy.values():
            for flat in vector.flats:
                for start in range(0, flat.size, _BLOCK):
                    block = flat[start : start + _BLOCK]
                    block += scale * secret_gaussian(block.size)
        return replace(aggregate, means=noisy)


def _refuse_buffers(layouts: Iterable[Layout]) -> None:
    for layout in layouts:
        buffer = next((e.name for e in layout.entries if e.role == "buffer" and e.size), None)
        if buffer is not None:
            raise ChannelError(
                f'GaussianNoise: "{buffer}" is a buffer, which no Clip bounds and which noise would spoil; replace '
                "batch norm by GroupNorm or LayerNorm, or set track_running_stats=False."
            )


def secret_gaussian(size: int) -> NDArray[np.float64]:
    """Return standard normal numbers from the operating system's entropy (Box and Muller)."""
    half = -(-size // 2)
    bits = np.frombuffer(os.urandom(16 * half), np.uint64).reshape(2, half) >> 11
    # In (0, 1], so that the logarithm is finite.
    radius = np.sqrt(-2.0 * np.log((bits[0] + 1.0) * 2.0**-53))
    angle = (2.0 * np.pi * 2.0**-53) * bits[1]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:size]
