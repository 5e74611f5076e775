"""Clipping: no client moves the sum by more than the bound.

McMahan et al., "Learning Differentially Private Recurrent Language Models", ICLR 2018, FlatClip in section 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from fedpact.channel.norms import (
    FIRST_SLACK,
    OVER,
    Over,
    finite_norm,
    norm_refusal,
    norms_of,
    role_of,
    within,
)
from fedpact.channel.transform import (
    Kind,
    RoundContext,
    StageState,
    Transform,
    check_averages,
    check_may_change,
)
from fedpact.core.messages import Update, Updates
from fedpact.core.settings import check_choice, check_numbers
from fedpact.core.vector import Layout


@dataclass(frozen=True)
class Clip(Transform):
    """Scale an update down to a norm, over all its averaged vectors together.

    An update within the bound is left as it is, bit for bit; no other is beyond it, by its norm in float64.
    It notes its norm before ("clip.norm") and whether it was clipped ("clip.clipped").

    Args:
        norm: the bound, > 0.
        p: 2 for the L2 norm, 1 for the L1 norm: the sum of sizes.
        over: "parameters" for trained parameters alone: buffers, such as the running statistics and counters of batch
            norm, then count towards no norm and leave as they are, so nothing bounds what a client changes in them.
            "all" for buffers too, which are scaled like the rest.

    Raises:
        ConfigError: the bound is not a positive number, or another setting is none of its options.
    """

    norm: float
    p: int = 2
    over: Over = "parameters"

    kind: ClassVar[Kind] = "clip"

    def __post_init__(self) -> None:
        check_numbers(self, "norm", positive=True)
        check_choice(self, "p", (1, 2))
        check_choice(self, "over", OVER)

    def bound(self, before: float, state: StageState) -> float:
        """Return the clip norm, or the bound before it where that is smaller: no L2 norm exceeds the L1 norm."""
        return min(before, self.norm)

    def check(self, before: Sequence[Transform], algorithm: Any, layout: Layout | None) -> None:
        """Refuse an algorithm whose clients send statistics, which have no norm, or build on what they sent."""
        check_averages(self, algorithm)
        check_may_change(self, algorithm)

    def encode(self, update: Update, context: RoundContext) -> Update:
        """Scale the update down to the bound.

        Raises:
            UpdateError: the norm is NaN or infinite.
        """
        role = role_of(self.over)
        norm = finite_norm(update, role, self.p)
        notes = {**update.notes, "clip.norm": norm, "clip.clipped": float(norm > self.norm)}
        return replace(within(update, norm, self.norm, role, self.p), notes=notes)

    def encode_stack(self, updates: Updates, context: RoundContext) -> Updates:
        """Scale each update down to the bound.

        Raises:
            UpdateError: a norm is NaN or infinite.
        """
        role = role_of(self.over)
        norms = norms_of(updates.averaged.values(), role, self.p)
        bad = np.flatnonzero(~np.isfinite(norms))
        if len(bad):
            raise norm_refusal(updates.clients[bad[0]], norms[bad[0]])
        averaged, slack, over = updates.averaged, FIRST_SLACK, norms > self.norm
        factors = np.where(over, self.norm / np.where(over, norms, 1.0), 1.0)
        tried = factors
        while over.any():
            averaged = {name: stack.times(tried, role) for name, stack in updates.averaged.items()}
            over = norms_of(averaged.values(), role, self.p) > self.norm
            tried, slack = np.where(over, factors * (1 - slack), tried), 2 * slack
        clipped = float(np.count_nonzero(norms > self.norm))
        notes = {**updates.notes, "clip.norm": float(norms.sum()), "clip.clipped": clipped}
        return replace(updates, averaged=averaged, notes=notes)
