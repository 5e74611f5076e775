"""Noise for differential privacy: integers from the operating system's entropy, added on the grid that sums lie on.

Dwork and Roth, "The Algorithmic Foundations of Differential Privacy", 2014 (the Gaussian and the Laplace mechanism);
McMahan et al., "Learning Differentially Private Recurrent Language Models", ICLR 2018 (clients' updates as what is
protected); Canonne, Kamath and Steinke, "The Discrete Gaussian for Differential Privacy", NeurIPS 2020; Kairouz, Liu
and Steinke, "The Distributed Discrete Gaussian Mechanism for Federated Learning with Secure Aggregation", ICML 2021;
Agarwal, Kairouz and Liu, "The Skellam Mechanism for Differentially Private Federated Learning", NeurIPS 2021.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any, ClassVar, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from fedpact.channel.clip import Clip
from fedpact.channel.transform import (
    Kind,
    RoundContext,
    StageState,
    Transform,
    check_averages,
    check_may_change,
)
from fedpact.core.errors import ChannelError, ConfigError
from fedpact.core.grid import Grid
from fedpact.core.messages import Integers, Update, Updates
from fedpact.core.settings import check_choice, check_numbers
from fedpact.core.vector import Layout
from fedpact.privacy.discrete_gaussian import DiscreteGaussian
from fedpact.privacy.discrete_laplace import DiscreteLaplace
from fedpact.privacy.events import DiscreteGaussian as DiscreteGaussianEvent
from fedpact.privacy.events import Gaussian as GaussianEvent
from fedpact.privacy.events import Laplace as LaplaceEvent
from fedpact.privacy.events import Mechanism
from fedpact.privacy.events import Skellam as SkellamEvent
from fedpact.privacy.skellam import Skellam

Where = Literal["central", "distributed", "local"]

# Rounding up or down at random is repeated until the norm is within a bound that holds with this probability at least
# (Kairouz, Liu and Steinke, 2021, proposition 22 and their choice of β).
_BETA = math.exp(-0.5)
# From so many steps on, a discrete Gaussian is a rounded Gaussian but for 0.0202 / σ² of probability in each number, in
# 10^8 of them for less than 10^-9. That costs what a Gaussian costs, for which samples have tighter accountants.
_CONTINUOUS = 2.0**26


class Sampler(Protocol):
    """What draws integer noise."""

    def draw(self, n: int) -> NDArray[np.int64]:
        """Return n independent draws."""
        ...


class Noise(Transform, ABC):
    """What the stages that add noise have in common.

    Attributes:
        multiplier: the standard deviation (Laplace: the scale) in units of what one client can change.
        where: who adds the noise.
        tail: how many standard deviations of a sum of draws a number is beyond once in 10^15.
    """

    kind: ClassVar[Kind] = "noise"
    tail: ClassVar[float] = 8.0
    multiplier: float
    where: Where

    def bound(self, before: float, state: StageState) -> float:
        """Return the bound before it, which is what the noise is to hide."""
        return before

    def check(self, before: Sequence[Transform], algorithm: Any, layout: Layout | None) -> None:
        """Require updates whose mean can be released: bounded, of equal weight, with nothing beside them."""
        check_averages(self, algorithm)
        check_may_change(self, algorithm)
        name = type(self).__name__
        if getattr(algorithm, "weighting", None) != "uniform":
            raise ChannelError(
                f"{name} needs clients of equal weight, since nothing bounds a number of examples: set "
                f'weighting="uniform" in {type(algorithm).__name__}.'
            )
        if layout is not None and not self._covers_buffers(before):
            self._refuse_buffers([layout])

    def check_bounded(self, bound: float, limit: float) -> None:
        """Refuse to be where nothing bounds what a client can change.

        Args:
            bound: the L2 norm that no update exceeds before it.
            limit: the size that no value exceeds.
        """
        if bound == inf:
            raise ChannelError(
                f"{type(self).__name__} needs a bound on what a client can change: put a Clip before it, as in "
                f"[Clip(1.0), {type(self).__name__}(...)], and behind the Clip no stage that may enlarge an update."
            )

    def check_whole(self, stages: Sequence[Transform]) -> None:
        """Refuse shares of noise that the server would see one by one."""
        if self.where == "distributed" and not any(stage.kind == "mask" for stage in stages):
            raise ChannelError(
                f'{type(self).__name__}(where="distributed") gives each client a share of the noise, which protects '
                'nothing where the server sees each update: put SecureSum() behind it, or set where="local".'
            )

    @staticmethod
    def _covers_buffers(before: Iterable[Transform]) -> bool:
        # Of all of them, for the bound is the smallest of theirs.
        clips = [stage for stage in before if stage.kind == "clip"]
        return bool(clips) and all(getattr(stage, "over", None) == "all" for stage in clips)

    def _refuse_buffers(self, layouts: Iterable[Layout]) -> None:
        for layout in layouts:
            buffers = [
                entry.name for entry in layout.entries if entry.role == "buffer" and 0 not in entry.shape
            ]
            if buffers:
                raise ChannelError(
                    f'{type(self).__name__} is not for a model with buffers such as "{buffers[0]}": no Clip bounds '
                    'what a client changes in them. Write Clip(..., over="all"), or use layers without, such as '
                    "GroupNorm instead of BatchNorm."
                )

    def integer_bound(self, grid: Grid, bound: float, dimension: int) -> float:
        """Return the L2 norm in steps of the grid that no client's integers exceed, rounding included.

        To the nearest, rounding adds at most √dimension / 2 · spacing; at random, what a redraw keeps it to.

        Args:
            grid: the grid.
            bound: the L2 norm before rounding.
            dimension: how many integers.
        """
        steps = bound / grid.step
        if not grid.at_random:
            return steps + grid.spacing * math.sqrt(dimension) / 2
        units = steps / grid.spacing
        root = math.sqrt(dimension)
        likely = math.sqrt(units**2 + dimension / 4 + math.sqrt(2 * math.log(1 / _BETA)) * (units + root / 2))
        return grid.spacing * min(units + root, likely)

    def encode(self, update: Update, context: RoundContext) -> Update:
        """Keep the training metrics at the client: they would be released without noise."""
        return replace(update, metrics={})

    def encode_stack(self, updates: Updates, context: RoundContext) -> Updates:
        """Keep the training metrics at the clients."""
        return replace(updates, metrics={})

    def encode_integers(self, update: Update, context: RoundContext) -> Update:
        """Add the client's own noise, or its share."""
        if self.where == "central" or update.integers is None:
            return update
        shares = self.shares(context) if self.where == "distributed" else 1
        noisy = self._with_noise(update.integers, context, shares)
        return replace(update, integers=noisy)

    def decode_integers(self, total: Integers, context: RoundContext) -> Integers:
        """Add the server's noise to the sum."""
        return self._with_noise(total, context, 1) if self.where == "central" else total

    def against(self) -> str:
        """Return who may look at what is released, in a phrase."""
        if self.where == "central":
            return "everybody who sees the models that are released, but not the server, which adds the noise"
        if self.where == "distributed":
            return f"everybody, the server too, where {self._trust()} add their noise as the job says"
        return "everybody, the server too, whatever other clients do"

    @property
    def _colluding(self) -> int:
        """Of the clients in a sum, how many may tell the server their share; 0 where the noise has no shares."""
        return getattr(self, "colluding", 0)

    def _trust(self) -> str:
        colluding = self._colluding
        return f"all clients but {colluding} in a sum" if colluding else "all clients in a sum"

    def shares(self, context: RoundContext) -> int:
        """Return of how many honest clients' shares the noise of an opened sum consists at least."""
        return max(1, context.least - self._colluding)

    def _with_noise(self, integers: Integers, context: RoundContext, shares: int) -> Integers:
        dimension = sum(array.size for array in integers.arrays.values())
        sampler, _ = self.sampler(context, dimension, shares)
        arrays = {name: array + sampler.draw(array.size) for name, array in integers.arrays.items()}
        return replace(integers, arrays=arrays)

    @abstractmethod
    def sampler(self, context: RoundContext, dimension: int, shares: int) -> tuple[Sampler, float]:
        """Return what draws one of so many equal shares of the noise, and the standard deviation of a share."""

    @abstractmethod
    def mechanism(self, context: RoundContext, dimension: int) -> Mechanism | None:
        """Return the noise of a round as accountants know it; None where an earlier round's counts for it."""

    def most(self, context: RoundContext, dimension: int) -> float:
        """Return how large, in steps of the grid, the noise of all clients together can be; 0 for the server's.

        A number is beyond it once in 10^15.
        """
        if self.where == "central":
            return 0.0
        return self.tail * self._std_of(context, dimension, context.asked)

    def std(self, context: RoundContext, dimension: int, clients: int) -> float:
        """Return the standard deviation of the noise of a sum over so many clients, in units of the updates."""
        assert context.grid is not None
        return self._std_of(context, dimension, clients) * context.grid.step

    def _std_of(self, context: RoundContext, dimension: int, clients: int) -> float:
        shares = self.shares(context) if self.where == "distributed" else 1
        draws = 1 if self.where == "central" else clients
        return self.sampler(context, dimension, shares)[1] * math.sqrt(draws)

    def l2(self, context: RoundContext, dimension: int) -> float:
        """Return the L2 norm, in steps of the grid, that no client's integers exceed."""
        assert context.grid is not None
        return self.integer_bound(context.grid, context.sensitivity, dimension)


@dataclass(frozen=True)
class GaussianNoise(Noise):
    """Discrete Gaussian noise of standard deviation multiplier · bound, the bound being that of one client's update.

    The bound is that of the Clip before it, with what rounding to the grid adds. All clients weigh the same, for
    otherwise nothing bounds a weight, and the mean is taken over the clients asked, not over those that answered.
    Training metrics stay at the clients, since they would be released without noise.

    Args:
        multiplier: the standard deviation in units of the bound, > 0.
        where: "central": the server adds the noise to the exact sum. "distributed": each client adds a share under a
            mask, so large that the smallest cohort whose sum is opened has all of it. "local": each client adds all of
            it to its own update.
        colluding: of the clients in a sum, how many may tell the server their share; for "distributed".

    Raises:
        ConfigError: a setting is out of its range.
    """

    multiplier: float
    where: Where = "central"
    colluding: int = 0

    def __post_init__(self) -> None:
        _check(self)

    def sampler(self, context: RoundContext, dimension: int, shares: int) -> tuple[Sampler, float]:
        """Return a discrete Gaussian."""
        sigma = self.multiplier * self.l2(context, dimension) / math.sqrt(shares)
        return DiscreteGaussian(sigma), sigma

    def mechanism(self, context: RoundContext, dimension: int) -> Mechanism:
        """Return a discrete Gaussian or the sum of shares of one, and on a grid that is fine enough a Gaussian."""
        shares = self.shares(context) if self.where == "distributed" else 1
        l2 = self.l2(context, dimension)
        if shares == 1 and self.multiplier * l2 >= _CONTINUOUS:
            return GaussianEvent(self.multiplier)
        return DiscreteGaussianEvent(self.multiplier, l2, dimension, shares)


@dataclass(frozen=True)
class SkellamNoise(Noise):
    """Skellam noise of standard deviation multiplier · bound: the difference of two Poisson numbers.

    Sums of it are again Skellam, so that what clients add is exactly what is accounted for, whoever drops out. What
    holds of updates is as with `GaussianNoise`.

    Args:
        multiplier: the standard deviation in units of the bound, > 0.
        where: who adds the noise, as with `GaussianNoise`.
        colluding: of the clients in a sum, how many may tell the server their share; for "distributed".

    Raises:
        ConfigError: a setting is out of its range.
    """

    multiplier: float
    where: Where = "distributed"
    colluding: int = 0

    def __post_init__(self) -> None:
        _check(self)

    def sampler(self, context: RoundContext, dimension: int, shares: int) -> tuple[Sampler, float]:
        """Return a Skellam distribution."""
        variance = (self.multiplier * self.l2(context, dimension)) ** 2 / shares
        return Skellam(variance), math.sqrt(variance)

    def mechanism(self, context: RoundContext, dimension: int) -> Mechanism:
        """Return the Skellam mechanism."""
        l2 = self.l2(context, dimension)
        # Of integers the L1 norm is at most the squared L2 norm, and of so many at most √dimension times the L2 norm.
        return SkellamEvent(self.multiplier, max(l2, min(l2 * l2, math.sqrt(dimension) * l2)), l2)


@dataclass(frozen=True)
class LaplaceNoise(Noise):
    """Discrete Laplace noise of scale multiplier · bound: pure ε = 1 / multiplier a round, for few numbers.

    It needs `Clip(..., p=1)` before it, whose bound is of the L1 norm. Else what holds of updates is as with
    `GaussianNoise`.

    Args:
        multiplier: the scale in units of the bound, > 0.
        where: "central" or "local", as with `GaussianNoise`; shares of Laplace noise do not add up to it.

    Raises:
        ConfigError: a setting is out of its range.
    """

    multiplier: float
    where: Literal["central", "local"] = "central"

    # Of n ≥ 2 draws of scale b the sum has the standard deviation b√(2n), and P(|Σ| ≥ s) ≤ 8·e^{−s/b√n}.
    tail: ClassVar[float] = 27.0

    def __post_init__(self) -> None:
        check_numbers(self, "multiplier", positive=True)
        check_choice(self, "where", ("central", "local"))

    def check(self, before: Sequence[Transform], algorithm: Any, layout: Layout | None) -> None:
        """Require a Clip of the L1 norm, besides what all noise requires."""
        super().check(before, algorithm, layout)
        if not any(isinstance(stage, Clip) and stage.p == 1 for stage in before):
            raise ChannelError(
                "LaplaceNoise hides a change of bounded L1 norm: put Clip(..., p=1) before it, or use GaussianNoise."
            )
        others = [stage for stage in before if stage.kind == "clip" and getattr(stage, "p", 2) != 1]
        if others:
            raise ChannelError(
                f"{type(others[0]).__name__} bounds another norm than the L1 norm, to which LaplaceNoise is scaled; "
                "leave Clip(..., p=1) alone before it."
            )
        enlarging = [stage for stage in before if stage.kind in ("compress", "quantize")]
        if enlarging:
            raise ChannelError(
                f"{type(enlarging[0]).__name__} keeps no bound of the L1 norm, which LaplaceNoise needs; use "
                "GaussianNoise with it."
            )

    def sampler(self, context: RoundContext, dimension: int, shares: int) -> tuple[Sampler, float]:
        """Return a discrete Laplace distribution."""
        scale = self.multiplier * self._l1(context, dimension)
        return DiscreteLaplace(scale), math.sqrt(2) * scale

    def mechanism(self, context: RoundContext, dimension: int) -> Mechanism:
        """Return the Laplace mechanism."""
        return LaplaceEvent(self.multiplier)

    def _l1(self, context: RoundContext, dimension: int) -> float:
        assert context.grid is not None
        # A Clip of the L1 norm bounds the L2 norm by the same number.
        return context.sensitivity / context.grid.step + dimension / 2


def _check(noise: GaussianNoise | SkellamNoise) -> None:
    check_numbers(noise, "multiplier", positive=True)
    check_choice(noise, "where", get_args(Where))
    if isinstance(noise.colluding, bool) or not isinstance(noise.colluding, int) or noise.colluding < 0:
        raise ConfigError(
            f"{type(noise).__name__}: colluding is {noise.colluding!r}; it must be a whole number, 0 or more."
        )
