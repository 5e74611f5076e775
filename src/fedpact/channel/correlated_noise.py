"""DP-FTRL: Gaussian noise that is correlated over rounds, for clients who take part rarely and whom nobody samples.

Kairouz et al., "Practical and Private (Deep) Learning Without Sampling or Shuffling", ICML 2021; Choquette-Choo et al.,
"(Amplified) Banded Matrix Factorization", NeurIPS 2023. The factorisations are in `fedpact.privacy.factorization`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np

from fedpact.channel.adaptive_clip import AdaptiveClip
from fedpact.channel.noise import Noise, Sampler, Where
from fedpact.channel.transform import RoundContext, StageState, Transform
from fedpact.channel.zero_outliers import ZeroOutliers
from fedpact.core.errors import ChannelError
from fedpact.core.messages import Aggregate, Integers
from fedpact.core.settings import check_choice, check_counts, check_numbers
from fedpact.core.vector import Layout
from fedpact.privacy.discrete_gaussian import DiscreteGaussian
from fedpact.privacy.events import MatrixFactorized, Mechanism, TreeAggregation
from fedpact.privacy.factorization import BandedNoise, TreeNoise

Method = Literal["toeplitz", "tree"]


@dataclass(frozen=True)
class CorrelatedNoise(Noise):
    """The server adds noise of which later rounds take part back, so that the sum over all rounds has little of it.

    Nothing is claimed from sampling. Instead no client may take part more often than is said here, nor sooner again:
    run the job with sampling="cyclic", where every client has its turn, or with all clients in every round. What else
    holds of updates is as with `GaussianNoise`. The noise of past rounds is kept for the next, and in checkpoints: who
    may read these must be trusted like the server.

    Args:
        multiplier: the standard deviation of a round's independent noise in units of the bound of an update, > 0.
        rounds: length of the run, at most; the guarantee is for all of it.
        participations: rounds in which a client takes part, at most.
        separation: a client that took part in round t takes part again in round t + separation at the earliest.
        method: the banded square root of the prefix sums ("toeplitz"), or the binary "tree".
        bands: of the square root; None for as many as `separation`. More are more accurate and more to keep.

    Raises:
        ConfigError: a setting is out of its range, or the participations do not fit into the rounds.
    """

    multiplier: float
    rounds: int
    participations: int = 1
    separation: int = 1
    method: Method = "toeplitz"
    bands: int | None = None

    where: Where = field(default="central", init=False)

    def __post_init__(self) -> None:
        check_numbers(self, "multiplier", positive=True)
        check_counts(self, "rounds", "participations", "separation")
        check_counts(self, "bands", optional=True)
        check_choice(self, "method", get_args(Method))
        self.whole()

    def whole(self) -> Mechanism:
        """Return the noise of a whole run."""
        run = (self.participations, self.separation)
        if self.method == "tree":
            return TreeAggregation(self.multiplier, self.rounds, *run)
        return MatrixFactorized(self.multiplier, self.rounds, self._bands, *run)

    @property
    def _bands(self) -> int:
        return min(self.rounds, self.separation if self.bands is None else self.bands)

    def check(self, before: Sequence[Transform], algorithm: Any, layout: Layout | None) -> None:
        """Require a bound that is the same in every round, besides what all noise requires."""
        super().check(before, algorithm, layout)
        for stage in before:
            if isinstance(stage, AdaptiveClip) or (isinstance(stage, ZeroOutliers) and stage.norm is None):
                mend = "give ZeroOutliers a fixed norm" if isinstance(stage, ZeroOutliers) else "use Clip"
                raise ChannelError(
                    "CorrelatedNoise spans all rounds, so that their updates have one bound, and that of "
                    f"{type(stage).__name__} follows the clients; {mend}."
                )

    def init(self, layouts: Mapping[str, Layout]) -> StageState:
        """Return the state before the first round."""
        return {"noise": self._fresh().state()}

    def _fresh(self) -> BandedNoise | TreeNoise:
        return TreeNoise(self.rounds) if self.method == "tree" else BandedNoise(self.rounds, self._bands)

    def against(self) -> str:
        """Return who may look at what is released, in a phrase."""
        return f"{super().against()}, nor those who read its checkpoints, in which the noise is"

    def told(self, state: StageState) -> StageState:
        """Tell clients nothing: who knows the noise can take it off."""
        return {}

    def decode_integers(self, total: Integers, context: RoundContext) -> Integers:
        """Add the round's noise to the sum.

        Raises:
            ConfigError: the rounds that the noise was made for are over.
        """
        dimension = sum(array.size for array in total.arrays.values())
        sampler, _ = self.sampler(context, dimension, 1)
        run = self._fresh()
        run.restore(context.state["noise"])
        # Rounding comes after the integers of the updates were added: it is done to what is released.
        noise = np.rint(run.correlate(sampler.draw(dimension).astype(np.float64))).astype(np.int64)
        context.scratch["noise"] = run.state()
        places = np.cumsum([array.size for array in total.arrays.values()])[:-1]
        parts = np.split(noise, places)
        arrays = {name: array + part for (name, array), part in zip(total.arrays.items(), parts, strict=True)}
        return replace(total, arrays=arrays)

    def after(self, aggregate: Aggregate, context: RoundContext) -> StageState:
        """Return the noise that later rounds take back."""
        return {"noise": context.scratch["noise"]}

    def sampler(self, context: RoundContext, dimension: int, shares: int) -> tuple[Sampler, float]:
        """Return a discrete Gaussian: that of a round's independent noise."""
        sigma = self.multiplier * self.l2(context, dimension)
        return DiscreteGaussian(sigma), sigma

    def mechanism(self, context: RoundContext, dimension: int) -> Mechanism | None:
        """Return the whole run's noise in its first round, and nothing in later ones."""
        return self.whole() if context.round == 0 else None
