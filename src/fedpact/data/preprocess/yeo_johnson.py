"""The Yeo-Johnson power of numbers, and its derivative by lambda, without cancellation.

With L = log(1 + |x|), t = λ for x ≥ 0 and t = 2 − λ for x < 0, it is ±(e^{tL} − 1)/t. Of numbers that lie close
together but far from 0, such as years, e^{tL} leaves few or no digits of their differences. Where all are of one sign
they are measured from a pivot x₀ of that sign: with d = log((1 + |x|)/(1 + |x₀|)), ±(e^{td} − 1)/t is the same
power, shifted and scaled.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Below this, power series of so many terms are right to the last bits, and the closed form is not.
_SMALL = 0.1
_TERMS = 10
_LEAST_EXPONENT = 1e-100


class Power(NamedTuple):
    """A Yeo-Johnson transformation.

    Args:
        lam: lambda.
        pivot: the number whose power is 0.
    """

    lam: float
    pivot: float = 0.0


def transformed(values: NDArray[np.float64], power: Power) -> NDArray[np.float64]:
    """Return the powers [n] of values, NaN where they are NaN: with the pivot 0 Yeo and Johnson's, else a·them + b.

    The scale a is positive; it and b depend on lambda and the pivot alone, so that standardised powers do not
    depend on the pivot.
    """
    if power == Power(1.0, 0.0):
        return values
    powers = np.full(values.shape, np.nan)
    for of_sign, sign, exponent in _halves(values, power.lam):
        if power.pivot == 0 or (power.pivot < 0) == (sign < 0):
            powers[of_sign] = sign * _grown(_logs(values[of_sign], power.pivot), exponent)
        else:
            powers[of_sign] = _from_beyond(values[of_sign], sign, exponent, power)
    return powers


def with_derivative(
    values: NDArray[np.float64], power: Power
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the powers [n] of values, and their derivatives by lambda; with a pivot ≠ 0 all values have its sign.

    The derivative is that of the pivoted power, whose scale e^{−tL₀} is left to `signed_logs` to account for.
    """
    powers, derivatives = np.empty(values.shape), np.empty(values.shape)
    for of_sign, sign, exponent in _halves(values, power.lam):
        logs = _logs(values[of_sign], power.pivot)
        powers[of_sign] = sign * _grown(logs, exponent)
        # Both signs cancel: −(e^{tL} − 1)/t falls with t, and t = 2 − λ falls with λ.
        derivatives[of_sign] = _growth(logs, exponent)
    return powers, derivatives


def signed_logs(values: NDArray[np.float64], pivot: float) -> NDArray[np.float64]:
    """Return ±d of values [n]: Σ(±d) is the derivative of the log-likelihood's Jacobian term by lambda.

    With y = e^{tL₀}·z + b the log-likelihood −n/2·log var y + (λ − 1)·Σ(±L) is −n/2·log var z + λ·Σ(±d) and a
    constant.
    """
    return np.where(values < 0, -1.0, 1.0) * _logs(values, pivot)


def middle(least: float, largest: float) -> float:
    """Return a pivot between two numbers of one sign, 0 for a negative and another one."""
    if least < 0 <= largest:
        return 0.0
    size = math.expm1((math.log1p(abs(least)) + math.log1p(abs(largest))) / 2)
    return math.copysign(size, largest if largest > 0 else least)


def _halves(values: NDArray[np.float64], lam: float) -> list[tuple[NDArray[np.bool_], float, float]]:
    return [(values >= 0, 1.0, lam), (values < 0, -1.0, 2.0 - lam)]


def _logs(values: NDArray[np.float64], pivot: float) -> NDArray[np.float64]:
    """Return d = log((1 + |x|)/(1 + |x₀|))."""
    # Of numbers close to the pivot |x| − |x₀| is exact, of those far below it 1 + |x|.
    apart = (np.abs(values) - abs(pivot)) / (1.0 + abs(pivot))
    close = apart > -0.5
    near: NDArray[np.float64] = np.log1p(np.where(close, apart, 0.0))
    return np.where(close, near, np.log1p(np.abs(values)) - math.log1p(abs(pivot)))


def _grown(logs: NDArray[np.float64], t: float) -> NDArray[np.float64]:
    """Return (e^{td} − 1)/t."""
    # Of a t so small the product with a logarithm may vanish.
    return np.expm1(t * logs) / t if abs(t) > _LEAST_EXPONENT else logs


def _growth(logs: NDArray[np.float64], t: float) -> NDArray[np.float64]:
    """Return the derivative of (e^{td} − 1)/t by t, d²·φ(td) with φ(u) = (u·e^u − e^u + 1)/u² = Σ u^k/(k!·(k + 2))."""
    u = t * logs
    small = np.abs(u) < _SMALL
    series = np.zeros(u.shape)
    for k in reversed(range(_TERMS)):
        series = series * np.where(small, u, 0.0) + 1 / (math.factorial(k) * (k + 2))
    safe = np.where(small, 1.0, u)
    closed = (safe * np.exp(safe) - np.expm1(safe)) / safe / safe
    derivative: NDArray[np.float64] = logs * logs * np.where(small, series, closed)
    return derivative


def _from_beyond(
    values: NDArray[np.float64], sign: float, exponent: float, power: Power
) -> NDArray[np.float64]:
    """Return the pivoted powers of values of the other sign than the pivot's."""
    t = 2.0 - power.lam if power.pivot < 0 else power.lam
    start = math.log1p(abs(power.pivot))
    beyond = sign * _grown(_logs(values, 0.0), exponent) * np.exp(-t * start)
    # (y − y₀)·e^{−tL₀}, of which y₀·e^{−tL₀} = ±(1 − e^{−tL₀})/t has the pivot's sign.
    away = sign * _grown(np.array(start), -t)
    return beyond + away
