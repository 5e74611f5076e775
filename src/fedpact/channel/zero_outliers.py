"""Zeroing: a client whose update is far larger than others' sends zeros.

The zeroing of TensorFlow Federated's robust aggregator (`tff.aggregators.zeroing_factory`), whose bound follows a
quantile of the clients' norms as in Andrew et al., "Differentially Private Learning with Adaptive Clipping", NeurIPS
2021.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, log
from typing import Any, ClassVar

from fedpact.channel.norms import COUNTS, OVER, Over, norm_of, role_of
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
from fedpact.core.vector import Layout, Vector

_COUNT = "zero_count"


@dataclass(frozen=True)
class ZeroOutliers(Transform):
    """Make zeros of an update whose L2 norm is beyond a bound, or is no number at all.

    All of its averaged vectors become zero, buffers too, and metrics that are no finite numbers are left out; it keeps
    its weight. It notes its norm ("zero_outliers.norm") where that is a number, and whether it was zeroed
    ("zero_outliers.zeroed").

    The bound is `norm` where that is given. Else it is factor · C, where C follows a high quantile of the clients'
    norms: each sends one more averaged vector of one number, "zero_count", that tells whether its norm is at most C
    (see `AdaptiveClip`, which also says what that means under noise).

    Args:
        factor: how many times C is too much, ≥ 1.
        norm: a fixed bound, > 0; None for one that follows the clients.
        quantile: the share of clients that are to be within C, in (0, 1).
        initial: C before the first round, > 0.
        lr: the rate of the estimate, > 0.
        count_share: size of the count as a share of C, > 0. A stage that clips later keeps the count as it is and
            takes it out of its own bound, so it should be small.
        over: what counts towards the norm: "parameters" or "all", as in `Clip`.

    Raises:
        ConfigError: a setting is out of its range.
    """

    factor: float = 2.0
    norm: float | None = None
    quantile: float = 0.98
    initial: float = 10.0
    lr: float = log(10)
    count_share: float = 0.02
    over: Over = "parameters"

    kind: ClassVar[Kind] = "clip"
    counts: ClassVar[tuple[str, ...]] = (_COUNT,)

    def __post_init__(self) -> None:
        check_numbers(self, "factor", "initial", "lr", "count_share", positive=True)
        if self.factor < 1:
            raise ConfigError(
                f"ZeroOutliers: factor is {self.factor:g}; it must be 1 or more, for else clients within C would be "
                "outliers."
            )
        check_numbers(self, "norm", positive=True, optional=True)
        check_numbers(self, "quantile", positive=True, below=1)
        check_choice(self, "over", OVER)

    def bound(self, before: float, state: StageState) -> float:
        """Return the norm beyond which updates are zeroed, together with the count."""
        within = min(before, self._limit(state))
        return within if self.norm is not None else with_count(within, self._scale(state))

    def check(self, before: Sequence[Transform], algorithm: Any, layout: Layout | None) -> None:
        """Refuse a second one, and algorithms as `Clip` does."""
        if any(isinstance(stage, ZeroOutliers) for stage in before):
            raise ChannelError("ZeroOutliers stands twice in this channel; leave one of them out.")
        check_averages(self, algorithm)
        check_may_change(self, algorithm)

    def init(self, layouts: Mapping[str, Layout]) -> StageState:
        """Return the estimate before the first round."""
        return {} if self.norm is not None else {"norm": self.initial}

    def encode(self, update: Update, context: RoundContext) -> Update:
        """Make zeros of an outlier.

        Raises:
            ChannelError: the update is a whole model, of which zeros would be another.
        """
        if update.kind == "model":
            raise ChannelError(
                f'ZeroOutliers would make a model of zeros of what client "{update.client}" sent; have clients send '
                'the change of the model instead (kind "delta").'
            )
        norm = norm_of(update.averaged.values(), role_of(self.over))
        # A NaN fails the comparison. What does not count towards the norm may be none, or infinite, too.
        zeroed = not norm <= self._limit(context.state) or not isfinite(
            norm_of(update.averaged.values(), None)
        )
        averaged = {
            name: Vector.zeros(vector.layout) if zeroed and name not in COUNTS else vector
            for name, vector in update.averaged.items()
        }
        if self.norm is None:
            averaged[_COUNT] = count_of(norm <= self._estimate(context.state), self._scale(context.state))
        notes = {**update.notes, "zero_outliers.zeroed": float(zeroed)}
        if isfinite(norm):
            notes["zero_outliers.norm"] = norm
        metrics = {name: number for name, number in update.metrics.items() if not zeroed or isfinite(number)}
        return replace(update, averaged=averaged, metrics=metrics, notes=notes)

    def decode(self, aggregate: Aggregate, context: RoundContext) -> Aggregate:
        """Take the count out."""
        means = {name: vector for name, vector in aggregate.means.items() if name != _COUNT}
        return replace(aggregate, means=means)

    def after(self, aggregate: Aggregate, context: RoundContext) -> StageState:
        """Return the estimate for the next round."""
        if self.norm is not None:
            return context.state
        estimate, scale = self._estimate(context.state), self._scale(context.state)
        return {"norm": next_estimate(estimate, aggregate.means[_COUNT], scale, self.quantile, self.lr)}

    def _estimate(self, state: StageState) -> float:
        return float(state.get("norm", self.initial))

    def _limit(self, state: StageState) -> float:
        return self.norm if self.norm is not None else self.factor * self._estimate(state)

    def _scale(self, state: StageState) -> float:
        return self.count_share * self._estimate(state)
