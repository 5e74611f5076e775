"""Claims about the discrete Laplace distribution: its law, its variance and its privacy."""

import math

import numpy as np
import pytest
from scipy.stats import dlaplace, laplace

from fedpact.core.errors import ConfigError
from fedpact.privacy.discrete_laplace import DiscreteLaplace
from tests.privacy.fit import binned_excess, chi_square_excess, correlation, deviations, pmf_excess


@pytest.mark.parametrize("scale", [1.0, 10.0, 1000.0, 2.0**40, 2.0**55])
def test_variance_of_the_draws_is_that_of_the_distribution(scale: float) -> None:
    noise = DiscreteLaplace(scale)
    draws = noise.draw(2_000_000)
    # The kurtosis is between 6 and 6.3 here: 7 standard deviations are 7·√(5.3/n).
    assert np.var(draws.astype(float)) == pytest.approx(noise.variance, rel=7 * math.sqrt(5.3 / 2_000_000))
    assert deviations(draws, noise.variance) < 6


@pytest.mark.parametrize("scale", [0.2, 1.0, 8.0, 30.0])
def test_draws_fit_the_exact_probabilities(scale: float) -> None:
    noise = DiscreteLaplace(scale)
    assert pmf_excess(noise.draw(1_000_000), noise.pmf, int(12 * scale) + 2) < 1


@pytest.mark.parametrize("scale", [1000.0, 2.0**40, 2.0**55])
def test_wide_noise_fits_the_continuous_distribution(scale: float) -> None:
    draws = DiscreteLaplace(scale).draw(1_000_000)
    assert binned_excess(draws, laplace(scale=scale).cdf, 2 * scale) < 1


def test_last_bits_of_wide_noise_are_uniform() -> None:
    last_bits = DiscreteLaplace(2.0**40).draw(1_000_000) & 63
    assert chi_square_excess(np.bincount(last_bits, minlength=64), np.full(64, 1 / 64)) < 1


@pytest.mark.parametrize("scale", [1000.0, 1500.0])
def test_last_bits_of_narrower_noise_fall_as_the_law_does(scale: float) -> None:
    # What is left of k ≥ 0 after division by 128 has P(l) ∝ exp(−l/t): without rejection it would be uniform.
    draws = DiscreteLaplace(scale).draw(1_000_000)
    weights = np.exp(-np.arange(128) / scale)
    counts = np.bincount(draws[draws >= 0] & 127, minlength=128)
    assert chi_square_excess(counts, weights / weights.sum()) < 1


@pytest.mark.parametrize("scale", [0.05, 1.0, 7.5, 1e6])
def test_probabilities_and_variance_are_those_of_scipy(scale: float) -> None:
    k = np.arange(-50, 51)
    assert DiscreteLaplace(scale).pmf(k) == pytest.approx(dlaplace(1 / scale).pmf(k), rel=1e-9, abs=1e-300)
    assert DiscreteLaplace(scale).variance == pytest.approx(dlaplace(1 / scale).var(), rel=1e-9)


@pytest.mark.parametrize("scale", [0.5, 3.0, 100.0])
def test_probabilities_of_neighbours_differ_by_the_promised_factor(scale: float) -> None:
    k = np.arange(-200, 200)
    noise = DiscreteLaplace(scale)
    ratios = noise.pmf(k) / noise.pmf(k + 1)
    assert np.abs(np.log(ratios)).max() == pytest.approx(1 / scale)


def test_largest_of_a_million_is_as_large_as_it_should_be() -> None:
    largest = np.abs(DiscreteLaplace(1000.0).draw(1_000_000)).max()
    # P(|k| > xt) = e^-x: below 10 with probability e^-45, above 35 with probability 10⁻⁹.
    assert 10_000 < largest < 35_000


def test_draws_of_two_calls_are_independent() -> None:
    noise = DiscreteLaplace(50.0)
    assert correlation(noise.draw(1_000_000), noise.draw(1_000_000)) < 6


@pytest.mark.parametrize("scale", [0.0, 0.001, 2.0**56, -1.0, math.nan, math.inf, "1"])
def test_scale_out_of_range_is_refused(scale: float) -> None:
    with pytest.raises(ConfigError, match="DiscreteLaplace: scale is"):
        DiscreteLaplace(scale)
