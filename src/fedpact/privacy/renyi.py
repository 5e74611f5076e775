"""Rényi differential privacy: for each order a bound on the divergence, which adds up over releases.

Mironov, "Rényi Differential Privacy", CSF 2017. Subsampled Gaussians are dp-accounting's; own is what it lacks: the
discrete Gaussian (Canonne, Kamath and Steinke, "The Discrete Gaussian for Differential Privacy", NeurIPS 2020), the sum
of discrete Gaussians (Kairouz, Liu and Steinke, "The Distributed Discrete Gaussian Mechanism for Federated Learning with
Secure Aggregation", ICML 2021), Skellam noise (Agarwal, Kairouz and Liu, "The Skellam Mechanism for Differentially
Private Federated Learning", NeurIPS 2021), and any of them on a sample.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError, DependencyError
from fedpact.privacy.events import (
    DiscreteGaussian,
    Everyone,
    FixedSize,
    Gaussian,
    Laplace,
    Mechanism,
    Poisson,
    Relation,
    Sampling,
    Skellam,
)

Array = NDArray[np.float64]
Curve = Callable[[Array], Array]

_LARGE = (64, 72, 80, 96, 112, 128, 160, 192, 256, 320, 384, 512, 768, 1024)
INTEGER_ORDERS = (*range(2, 64), *_LARGE)
"""Orders of the bounds that hold for whole ones alone: Skellam, and amplification of other noise than the Gaussian."""
ORDERS = (*(1 + tenths / 10 for tenths in range(1, 100)), *range(11, 64), *_LARGE)
"""Orders of all other bounds: dp-accounting's and more of the large ones."""


def divergence(mechanism: Mechanism, sampling: Sampling, relation: Relation, orders: tuple[float, ...]) -> Array:
    """Return a bound on the Rényi divergence of one release, for each order.

    Raises:
        ConfigError: no bound is known for this mechanism on this sample under this relation.
        DependencyError: a subsampled Gaussian, and dp-accounting is not installed.
    """
    factor = 2.0 if relation == "replace_one" else 1.0
    if isinstance(sampling, Everyone):
        return curve(mechanism, factor)(np.array(orders))
    _check_sampled(sampling, relation)
    if isinstance(mechanism, Gaussian):
        return _sampled_gaussian(mechanism.noise_multiplier / factor, sampling, orders)
    amplify = poisson_sampled if isinstance(sampling, Poisson) else sampled_without_replacement
    rate = sampling.rate if isinstance(sampling, Poisson) else sampling.size / sampling.population
    return amplify(curve(mechanism, factor), rate, np.array(orders))


def only_whole_orders(mechanism: Mechanism, sampling: Sampling) -> bool:
    """Return whether the bound on this release holds for whole orders alone."""
    return isinstance(mechanism, Skellam) or not (isinstance(mechanism, Gaussian) or sampling == Everyone())


def curve(mechanism: Mechanism, factor: float = 1.0) -> Curve:
    """Return the bound of a mechanism without sampling, as a function of the orders.

    Args:
        mechanism: Gaussian, Laplace, DiscreteGaussian or Skellam.
        factor: of all sensitivities; 2 where a unit is replaced by another.

    Raises:
        ConfigError: the mechanism is another.
    """
    if isinstance(mechanism, Gaussian):
        return gaussian(mechanism.noise_multiplier / factor)
    if isinstance(mechanism, Laplace):
        return laplace(mechanism.noise_multiplier / factor)
    if isinstance(mechanism, DiscreteGaussian):
        return discrete_gaussian(mechanism, factor)
    if isinstance(mechanism, Skellam):
        return skellam(mechanism, factor)
    raise ConfigError(f"{type(mechanism).__name__} is a Gaussian over a whole run; it has no bound a release.")


def gaussian(noise_multiplier: float) -> Curve:
    """Return α/(2z²) (Mironov 2017, Proposition 7)."""
    return lambda orders: orders / (2.0 * noise_multiplier**2)


def laplace(noise_multiplier: float) -> Curve:
    """Return log(α/(2α−1)·e^{(α−1)/b} + (α−1)/(2α−1)·e^{−α/b})/(α−1) (Mironov 2017, Proposition 6)."""

    def bound(orders: Array) -> Array:
        rising = np.log(orders / (2 * orders - 1)) + (orders - 1) / noise_multiplier
        falling = np.log((orders - 1) / (2 * orders - 1)) - orders / noise_multiplier
        return np.logaddexp(rising, falling) / (orders - 1)

    return bound


def discrete_gaussian(mechanism: DiscreteGaussian, factor: float = 1.0) -> Curve:
    """Return the Gaussian's α·Δ²/(2σ²) for one draw, and what a sum of draws adds to it.

    One draw: Canonne, Kamath and Steinke, Theorem 14. A sum of n shares of variance σ²/n is not itself a discrete
    Gaussian: Kairouz, Liu and Steinke, Proposition 14, with τ = 10·Σ_{k<n} exp(−2π²σ²/n·k/(k+1)). The L1 norm in it is
    that of an integer vector, at most min(√d·Δ, Δ²).

    Raises:
        ConfigError: the standard deviation of a share is below ½, where the proposition does not hold.
    """
    norm = factor * mechanism.sensitivity
    stddev = mechanism.noise_multiplier * mechanism.sensitivity
    if mechanism.shares == 1:
        return gaussian(stddev / norm)
    share = stddev / math.sqrt(mechanism.shares)
    if share < 0.5:
        raise ConfigError(
            f"DiscreteGaussian: the standard deviation of one of {mechanism.shares} shares is {share:.3g} in grid "
            "units; it must be 0.5 or more. Use a finer grid, or more noise."
        )
    k = np.arange(1, mechanism.shares)
    excess = 10.0 * float(np.sum(np.exp(-2 * (math.pi * share) ** 2 * k / (k + 1))))
    dimension = mechanism.dimension
    l1 = factor * mechanism.sensitivity * min(math.sqrt(dimension), mechanism.sensitivity)
    l2_scale, l1_scale = norm / stddev, l1 / stddev

    def bound(orders: Array) -> Array:
        half = orders / 2.0
        return np.minimum(
            half * l2_scale**2 + excess * dimension,
            half
            * min(
                l2_scale**2 + 2 * l1_scale * excess + excess**2 * dimension,
                (l2_scale + math.sqrt(dimension) * excess) ** 2,
            ),
        )

    return bound


def skellam(mechanism: Skellam, factor: float = 1.0) -> Curve:
    """Return αΔ₂²/(2μ) + min(((2α−1)Δ₂² + 6Δ₁)/(4μ²), 3Δ₁/(2μ)) for a variance μ and whole orders.

    Agarwal, Kairouz and Liu, Theorem 3.5 and Corollary 3.6.
    """
    l1, l2 = factor * mechanism.l1_sensitivity, factor * mechanism.l2_sensitivity
    variance = (mechanism.noise_multiplier * mechanism.l2_sensitivity) ** 2

    def bound(orders: Array) -> Array:
        excess = ((2 * orders - 1) * l2**2 + 6 * l1) / (4 * variance**2)
        return orders * l2**2 / (2 * variance) + np.minimum(excess, 3 * l1 / (2 * variance))

    return bound


def poisson_sampled(base: Curve, rate: float, orders: Array) -> Array:
    """Return the bound of any mechanism on a Poisson sample, when a unit is added or removed.

    Zhu and Wang, "Poisson Subsampled Rényi Differential Privacy", ICML 2019, Theorem 5.

    Args:
        base: the bound of the mechanism without sampling, at whole orders.
        rate: probability to be in the sample, below 1.
        orders: whole, 2 or more.
    """
    stay, join = math.log1p(-rate), math.log(rate)

    def moment(order: int) -> float:
        j, paired = _terms(base, order)
        terms = paired + (order - j) * stay + j * join
        terms[j > 2] += math.log(3.0)
        nobody = (order - 1) * stay + math.log1p((order - 1) * rate)
        return _log_sum(np.append(terms, nobody))

    return _amplified(base, orders, moment)


def sampled_without_replacement(base: Curve, rate: float, orders: Array) -> Array:
    """Return the bound of any mechanism on a sample of fixed size, when a unit is replaced by another.

    Wang, Balle and Kasiviswanathan, "Subsampled Rényi Differential Privacy and Analytical Moments Accountant", AISTATS
    2019, Theorem 9, without a bound at the infinite order.

    Args:
        base: the bound of the mechanism on the sample alone, at whole orders, for a replaced unit.
        rate: size of the sample over that of the population, below 1.
        orders: whole, 2 or more.
    """
    join = math.log(rate)

    def moment(order: int) -> float:
        j, paired = _terms(base, order)
        terms = paired + j * join + math.log(2.0)
        at_two = float(base(np.array([2.0]))[0])
        # log(4·(e^x − 1)) instead of log(2·e^x), where it is less.
        tight = math.log(4.0) + at_two + math.log(-math.expm1(-at_two)) if at_two > 0 else -math.inf
        terms[0] += min(tight - at_two - math.log(2.0), 0.0)
        return _log_sum(np.append(terms, 0.0))

    return _amplified(base, orders, moment)


def epsilon(orders: Array, bounds: Array, delta: float) -> tuple[float, float]:
    """Return the smallest epsilon that the bounds give for a delta, and the order that gives it.

    Canonne, Kamath and Steinke, Proposition 12.
    """
    found = bounds + np.log1p(-1.0 / orders) - (math.log(delta) + np.log(orders)) / (orders - 1.0)
    # The total variation distance alone is at most delta: √(1 − e^{−KL}) and KL at most any of the bounds.
    found[-np.expm1(-bounds) < delta**2] = 0.0
    best = int(np.argmin(found))
    return max(0.0, float(found[best])), float(orders[best])


def delta(orders: Array, bounds: Array, epsilon: float) -> tuple[float, float]:
    """Return the smallest delta that the bounds give for an epsilon, and the order that gives it (as `epsilon`)."""
    logs = (orders - 1.0) * (bounds - epsilon + np.log1p(-1.0 / orders)) - np.log(orders)
    with np.errstate(divide="ignore"):
        logs = np.minimum(logs, 0.5 * np.log(-np.expm1(-bounds)))
    best = int(np.argmin(logs))
    return min(1.0, math.exp(float(logs[best]))), float(orders[best])


def _terms(base: Curve, order: int) -> tuple[Array, Array]:
    """Return j = 2 … α, and log C(α, j) + (j − 1)·ε(j)."""
    j = np.arange(2.0, order + 1)
    return j, _log_factorial(order) - _log_factorials(order)[2:] - _log_factorials(order)[: order - 1][::-1] + (
        j - 1
    ) * base(j)


@lru_cache(maxsize=1)
def _log_factorial_table() -> Array:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1.0, INTEGER_ORDERS[-1] + 1)))])


def _log_factorials(largest: int) -> Array:
    return _log_factorial_table()[: largest + 1]


def _log_factorial(number: int) -> float:
    return float(_log_factorial_table()[number])


def _amplified(base: Curve, orders: Array, moment: Callable[[int], float]) -> Array:
    """Return the bounds of log moments, which are never above what holds without sampling."""
    sampled = np.array([moment(int(order)) / (order - 1) for order in orders])
    return np.minimum(sampled, base(orders))


def _log_sum(terms: Array) -> float:
    return float(np.logaddexp.reduce(terms))


def _check_sampled(sampling: Poisson | FixedSize, relation: Relation) -> None:
    if isinstance(sampling, FixedSize) and relation == "add_or_remove":
        raise ConfigError(
            "sampling of a fixed size is accounted for under replace_one alone: one unit more or less would change the "
            'sample of all others. Set the relation to "replace_one", or sample by Poisson.'
        )
    if isinstance(sampling, Poisson) and relation == "replace_one":
        raise ConfigError(
            "under replace_one Poisson sampling is accounted for with Gaussian noise, through its privacy loss "
            'distribution, and with no other. Set the relation to "add_or_remove", or sample with a fixed size.'
        )


@lru_cache(maxsize=256)
def _sampled_gaussian(noise_multiplier: float, sampling: Poisson | FixedSize, orders: Sequence[float]) -> Array:
    with dp_accounting_quiet():
        import dp_accounting
        from dp_accounting import rdp

        relations = dp_accounting.NeighboringRelation
        noise = dp_accounting.GaussianDpEvent(noise_multiplier)
        if isinstance(sampling, Poisson):
            event = dp_accounting.PoissonSampledDpEvent(sampling.rate, noise)
            accountant = rdp.RdpAccountant(orders, relations.ADD_OR_REMOVE_ONE)
        else:
            event = dp_accounting.SampledWithoutReplacementDpEvent(sampling.population, sampling.size, noise)
            accountant = rdp.RdpAccountant(orders, relations.REPLACE_ONE)
        # It offers no other way to the bounds; the version that has this is pinned.
        bounds = np.array(accountant.compose(event)._rdp, np.float64)
    return _without_gaps(np.array(orders), bounds)


def _without_gaps(orders: Array, bounds: Array) -> Array:
    """Fill in orders whose series did not converge, which dp-accounting leaves out with a remark in a log.

    (α − 1)·D_α is convex in α (van Erven and Harremoës, "Rényi Divergence and Kullback-Leibler Divergence", 2014,
    Corollary 2): a straight line between two orders is above it.
    """
    there = np.isfinite(bounds)
    if there.all() or not there.any():
        return bounds
    filled = np.interp(orders, orders[there], ((orders - 1) * bounds)[there], right=math.inf) / (orders - 1)
    # Below the first that is there, its own bound holds: D_α rises with α.
    return np.where(orders < orders[there][0], bounds[there][0], filled)


@contextmanager
def dp_accounting_quiet() -> Iterator[None]:
    """Import and call dp-accounting within this: it is asked for by name where it is missing, and logs nothing.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        from absl import logging
    except ModuleNotFoundError:
        raise _missing() from None
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "dp_accounting":
            raise
        raise _missing() from None
    finally:
        logging.set_verbosity(before)


def _missing() -> DependencyError:
    return DependencyError(
        'accounting for noise on a sample needs dp-accounting: pip install "fedpact[privacy]". Without it there is '
        "full participation, and discrete noise."
    )
