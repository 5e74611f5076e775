"""Claims about calibration: published values, Google's accountant, and the classic formula that is not private."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from fedpact.core.errors import ConfigError
from fedpact.privacy.calibration import gaussian_delta, gaussian_epsilon, gaussian_sigma, laplace_scale

sigmas = st.floats(0.05, 50)
deltas = st.floats(1e-12, 0.1)
epsilons = st.floats(0.01, 50)


def test_epsilon_of_the_unit_gaussian() -> None:
    assert gaussian_epsilon(1.0, 1e-5) == pytest.approx(4.37718, abs=5e-6)


def test_sigma_for_epsilon_one() -> None:
    assert gaussian_sigma(1.0, 1e-5) == pytest.approx(3.730632, abs=5e-7)


def test_classic_formula_promises_more_privacy_than_there_is() -> None:
    classic = math.sqrt(2 * math.log(1.25 / 1e-6)) / 0.5
    assert classic == pytest.approx(10.598, abs=1e-3)
    assert gaussian_epsilon(0.5, 1e-6) >= 10.997
    assert gaussian_delta(0.5, classic) > 1e-6


@given(sigmas, deltas)
def test_epsilon_agrees_with_google_s_accountant(sigma: float, delta: float) -> None:
    accounting = pytest.importorskip("dp_accounting")
    assert gaussian_epsilon(sigma, delta) == pytest.approx(
        accounting.get_epsilon_gaussian(sigma, delta), rel=1e-6, abs=1e-6
    )


@given(epsilons, deltas)
def test_sigma_agrees_with_google_s_accountant(epsilon: float, delta: float) -> None:
    accounting = pytest.importorskip("dp_accounting")
    assert gaussian_sigma(epsilon, delta) == pytest.approx(
        accounting.get_sigma_gaussian(epsilon, delta), rel=1e-6
    )


@given(st.floats(0.2, 5), st.floats(0, 5))
def test_delta_is_the_theorem_s(sigma: float, epsilon: float) -> None:
    a, b = 1 / (2 * sigma) - epsilon * sigma, -1 / (2 * sigma) - epsilon * sigma
    theorem = norm.cdf(a) - math.exp(epsilon) * norm.cdf(b)
    assert gaussian_delta(sigma, epsilon) == pytest.approx(theorem, rel=1e-9, abs=1e-14)


@given(epsilons, deltas)
def test_noise_found_is_private_and_a_little_less_is_not(epsilon: float, delta: float) -> None:
    sigma = gaussian_sigma(epsilon, delta)
    assert gaussian_delta(sigma, epsilon) <= delta * (1 + 1e-12)
    assert gaussian_delta(sigma * (1 - 1e-9), epsilon) > delta


@given(sigmas, deltas)
def test_epsilon_and_sigma_are_each_other_s_inverse(sigma: float, delta: float) -> None:
    epsilon = gaussian_epsilon(sigma, delta)
    if epsilon > 0:
        assert gaussian_sigma(epsilon, delta) == pytest.approx(sigma, rel=1e-9)


@given(sigmas, deltas, st.floats(1e-6, 1e6))
def test_only_the_ratio_of_noise_and_sensitivity_counts(
    sigma: float, delta: float, sensitivity: float
) -> None:
    epsilon = gaussian_epsilon(sigma, delta)
    assert gaussian_epsilon(sigma * sensitivity, delta, sensitivity) == pytest.approx(
        epsilon, rel=1e-6, abs=1e-9
    )
    assert gaussian_sigma(1.0, delta, sensitivity) == pytest.approx(sensitivity * gaussian_sigma(1.0, delta))


@pytest.mark.parametrize("sigma", [10.0, 1e3, 1e6, 1e12])
def test_delta_at_epsilon_zero_is_the_total_variation_distance(sigma: float) -> None:
    # Φ(h) − Φ(−h) = erf(h/√2) with h = 1/(2σ).
    assert gaussian_delta(sigma, 0.0) == pytest.approx(math.erf(1 / (2 * math.sqrt(2) * sigma)), rel=1e-12)


# Computed with mpmath at 60 digits: ncdf(1/(2s) − e·s) − exp(e)·ncdf(−1/(2s) − e·s).
@pytest.mark.parametrize(
    ("sigma", "epsilon", "delta"),
    [
        (1e5, 1e-4, 7.4749339918537e-30),
        (30.0, 1.0, 8.9675631000111e-201),
        (0.01, 5500.0, 2.7249362234044e-7),
        (1e-4, 5e7, 0.49996010577217),
    ],
)
def test_delta_of_extreme_arguments_keeps_its_digits(sigma: float, epsilon: float, delta: float) -> None:
    assert gaussian_delta(sigma, epsilon) == pytest.approx(delta, rel=1e-11)


@pytest.mark.parametrize("sigma", [1e-150, 1e-20, 1.0, 1e20, 1e300])
@pytest.mark.parametrize("epsilon", [0.0, 1e-300, 1.0, 1e5, 1e300])
def test_delta_is_a_probability_for_all_arguments(sigma: float, epsilon: float) -> None:
    assert 0 <= gaussian_delta(sigma, epsilon) <= 1


@pytest.mark.parametrize("delta", [1e-320, 1e-300, 1e-50, 0.5, 1 - 1e-12])
def test_extreme_delta_has_its_noise(delta: float) -> None:
    sigma = gaussian_sigma(1.0, delta)
    assert math.isfinite(sigma)
    assert gaussian_epsilon(sigma, delta) == pytest.approx(1.0, rel=1e-3)


def test_noise_so_large_that_epsilon_is_zero() -> None:
    assert gaussian_epsilon(1e6, 0.1) == 0.0


def test_laplace_scale_is_the_sensitivity_over_epsilon() -> None:
    assert laplace_scale(0.5, 3.0) == 6.0


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: gaussian_delta(0.0, 1.0), "gaussian_delta: sigma is 0.0"),
        (lambda: gaussian_delta(1.0, -1.0), "gaussian_delta: epsilon is -1.0"),
        (lambda: gaussian_epsilon(1.0, 0.0), "gaussian_epsilon: delta is 0.0"),
        (lambda: gaussian_epsilon(math.nan, 0.1), "gaussian_epsilon: sigma is nan"),
        (lambda: gaussian_sigma(1.0, 1.0), "gaussian_sigma: delta is 1.0"),
        (lambda: gaussian_sigma(1.0, 0.1, math.inf), "gaussian_sigma: sensitivity is inf"),
        (lambda: laplace_scale(0.0), "laplace_scale: epsilon is 0.0"),
    ],
)
def test_argument_out_of_range_is_named(call: object, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        call()  # type: ignore[operator]
