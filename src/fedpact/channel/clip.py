"""Clipping: no client moves the sum by more than the bound."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import hypot, isfinite
from typing import Any

from fedpact.channel.channel import RoundContext, Transform
from fedpact.core.errors import ChannelError, UpdateError
from fedpact.core.messages import Aggregate, Update


@dataclass(frozen=True)
class Clip:
    """Scale an update down to an L2 norm, over all its averaged vectors together.

    An update within the bound is left as it is, bit for bit.

    Args:
        norm: the bound, > 0.

    Raises:
        ChannelError: the bound is not a positive number.
    """

    norm: float

    def __post_init__(self) -> None:
        if not (isfinite(self.norm) and self.norm > 0):
            raise ChannelError(f"Clip: norm is {self.norm}; it must be a positive number.")

    @property
    def bound(self) -> float:
        """The clip norm."""
        return self.norm

    def check(self, before: Sequence[Transform], algorithm: Any) -> None:
        """Refuse an algorithm whose clients send statistics, which have no norm to clip."""
        if algorithm.releases != "averaged":
            raise ChannelError(
                f"Clip bounds averaged updates, but the clients of {type(algorithm).__name__} send sums of "
                "statistics; take Clip out of the channel, or train with FedAvg or FedSGD."
            )

    def encode(self, update: Update, context: RoundContext) -> Update:
        """Scale the update down to the bound.

        Raises:
            UpdateError: the norm is NaN or infinite.
        """
        norm = hypot(*(vector.norm() for vector in update.averaged.values()))
        if not isfinite(norm):
            raise UpdateError(
                f'client "{update.client}": the update has norm {norm}; lower the learning rate or look for '
                "such values in the client's rows."
            )
        if norm <= self.norm:
            return update
        scaled = {name: vector.copy() for name, vector in update.averaged.items()}
        for vector in scaled.values():
            for flat in vector.flats:
                flat *= self.norm / norm
        return replace(update, averaged=scaled)

    def decode(self, aggregate: Aggregate, context: RoundContext) -> Aggregate:
        """Leave the aggregate as it is."""
        return aggregate
