import math
import sys
from typing import Any

import dp_accounting
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpact.core.errors import ConfigError, DependencyError
from fedpact.privacy.accounting import account, cheap_first, epsilon_to_delta
from fedpact.privacy.events import (
    DiscreteGaussian,
    Everyone,
    FixedSize,
    Gaussian,
    Laplace,
    MatrixFactorized,
    Mechanism,
    Poisson,
    Release,
    Sampling,
    Skellam,
    TreeAggregation,
)

TRAINING = Release(Gaussian(1.0), Poisson(0.01), 1000)


@given(st.floats(0.5, 50.0), st.integers(1, 500), st.sampled_from([1e-3, 1e-5, 1e-9]))
def test_full_participation_is_one_gaussian(noise: float, rounds: int, delta: float) -> None:
    found = account([Release(Gaussian(noise), Everyone(), rounds)], delta)
    assert found.accountant == "closed_form"
    assert found.epsilon == pytest.approx(
        dp_accounting.get_epsilon_gaussian(noise / math.sqrt(rounds), delta), rel=1e-6, abs=1e-9
    )


def test_gaussians_of_different_noise_add_up_like_inverse_variances() -> None:
    mixed = account([Release(Gaussian(3.0), count=9), Release(Gaussian(4.0), count=16)], 1e-5)
    # 9/9 + 16/16 = 2.
    assert mixed.epsilon == pytest.approx(dp_accounting.get_epsilon_gaussian(1 / math.sqrt(2), 1e-5))


@pytest.mark.parametrize("sampling", [Poisson(1.0), FixedSize(10, 10)])
def test_a_sample_of_everyone_is_no_sample(sampling: Sampling) -> None:
    everyone = account([Release(Gaussian(5.0), Everyone(), 100)], 1e-5)
    assert account([Release(Gaussian(5.0), sampling, 100)], 1e-5) == everyone


def test_replacing_a_unit_is_noise_of_half_the_size() -> None:
    for sampling, accountant in [(Everyone(), "closed_form"), (FixedSize(100, 10000), "rdp")]:
        replaced = account([Release(Gaussian(4.0), sampling, 100)], 1e-5, "replace_one")
        assert replaced.accountant == accountant
        assert "twice" in replaced.notes[0]
    doubled = account([Release(Gaussian(2.0), Everyone(), 100)], 1e-5)
    assert account([Release(Gaussian(4.0), Everyone(), 100)], 1e-5, "replace_one").epsilon == doubled.epsilon


def test_replacing_a_unit_doubles_laplace_too() -> None:
    replaced = account([Release(Laplace(4.0), Everyone(), 10)], 1e-5, "replace_one")
    assert replaced.epsilon == pytest.approx(account([Release(Laplace(2.0), Everyone(), 10)], 1e-5).epsilon)


def test_one_laplace_is_its_own_epsilon() -> None:
    # 1 - e^{(ε - 1/b)/2} is its δ for ε below 1/b.
    found = epsilon_to_delta([Release(Laplace(2.0))], 0.3)
    assert found.delta == pytest.approx(1 - math.exp((0.3 - 0.5) / 2), rel=1e-4)


def test_equal_releases_are_one_that_is_repeated_in_any_order() -> None:
    laplace = Release(Laplace(5.0), count=2)
    whole = account([TRAINING, laplace], 1e-5)
    halves = [Release(TRAINING.mechanism, TRAINING.sampling, 500)] * 2
    parts = account([laplace, *halves], 1e-5)
    assert parts.epsilon == pytest.approx(whole.epsilon, rel=1e-9)


@pytest.mark.parametrize(("rate", "noise", "rounds"), [(0.005, 0.8, 300), (0.1, 4.0, 50), (0.2, 2.0, 1)])
def test_rdp_is_never_below_pld(rate: float, noise: float, rounds: int) -> None:
    releases = [Release(Gaussian(noise), Poisson(rate), rounds)]
    tight = account(releases, 1e-5, accountant="pld").epsilon
    assert account(releases, 1e-5, accountant="rdp").epsilon >= tight * (1 - 1e-4)


MECHANISMS = [
    Gaussian,
    Laplace,
    lambda noise: DiscreteGaussian(noise, 100.0, 1000, shares=10),
    lambda noise: Skellam(noise, 1000.0, 100.0),
]


@pytest.mark.parametrize("make", MECHANISMS)
def test_more_sampling_rounds_and_certainty_cost_more_and_more_noise_less(make: Any) -> None:
    def cost(noise: float = 2.0, rate: float = 0.1, rounds: int = 20, delta: float = 1e-5) -> float:
        return account([Release(make(noise), Poisson(rate), rounds)], delta, accountant="rdp").epsilon

    assert cost(noise=2.5) < cost() < cost(noise=1.5)
    assert cost(rate=0.05) < cost() < cost(rate=0.2)
    assert cost(rounds=10) < cost() < cost(rounds=40)
    assert cost(delta=1e-4) < cost() < cost(delta=1e-6)


@pytest.mark.parametrize(
    "releases",
    [
        [Release(Gaussian(5.0), Everyone(), 100)],
        [TRAINING],
        [Release(Skellam(4.0, 1e5, 1e3), Everyone(), 100)],
    ],
)
def test_delta_of_an_epsilon_is_the_delta_that_gave_it(releases: list[Release]) -> None:
    there = account(releases, 1e-5)
    back = epsilon_to_delta(releases, there.epsilon)
    assert back.accountant == there.accountant
    assert back.delta == pytest.approx(1e-5, rel=2e-3)


def test_delta_that_is_lost_in_rounding_is_bounded_otherwise() -> None:
    found = epsilon_to_delta([TRAINING], 12.0)
    assert found.accountant == "rdp"
    assert 0 < found.delta < 1e-30
    assert account([TRAINING], 1e-13).accountant == "rdp"


def test_nothing_costs_nothing() -> None:
    assert account([], 1e-5).epsilon == 0.0
    assert epsilon_to_delta([], 1.0).delta == 0.0


def test_little_noise_on_a_tiny_sample_is_still_bounded() -> None:
    releases = [Release(Gaussian(0.1), Poisson(1e-7), 10)]
    found = account(releases, 1e-5)
    # With probability 1 − 10⁻⁶ the unit is in no sample at all.
    assert found.accountant == "pld"
    assert found.epsilon < 1e-3


def test_a_coarse_grid_for_a_large_epsilon_is_above_a_fine_one() -> None:
    releases = [Release(Gaussian(0.3), Poisson(0.05), 50)]
    large = account(releases, 1e-5).epsilon
    fine = dp_accounting.pld.PLDAccountant(value_discretization_interval=1e-3)
    fine.compose(dp_accounting.PoissonSampledDpEvent(0.05, dp_accounting.GaussianDpEvent(0.3)), 50)
    assert large == pytest.approx(fine.get_epsilon(1e-5), rel=1e-3)


@pytest.mark.parametrize(
    ("mechanism", "squared"), [(TreeAggregation(5.0, 512), 10), (MatrixFactorized(5.0, 64, 1), 1)]
)
def test_a_whole_run_is_one_gaussian_of_its_sensitivity(mechanism: Mechanism, squared: int) -> None:
    found = account([Release(mechanism)], 1e-6)
    assert found.epsilon == pytest.approx(dp_accounting.get_epsilon_gaussian(5.0 / math.sqrt(squared), 1e-6))
    assert "more often" in found.notes[0]


def test_bands_no_longer_than_the_separation_make_participations_orthogonal() -> None:
    run = MatrixFactorized(5.0, 64, 8, participations=4, separation=8)
    once = MatrixFactorized(5.0, 64, 8)
    assert account([Release(run)], 1e-6).epsilon == pytest.approx(
        account([Release(once, count=4)], 1e-6).epsilon
    )


@pytest.mark.parametrize("releases", [[TRAINING], [Release(Laplace(1.0)), TRAINING]])
def test_the_cheap_accountant_is_asked_first_and_never_tighter(releases: list[Release]) -> None:
    cheap, exact = cheap_first(releases, 1e-5)
    assert (
        account(releases, 1e-5, accountant=cheap).epsilon >= account(releases, 1e-5, accountant=exact).epsilon
    )


def test_where_the_answer_is_cheap_it_is_asked_at_once() -> None:
    assert cheap_first([Release(Gaussian(1.0))], 1e-5) == ("auto",)
    assert cheap_first([TRAINING], 1e-5, "replace_one") == ("auto",)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([TRAINING], 0.0), "delta is 0.0"),
        (([TRAINING], 1.0), "delta is 1.0"),
        (([TRAINING], float("nan")), "delta is nan"),
        (([TRAINING], 1e-5, "add-or-remove"), 'Did you mean "add_or_remove"'),
        (([TRAINING], 1e-5, "add_or_remove", "prv"), 'the accountant is "prv"'),
        (([TRAINING], 1e-5, "add_or_remove", "closed_form"), "full participation alone"),
        (([Release(Skellam(1.0, 9.0, 3.0))], 1e-5, "add_or_remove", "pld"), "does not cover Skellam"),
        (([Gaussian(1.0)], 1e-5), "is no Release"),
        (([Release(Gaussian(1.0), FixedSize(1, 9))], 1e-5), "replace_one alone"),
        (([Release(Laplace(1.0), Poisson(0.1))], 1e-5, "replace_one"), "with a fixed size"),
    ],
)
def test_what_cannot_be_accounted_for_is_refused(arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        account(*arguments)


@pytest.mark.parametrize("epsilon", [-1.0, math.inf, math.nan])
def test_what_is_no_epsilon_is_refused(epsilon: float) -> None:
    with pytest.raises(ConfigError, match="epsilon is"):
        epsilon_to_delta([TRAINING], epsilon)


def test_without_dp_accounting_a_sample_asks_for_it_and_all_else_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [*sys.modules, "dp_accounting", "absl"]:
        if name.partition(".")[0] in ("dp_accounting", "absl"):
            monkeypatch.setitem(sys.modules, name, None)
    assert account([Release(Gaussian(7.5), count=100)], 1e-5).epsilon > 0
    assert account([Release(Skellam(7.5, 1e4, 1e2), Poisson(0.1), 100)], 1e-5).epsilon > 0
    with pytest.raises(DependencyError, match=r'pip install "fedpact\[privacy\]"'):
        account([Release(Gaussian(7.5), Poisson(0.123), 100)], 1e-5)


def test_a_guarantee_is_written_down_as_plain_json() -> None:
    found = account([Release(Gaussian(1.0))], 1e-5, "replace_one").to_json()
    assert found["relation"] == "replace_one"
    assert found["accountant"] == "closed_form"
    assert isinstance(found["notes"], list)
