from typing import Any

import dp_accounting
import pytest

from fedpact.core.errors import ConfigError
from fedpact.privacy.accounting import account
from fedpact.privacy.events import FixedSize, Gaussian, Laplace, Poisson, Release, Skellam, TreeAggregation
from fedpact.privacy.search import furthest
from fedpact.privacy.solve import noise_for, solve

SILOS: dict[str, Any] = {"clients": 100, "sampling": "all"}


def test_noise_is_the_least_that_is_enough() -> None:
    plan = solve(**SILOS, epsilon=2.0, delta=1e-5, rounds=100)
    # The analytic Gaussian, for 100 rounds ten times as much.
    assert plan.noise_multiplier == pytest.approx(10 * dp_accounting.get_sigma_gaussian(2.0, 1e-5), rel=2e-4)
    assert plan.guarantee.epsilon <= 2.0


def test_rounds_are_the_most_that_are_allowed() -> None:
    plan = solve(**SILOS, epsilon=2.0, delta=1e-5, noise_multiplier=20.0)
    assert plan.guarantee.epsilon <= 2.0
    assert account([Release(Gaussian(20.0), count=plan.rounds + 1)], 1e-5).epsilon > 2.0


def test_epsilon_and_delta_are_each_others_answer() -> None:
    there = solve(**SILOS, rounds=100, noise_multiplier=5.0, delta=1e-5).guarantee
    back = solve(**SILOS, rounds=100, noise_multiplier=5.0, epsilon=there.epsilon).guarantee
    assert there.epsilon == pytest.approx(9.99726, abs=1e-5)
    assert back.delta == pytest.approx(1e-5, rel=1e-6)


def test_delta_that_is_left_out_beside_another_is_below_one_over_the_clients() -> None:
    assert solve(**SILOS, rounds=10, noise_multiplier=9.0).guarantee.delta == pytest.approx(100**-1.1)


def test_a_noise_multiplier_has_a_largest_cohort() -> None:
    question: dict[str, Any] = {"clients": 1000, "rounds": 200, "delta": 1e-5, "accountant": "rdp"}
    plan = solve(**question, epsilon=2.0, noise_multiplier=2.0)
    assert plan.guarantee.epsilon <= 2.0
    assert solve(**question, noise_multiplier=2.0, cohort=plan.cohort + 1).guarantee.epsilon > 2.0


def test_noise_in_proportion_to_the_cohort_has_a_smallest_cohort() -> None:
    # TensorFlow Federated's tutorial on differential privacy: 3383 clients, noise 0.01 on the mean, 100 rounds.
    plan = solve(clients=3383, rounds=100, noise_ratio=0.01, epsilon=2.0, delta=1e-5, accountant="rdp")
    assert plan.cohort == 120
    assert plan.noise_multiplier == pytest.approx(1.2)


@pytest.mark.slow
def test_the_tighter_accountant_finds_a_smaller_cohort() -> None:
    assert solve(clients=3383, rounds=100, noise_ratio=0.01, epsilon=2.0, delta=1e-5).cohort == 104


def test_the_tighter_accountant_allows_a_cohort_of_104_and_not_of_103() -> None:
    def cost(cohort: int) -> float:
        return account([Release(Gaussian(0.01 * cohort), Poisson(cohort / 3383), 100)], 1e-5).epsilon

    assert cost(104) <= 2.0 < cost(103)


def test_noise_with_the_tighter_accountant_meets_the_target_with_it() -> None:
    def releases(noise: float) -> list[Release]:
        return [Release(Laplace(noise), Poisson(0.05), 20)]

    noise = noise_for(releases, 1.0, 1e-5)
    assert account(releases(noise), 1e-5).epsilon <= 1.0
    assert account(releases(noise * 0.999), 1e-5).epsilon > 1.0
    assert noise < noise_for(releases, 1.0, 1e-5, accountant="rdp")


@pytest.mark.parametrize(
    "make",
    [
        lambda noise: [Release(Skellam(noise, 1e5, 1e3), count=100)],
        lambda noise: [Release(TreeAggregation(noise, 128))],
        lambda noise: [Release(Gaussian(noise), count=10), Release(Gaussian(2 * noise), count=10)],
    ],
)
def test_noise_is_solved_for_in_any_release(make: Any) -> None:
    noise = noise_for(make, 3.0, 1e-6)
    assert account(make(noise), 1e-6).epsilon <= 3.0
    assert account(make(noise * 0.999), 1e-6).epsilon > 3.0


def test_noise_for_a_fixed_size_under_replacement() -> None:
    def releases(noise: float) -> list[Release]:
        return [Release(Skellam(noise, 1e5, 1e3), FixedSize(1, 100), 10)]

    noise = noise_for(releases, 2.0, 1e-5, "replace_one")
    assert account(releases(noise), 1e-5, "replace_one").epsilon == pytest.approx(2.0, rel=1e-3)


def test_a_plan_says_what_it_releases() -> None:
    plan = solve(clients=1000, cohort=50, rounds=200, noise_multiplier=2.0, delta=1e-5, accountant="rdp")
    assert plan.releases() == (Release(Gaussian(2.0), Poisson(0.05), 200),)
    assert plan.noise_ratio == 0.04
    assert plan.to_json()["releases"] == [plan.releases()[0].to_json()]


def test_the_furthest_number_that_holds_is_found_in_both_directions() -> None:
    for edge in range(1, 60):
        assert furthest(lambda n, edge=edge: n <= edge, 1, 100) == edge  # type: ignore[misc]
        assert furthest(lambda n, edge=edge: n >= edge, 100, 1) == edge  # type: ignore[misc]
    assert furthest(lambda _: True, 1, 100) == 100


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rounds": 10}, "left out are epsilon, delta, noise"),
        ({"rounds": 10, "noise_multiplier": 1.0, "epsilon": 1.0, "delta": 1e-5}, "none is"),
        ({"rounds": 10, "noise_multiplier": 1.0, "noise_ratio": 1.0}, "not both"),
        ({"rounds": 10, "noise_multiplier": 1.0, "delta": 0.01}, "below one over the 100 clients"),
        ({"rounds": 0, "noise_multiplier": 1.0}, "rounds is 0"),
        ({"rounds": 10, "noise_multiplier": -1.0}, "noise_multiplier is -1"),
        ({"rounds": 10, "noise_multiplier": 1.0, "cohort": 5}, "leave the cohort out"),
        ({"rounds": 10, "noise_multiplier": 1.0, "sampling": "poison"}, 'Did you mean "poisson"'),
        ({"rounds": 10, "noise_multiplier": 1.0, "cohort": 101, "sampling": "fixed"}, "the cohort is 101"),
        ({"noise_multiplier": 0.1, "epsilon": 0.1, "delta": 1e-5}, "even with rounds 1"),
        ({"noise_multiplier": 1e5, "epsilon": 10.0, "delta": 1e-5}, "rounds and more stay within"),
        ({"rounds": 10_000_000, "epsilon": 1e-6, "delta": 1e-12}, "is enough: release less often"),
    ],
)
def test_a_question_without_an_answer_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        solve(**{**SILOS, **settings})
