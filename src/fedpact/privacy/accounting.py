"""From releases to a guarantee: what they cost together in (ε, δ).

Closed form where all is Gaussian noise with full participation (Dong, Roth and Su, "Gaussian Differential Privacy",
JRSS-B 2022, Corollary 3.3: μ² adds up; Balle and Wang, ICML 2018, for ε and δ of it). Privacy loss distributions for
Poisson samples and Laplace noise (Koskela, Jälkö and Honkela, AISTATS 2020; Doroshenko et al., "Connect the Dots", PETS
2022), by dp-accounting. Rényi divergences for all else.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from fedpact.core.errors import ConfigError
from fedpact.privacy import renyi
from fedpact.privacy.calibration import gaussian_delta, gaussian_epsilon
from fedpact.privacy.composition import SMALLEST_DELTA, Composition
from fedpact.privacy.events import Mechanism, Relation, Release, Sampling, check_relation


@dataclass(frozen=True)
class Guarantee:
    """(ε, δ)-differential privacy of all releases together, and how it was found.

    Args:
        epsilon: ε; infinite where there is none.
        delta: δ.
        accountant: "closed_form" (exact), "pld" or "rdp" (upper bounds), or "none" where nothing was released.
        relation: the neighbouring relation that it holds under.
        notes: what a reader should know of it, a sentence each.
    """

    epsilon: float
    delta: float
    accountant: str
    relation: Relation
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON holds it; an infinite ε is None."""
        return {
            **asdict(self),
            "epsilon": self.epsilon if math.isfinite(self.epsilon) else None,
            "notes": list(self.notes),
        }


def account(
    releases: Iterable[Release], delta: float, relation: str = "add_or_remove", accountant: str = "auto"
) -> Guarantee:
    """Return the ε that these releases have together for a δ.

    Args:
        releases: what was or will be released, in any order.
        delta: δ, between 0 and 1; far below one over the population.
        relation: "add_or_remove" a unit or "replace_one" by another; the latter doubles every sensitivity.
        accountant: "auto" takes the tightest that covers all of them; else "closed_form", "pld" or "rdp".

    Raises:
        ConfigError: δ, relation or accountant is none, or no accountant covers a release under this relation.
        DependencyError: dp-accounting is needed and not installed.
    """
    if not 0.0 < delta < 1.0:
        raise ConfigError(f"delta is {delta}; it must be above 0 and below 1, such as 1e-5.")
    return _epsilon(_merged(releases), delta, check_relation(relation), accountant)


@lru_cache(maxsize=256)
def _epsilon(releases: tuple[Release, ...], delta: float, relation: Relation, accountant: str) -> Guarantee:
    spent = Composition(releases, relation)
    chosen = spent.choose(accountant, delta)
    if chosen == "none":
        return Guarantee(0.0, delta, chosen, spent.relation)
    if chosen == "closed_form":
        epsilon = gaussian_epsilon(1.0 / math.sqrt(spent.mu_squared), delta, 1.0)
        return Guarantee(epsilon, delta, chosen, spent.relation, spent.notes())
    if chosen == "pld":
        return Guarantee(spent.epsilon_of_losses(delta), delta, chosen, spent.relation, spent.notes())
    epsilon, order = renyi.epsilon(*spent.divergences(), delta)
    return Guarantee(epsilon, delta, chosen, spent.relation, (*spent.notes(), *_order_note(order)))


def epsilon_to_delta(
    releases: Iterable[Release], epsilon: float, relation: str = "add_or_remove", accountant: str = "auto"
) -> Guarantee:
    """Return the δ that these releases have together for an ε.

    Args:
        releases: what was or will be released, in any order.
        epsilon: ε, 0 or more.
        relation: as for `account`.
        accountant: as for `account`.

    Raises:
        ConfigError: as for `account`, or ε is no number from 0.
        DependencyError: dp-accounting is needed and not installed.
    """
    if not 0.0 <= epsilon < math.inf:
        raise ConfigError(f"epsilon is {epsilon}; it must be a number, 0 or more.")
    spent = Composition(_merged(releases), check_relation(relation))
    chosen = spent.choose(accountant, 1.0)
    if chosen == "none":
        return Guarantee(epsilon, 0.0, chosen, spent.relation)
    if chosen == "closed_form":
        delta = gaussian_delta(1.0 / math.sqrt(spent.mu_squared), epsilon, 1.0)
        return Guarantee(epsilon, delta, chosen, spent.relation, spent.notes())
    if chosen == "pld":
        delta = min(1.0, float(spent.losses(spent.guess()).get_delta_for_epsilon(epsilon)))
        if delta >= SMALLEST_DELTA or not spent.has_divergences():
            return Guarantee(epsilon, max(delta, SMALLEST_DELTA), chosen, spent.relation, spent.notes())
    delta, order = renyi.delta(*spent.divergences(), epsilon)
    return Guarantee(epsilon, delta, "rdp", spent.relation, (*spent.notes(), *_order_note(order)))


def cheap_first(
    releases: Iterable[Release], delta: float, relation: str = "add_or_remove", accountant: str = "auto"
) -> tuple[str, ...]:
    """Return the accountants to ask in turn: one in milliseconds whose bound is never the tighter one, then this one.

    Args:
        releases: what was or will be released.
        delta: as for `account`.
        relation: as for `account`.
        accountant: the last of them.

    Raises:
        ConfigError: as for `account`.
    """
    spent = Composition(_merged(releases), check_relation(relation))
    by_losses = spent.choose(accountant, delta) == "pld"
    return ("rdp", accountant) if by_losses and spent.has_divergences() else (accountant,)


def _merged(releases: Iterable[Release]) -> tuple[Release, ...]:
    """Return the releases, equal ones as one."""
    counts: Counter[tuple[Mechanism, Sampling]] = Counter()
    for release in releases:
        if not isinstance(release, Release):
            raise ConfigError(f"{release!r} is no Release; write Release(Gaussian(1.0), Poisson(0.01), 100).")
        counts[release.mechanism, release.sampling] += release.count
    return tuple(Release(mechanism, sampling, count) for (mechanism, sampling), count in counts.items())


def _order_note(order: float) -> tuple[str, ...]:
    if order < renyi.ORDERS[-1]:
        return ()
    return (f"The best Rényi order was the largest that was tried ({order:g}); the true ε is smaller.",)
