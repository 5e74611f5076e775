import math
from typing import Any

import numpy as np
import pytest
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from fedpact.core.errors import ConfigError
from fedpact.privacy.amplification import divergence, poisson_sampled, sampled_without_replacement
from fedpact.privacy.events import DiscreteGaussian, Everyone, FixedSize, Gaussian, Laplace, Poisson, Skellam
from fedpact.privacy.renyi import INTEGER_ORDERS, ORDERS, curve, gaussian


def sampled_gaussian_divergence(order: float, rate: float, noise: float) -> float:
    """D_α((1−q)·N(0, σ²) + q·N(1, σ²) ‖ N(0, σ²)) by numerical integration."""
    base = stats.norm(0, noise)

    def moment(x: float) -> float:
        ratio = 1 - rate + rate * math.exp((2 * x - 1) / (2 * noise**2))
        return float(base.pdf(x)) * ratio**order

    value, _ = integrate.quad(moment, -12 * noise, 12 * noise + order, limit=500)
    return math.log(value) / (order - 1)


@pytest.mark.parametrize(
    ("order", "rate", "noise"), [(2, 0.1, 1.0), (5, 0.01, 2.0), (4, 0.3, 1.5), (16, 0.02, 4.0)]
)
def test_sampled_gaussian_is_the_integral(order: float, rate: float, noise: float) -> None:
    (found,) = divergence(Gaussian(noise), Poisson(rate), "add_or_remove", (order,))
    assert found == pytest.approx(sampled_gaussian_divergence(order, rate, noise), rel=1e-6)


@settings(deadline=None, max_examples=30)
@given(st.floats(0.001, 0.9), st.floats(0.5, 20.0))
def test_the_bound_for_any_noise_is_above_the_gaussians_own(rate: float, noise: float) -> None:
    orders = (2, 3, 5, 8, 16, 32)
    any_noise = poisson_sampled(gaussian(noise), rate, np.array(orders, float))
    assert np.all(
        any_noise >= divergence(Gaussian(noise), Poisson(rate), "add_or_remove", orders) * (1 - 1e-9)
    )


@settings(deadline=None, max_examples=20)
@given(st.floats(0.001, 0.9), st.floats(0.5, 20.0))
def test_the_bound_for_any_noise_without_replacement_is_above_the_gaussians_own(
    rate: float, noise: float
) -> None:
    orders = (2, 3, 5, 8, 16)
    any_noise = sampled_without_replacement(gaussian(noise / 2), rate, np.array(orders, float))
    sampling = FixedSize(max(1, int(rate * 10**6)), 10**6)
    gaussians = divergence(Gaussian(noise), sampling, "replace_one", orders)
    # The sample's size is rounded down.
    assert np.all(any_noise >= gaussians * (1 - 1e-3))


@settings(deadline=None, max_examples=30)
@given(st.floats(0.001, 0.99), st.floats(0.3, 20.0))
def test_sampling_never_costs_more_than_taking_everyone(rate: float, noise: float) -> None:
    orders = np.array(INTEGER_ORDERS, float)
    for base in (curve(Laplace(noise)), curve(Skellam(noise, 1e4, 1e2))):
        assert np.all(poisson_sampled(base, rate, orders) <= base(orders))
        assert np.all(sampled_without_replacement(base, rate, orders) <= base(orders))


def test_sampled_laplace_is_not_above_its_integral_and_near_it() -> None:
    # D₂((1−q)·L(0) + q·L(1) ‖ L(0)) = log(1 + q²·(e^{D₂(L(1) ‖ L(0))} − 1)).
    rate, noise = 0.1, 2.0
    plain = float(curve(Laplace(noise))(np.array([2.0]))[0])
    (found,) = divergence(Laplace(noise), Poisson(rate), "add_or_remove", (2,))
    assert found == pytest.approx(math.log1p(rate**2 * math.expm1(plain)))


def test_orders_that_dp_accounting_leaves_out_are_filled_in() -> None:
    # At such a rate its series for fractional orders does not converge, and it leaves them out.
    left_out = RdpAccountant(ORDERS).compose(_event(0.5, 0.8))._rdp
    assert not np.isfinite(left_out).all()
    filled = divergence(Gaussian(0.8), Poisson(0.5), "add_or_remove", ORDERS)
    assert np.isfinite(filled).all()
    for order, bound in zip(ORDERS, filled, strict=True):
        if order < 12:
            assert bound >= sampled_gaussian_divergence(order, 0.5, 0.8) * (1 - 1e-6)


def _event(rate: float, noise: float) -> Any:
    import dp_accounting

    return dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise))


def test_replacing_a_unit_doubles_every_sensitivity() -> None:
    orders = (2, 4, 8)
    for noise, twice in [
        (Gaussian(4.0), Gaussian(2.0)),
        (Laplace(4.0), Laplace(2.0)),
        (DiscreteGaussian(4.0, 10.0, 100), DiscreteGaussian(2.0, 20.0, 100)),
        (Skellam(4.0, 100.0, 10.0), Skellam(2.0, 200.0, 20.0)),
    ]:
        replaced = divergence(noise, Everyone(), "replace_one", orders)
        np.testing.assert_allclose(replaced, divergence(twice, Everyone(), "add_or_remove", orders))


def test_fixed_size_sampling_of_added_units_is_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"replace_one alone.*Set the relation to .*or sample by Poisson"):
        divergence(Gaussian(1.0), FixedSize(1, 10), "add_or_remove", (2,))


def test_poisson_sampling_of_replaced_units_is_refused_for_discrete_noise() -> None:
    with pytest.raises(ConfigError, match="sample with a fixed size"):
        divergence(Skellam(1.0, 10.0, 5.0), Poisson(0.1), "replace_one", (2,))
