"""Releases put together: which accountants cover all of them, and what each adds up.

See `accounting` for the papers.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Literal, cast

import numpy as np

from fedpact.core.errors import ConfigError, suggest
from fedpact.privacy import renyi
from fedpact.privacy.amplification import divergence, dp_accounting_quiet, only_whole_orders
from fedpact.privacy.events import (
    DiscreteGaussian,
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
)
from fedpact.privacy.factorization import toeplitz_sensitivity, tree_sensitivity

Accountant = Literal["closed_form", "pld", "rdp"]
ACCOUNTANTS = ("auto", "closed_form", "pld", "rdp")

# The grid of privacy losses, and the epsilons between which it is that.
_GRID, _COARSE_FROM, _FINE_UP_TO = 1e-4, 0.5, 30.0
# Points of one release's distribution: each is computed on its own, in Python.
_MOST_POINTS = 300_000
# Sums of losses are computed by FFT in double precision: a smaller delta would be rounding.
SMALLEST_DELTA = 1e-11
_FEW_ORDERS = (2, 3, 4, 6, 8, 12, 16, 32, 64, 256)


class Composition:
    """Releases, equal ones counted together, with all full-participation Gaussians as one of mean μ."""

    def __init__(self, releases: Iterable[Release], relation: Relation) -> None:
        self.relation = relation
        self._factor = 2.0 if relation == "replace_one" else 1.0
        self.mu_squared = 0.0
        self._rest: Counter[tuple[Mechanism, Sampling]] = Counter()
        self._runs = False
        for release in releases:
            sampling = _without_effect(release.sampling)
            sensitivity = _gaussian_sensitivity(release.mechanism)
            if sensitivity is not None and sampling == Everyone():
                noise = cast(Gaussian, release.mechanism).noise_multiplier
                self.mu_squared += release.count * (self._factor * sensitivity / noise) ** 2
                self._runs |= not isinstance(release.mechanism, Gaussian)
            else:
                self._rest[_alike(release.mechanism), sampling] += release.count

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
        if refused is None and (delta >= SMALLEST_DELTA or not self.has_divergences()):
            return "pld"
        return "rdp"

    def has_divergences(self) -> bool:
        """Return whether every release has a bound on its Rényi divergence under this relation."""
        amplified_by = FixedSize if self.relation == "replace_one" else Poisson
        return all(isinstance(sampling, Everyone | amplified_by) for _, sampling in self._rest)

    def divergences(self) -> tuple[renyi.Array, renyi.Array]:
        """Return orders, and the bounds of all releases together."""
        whole = any(only_whole_orders(*each) for each in self._rest)
        return self._bounds(renyi.INTEGER_ORDERS if whole else renyi.ORDERS)

    def epsilon_of_losses(self, delta: float) -> float:
        guess = self.guess()
        epsilon = max(0.0, float(self.losses(guess).get_epsilon_for_delta(delta)))
        if epsilon < min(guess, _COARSE_FROM) / 2:
            # Far below what Rényi divergences say, the grid that they suggest is too coarse.
            epsilon = min(epsilon, max(0.0, float(self.losses(epsilon).get_epsilon_for_delta(delta))))
        return epsilon

    def losses(self, scale: float) -> Any:
        """Return dp-accounting's distribution of the privacy loss of all releases together.

        Its grid is finer for a small ε, and for a large one never so fine that it fills the memory. However coarse it
        is, what it gives is an upper bound.

        Args:
            scale: about what ε will be.
        """
        wanted = _GRID * min(max(scale, 0.005) / _COARSE_FROM, 1.0) * max(scale / _FINE_UP_TO, 1.0)
        widest = max(_largest_loss(noise, rate) for noise, rate in self._noises())
        grid = max(wanted, widest / _MOST_POINTS)
        with dp_accounting_quiet():
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
            notes.append(
                "One unit is replaced by another: every sensitivity is twice the bound of one unit's term."
            )
        if any(isinstance(sampling, FixedSize | Poisson) for _, sampling in self._rest):
            notes.append(
                "Amplification by sampling holds against an adversary who does not learn who took part."
            )
        if self._runs:
            notes.append(
                "Holds as long as no unit takes part more often, or after fewer rounds, than was declared."
            )
        return tuple(notes)

    def _bounds(self, orders: tuple[float, ...]) -> tuple[renyi.Array, renyi.Array]:
        total = np.array(orders) * (self.mu_squared / 2.0)
        for (mechanism, sampling), count in self._rest.items():
            total = total + count * divergence(mechanism, sampling, self.relation, orders)
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
                mechanism.noise_multiplier,
                self._factor,
                value_discretization_interval=grid,
                sampling_prob=rate,
            )
        relations = dp_accounting.NeighboringRelation
        # Under REPLACE_ONE it doubles the sensitivity itself, which its Rényi accountant does not.
        return pld.from_gaussian_mechanism(
            cast(Gaussian, mechanism).noise_multiplier,
            value_discretization_interval=grid,
            sampling_prob=rate,
            neighboring_relation=relations.REPLACE_ONE
            if self._factor == 2.0
            else relations.ADD_OR_REMOVE_ONE,
        )

    def _noises(self) -> Iterator[tuple[float, float]]:
        """Iterate over the noise multiplier and the sampling rate of everything that has a distribution of losses."""
        if self.mu_squared:
            yield 1.0 / math.sqrt(self.mu_squared), 1.0
        for mechanism, sampling in self._rest:
            noise = cast(Gaussian | Laplace, mechanism).noise_multiplier / self._factor
            yield noise, sampling.rate if isinstance(sampling, Poisson) else 1.0

    def guess(self) -> float:
        """Return an ε from Rényi divergences; a replaced unit is one that is added with twice the sensitivity."""
        halved = Composition([], "add_or_remove")
        halved.mu_squared = self.mu_squared
        for (mechanism, sampling), count in self._rest.items():
            kind = type(cast(Gaussian, mechanism))
            halved._rest[kind(cast(Gaussian, mechanism).noise_multiplier / self._factor), sampling] += count
        return renyi.epsilon(*halved._bounds(_FEW_ORDERS), 1e-6)[0]


def _alike(mechanism: Mechanism) -> Mechanism:
    """Return what costs the same: of one discrete Gaussian draw the bound that a clip norm gives it does not matter."""
    if isinstance(mechanism, DiscreteGaussian) and mechanism.shares == 1:
        return DiscreteGaussian(mechanism.noise_multiplier, 1.0, 1)
    return mechanism


def _largest_loss(noise: float, rate: float) -> float:
    """Return about the largest privacy loss of one release, 10 standard deviations out; Laplace's is below it."""
    plain = 0.5 / noise**2 + 10.0 / noise
    return max(plain + math.log(rate), math.log1p(rate * math.expm1(min(plain, 700.0))))


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
