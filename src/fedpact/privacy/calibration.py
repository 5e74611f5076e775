"""How much noise a privacy guarantee takes: the analytic Gaussian mechanism and the Laplace mechanism.

Balle and Wang, "Improving the Gaussian Mechanism for Differential Privacy: Analytical Calibration and Optimal
Denoising", ICML 2018; Dwork, McSherry, Nissim and Smith, "Calibrating Noise to Sensitivity in Private Data
Analysis", TCC 2006.
"""

import math
from collections.abc import Callable

from fedpact.core.errors import ConfigError

# From here on the continued fraction of Mills' ratio needs fewer than 100 terms.
_FAR = 3.0
_FRACTION_TERMS = 100
# Of points nearer to each other, absolutely or in proportion to the first, Mills' ratios nearly cancel: its slope is
# integrated instead.
_NEAR = 0.05
_NEAR_RATIO = 0.02
_GAUSS_LEGENDRE = ((-math.sqrt(0.6), 5 / 18), (0.0, 8 / 18), (math.sqrt(0.6), 5 / 18))


def gaussian_delta(sigma: float, epsilon: float, sensitivity: float = 1.0) -> float:
    """Return the smallest δ for which Gaussian noise is (ε, δ)-differentially private.

    Φ(Δ/(2σ) − εσ/Δ) − e^ε·Φ(−Δ/(2σ) − εσ/Δ) (Balle and Wang, theorem 8), to a relative error near 1e-12.

    Args:
        sigma: the noise's standard deviation, > 0, in the unit of the sensitivity.
        epsilon: ε ≥ 0.
        sensitivity: Δ > 0, the L2 norm by which one unit of privacy can change what is released.

    Raises:
        ConfigError: an argument is out of its range.
    """
    _check("gaussian_delta", sigma=sigma, sensitivity=sensitivity)
    _check_epsilon("gaussian_delta", epsilon)
    return math.exp(_log_delta(sensitivity / sigma, epsilon))


def gaussian_epsilon(sigma: float, delta: float, sensitivity: float = 1.0) -> float:
    """Return the smallest ε ≥ 0 for which Gaussian noise is (ε, δ)-differentially private.

    Args:
        sigma: the noise's standard deviation, > 0, in the unit of the sensitivity.
        delta: δ in (0, 1).
        sensitivity: Δ > 0, the L2 norm by which one unit of privacy can change what is released.

    Raises:
        ConfigError: an argument is out of its range.

    >>> round(gaussian_epsilon(sigma=1.0, delta=1e-5), 5)
    4.37718
    """
    _check("gaussian_epsilon", sigma=sigma, sensitivity=sensitivity)
    _check_delta("gaussian_epsilon", delta)
    shift = sensitivity / sigma
    if _log_delta(shift, 0.0) <= math.log(delta):
        return 0.0
    return _smallest(lambda epsilon: _log_delta(shift, epsilon) <= math.log(delta))


def gaussian_sigma(epsilon: float, delta: float, sensitivity: float = 1.0) -> float:
    """Return the smallest standard deviation of Gaussian noise that is (ε, δ)-differentially private.

    The root that algorithm 1 of Balle and Wang finds, for every ε: the classic √(2·ln(1.25/δ))·Δ/ε is too large for
    ε < 1 and not private for some ε > 1.

    Args:
        epsilon: ε ≥ 0.
        delta: δ in (0, 1).
        sensitivity: Δ > 0, the L2 norm by which one unit of privacy can change what is released.

    Raises:
        ConfigError: an argument is out of its range.

    >>> round(gaussian_sigma(epsilon=1.0, delta=1e-5), 6)
    3.730632
    """
    _check("gaussian_sigma", sensitivity=sensitivity)
    _check_epsilon("gaussian_sigma", epsilon)
    _check_delta("gaussian_sigma", delta)
    return sensitivity * _smallest(lambda sigma: _log_delta(1 / sigma, epsilon) <= math.log(delta))


def laplace_scale(epsilon: float, sensitivity: float = 1.0) -> float:
    """Return the scale Δ/ε of Laplace noise, discrete or not, that is ε-differentially private.

    Args:
        epsilon: ε > 0.
        sensitivity: Δ > 0, the L1 norm by which one unit of privacy can change what is released.

    Raises:
        ConfigError: an argument is out of its range.
    """
    _check("laplace_scale", epsilon=epsilon, sensitivity=sensitivity)
    return sensitivity / epsilon


def _log_delta(shift: float, epsilon: float) -> float:
    """Return log δ of the standard normal against itself moved by `shift` = Δ/σ.

    With a = shift/2 − ε/shift and Mills' ratio M(x) = Φ(−x)/φ(x), δ = φ(a)·(M(−a) − M(shift − a)), because
    e^ε·φ(a − shift) = φ(a): nothing overflows, however large ε is.
    """
    if shift == 0 or epsilon / shift == math.inf:
        return -math.inf
    if shift == math.inf:
        return 0.0
    a = shift / 2 - epsilon / shift
    log_density = -0.5 * a * a - 0.5 * math.log(2 * math.pi)
    if a < 0 and log_density == -math.inf:
        return -math.inf
    if shift < max(_NEAR, -_NEAR_RATIO * a):
        slope = sum(w * _minus_mills_slope(shift * (1 + node) / 2 - a) for node, w in _GAUSS_LEGENDRE)
        return log_density + math.log(shift) + math.log(slope)
    if a > 0:
        likely = 0.5 * math.erfc(-a / math.sqrt(2))
        return math.log(likely - math.exp(log_density) * _mills(shift - a))
    return log_density + math.log(_mills(-a) - _mills(shift - a))


def _mills(x: float) -> float:
    """Return Φ(−x)/φ(x), for x above −1."""
    if x > _FAR:
        return 1 / (x + _fraction(x))
    return math.sqrt(math.pi / 2) * math.exp(0.5 * x * x) * math.erfc(x / math.sqrt(2))


def _minus_mills_slope(x: float) -> float:
    """Return 1 − x·M(x), which is −M'(x)."""
    return _fraction(x) * _mills(x) if x > _FAR else 1 - x * _mills(x)


def _fraction(x: float) -> float:
    """Return 1/(x + 2/(x + 3/(x + …))) of Laplace's continued fraction, M(x) = 1/(x + this)."""
    value = 0.0
    for term in range(_FRACTION_TERMS, 0, -1):
        value = term / (x + value)
    return value


def _smallest(is_enough: Callable[[float], bool]) -> float:
    """Return the smallest positive float that is enough, where all larger ones are; infinity where none is."""
    above = 1.0
    while not is_enough(above):
        above *= 2
    if above == math.inf:
        return above
    below = above / 2
    while is_enough(below):
        below, above = below / 2, below
    while below < (middle := (below + above) / 2) < above:
        below, above = (below, middle) if is_enough(middle) else (middle, above)
    return above


def _check(function: str, **positive: float) -> None:
    for name, value in positive.items():
        if not 0 < value < math.inf:
            raise ConfigError(f"{function}: {name} is {value}; it must be a positive number.")


def _check_epsilon(function: str, epsilon: float) -> None:
    if not 0 <= epsilon < math.inf:
        raise ConfigError(f"{function}: epsilon is {epsilon}; it must be a number, 0 or more.")


def _check_delta(function: str, delta: float) -> None:
    if not 0 < delta < 1:
        raise ConfigError(
            f"{function}: delta is {delta}; it must lie between 0 and 1, and well below 1 over the number of those "
            "who are protected."
        )
