"""The discrete Gaussian: noise on the integers with the privacy of the Gaussian mechanism.

Canonne, Kamath and Steinke, "The Discrete Gaussian for Differential Privacy", NeurIPS 2020.
"""

import decimal
import math
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from fedpact.privacy.blocks import DIGITS, BlockSampler, Floats, Integers, check_width

# Above it, the sum over the integers is the integral: they differ by 2·exp(−2π²σ²) < 2^-53 of it (Poisson's formula).
_SMOOTH = 3.0


@dataclass(frozen=True)
class DiscreteGaussian:
    """P(k) ∝ exp(−k²/(2σ²)) for the integers k.

    Added to a query with values in Zⁿ and L2 sensitivity Δ, independently in each coordinate, it gives
    Δ²/(2σ²)-concentrated differential privacy: Rényi divergences of at most αΔ²/(2σ²) for all α > 1 (theorem 4 of the
    paper, for one coordinate), like the Gaussian of the same σ. A sum of such draws is not itself a discrete Gaussian:
    where clients add shares of noise, use `Skellam`.

    A draw is exact up to a statistical distance of 2^-128 (`BlockSampler`), given ideal random bits; its bits come
    from `secret_stream()` and cannot be repeated. No Gaussian float is ever made, so there are no least significant
    bits to leak (Mironov, CCS 2012).

    Args:
        sigma: σ in steps of the grid, from 0.01 to 2^55.

    Raises:
        ConfigError: σ is no number, or out of its range.
    """

    sigma: float

    def __post_init__(self) -> None:
        check_width(self, "sigma", 0.01, 2.0**55)

    def draw(self, n: int) -> Integers:
        """Return n independent draws, int64 [n]."""
        return _sampler(self.sigma).draw(n)

    def pmf(self, k: ArrayLike) -> Floats:
        """Return the probabilities of integers, in their shape."""
        return np.exp(-0.5 * (np.asarray(k, np.float64) / self.sigma) ** 2) / self._moment(0)

    @property
    def variance(self) -> float:
        """The variance: below σ², noticeably so only for σ < 1."""
        return self._moment(2) / self._moment(0)

    def _moment(self, order: int) -> float:
        """Return Σ k^order exp(−k²/(2σ²)) for an order of 0 or 2."""
        if self.sigma > _SMOOTH:
            return math.sqrt(2 * math.pi) * self.sigma ** (order + 1)
        k = np.arange(-40, 41)
        return float(np.sum(k**order * np.exp(-0.5 * (k / self.sigma) ** 2)))


@lru_cache(maxsize=16)
def _sampler(sigma: float) -> BlockSampler:
    rate = 1 / (2 * Fraction(sigma) ** 2)

    def log_weight(integers: Integers) -> Floats:
        return -0.5 * (integers / sigma) ** 2

    def weight(integer: int) -> Decimal:
        exponent = integer**2 * rate
        with decimal.localcontext(DIGITS):
            return (-Decimal(exponent.numerator) / exponent.denominator).exp()

    return BlockSampler(log_weight, weight)
