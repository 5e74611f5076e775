"""Audits: bounds equal those of scipy and of others' code, hold against the exact ε, and have power."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, optimize, stats

from fedpact.core.errors import ConfigError
from fedpact.privacy.audit import (
    audit_scores,
    clopper_pearson,
    cosine_estimate,
    f_dp_epsilon,
    one_run_epsilon,
    two_world_epsilon,
)
from fedpact.privacy.calibration import gaussian_epsilon
from fedpact.privacy.discrete_gaussian import DiscreteGaussian


@st.composite
def guesses(draw):
    canaries = draw(st.integers(1, 2000))
    made = draw(st.integers(1, canaries))
    return canaries, made, draw(st.integers(0, made))


def one_run_by_scipy(canaries, guesses, correct, delta, confidence):
    """Theorem 5.2 of Steinke et al., as their appendix D has it."""

    def excess(epsilon):
        q = 1 / (1 + math.exp(-epsilon))
        beyond = stats.binom.sf(correct - 1, guesses, q)
        i = np.arange(1, correct + 1)
        slack = np.max((stats.binom.sf(correct - i - 1, guesses, q) - beyond) / i, initial=0.0)
        return beyond + 2 * canaries * delta * slack - (1 - confidence)

    return optimize.brentq(excess, 0, 60, xtol=1e-12) if excess(0.0) < 0 else 0.0


@given(guesses(), st.sampled_from([0.0, 1e-6, 1e-4]), st.sampled_from([0.9, 0.95, 0.999]))
def test_one_run_bound_is_that_of_scipys_binomial_tails(made, delta, confidence):
    expected = one_run_by_scipy(*made, delta, confidence)
    assert one_run_epsilon(*made, delta, confidence) == pytest.approx(expected, abs=1e-6)


# By the formulas of jax_privacy's auditing module, with scipy and dp-accounting.
@pytest.mark.parametrize(
    ("canaries", "guesses", "correct", "confidence", "delta", "one_run", "f_dp"),
    [
        (1000, 100, 90, 0.95, 1e-5, 1.62614348, 2.45640489),
        (1000, 100, 100, 0.95, 1e-5, 3.46537635, 5.54902790),
        (1000, 20, 20, 0.99, 1e-6, 1.34361964, 1.84511810),
        (5000, 2500, 1900, 0.999, 1e-5, 0.98552396, 1.15130085),
        (100, 50, 40, 0.95, 1e-3, 0.71138541, 1.00978977),
        (10000, 1000, 850, 0.95, 1e-5, 1.58241782, 2.18014313),
        (300, 300, 170, 0.95, 1e-5, 0.07020396, 0.13096752),
    ],
)
def test_bounds_are_those_of_jax_privacy(canaries, guesses, correct, confidence, delta, one_run, f_dp):
    assert one_run_epsilon(canaries, guesses, correct, delta, confidence) == pytest.approx(one_run, abs=1e-6)
    assert f_dp_epsilon(canaries, guesses, correct, delta, confidence) == pytest.approx(f_dp, abs=1e-6)


@given(guesses())
def test_the_bound_that_supposes_gaussian_noise_is_never_far_the_looser(made):
    # Neither is the looser always: where the evidence just suffices (10 of 13 guesses of 29), this one is, by 0.0171,
    # the most of all cases up to 40 canaries and of a sweep up to 2,000.
    assert f_dp_epsilon(*made, 1e-5) >= 0.9 * one_run_epsilon(*made, 1e-5) - 0.018


# Means over ten repeats of a Gaussian sum with m orthogonal canaries: (z, m, one run, f-DP), δ = 1e-5, at 95 %.
@pytest.mark.parametrize(
    ("z", "m", "one_run", "f_dp"),
    [(0.5, 1000, 3.0, 4.6), (1.0, 1000, 1.6, 2.3), (1.0, 10000, 2.2, 2.7), (2.0, 1000, 0.6, 0.8)],
)
def test_its_power_on_a_gaussian_sum_is_what_is_known_of_it(z, m, one_run, f_dp):
    rng = np.random.default_rng(0)
    found = {"one_run": [], "f_dp": []}
    for _ in range(10):
        inside = rng.random(m) < 0.5
        scores = inside + z * rng.normal(size=m)
        for method, bounds in found.items():
            bounds.append(audit_scores(scores, inside, 1e-5, method=method).epsilon)
    assert np.mean(found["one_run"]) == pytest.approx(one_run, abs=0.15)
    assert np.mean(found["f_dp"]) == pytest.approx(f_dp, abs=0.2)
    assert max(map(max, found.values())) < gaussian_epsilon(z, 1e-5)


def test_of_canaries_that_left_no_trace_nothing_is_proven():
    rng = np.random.default_rng(0)
    bounds = [
        audit_scores(rng.normal(size=500), rng.random(500) < 0.5, 1e-5, 0.999).epsilon for _ in range(50)
    ]
    assert max(bounds) < 0.1


@given(st.integers(1, 3000), st.data(), st.sampled_from([0.9, 0.975, 0.999]))
def test_a_probability_is_bounded_as_by_the_quantiles_of_the_beta_distribution(trials, data, confidence):
    successes = data.draw(st.integers(0, trials))
    lower, upper = clopper_pearson(successes, trials, confidence)
    beta = stats.beta.ppf
    assert lower == pytest.approx(
        beta(1 - confidence, successes, trials - successes + 1) if successes else 0.0, abs=1e-9
    )
    assert upper == pytest.approx(
        beta(confidence, successes + 1, trials - successes) if successes < trials else 1.0, abs=1e-9
    )


@pytest.mark.parametrize("side", [1, -1])
def test_two_worlds_bound_epsilon_of_the_noise_that_is_added(side):
    # z = 1: the exact ε is 4.38, and of 10⁵ runs the bound has been 2.2 to 3.1.
    noise = DiscreteGaussian(1000.0)
    with_canary, without = noise.draw(50_000) + 1000, noise.draw(50_000)
    if side < 0:
        # The same release with its sign turned: now the world without the canary has the higher scores.
        with_canary, without = -without, -with_canary
    bound = two_world_epsilon(with_canary, without, 1e-5)
    assert 1.2 < bound < gaussian_epsilon(1.0, 1e-5)


def test_two_worlds_tell_an_attack_that_only_misses():
    # Below 0 are one in ten of the scores without the canary, and none with it.
    rng = np.random.default_rng(0)
    within = rng.uniform(0.0, 1.0, 4000)
    without = np.where(rng.random(4000) < 0.1, -1.0, rng.uniform(0.0, 1.0, 4000))
    assert two_world_epsilon(within, without, 1e-5) > 2.5


def divergence_by_integration(mean, std, base, epsilon):
    """The hockey-stick divergences of two normal distributions, the larger one."""
    p, q = stats.norm(mean, std), stats.norm(0, base)
    span = (min(mean - 12 * std, -12 * base), max(mean + 12 * std, 12 * base))
    points = np.linspace(*span, 400_001)
    return max(
        integrate.simpson(np.maximum(a.pdf(points) - math.exp(epsilon) * b.pdf(points), 0), x=points)
        for a, b in ((p, q), (q, p))
    )


@pytest.mark.parametrize(("shift", "spread"), [(2.0, 1.0), (3.0, 0.8), (1.0, 1.3), (0.5, 1.0)])
def test_the_estimate_from_cosines_is_that_of_telling_two_normal_distributions_apart(shift, spread):
    dimension = 10_000
    quantiles = stats.norm.ppf((np.arange(999) + 0.5) / 999)
    cosines = (shift + spread * quantiles / np.std(quantiles, ddof=1)) / math.sqrt(dimension)
    found = cosine_estimate(cosines, dimension, 1e-3)
    base = dimension**-0.5
    assert divergence_by_integration(found.mean, found.std, base, found.epsilon) == pytest.approx(
        1e-3, rel=2e-3
    )


def test_the_estimate_from_cosines_is_the_true_epsilon_of_the_gaussian_mechanism():
    # One sum of canaries with noise of z = 1, and far more dimensions than canaries.
    rng, dimension, count = np.random.default_rng(0), 50_000, 400
    canaries = rng.normal(size=(count, dimension)).astype(np.float32)
    canaries /= np.linalg.norm(canaries, axis=1, keepdims=True)
    released = canaries.sum(axis=0) + rng.normal(size=dimension)
    cosines = canaries @ released / np.linalg.norm(released)
    assert cosine_estimate(cosines, dimension, 1e-5).epsilon == pytest.approx(
        gaussian_epsilon(1, 1e-5), rel=0.1
    )


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: one_run_epsilon(10, 11, 5, 1e-5), "5 of 11 guesses about 10 canaries"),
        (lambda: f_dp_epsilon(10, 5, 6, 1e-5), "6 of 5 guesses"),
        (lambda: f_dp_epsilon(10, 5, 5, 1e-5, confidence=1.0), "confidence 1.0; both are between"),
        (lambda: one_run_epsilon(10, 5, 5, -1e-5), "delta is -1e-05"),
        (lambda: audit_scores([1.0, 2.0], [True], 1e-5), r"arrays of shape \(2,\) and \(1,\)"),
        (lambda: audit_scores([1.0, 2.0], [True, False], 1e-5, method="fdp"), 'Did you mean "f_dp"'),
        (lambda: two_world_epsilon([1.0], [0.0, 1.0], 1e-5), "1 scores with the canary"),
        (lambda: cosine_estimate([0.1, 0.1], 10, 1e-5), "estimate nothing"),
        (lambda: cosine_estimate([0.1, math.nan], 10, 1e-5), "estimate nothing"),
    ],
)
def test_what_cannot_be_audited_is_refused(call, sentence):
    with pytest.raises(ConfigError, match=sentence):
        call()
