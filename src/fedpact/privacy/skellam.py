"""The Skellam distribution: noise on the integers that clients can add in shares.

Skellam, "The Frequency Distribution of the Difference Between Two Poisson Variates", J. Royal Statistical Society
1946; Agarwal, Kairouz and Liu, "The Skellam Mechanism for Differentially Private Federated Learning", NeurIPS 2021.
"""

import decimal
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cache, lru_cache

import numpy as np
from numpy.typing import ArrayLike

from fedpact.privacy.blocks import DIGITS, BlockSampler, Floats, Integers, check_width

# From this variance on, Debye's series is used to its term of order w^-10, w ≥ the variance; the next is below 2^-122.
_LARGE = 4096.0
_ORDER = 10
# For floats the term of order 5, below 2^-61, is the first that does not matter.
_FLOAT_ORDER = 4


@dataclass(frozen=True)
class Skellam:
    """P(k) = exp(−v)·I_k(v) for the integers k: the difference of two Poisson variables of mean v/2 each.

    The sum of independent Skellam(v₁) and Skellam(v₂) is Skellam(v₁ + v₂), so that n shares of variance v/n make one
    noise of variance v. Added to a query with values in Zⁿ and sensitivities Δ₁ and Δ₂ (L1 and L2), independently in
    each coordinate, it gives Rényi differential privacy of whole orders α > 1 with
    ε = αΔ₂²/(2v) + min(((2α − 1)Δ₂² + 6Δ₁)/(4v²), 3Δ₁/(2v)) (Agarwal et al., section 3): the Gaussian's and a little.

    A draw is exact up to a statistical distance of 2^-120 (`BlockSampler`, and the rest of the series for I_k), given
    ideal random bits; its bits come from `secret_stream()` and cannot be repeated.

    Args:
        variance: v in squared steps of the grid, from 1e-12 to 2^110.

    Raises:
        ConfigError: the variance is no number, or out of its range.
    """

    variance: float

    def __post_init__(self) -> None:
        check_width(self, "variance", 1e-12, 2.0**110)

    def draw(self, n: int) -> Integers:
        """Return n independent draws, int64 [n]."""
        return _sampler(self.variance).draw(n)

    def pmf(self, k: ArrayLike) -> Floats:
        """Return the probabilities of integers, in their shape; those below 2^-200 of P(0) may come out as 0."""
        integers = np.abs(np.asarray(k))
        if self.variance < _LARGE:
            weights = np.array(
                [weight / _bessel(self.variance)[0] for weight in _bessel(self.variance)] + [0.0]
            )
            total = weights[0] + 2 * weights[1:].sum()
            return weights[np.minimum(integers, len(weights) - 1)] / total
        return np.exp(_debye_log_weight(integers, self.variance)) / np.sqrt(2 * np.pi * self.variance)


@lru_cache(maxsize=16)
def _sampler(variance: float) -> BlockSampler:
    if variance >= _LARGE:
        return BlockSampler(
            lambda integers: _debye_log_weight(integers, variance),
            lambda integer: _debye_weight(integer, variance),
        )
    weights = _bessel(variance)
    logarithms = np.log(np.array([weight / weights[0] for weight in weights]))
    logarithms = np.append(logarithms, -np.inf)
    return BlockSampler(
        lambda integers: logarithms[np.minimum(integers, len(weights))],
        lambda integer: Decimal(weights[integer] if integer < len(weights) else 0),
    )


@lru_cache(maxsize=16)
def _bessel(v: float) -> list[int]:
    """Return whole numbers proportional to I_k(v), k = 0, 1, …, as far as they exceed 2^-200 of the first.

    The recurrence I_{k−1} = (2k/v)·I_k + I_{k+1} from far outside, where any start is as good (Miller's algorithm: DLMF
    §3.6(iii) and §10.74(iv)); beyond the start I_k is below 2^-250 of I_0, and all roundings are by 2^-300 at most.
    """
    over_v = 1 / Fraction(v)
    here, outside = 1 << 300, 0
    weights = [here]
    for k in range(int(20 * v**0.5) + 60, 0, -1):
        here, outside = 2 * k * over_v.numerator * here // over_v.denominator + outside, here
        weights.append(here)
    return [weight for weight in reversed(weights) if weight << 200 > here]


def _debye_log_weight(k: Integers, v: float) -> Floats:
    """Return log(√(2πv)·exp(−v)·I_k(v)) for k ≥ 0.

    Debye's expansion, DLMF 10.41.3, in w = √(k² + v²): w − v − k·asinh(k/v) − log(w/v)/2 + log Σ_j q_j(k²/w²)/w^j.
    """
    k = np.asarray(k, np.float64)
    w = np.hypot(k, v)
    square = (k / w) ** 2
    series = np.zeros_like(w)
    for coefficients in reversed(_debye_polynomials()[: _FLOAT_ORDER + 1]):
        series = series / w + np.polyval([float(c) for c in reversed(coefficients)], square)
    return k * (k / (w + v)) - k * np.arcsinh(k / v) - 0.5 * np.log(w / v) + np.log(series)


def _debye_weight(k: int, v: float) -> Decimal:
    """Return the exponential of `_debye_log_weight` to 36 digits."""
    with decimal.localcontext(DIGITS):
        variance = Decimal(v)
        w = (k * k + variance * variance).sqrt()
        square = k * k / (w * w)
        series = Decimal(0)
        for coefficients in reversed(_debye_polynomials()):
            value = Decimal(0)
            for c in reversed(coefficients):
                value = value * square + Decimal(c.numerator) / c.denominator
            series = series / w + value
        asinh = ((k + w) / variance).ln()
        return (k * k / (w + variance) - k * asinh).exp() * (variance / w).sqrt() * series


@cache
def _debye_polynomials() -> list[list[Fraction]]:
    """Return the coefficients of q_j(x), lowest first, where U_j(p) = p^j·q_j(p²) are Debye's polynomials.

    By DLMF 10.41.9: U_{j+1}(p) = p²(1 − p²)·U_j'(p)/2 + ∫₀ᵖ (1 − 5t²)·U_j(t) dt/8.
    """
    polynomials = [[Fraction(1)]]
    for j in range(_ORDER):
        following = [Fraction(0)] * (j + 2)
        for i, c in enumerate(polynomials[-1]):
            power = j + 2 * i
            following[i] += c * (Fraction(power, 2) + Fraction(1, 8 * (power + 1)))
            following[i + 1] -= c * (Fraction(power, 2) + Fraction(5, 8 * (power + 3)))
        polynomials.append(following)
    return polynomials
