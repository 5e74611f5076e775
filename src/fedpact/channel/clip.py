"""Clipping: no client moves the sum by more than the bound."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import hypot, isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.channel.channel import RoundContext, Transform, check_may_change
from fedpact.core.errors import ChannelError, UpdateError
from fedpact.core.messages import Aggregate, Update, Updates
from fedpact.core.settings import check_numbers
from fedpact.core.stack import Stack
from fedpact.core.vector import Layout, Vector

# Of what rounding to float32 may add to a norm, sixteen times as much.
_FIRST_SLACK = 2.0**-20


@dataclass(frozen=True)
class Clip:
    """Scale an update down to an L2 norm, over the trained parameters of all its averaged vectors together.

    An update within the bound is left as it is, bit for bit; no other is beyond it, by its norm in float64.

    Buffers, such as the running statistics and counters of batch norm, are no parameters: they count towards
    no norm and leave as they are, so nothing bounds what a client changes in them.

    Args:
        norm: the bound, > 0.

    Raises:
        ConfigError: the bound is not a positive number.
    """

    norm: float

    def __post_init__(self) -> None:
        check_numbers(self, "norm", positive=True)

    def bound(self, before: float) -> float:
        """Return the clip norm, or the bound before it where that is smaller."""
        return min(before, self.norm)

    def check(self, before: Sequence[Transform], algorithm: Any, layout: Layout | None) -> None:
        """Refuse an algorithm whose clients send statistics, which have no norm, or build on what they sent."""
        if algorithm.releases != "averaged":
            raise ChannelError(
                f"Clip bounds averaged updates, but the clients of {type(algorithm).__name__} send sums of "
                "statistics; take Clip out of the channel, or train with FedAvg or FedSGD."
            )
        check_may_change(self, algorithm)

    def encode(self, update: Update, context: RoundContext) -> Update:
        """Scale the update down to the bound.

        Raises:
            UpdateError: the norm is NaN or infinite.
        """
        norm = _norm(update.averaged)
        if not isfinite(norm):
            raise _refusal(update.client, norm)
        if norm <= self.norm:
            return update
        scaled, slack = _scaled(update.averaged, self.norm / norm), _FIRST_SLACK
        # Rounding may leave the norm above the bound; a slack of 1, at the latest, leaves nothing at all.
        while _norm(scaled) > self.norm:
            scaled, slack = _scaled(update.averaged, self.norm / norm * (1 - slack)), 2 * slack
        return replace(update, averaged=scaled)

    def encode_stack(self, updates: Updates, context: RoundContext) -> Updates:
        """Scale each update down to the bound.

        Raises:
            UpdateError: a norm is NaN or infinite.
        """
        norms = _norms(updates.averaged)
        bad = np.flatnonzero(~np.isfinite(norms))
        if len(bad):
            raise _refusal(updates.clients[bad[0]], norms[bad[0]])
        averaged, slack, over = updates.averaged, _FIRST_SLACK, norms > self.norm
        factors = np.where(over, self.norm / np.where(over, norms, 1.0), 1.0)
        tried = factors
        while over.any():
            averaged = {name: stack.times(tried, "parameter") for name, stack in updates.averaged.items()}
            over = _norms(averaged) > self.norm
            tried, slack = np.where(over, factors * (1 - slack), tried), 2 * slack
        return replace(updates, averaged=averaged)

    def decode(self, aggregate: Aggregate, context: RoundContext) -> Aggregate:
        """Leave the aggregate as it is."""
        return aggregate


def _refusal(client: str, norm: float) -> UpdateError:
    return UpdateError(
        f'client "{client}": the update has norm {norm}; lower the learning rate or look for such values in the '
        "client's rows."
    )


def _norms(stacks: Mapping[str, Stack]) -> NDArray[np.float64]:
    """Return the norm of each client's vectors together."""
    each = [stack.norms("parameter") for stack in stacks.values()]
    return np.array([hypot(*norms) for norms in zip(*each, strict=True)])


def _norm(vectors: Mapping[str, Vector]) -> float:
    return hypot(*(vector.norm("parameter") for vector in vectors.values()))


def _scaled(vectors: Mapping[str, Vector], factor: float) -> dict[str, Vector]:
    scaled = {name: vector.copy() for name, vector in vectors.items()}
    for vector in scaled.values():
        for flat, segment in zip(vector.flats, vector.layout.segments, strict=True):
            if segment.role == "parameter":
                # In float64, for a factor may be too small for float32.
                np.multiply(flat, factor, out=flat, dtype=np.float64, casting="same_kind")
    return scaled
