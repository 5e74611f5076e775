"""Solving for whichever is missing: ε, δ, the noise, the rounds or the cohort.

Each is found by bisection, which the guarantee being monotone in it allows. What is returned meets the target with the
accountant that is asked for; Rényi divergences, which cost next to nothing, only say where to begin.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, cast

from fedpact.core.errors import ConfigError, suggest
from fedpact.core.settings import check_counts, check_numbers
from fedpact.privacy.accounting import Guarantee, account, cheap_first, epsilon_to_delta
from fedpact.privacy.events import (
    Everyone,
    FixedSize,
    Gaussian,
    Poisson,
    Relation,
    Release,
    Sampling,
    check_relation,
)
from fedpact.privacy.search import bracket, crossing, furthest

Scheme = Literal["poisson", "fixed", "all"]
SCHEMES = ("poisson", "fixed", "all")

_MOST_ROUNDS = 10_000_000


@dataclass(frozen=True)
class Plan:
    """A training run of Gaussian releases, and what it guarantees.

    Args:
        clients: units to draw from: clients, or the records of one client.
        cohort: units in a release, on average under Poisson sampling.
        rounds: releases.
        noise_multiplier: standard deviation on the sum, in clip norms.
        sampling: "poisson", "fixed" or "all".
        guarantee: its ε and δ, and how they were found.
    """

    clients: int
    cohort: int
    rounds: int
    noise_multiplier: float
    sampling: Scheme
    guarantee: Guarantee

    def releases(self) -> tuple[Release, ...]:
        """Return what it releases, as events."""
        sampling = _sampling(self.sampling, self.cohort, self.clients)
        return (Release(Gaussian(self.noise_multiplier), sampling, self.rounds),)

    @property
    def noise_ratio(self) -> float:
        """The standard deviation of the noise on the mean, in clip norms."""
        return self.noise_multiplier / self.cohort

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON holds it, with the events of its releases."""
        return {
            **asdict(self),
            "guarantee": self.guarantee.to_json(),
            "releases": [release.to_json() for release in self.releases()],
        }


def noise_for(
    releases: Callable[[float], Sequence[Release]],
    epsilon: float,
    delta: float,
    relation: str = "add_or_remove",
    accountant: str = "auto",
) -> float:
    """Return the smallest noise multiplier with which these releases stay within ε and δ, to 4 digits from above.

    >>> from fedpact.privacy.events import Gaussian, Release
    >>> round(noise_for(lambda noise: [Release(Gaussian(noise), count=100)], epsilon=2.0, delta=1e-5), 2)
    19.94

    Args:
        releases: what is released with a noise multiplier; more noise must not cost more.
        epsilon: ε > 0.
        delta: δ in (0, 1).
        relation: as for `account`.
        accountant: as for `account`.

    Raises:
        ConfigError: no noise multiplier from 0.001 to 1,000,000 is enough, or as for `account`.
        DependencyError: as for `account`.
    """
    _check_epsilon(epsilon)

    def excess_by(accountant: str) -> Callable[[float], float]:
        def excess(log_noise: float) -> float:
            found = account(releases(math.exp(log_noise)), delta, relation, accountant).epsilon
            return math.log(max(found, 1e-300) / epsilon)

        return excess

    log_noise = 0.0
    for each in cheap_first(releases(1.0), delta, relation, accountant):
        log_noise = crossing(excess_by(each), *bracket(excess_by(each), log_noise))
    return math.exp(log_noise)


def solve(
    *,
    clients: int,
    cohort: int | None = None,
    rounds: int | None = None,
    noise_multiplier: float | None = None,
    noise_ratio: float | None = None,
    epsilon: float | None = None,
    delta: float | None = None,
    sampling: str = "poisson",
    relation: str = "add_or_remove",
    accountant: str = "auto",
) -> Plan:
    """Return the plan in which the one number that was left out is the best that the others allow.

    Left out may be: ε; δ; the noise (the least that is enough); the rounds (the most); the cohort (with a noise
    multiplier the largest, with a noise ratio the smallest). Where δ is left out beside another, it is clients^−1.1.

    >>> round(
    ...     solve(
    ...         clients=1000, rounds=100, noise_multiplier=5.0, delta=1e-5, sampling="all"
    ...     ).guarantee.epsilon,
    ...     4,
    ... )
    9.9973

    Args:
        clients: units to draw from: clients, or the records of one client.
        cohort: units in a round, on average under Poisson sampling; all of them where sampling is "all".
        rounds: releases.
        noise_multiplier: standard deviation on the sum, in clip norms.
        noise_ratio: standard deviation on the mean, in clip norms: the noise multiplier over the cohort.
        epsilon: ε > 0.
        delta: δ, above 0 and below one over the clients.
        sampling: "poisson", "fixed" (without replacement) or "all".
        relation: "add_or_remove" or "replace_one".
        accountant: as for `account`.

    Raises:
        ConfigError: not exactly one is left out, a number is out of its range, or nothing meets the target.
        DependencyError: as for `account`.
    """
    if sampling not in SCHEMES:
        raise ConfigError(
            f'the sampling is "{sampling}"; it must be {", ".join(SCHEMES)}.{suggest(str(sampling), SCHEMES)}'
        )
    if sampling == "all" and cohort not in (None, clients):
        raise ConfigError(f'a cohort of {cohort} of {clients} is not "all"; leave the cohort out.')
    question = _Question(
        clients=clients,
        cohort=clients if sampling == "all" else cohort,
        rounds=rounds,
        noise_multiplier=noise_multiplier,
        noise_ratio=noise_ratio,
        epsilon=epsilon,
        delta=delta,
        sampling=cast(Scheme, sampling),
        relation=check_relation(relation),
        accountant=accountant,
    )
    return question.answer()


@dataclass(frozen=True)
class _Question:
    clients: int
    cohort: int | None
    rounds: int | None
    noise_multiplier: float | None
    noise_ratio: float | None
    epsilon: float | None
    delta: float | None
    sampling: Scheme
    relation: Relation
    accountant: str

    def __post_init__(self) -> None:
        check_counts(self, "clients")
        check_counts(self, "cohort", "rounds", optional=True)
        check_numbers(self, "noise_multiplier", "noise_ratio", "epsilon", positive=True, optional=True)
        if self.cohort is not None and self.cohort > self.clients:
            raise ConfigError(f"the cohort is {self.cohort}, of {self.clients} clients; lower it.")
        if self.noise_multiplier is not None and self.noise_ratio is not None:
            raise ConfigError("give the noise multiplier or the noise ratio, not both.")
        if self.delta is not None and not 0.0 < self.delta < 1.0 / self.clients:
            raise ConfigError(
                f"delta is {self.delta:g}; it must be above 0 and below one over the {self.clients} clients, for else "
                "publishing one of them whole would be allowed."
            )

    def answer(self) -> Plan:
        missing = self._missing()
        if "delta" in missing and len(missing) == 2 and self.clients > 1:
            return replace(self, delta=self.clients**-1.1).answer()
        if len(missing) != 1:
            found = f"left out are {', '.join(missing)}" if missing else "none is"
            raise ConfigError(
                "leave out exactly one of epsilon, delta, noise, rounds and cohort, to be solved for "
                f"(and delta too for clients^-1.1); {found}."
            )
        return {
            "epsilon": self._checked,
            "delta": self._checked,
            "noise": self._noise,
            "rounds": self._rounds,
            "cohort": self._cohort,
        }[missing[0]]()

    def _missing(self) -> list[str]:
        given = {
            "epsilon": self.epsilon,
            "delta": self.delta,
            "noise": self.noise_multiplier or self.noise_ratio,
            "rounds": self.rounds,
            "cohort": self.cohort,
        }
        return [name for name, value in given.items() if value is None]

    def _noise(self) -> Plan:
        noise = noise_for(self._releases, self._target(), self._delta(), self.relation, self.accountant)
        return replace(self, noise_multiplier=noise, epsilon=None)._checked()

    def _rounds(self) -> Plan:
        rounds = self._most(lambda rounds: replace(self, rounds=rounds), 1, _MOST_ROUNDS, "rounds")
        if rounds == _MOST_ROUNDS:
            raise ConfigError(
                f"{_MOST_ROUNDS:,} rounds and more stay within epsilon {self.epsilon:g}; any will do."
            )
        return replace(self, rounds=rounds, epsilon=None)._checked()

    def _cohort(self) -> Plan:
        # With a noise multiplier the smallest cohort is the safest; with noise that grows with it, the largest.
        first, last = (1, self.clients) if self.noise_multiplier else (self.clients, 1)
        cohort = self._most(lambda cohort: replace(self, cohort=cohort), first, last, "cohort")
        return replace(self, cohort=cohort, epsilon=None)._checked()

    def _most(self, question: Callable[[int], "_Question"], first: int, last: int, name: str) -> int:
        def within_by(accountant: str) -> Callable[[int], bool]:
            def within(number: int) -> bool:
                releases = question(number)._releases()
                return account(releases, self._delta(), self.relation, accountant).epsilon <= self._target()

            return within

        *cheap, exact = cheap_first(
            question(first)._releases(), self._delta(), self.relation, self.accountant
        )
        if not within_by(exact)(first):
            raise ConfigError(
                f"even with {name} {first} epsilon is above {self.epsilon:g}: add noise, or allow a larger epsilon."
            )
        for each in cheap:
            if within_by(each)(first):
                first = furthest(within_by(each), first, last)
        return furthest(within_by(exact), first, last)

    def _checked(self) -> Plan:
        """Return the plan with everything but ε or δ known."""
        if self.epsilon is None:
            guarantee = account(self._releases(), self._delta(), self.relation, self.accountant)
        else:
            guarantee = epsilon_to_delta(self._releases(), self.epsilon, self.relation, self.accountant)
        return Plan(
            self.clients,
            cast(int, self.cohort),
            cast(int, self.rounds),
            self._noise_multiplier(),
            self.sampling,
            guarantee,
        )

    def _releases(self, noise: float | None = None) -> tuple[Release, ...]:
        mechanism = Gaussian(self._noise_multiplier() if noise is None else noise)
        sampling = _sampling(self.sampling, cast(int, self.cohort), self.clients)
        return (Release(mechanism, sampling, cast(int, self.rounds)),)

    def _noise_multiplier(self) -> float:
        if self.noise_multiplier is not None:
            return self.noise_multiplier
        return cast(float, self.noise_ratio) * cast(int, self.cohort)

    def _delta(self) -> float:
        return cast(float, self.delta)

    def _target(self) -> float:
        return cast(float, self.epsilon)


def _sampling(scheme: Scheme, cohort: int, clients: int) -> Sampling:
    if scheme == "all":
        return Everyone()
    return Poisson(cohort / clients) if scheme == "poisson" else FixedSize(cohort, clients)


def _check_epsilon(epsilon: float) -> None:
    if not 0.0 < epsilon < math.inf:
        raise ConfigError(f"epsilon is {epsilon}; it must be a positive number.")
