"""Claims about Skellam noise: its law, its variance, its privacy, and that shares of it add up."""

import decimal
import math
from decimal import Decimal

import numpy as np
import pytest
from scipy.special import ive

from fedpact.core.errors import ConfigError
from fedpact.privacy import skellam
from fedpact.privacy.blocks import DIGITS
from fedpact.privacy.skellam import Skellam
from tests.privacy.fit import chi_square_excess, correlation, deviations, pmf_excess


@pytest.mark.parametrize("variance", [1.0, 20.0, 4095.0, 4096.0, 1e7, 2.0**80, 2.0**110])
def test_variance_of_the_draws_is_that_of_the_distribution(variance: float) -> None:
    draws = Skellam(variance).draw(2_000_000)
    # The kurtosis is 3 + 1/v.
    assert np.var(draws.astype(float)) == pytest.approx(
        variance, rel=7 * math.sqrt((2 + 1 / variance) / 2_000_000)
    )
    assert deviations(draws, variance) < 6


@pytest.mark.parametrize("variance", [0.003, 0.5, 3.0, 100.0, 4095.0, 4096.0, 50_000.0])
def test_draws_fit_the_exact_probabilities(variance: float) -> None:
    noise = Skellam(variance)
    assert pmf_excess(noise.draw(1_000_000), noise.pmf, int(6 * math.sqrt(variance)) + 3) < 1


@pytest.mark.parametrize(("variance", "shares"), [(2.0, 100), (100.0, 10), (40_000.0, 8)])
def test_sum_of_shares_is_distributed_like_the_whole(variance: float, shares: int) -> None:
    total = np.sum([Skellam(variance / shares).draw(500_000) for _ in range(shares)], axis=0)
    assert pmf_excess(total, Skellam(variance).pmf, int(6 * math.sqrt(variance)) + 3) < 1
    assert np.var(total) == pytest.approx(variance, rel=7 * math.sqrt((2 + 1 / variance) / 500_000))


def test_last_bits_of_wide_noise_are_uniform() -> None:
    last_bits = Skellam(2.0**80).draw(1_000_000) & 63
    assert chi_square_excess(np.bincount(last_bits, minlength=64), np.full(64, 1 / 64)) < 1


@pytest.mark.parametrize("variance", [1e-12, 0.01, 0.5, 10.0, 100.0, 4095.0, 4096.0, 1e5])
def test_probabilities_are_the_bessel_functions_of_scipy(variance: float) -> None:
    k = np.arange(-int(12 * math.sqrt(variance)) - 2, int(12 * math.sqrt(variance)) + 3)
    # Relative, down to the tails; `ive` itself is good to 1e-12 of what remains above 1e-40.
    expected = ive(np.abs(k), variance)
    assert Skellam(variance).pmf(k) == pytest.approx(expected, rel=1e-11, abs=1e-40)


@pytest.mark.parametrize("k", [0, 1, 64, 300, 640, 830])
def test_series_and_recurrence_agree_where_one_takes_over_from_the_other(k: int) -> None:
    weights = skellam._bessel(skellam._LARGE)
    with decimal.localcontext(DIGITS):
        total = Decimal(weights[0] + 2 * sum(weights[1:]))
        # Sums to 1 by the generating function, so that √(2πv) times it is the series' unit; π to 50 digits.
        two_pi_v = (
            2 * Decimal("3.14159265358979323846264338327950288419716939937510") * Decimal(skellam._LARGE)
        )
        by_recurrence = two_pi_v.sqrt() * weights[k] / total
        by_series = skellam._debye_weight(k, skellam._LARGE)
        assert abs(by_series / by_recurrence - 1) < Decimal(2) ** -120


def divergence_of_neighbours(variance: float, order: int) -> float:
    """Return D_α of the noise moved by 1 against itself; beyond 12 standard deviations nothing counts here."""
    reach = int(12 * math.sqrt(variance)) + 1
    log_pmf = np.log(Skellam(variance).pmf(np.arange(-reach, reach + 1)))
    terms = order * log_pmf[:-1] + (1 - order) * log_pmf[1:]
    return float(terms.max() + math.log(np.sum(np.exp(terms - terms.max())))) / (order - 1)


@pytest.mark.parametrize("variance", [5.0, 100.0])
@pytest.mark.parametrize("order", [2, 8, 32])
def test_divergence_of_neighbours_is_within_the_paper_s_bound(variance: float, order: int) -> None:
    # Agarwal et al. with Δ₁ = Δ₂ = 1.
    excess = min((2 * order - 1 + 6) / (4 * variance**2), 3 / (2 * variance))
    assert divergence_of_neighbours(variance, order) <= order / (2 * variance) + excess


@pytest.mark.parametrize("order", [2, 8, 32])
def test_divergence_of_wide_noise_is_the_gaussian_s(order: int) -> None:
    assert divergence_of_neighbours(1e5, order) == pytest.approx(order / 2e5, rel=1e-3)


def test_largest_of_a_million_is_as_large_as_it_should_be() -> None:
    largest = np.abs(Skellam(1e8).draw(1_000_000)).max()
    assert 4.2e4 < largest < 8e4


def test_draws_of_two_calls_are_independent() -> None:
    noise = Skellam(90_000.0)
    first, second = noise.draw(1_000_000), noise.draw(1_000_000)
    assert correlation(first, second) < 6
    assert correlation(first[:-1], first[1:]) < 6


@pytest.mark.parametrize("variance", [0.0, 1e-13, 2.0**111, -1.0, math.nan, math.inf, "1"])
def test_variance_out_of_range_is_refused(variance: float) -> None:
    with pytest.raises(ConfigError, match="Skellam: variance is"):
        Skellam(variance)
