"""Rényi differential privacy: for each order a bound on the divergence, which adds up over releases.

Mironov, "Rényi Differential Privacy", CSF 2017. For noise on integers: Canonne, Kamath and Steinke, "The Discrete
Gaussian for Differential Privacy", NeurIPS 2020; Kairouz, Liu and Steinke, "The Distributed Discrete Gaussian Mechanism
for Federated Learning with Secure Aggregation", ICML 2021; Agarwal, Kairouz and Liu, "The Skellam Mechanism for
Differentially Private Federated Learning", NeurIPS 2021.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError
from fedpact.privacy.events import DiscreteGaussian, Gaussian, Laplace, Mechanism, Skellam

Array = NDArray[np.float64]
Curve = Callable[[Array], Array]

_LARGE = (64, 72, 80, 96, 112, 128, 160, 192, 256, 320, 384, 512, 768, 1024)
INTEGER_ORDERS = (*range(2, 64), *_LARGE)
"""Orders of the bounds that hold for whole ones alone: Skellam, and amplification of other noise than the Gaussian."""
ORDERS = (*(1 + tenths / 10 for tenths in range(1, 100)), *range(11, 64), *_LARGE)
"""Orders of all other bounds: dp-accounting's and more of the large ones."""


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
    raise ConfigError(
        f"{type(mechanism).__name__} is a Gaussian over a whole run; it has no bound a release."
    )


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
