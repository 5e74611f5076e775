"""From releases to a guarantee: what they cost together in (ε, δ).

Closed form where all is Gaussian noise with full participation (Dong, Roth and Su, "Gaussian Differential Privacy", JRSS-B
2022, Corollary 3.3: μ² adds up; Balle and Wang, ICML 2018, for ε and δ of it). Privacy loss distributions for Poisson
samples and Laplace noise (Koskela, Jälkö and Honkela, AISTATS 2020; Doroshenko et al., "Connect the Dots", PETS 2022), by
dp-accounting. Rényi divergences for all else.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import numpy as np

from fedpact.core.errors import ConfigError, suggest
from fedpact.privacy import renyi
from fedpact.privacy.calibration import gaussian_delta, gaussian_epsilon
from fedpact.privacy.events import (
    Everyone,
    FixedSize,
    Gaussian,
    Laplace,
    MatrixFactorized,
    Mechanism,
    Poisson,
    Relation,
    Release,
    Sampling,
    TreeAggregation,
    check_relation,
)
from fedpact.privacy.factorization import toeplitz_sensitivity, tree_sensitivity

Accountant = Literal["closed_form", "pld", "rdp"]
ACCOUNTANTS = ("auto", "closed_form", "pld", "rdp")

# The finest grid of privacy losses, and the loss up to which it is the grid. Sums of losses are computed by FFT in double
# precision, so that a smaller delta would be rounding.
_GRID, _FINE_UP_TO, _SMALLEST_DELTA = 1e-4, 30.0, 1e-11
_FEW_ORDERS = (2, 3, 4, 6, 8, 12, 16, 32, 64, 256)


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
    spent = _Composition(releases, check_relation(relation))
    chosen = spent.choose(accountant, delta)
    if chosen == "none":
        return Guarantee(0.0, delta, chosen, spent.relation)
    if chosen == "closed_form":
        epsilon = gaussian_epsilon(1.0 / math.sqrt(spent.mu_squared), delta, 1.0)
        return Guarantee(epsilon, delta, chosen, spent.relation, spent.notes())
    if chosen == "pld":
        epsilon = float(spent.losses().get_epsilon_for_delta(delta))
        return Guarantee(max(0.0, epsilon), delta, chosen, spent.relation, spent.notes())
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
    spent = _Composition(releases, check_relation(relation))
    chosen = spent.choose(accountant, 1.0)
    if chosen == "none":
        return Guarantee(epsilon, 0.0, chosen, spent.relation)
    if chosen == "closed_form":
        delta = gaussian_delta(1.0 / math.sqrt(spent.mu_squared), epsilon, 1.0)
        return Guarantee(epsilon, delta, chosen, spent.relation, spent.notes())
    if chosen == "pld":
        delta = min(1.0, float(spent.losses().get_delta_for_epsilon(epsilon)))
        if delta >= _SMALLEST_DELTA or not spent.has_divergences():
            return Guarantee(epsilon, max(delta, _SMALLEST_DELTA), chosen, spent.relation, spent.notes())
    delta, order = renyi.delta(*spent.divergences(), epsilon)
    return Guarantee(epsilon, delta, "rdp", spent.relation, (*spent.notes(), *_order_note(order)))


class _Composition:
    """Releases, equal ones counted together, with all full-participation Gaussians as one of mean μ."""

    def __init__(self, releases: Iterable[Release], relation: Relation) -> None:
        self.relation = relation
        self._factor = 2.0 if relation == "replace_one" else 1.0
        self.mu_squared = 0.0
        self._rest: Counter[tuple[Mechanism, Sampling]] = Counter()
        self._runs = False
        for release in releases:
            if not isinstance(release, Release):
                raise ConfigError(f"{release!r} is no Release; write Release(Gaussian(1.0), Poisson(0.01), 100).")
            sampling = _without_effect(release.sampling)
            sensitivity = _gaussian_sensitivity(release.mechanism)
            if sensitivity is not None and sampling == Everyone():
                noise = cast(Gaussian, release.mechanism).noise_multiplier
                self.mu_squared += release.count * (self._factor * sensitivity / noise) ** 2
                self._runs |= not isinstance(release.mechanism, Gaussian)
            else:
                self._rest[release.mechanism, sampling] += release.count

    def choose(self, accountant: str, delta: float) -> Accountant | Literal["none"]:
        if accountant not in ACCOUNTANTS:
            raise ConfigError(
                f'the accountant is "{accountant}"; it must be {" or ".join(ACCOUNTANTS)}.'
                f"{suggest(str(accountant), ACCOUNTANTS)}"
            )
        if not self._rest and not self.mu_squared:
            return "none"
        if accountant == "closed_form" and self._rest:
            raise ConfigError(
                'the accountant "closed_form" covers Gaussian noise with full participation alone; use "auto".'
            )
        refused = next((m for m, s in self._rest if not self._has_loss(m, s)), None)
        if accountant == "pld" and refused is not None:
            raise ConfigError(
                f'the accountant "pld" does not cover {type(refused).__name__} on this sample under {self.relation}; '
                'use "auto".'
            )
        if accountant != "auto":
            return cast(Accountant, accountant)
        if not self._rest:
            return "closed_form"
        if refused is None and (delta >= _SMALLEST_DELTA or not self.has_divergences()):
            return "pld"
        return "rdp"

    def has_divergences(self) -> bool:
        """Return whether every release has a bound on its Rényi divergence under this relation."""
        amplified_by = FixedSize if self.relation == "replace_one" else Poisson
        return all(isinstance(sampling, Everyone | amplified_by) for _, sampling in self._rest)

    def divergences(self) -> tuple[renyi.Array, renyi.Array]:
        """Return orders, and the bounds of all releases together."""
        whole = any(renyi.only_whole_orders(*each) for each in self._rest)
        return self._bounds(renyi.INTEGER_ORDERS if whole else renyi.ORDERS, self.relation)

    def losses(self) -> Any:
        """Return dp-accounting's distribution of the privacy loss of all releases together."""
        grid = self._grid()
        with renyi.dp_accounting_quiet():
            from dp_accounting.pld import privacy_loss_distribution as pld

            if self.mu_squared:
                total = pld.from_gaussian_mechanism(
                    1.0 / math.sqrt(self.mu_squared), value_discretization_interval=grid
                )
            else:
                total = pld.identity(value_discretization_interval=grid)
            for (mechanism, sampling), count in self._rest.items():
                total = total.compose(self._loss(mechanism, sampling, grid).self_compose(count))
            return total

    def notes(self) -> tuple[str, ...]:
        notes = []
        if self.relation == "replace_one":
            notes.append("One unit is replaced by another: every sensitivity is twice the bound of one unit's term.")
        if any(isinstance(sampling, FixedSize | Poisson) for _, sampling in self._rest):
            notes.append("Amplification by sampling holds against an adversary who does not learn who took part.")
        if self._runs:
            notes.append("Holds as long as no unit takes part more often, or after fewer rounds, than was declared.")
        return tuple(notes)

    def _bounds(self, orders: tuple[float, ...], relation: Relation) -> tuple[renyi.Array, renyi.Array]:
        total = np.array(orders) * (self.mu_squared / 2.0)
        for (mechanism, sampling), count in self._rest.items():
            total = total + count * renyi.divergence(mechanism, sampling, relation, orders)
        return np.array(orders, np.float64), total

    def _has_loss(self, mechanism: Mechanism, sampling: Sampling) -> bool:
        if isinstance(mechanism, Gaussian):
            return isinstance(sampling, Poisson)
        plain = isinstance(sampling, Everyone)
        return isinstance(mechanism, Laplace) and (
            plain or (isinstance(sampling, Poisson) and self.relation == "add_or_remove")
        )

    def _loss(self, mechanism: Mechanism, sampling: Sampling, grid: float) -> Any:
        import dp_accounting
        from dp_accounting.pld import privacy_loss_distribution as pld

        rate = sampling.rate if isinstance(sampling, Poisson) else 1.0
        if isinstance(mechanism, Laplace):
            return pld.from_laplace_mechanism(
                mechanism.noise_multiplier, self._factor, value_discretization_interval=grid, sampling_prob=rate
            )
        relations = dp_accounting.NeighboringRelation
        # Under REPLACE_ONE it doubles the sensitivity itself, which its Rényi accountant does not.
        return pld.from_gaussian_mechanism(
            cast(Gaussian, mechanism).noise_multiplier,
            value_discretization_interval=grid,
            sampling_prob=rate,
            neighboring_relation=relations.REPLACE_ONE if self._factor == 2.0 else relations.ADD_OR_REMOVE_ONE,
        )

    def _grid(self) -> float:
        """Return the width of the grid of losses: fine for a small ε, and never so fine for a large one that it fills
        the memory. However coarse it is, what it gives is an upper bound.
        """
        halved = _Composition([], "add_or_remove")
        halved.mu_squared = self.mu_squared
        for (mechanism, sampling), count in self._rest.items():
            noise = cast(Gaussian | Laplace, mechanism).noise_multiplier / self._factor
            halved._rest[type(cast(Gaussian, mechanism))(noise), sampling] += count
        guess, _ = renyi.epsilon(*halved._bounds(_FEW_ORDERS, "add_or_remove"), 1e-6)
        return _GRID * min(max(guess, 0.05) / 0.5, 1.0) * max(guess / _FINE_UP_TO, 1.0)


def _without_effect(sampling: Sampling) -> Sampling:
    """Return Everyone() for a sample that takes everyone."""
    takes_all = isinstance(sampling, Poisson) and sampling.rate == 1.0
    takes_all |= isinstance(sampling, FixedSize) and sampling.size == sampling.population
    return Everyone() if takes_all else sampling


def _gaussian_sensitivity(mechanism: Mechanism) -> float | None:
    """Return how far one unit moves what Gaussian noise is added to, or None for other noise."""
    if isinstance(mechanism, Gaussian):
        return 1.0
    if isinstance(mechanism, TreeAggregation):
        return tree_sensitivity(mechanism.rounds, mechanism.participations, mechanism.separation)
    if isinstance(mechanism, MatrixFactorized):
        return toeplitz_sensitivity(
            mechanism.rounds, mechanism.bands, mechanism.participations, mechanism.separation
        )
    return None


def _order_note(order: float) -> tuple[str, ...]:
    if order < renyi.ORDERS[-1]:
        return ()
    return (f"The best Rényi order was the largest that was tried ({order:g}); the true ε is smaller.",)
