import math

import numpy as np
import pytest
from dp_accounting import rdp
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, special

from fedpact.core.errors import ConfigError
from fedpact.privacy.events import DiscreteGaussian, Laplace, Skellam, TreeAggregation
from fedpact.privacy.renyi import INTEGER_ORDERS, curve, delta, epsilon, gaussian

SOME = np.array([1.1, 2.0, 3.5, 8.0, 32.0])


def divergence(weights: np.ndarray, shift: int, order: float) -> float:
    """D_α of noise with these weights, and of the same noise moved."""
    p, q = weights[shift:], weights[: len(weights) - shift]
    there = (p > 0) & (q > 0)
    logs = order * np.log(p[there]) + (1 - order) * np.log(q[there])
    return float(special.logsumexp(logs)) / (order - 1)


@pytest.mark.parametrize("order", [1.5, 2.0, 7.0])
def test_laplace_is_the_integral(order: float) -> None:
    def moment(x: float) -> float:
        return 0.25 * math.exp(-order * abs(x - 1) / 2 - (1 - order) * abs(x) / 2)

    value = sum(integrate.quad(moment, a, b)[0] for a, b in [(-80, 0), (0, 1), (1, 80)])
    found = curve(Laplace(2.0))(np.array([order]))[0]
    assert found == pytest.approx(math.log(value) / (order - 1), rel=1e-7)


@pytest.mark.parametrize(("stddev", "shift"), [(1.0, 1), (3.0, 2), (10.0, 7)])
def test_discrete_gaussian_is_within_the_bound_of_the_gaussian(stddev: float, shift: int) -> None:
    x = np.arange(-400, 401)
    p = np.exp(-(x**2) / (2 * stddev**2))
    p /= p.sum()
    bound = curve(DiscreteGaussian(stddev / shift, shift, 1))(SOME)
    for order, limit in zip(SOME, bound, strict=True):
        assert divergence(p, shift, order) <= limit * (1 + 1e-9)


@pytest.mark.parametrize("stddev", [0.5, 0.7, 1.0])
@pytest.mark.parametrize("shares", [2, 5])
def test_sum_of_discrete_gaussians_is_within_its_bound(stddev: float, shares: int) -> None:
    x = np.arange(-60, 61)
    one = np.exp(-(x**2) / (2 * stddev**2))
    one /= one.sum()
    p = one
    for _ in range(shares - 1):
        p = np.convolve(p, one)
    bound = curve(DiscreteGaussian(stddev * math.sqrt(shares), 1.0, 1, shares=shares))(SOME)
    for order, limit in zip(SOME, bound, strict=True):
        assert divergence(p, 1, order) <= limit * (1 + 1e-9)


def test_a_fine_grid_makes_shares_as_good_as_one_draw() -> None:
    shared = curve(DiscreteGaussian(2.0, 1000.0, 10**6, shares=100))(SOME)
    np.testing.assert_allclose(shared, gaussian(2.0)(SOME), rtol=1e-12)


def test_shares_with_too_little_noise_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"one of 100 shares is 0\.3"):
        curve(DiscreteGaussian(3.0, 1.0, 10, shares=100))


@pytest.mark.parametrize(("variance", "shift"), [(4.0, 1), (25.0, 3), (400.0, 10)])
def test_skellam_is_within_its_bound(variance: float, shift: int) -> None:
    # The weight of x is e^{-μ}·I_x(μ), where μ is the variance.
    x = np.arange(-600, 601)
    p = special.ive(np.abs(x), variance)
    orders = np.array([2.0, 3.0, 8.0, 16.0])
    bound = curve(Skellam(math.sqrt(variance) / shift, shift, shift))(orders)
    for order, limit in zip(orders, bound, strict=True):
        assert divergence(p, shift, order) <= limit * (1 + 1e-9)


def test_skellam_on_a_fine_grid_is_the_gaussian() -> None:
    orders = np.array(INTEGER_ORDERS, float)
    grid = curve(Skellam(4.0, 1e9, 1e6))(orders)
    np.testing.assert_allclose(grid, gaussian(4.0)(orders), rtol=1e-4)


@given(st.floats(1e-4, 50.0), st.floats(-10, -1))
def test_conversions_are_those_of_dp_accounting(scale: float, exponent: float) -> None:
    orders = np.array(INTEGER_ORDERS, float)
    bounds, small = orders * scale, 10**exponent
    assert epsilon(orders, bounds, small)[0] == pytest.approx(rdp.compute_epsilon(orders, bounds, small)[0])
    reference, _ = rdp.rdp_privacy_accountant.compute_delta(orders, bounds, scale)
    assert delta(orders, bounds, scale)[0] == pytest.approx(reference, rel=1e-9)


def test_a_whole_run_has_no_bound_a_release() -> None:
    with pytest.raises(ConfigError, match="whole run"):
        curve(TreeAggregation(1.0, 10))
