"""Claims about the discrete Gaussian: its law, its variance, its independence and its privacy."""

import math
import pickle

import numpy as np
import pytest
from scipy.stats import norm

from fedpact.core.errors import ConfigError
from fedpact.privacy.discrete_gaussian import DiscreteGaussian
from tests.privacy.fit import binned_excess, chi_square_excess, correlation, deviations, pmf_excess

WIDTHS = [0.3, 1.0, 4.0, 75.5, 100.0, 1000.0, 123456.7, 2.0**40, 2.0**55]


@pytest.mark.parametrize("sigma", WIDTHS)
def test_variance_of_the_draws_is_that_of_the_distribution(sigma: float) -> None:
    noise = DiscreteGaussian(sigma)
    draws = noise.draw(2_000_000)
    # 0.7 % are 7 standard deviations of a Gaussian's sample variance (at 0.3, whose kurtosis is 262, much less).
    tolerance = 0.007 if sigma >= 1 else 7 * math.sqrt(262 / 2_000_000)
    assert np.var(draws.astype(float)) == pytest.approx(noise.variance, rel=tolerance)
    assert deviations(draws, noise.variance) < 6


@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0, 75.5, 100.0])
def test_draws_fit_the_exact_probabilities(sigma: float) -> None:
    noise = DiscreteGaussian(sigma)
    assert pmf_excess(noise.draw(1_000_000), noise.pmf, int(6 * sigma) + 2) < 1


@pytest.mark.parametrize("sigma", [1000.0, 123456.7, 2.0**40, 2.0**55])
def test_wide_noise_fits_the_normal_distribution(sigma: float) -> None:
    draws = DiscreteGaussian(sigma).draw(1_000_000)
    assert binned_excess(draws, norm(scale=sigma).cdf, sigma) < 1


@pytest.mark.parametrize("sigma", [5000.0, 2.0**40])
def test_last_bits_of_wide_noise_are_uniform(sigma: float) -> None:
    last_bits = DiscreteGaussian(sigma).draw(1_000_000) & 63
    assert chi_square_excess(np.bincount(last_bits, minlength=64), np.full(64, 1 / 64)) < 1


@pytest.mark.parametrize("sigma", [1.0, 1000.0, 2.0**40])
def test_largest_of_a_million_is_as_large_as_it_should_be(sigma: float) -> None:
    largest = np.abs(DiscreteGaussian(sigma).draw(1_000_000)).max()
    # P(largest < 3.99σ) < e^-60 and P(largest > 8σ) < 2·10⁻⁹; on the grid of σ = 1, P(|k| ≥ 4) is larger still.
    assert 3.99 * sigma < largest < 8 * sigma


def test_draws_are_independent_over_calls_and_within_one() -> None:
    noise = DiscreteGaussian(300.0)
    first, second = noise.draw(1_000_000), noise.draw(1_000_000)
    assert correlation(first, second) < 6
    assert correlation(first[:-1], first[1:]) < 6
    assert correlation(np.abs(first[:-1]), np.abs(first[1:])) < 6


def test_same_call_never_gives_the_same_noise() -> None:
    noise = DiscreteGaussian(2.0**40)
    again = pickle.loads(pickle.dumps(noise))  # noqa: S301
    assert len(np.unique(np.concatenate([noise.draw(1000), noise.draw(1000), again.draw(1000)]))) == 3000


@pytest.mark.parametrize("sigma", [0.01, 0.3, 1.0, 2.99, 3.01, 20.0])
def test_probabilities_are_the_definition_s(sigma: float) -> None:
    k = np.arange(-400, 401)
    weights = np.array([math.exp(-(int(i) ** 2) / (2 * sigma**2)) for i in k])
    noise = DiscreteGaussian(sigma)
    assert noise.pmf(k) == pytest.approx(weights / weights.sum(), rel=1e-12, abs=1e-300)
    assert noise.variance == pytest.approx(np.sum(k**2 * weights) / weights.sum(), rel=1e-12)


@pytest.mark.parametrize("sigma", [0.7, 3.0, 40.0])
@pytest.mark.parametrize("order", [1.5, 2.0, 16.0])
def test_divergence_of_neighbours_is_that_of_the_gaussian(sigma: float, order: float) -> None:
    # Canonne et al.: D_α(N_Z(Δ, σ²) ‖ N_Z(0, σ²)) = αΔ²/(2σ²) for whole Δ, here 1; summed in logarithms.
    k = np.arange(-int(40 * sigma) - 40, int(40 * sigma) + 40)
    exponent = -(order * (k - 1.0) ** 2 + (1 - order) * k**2) / (2 * sigma**2)
    normalizer = math.log(np.sum(np.exp(-(k**2) / (2 * sigma**2))))
    peak = exponent.max()
    divergence = (peak + math.log(np.sum(np.exp(exponent - peak))) - normalizer) / (order - 1)
    assert divergence <= order / (2 * sigma**2) * (1 + 1e-12)
    assert -math.log(DiscreteGaussian(sigma).pmf(0)) == pytest.approx(normalizer, rel=1e-12)


@pytest.mark.parametrize("sigma", [0.0, 0.009, 2.0**56, -1.0, math.nan, math.inf, "1", None])
def test_width_out_of_range_is_refused(sigma: float) -> None:
    with pytest.raises(ConfigError, match="DiscreteGaussian: sigma is"):
        DiscreteGaussian(sigma)
