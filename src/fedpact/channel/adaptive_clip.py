"""Clipping to a quantile of the clients' own norms, which is found while training.

Andrew et al., "Differentially Private Learning with Adaptive Clipping", NeurIPS 2021, Algorithm 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any, ClassVar

from fedpact.channel.norms import OVER, Over, finite_norm, role_of, within
from fedpact.channel.quantile import count_of, next_estimate, with_count
from fedpact.channel.transform import (
    Kind,
    RoundContext,
    StageState,
    Transform,
    check_averages,
    check_may_change,
)
from fedpact.core.errors import ChannelError, ConfigError
from fedpact.core.messages import Aggregate, Update
from fedpact.core.settings import check_choice, check_numbers
from fedpact.core.vector import Layout

_COUNT = "clip_count"


@dataclass(frozen=True)
class AdaptiveClip(Transform):
    """Scale updates down to an L2 norm C that follows a quantile of the clients' norms.

    Beside its clipped update a client sends s · (b − 1/2), where b is whether its norm was at most C: one more averaged
    vector, "clip_count". The server steps C ← C · exp(−lr · (b̃ − quantile)), where b̃ is the share of b = 1 that the
    mean tells.

    With noise this count is paid for, and once: s = count_share · C, so that update and count together have the norm
    C · √(1 + count_share² / 4), which is the `bound` that noise is scaled to. A noise multiplier z then acts on the
    update as z · √(1 + count_share² / 4), and on the number of clients within C as noise of standard deviation
    σ_b = z · √(1 + count_share² / 4) / count_share: the two of the paper's Theorem 1. `share_for` gives the
    count_share for σ_b = cohort / 20, as the paper recommends; the default is that for z = 1 and a cohort of 50.

    A client notes its norm before ("adaptive_clip.norm") and whether it was clipped ("adaptive_clip.clipped").

    A client that does not answer counts as half a client within C where the mean has a fixed denominator.

    Args:
        quantile: the share of clients that are to be within C, in (0, 1).
        initial: C before the first round, > 0.
        lr: the rate of the estimate, > 0.
        count_share: s / C, > 0: the larger, the more exact the count and the more noise on the update.
        over: "parameters" or "all", as in `Clip`.

    Raises:
        ConfigError: a setting is out of its range.
    """

    quantile: float = 0.5
    initial: float = 1.0
    lr: float = 0.2
    count_share: float = 6**-0.5
    over: Over = "parameters"

    kind: ClassVar[Kind] = "clip"
    counts: ClassVar[tuple[str, ...]] = (_COUNT,)

    def __post_init__(self) -> None:
        check_numbers(self, "quantile", positive=True, below=1)
        check_numbers(self, "initial", "lr", "count_share", positive=True)
        check_choice(self, "over", OVER)

    @staticmethod
    def share_for(noise_multiplier: float, cohort: int) -> float:
        """Return the count_share with which the count has noise of standard deviation cohort / 20.

        That is z_Δ / σ_b with z_Δ = (z⁻² − (2σ_b)⁻²)^(−1/2), from Theorem 1 of the paper.

        Args:
            noise_multiplier: z, of update and count together.
            cohort: clients in a round.

        Raises:
            ConfigError: the count alone would need a smaller multiplier than z.
        """
        count_noise = cohort / 20
        if not 0 < noise_multiplier < 2 * count_noise:
            raise ConfigError(
                f"AdaptiveClip: with a noise multiplier of {noise_multiplier:g} a count of {cohort} clients cannot "
                f"be known to ± {count_noise:g}; ask more clients, or give count_share yourself."
            )
        return 1 / (count_noise * sqrt(noise_multiplier**-2 - (2 * count_noise) ** -2))

    def bound(self, before: float, state: StageState) -> float:
        """Return the norm of a clipped update together with its count."""
        norm = self._norm(state)
        return with_count(min(before, norm), self.count_share * norm)

    def check(self, before: Sequence[Transform], algorithm: Any, layout: Layout | None) -> None:
        """Refuse a second one, and algorithms as `Clip` does."""
        if any(isinstance(stage, AdaptiveClip) for stage in before):
            raise ChannelError(
                "AdaptiveClip stands twice in this channel, and both would count clients; leave one of them out."
            )
        check_averages(self, algorithm)
        check_may_change(self, algorithm)

    def init(self, layouts: Mapping[str, Layout]) -> StageState:
        """Return the clip norm before the first round."""
        return {"norm": self.initial}

    def encode(self, update: Update, context: RoundContext) -> Update:
        """Scale the update down to C, and add the count.

        Raises:
            UpdateError: the norm is NaN or infinite.
        """
        bound, role = self._norm(context.state), role_of(self.over)
        norm = finite_norm(update, role)
        clipped = within(update, norm, bound, role)
        notes = {**update.notes, "adaptive_clip.norm": norm, "adaptive_clip.clipped": float(norm > bound)}
        count = count_of(norm <= bound, self.count_share * bound)
        return replace(clipped, averaged={**clipped.averaged, _COUNT: count}, notes=notes)

    def decode(self, aggregate: Aggregate, context: RoundContext) -> Aggregate:
        """Take the count out."""
        means = {name: vector for name, vector in aggregate.means.items() if name != _COUNT}
        return replace(aggregate, means=means)

    def after(self, aggregate: Aggregate, context: RoundContext) -> StageState:
        """Return the clip norm of the next round."""
        norm = self._norm(context.state)
        scale = self.count_share * norm
        return {"norm": next_estimate(norm, aggregate.means[_COUNT], scale, self.quantile, self.lr)}

    def _norm(self, state: StageState) -> float:
        return float(state.get("norm", self.initial))
