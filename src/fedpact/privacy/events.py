"""What was released: a mechanism, how its units were sampled, and how often. Accounting works on nothing else.

A ledger keeps these events and never an epsilon alone, so that a better accountant can evaluate them again later.

A mechanism's noise multiplier is the standard deviation (Laplace: the scale) of its noise, in units of the most that
one protected unit adds to the sum: the clip norm. That is its sensitivity when a unit is added or removed. When one
is replaced by another the sum moves by twice as much, and the accountant, not the caller, sees to that.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

from fedpact.core.errors import ConfigError, suggest
from fedpact.core.registry import Registry
from fedpact.core.settings import check_counts, check_numbers

Relation = Literal["add_or_remove", "replace_one"]
RELATIONS: tuple[Relation, ...] = ("add_or_remove", "replace_one")


@dataclass(frozen=True)
class Poisson:
    """Every unit takes part in a release by a coin of its own.

    Args:
        rate: the probability, in (0, 1].

    Raises:
        ConfigError: the rate is out of its range.
    """

    rate: float

    def __post_init__(self) -> None:
        check_numbers(self, "rate", positive=True, at_most=1.0)


@dataclass(frozen=True)
class FixedSize:
    """So many units, drawn uniformly without replacement and anew for every release.

    Args:
        size: units in a release.
        population: units to draw from; a public number.

    Raises:
        ConfigError: a number is no count, or there are fewer units than a release takes.
    """

    size: int
    population: int

    def __post_init__(self) -> None:
        check_counts(self, "size", "population")
        if self.size > self.population:
            raise ConfigError(
                f"FixedSize: {self.size} units cannot be drawn from {self.population}; lower the size."
            )


@dataclass(frozen=True)
class Everyone:
    """Every unit may take part in every release: no amplification is claimed.

    This is also how to account for a cohort that the adversary knows, for shuffled batches, and for a round robin.
    """


Sampling: TypeAlias = Poisson | FixedSize | Everyone


@dataclass(frozen=True)
class Gaussian:
    """Normal noise on a sum whose terms have a bounded L2 norm.

    Args:
        noise_multiplier: standard deviation over that bound, > 0.

    Raises:
        ConfigError: the noise multiplier is no positive number.
    """

    noise_multiplier: float

    def __post_init__(self) -> None:
        check_numbers(self, "noise_multiplier", positive=True)


@dataclass(frozen=True)
class Laplace:
    """Laplace noise, continuous or discrete, on a sum whose terms have a bounded L1 norm.

    Args:
        noise_multiplier: scale over that bound, > 0.

    Raises:
        ConfigError: the noise multiplier is no positive number.
    """

    noise_multiplier: float

    def __post_init__(self) -> None:
        check_numbers(self, "noise_multiplier", positive=True)


@dataclass(frozen=True)
class DiscreteGaussian:
    """Integer noise with weights exp(-x²/2σ²) on an integer sum, drawn at once or as the sum of equal shares.

    Args:
        noise_multiplier: standard deviation of the whole noise over `sensitivity`, > 0. That a discrete Gaussian's
            variance is a little below σ² is nothing in its favour: give σ, or √shares · σ of a share.
        sensitivity: bound of a term's L2 norm in grid units, after rounding.
        dimension: coordinates of the sum.
        shares: independent draws of which the noise is the sum; one a client in the distributed mechanism.

    Raises:
        ConfigError: a setting is out of its range.
    """

    noise_multiplier: float
    sensitivity: float
    dimension: int
    shares: int = 1

    def __post_init__(self) -> None:
        check_numbers(self, "noise_multiplier", "sensitivity", positive=True)
        check_counts(self, "dimension", "shares")


@dataclass(frozen=True)
class Skellam:
    """The difference of two Poisson variables, on an integer sum; the sum of shares is again one.

    Args:
        noise_multiplier: standard deviation of the whole noise over `l2_sensitivity`, > 0.
        l1_sensitivity: bound of a term's L1 norm in grid units, after rounding.
        l2_sensitivity: the same of its L2 norm.

    Raises:
        ConfigError: a setting is out of its range.
    """

    noise_multiplier: float
    l1_sensitivity: float
    l2_sensitivity: float

    def __post_init__(self) -> None:
        check_numbers(self, "noise_multiplier", "l1_sensitivity", "l2_sensitivity", positive=True)
        if self.l1_sensitivity < self.l2_sensitivity:
            raise ConfigError(
                f"Skellam: l1_sensitivity is {self.l1_sensitivity:g} and l2_sensitivity {self.l2_sensitivity:g}; an "
                "L1 norm is never below the L2 norm."
            )


@dataclass(frozen=True)
class TreeAggregation:
    """All prefix sums of a run from a binary tree of partial sums, Gaussian noise on each node.

    Kairouz et al., "Practical and Private (Deep) Learning Without Sampling or Shuffling", ICML 2021.

    Args:
        noise_multiplier: standard deviation on one node over the L2 bound of one unit's term in one round, > 0.
        rounds: length of the run.
        participations: rounds in which one unit takes part, at most.
        separation: a unit that took part in round t takes part again in round t + separation at the earliest.

    Raises:
        ConfigError: a setting is out of its range, or the participations do not fit into the rounds.
    """

    noise_multiplier: float
    rounds: int
    participations: int = 1
    separation: int = 1

    def __post_init__(self) -> None:
        check_numbers(self, "noise_multiplier", positive=True)
        check_counts(self, "rounds")
        _check_participation(self)


@dataclass(frozen=True)
class MatrixFactorized:
    """All prefix sums of a run with Gaussian noise that the banded square-root factorisation correlates over rounds.

    Choquette-Choo et al., "(Amplified) Banded Matrix Factorization", NeurIPS 2023; see `factorization`.

    Args:
        noise_multiplier: standard deviation of the independent noise over the L2 bound of one unit's term in one
            round, > 0.
        rounds: length of the run.
        bands: coefficients kept, 1 (independent noise) to `rounds`.
        participations: rounds in which one unit takes part, at most.
        separation: a unit that took part in round t takes part again in round t + separation at the earliest.

    Raises:
        ConfigError: a setting is out of its range, or the participations do not fit into the rounds.
    """

    noise_multiplier: float
    rounds: int
    bands: int
    participations: int = 1
    separation: int = 1

    def __post_init__(self) -> None:
        check_numbers(self, "noise_multiplier", positive=True)
        check_counts(self, "rounds", "bands")
        if self.bands > self.rounds:
            raise ConfigError(
                f"MatrixFactorized: {self.bands} bands in {self.rounds} rounds; lower the bands."
            )
        _check_participation(self)


Mechanism: TypeAlias = Gaussian | Laplace | DiscreteGaussian | Skellam | TreeAggregation | MatrixFactorized

_HERE = "fedpact.privacy.events"
SAMPLINGS = Registry(
    "sampling", {cls.__name__: f"{_HERE}:{cls.__name__}" for cls in (Poisson, FixedSize, Everyone)}
)
MECHANISMS = Registry(
    "mechanism",
    {
        cls.__name__: f"{_HERE}:{cls.__name__}"
        for cls in (Gaussian, Laplace, DiscreteGaussian, Skellam, TreeAggregation, MatrixFactorized)
    },
)


@dataclass(frozen=True)
class Release:
    """One mechanism, used `count` times, each time on a sample drawn anew.

    Args:
        mechanism: the noise.
        sampling: who takes part.
        count: how often; a TreeAggregation or a MatrixFactorized is a whole run and counts once.

    Raises:
        ConfigError: the mechanism or the sampling is of a kind that cannot be accounted for, or the two do not go
            together.
    """

    mechanism: Mechanism
    sampling: Sampling = Everyone()
    count: int = 1

    def __post_init__(self) -> None:
        _check_kind(self.mechanism, MECHANISMS, "noise that no accountant here knows has no guarantee")
        _check_kind(
            self.sampling, SAMPLINGS, "account for shuffling, round robin or a known cohort as Everyone()"
        )
        check_counts(self, "count")
        if isinstance(self.mechanism, TreeAggregation | MatrixFactorized) and self.sampling != Everyone():
            raise ConfigError(
                f"{type(self.mechanism).__name__} bounds how often a unit takes part and claims nothing from sampling; "
                "its sampling must be Everyone()."
            )

    def to_json(self) -> dict[str, Any]:
        """Return the event as JSON holds it."""
        return {
            "mechanism": MECHANISMS.describe(self.mechanism),
            "sampling": SAMPLINGS.describe(self.sampling),
            "count": self.count,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Release":
        """Return the event that `to_json` wrote.

        Raises:
            ConfigError: it is no event of a known kind.
        """
        unknown = sorted(set(data) - {"mechanism", "sampling", "count"})
        if unknown or not {"mechanism", "sampling"} <= set(data):
            raise ConfigError(
                f"a release has a mechanism, a sampling and a count; got {', '.join(sorted(data)) or 'nothing'}."
            )
        return cls(
            cast(Mechanism, _built(data["mechanism"], MECHANISMS)),
            cast(Sampling, _built(data["sampling"], SAMPLINGS)),
            data.get("count", 1),
        )


def check_relation(relation: str) -> Relation:
    """Return the neighbouring relation if it is one.

    Raises:
        ConfigError: it is none; the nearest is suggested.
    """
    if relation not in RELATIONS:
        raise ConfigError(
            f'the neighbouring relation is "{relation}"; it must be {" or ".join(RELATIONS)}.'
            f"{suggest(str(relation), RELATIONS)}"
        )
    return relation


def _check_participation(run: TreeAggregation | MatrixFactorized) -> None:
    check_counts(run, "participations", "separation")
    if (run.participations - 1) * run.separation >= run.rounds:
        raise ConfigError(
            f"{type(run).__name__}: {run.participations} participations that are {run.separation} rounds apart do not "
            f"fit into {run.rounds} rounds; lower one of them."
        )


def _check_kind(part: Any, known: Registry, hint: str) -> None:
    name = type(part).__name__
    if name not in known or type(part) is not known.load(name):
        raise ConfigError(f"{part!r} is no {known.what} with a known event ({', '.join(known)}); {hint}.")


def _built(spec: Any, known: Registry) -> Any:
    # A name with a module in it would import what a file says.
    name = spec.get("name") if isinstance(spec, Mapping) else None
    if name not in known:
        raise ConfigError(
            f"{name!r} is no {known.what} with a known event ({', '.join(known)}).{suggest(str(name), known)}"
        )
    return known.build(dict(spec))
