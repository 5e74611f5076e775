"""The discrete Laplace distribution: noise on the integers for pure ε-differential privacy.

Ghosh, Roughgarden and Sundararajan, "Universally Utility-Maximizing Privacy Mechanisms", STOC 2009 (the geometric
mechanism).
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


@dataclass(frozen=True)
class DiscreteLaplace:
    """P(k) ∝ exp(−|k|/t) for the integers k: a geometric distribution to both sides.

    Added to a query with values in Zⁿ and L1 sensitivity Δ, independently in each coordinate, it gives (Δ/t)-
    differential privacy. A draw is exact up to a statistical distance of 2^-128 (`BlockSampler`), given ideal random
    bits; its bits come from `secret_stream()` and cannot be repeated.

    Args:
        scale: t in steps of the grid, from 0.01 to 2^55.

    Raises:
        ConfigError: the scale is no number, or out of its range.
    """

    scale: float

    def __post_init__(self) -> None:
        check_width(self, "scale", 0.01, 2.0**55)

    def draw(self, n: int) -> Integers:
        """Return n independent draws, int64 [n]."""
        return _sampler(self.scale).draw(n)

    def pmf(self, k: ArrayLike) -> Floats:
        """Return the probabilities of integers, in their shape."""
        return math.tanh(0.5 / self.scale) * np.exp(-np.abs(np.asarray(k, np.float64)) / self.scale)

    @property
    def variance(self) -> float:
        """The variance, 2q/(1 − q)² with q = exp(−1/t): near 2t² for large t."""
        return 2 * math.exp(-1 / self.scale) / math.expm1(-1 / self.scale) ** 2


@lru_cache(maxsize=16)
def _sampler(scale: float) -> BlockSampler:
    rate = 1 / Fraction(scale)

    def log_weight(integers: Integers) -> Floats:
        return -integers / scale

    def weight(integer: int) -> Decimal:
        exponent = integer * rate
        with decimal.localcontext(DIGITS):
            return (-Decimal(exponent.numerator) / exponent.denominator).exp()

    return BlockSampler(log_weight, weight)
