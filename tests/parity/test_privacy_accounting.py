"""Published privacy costs, and those of dp-accounting, for the same training runs."""

import math
from collections.abc import Sequence
from typing import Any

import dp_accounting
import numpy as np
import pytest
from dp_accounting import pld, rdp

from fedpact.privacy.accounting import account
from fedpact.privacy.calibration import gaussian_epsilon, gaussian_sigma
from fedpact.privacy.events import (
    DiscreteGaussian,
    Everyone,
    FixedSize,
    Gaussian,
    Laplace,
    Mechanism,
    Poisson,
    Release,
    Skellam,
    TreeAggregation,
)
from fedpact.privacy.renyi import INTEGER_ORDERS

TRAININGS = {
    # B=256 of 60,000 images; 60, 15 and 45 epochs.
    "MNIST, noise 1.1": (Release(Gaussian(1.1), Poisson(256 / 60000), 14062), 1e-5),
    "MNIST, noise 1.3": (Release(Gaussian(1.3), Poisson(256 / 60000), 3515), 1e-5),
    "MNIST, noise 0.7": (Release(Gaussian(0.7), Poisson(256 / 60000), 10546), 1e-5),
    "MNIST, B=250, noise 1.3": (Release(Gaussian(1.3), Poisson(250 / 60000), 3600), 1e-5),
    "MNIST, B=250, noise 1.1": (Release(Gaussian(1.1), Poisson(250 / 60000), 14400), 1e-5),
    "MNIST, B=250, noise 0.7": (Release(Gaussian(0.7), Poisson(250 / 60000), 10800), 1e-5),
    "Abadi 2016": (Release(Gaussian(4.0), Poisson(0.01), 10000), 1e-5),
    "MNIST, B=64, 10 epochs": (Release(Gaussian(1.0), Poisson(64 / 60000), 9375), 1e-5),
    "DP-FedAvg": (Release(Gaussian(1.0), Poisson(5000 / 763430), 5000), 1e-9),
    "TFF tutorial": (Release(Gaussian(1.2), Poisson(120 / 3383), 100), 1e-5),
    "100 of 10,000 clients": (Release(Gaussian(1.0), Poisson(0.01), 1000), 1e-5),
}
RDP = {
    "MNIST, noise 1.1": 2.5966,
    "MNIST, noise 1.3": 0.9544,
    "MNIST, noise 0.7": 6.3195,
    "MNIST, B=250, noise 1.3": 0.9422,
    "MNIST, B=250, noise 1.1": 2.5617,
    "MNIST, B=250, noise 0.7": 6.2343,
    "Abadi 2016": 1.0355,
    "MNIST, B=64, 10 epochs": 0.8036,
    "DP-FedAvg": 4.183,
    "TFF tutorial": 1.9861,
    "100 of 10,000 clients": 2.1014,
}
PLD = {
    "MNIST, noise 1.1": 2.3816,
    "MNIST, noise 1.3": 0.8645,
    "MNIST, noise 0.7": 5.6394,
    "MNIST, B=250, noise 1.3": 0.8530,
    "MNIST, B=250, noise 1.1": 2.3496,
    "MNIST, B=250, noise 0.7": 5.5622,
    "Abadi 2016": 0.9469,
    "MNIST, B=64, 10 epochs": 0.4936,
    "TFF tutorial": 1.7075,
    "100 of 10,000 clients": 1.8282,
}
SLOW = {"MNIST, B=250, noise 1.3", "MNIST, B=250, noise 1.1", "MNIST, B=250, noise 0.7", "MNIST, noise 0.7"}


def of_1702_07476(release: Release, delta: float, orders: Sequence[float]) -> float:
    """The conversion of Mironov 2017, Proposition 3, with which the published numbers were computed."""
    accountant = rdp.RdpAccountant(orders)
    sampling = release.sampling
    assert isinstance(sampling, Poisson)
    assert isinstance(release.mechanism, Gaussian)
    noise = dp_accounting.GaussianDpEvent(release.mechanism.noise_multiplier)
    accountant.compose(dp_accounting.PoissonSampledDpEvent(sampling.rate, noise), release.count)
    found = np.array(accountant._rdp) - math.log(delta) / (np.array(orders) - 1)
    return float(np.min(found))


@pytest.mark.parametrize(
    ("name", "published"),
    [("MNIST, noise 1.3", 1.19), ("MNIST, noise 1.1", 3.01), ("MNIST, noise 0.7", 7.10)],
)
def test_published_cost_of_tensorflow_privacys_tutorial_comes_out(name: str, published: float) -> None:
    # tensorflow/privacy, tutorials/README.md.
    release, delta = TRAININGS[name]
    ours = account([release], delta, accountant="rdp").epsilon
    old = of_1702_07476(release, delta, rdp.rdp_privacy_accountant.DEFAULT_RDP_ORDERS)
    assert old == pytest.approx(published, abs=5e-3)
    assert ours < old


def test_published_cost_of_dp_fedavg_comes_out() -> None:
    # McMahan et al., "Learning Differentially Private Recurrent Language Models", ICLR 2018: 4.634 and 1.152.
    release, delta = TRAININGS["DP-FedAvg"]
    assert of_1702_07476(release, delta, range(2, 64)) == pytest.approx(4.634, abs=1e-3)
    many = Release(Gaussian(1.0), Poisson(5000 / 1e8), 5000)
    assert of_1702_07476(many, 1e-9, range(2, 64)) == pytest.approx(1.152, abs=1e-3)


@pytest.mark.parametrize("name", RDP)
def test_rdp_cost_is_the_known_one(name: str) -> None:
    release, delta = TRAININGS[name]
    assert account([release], delta, accountant="rdp").epsilon == pytest.approx(RDP[name], abs=1e-3)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in PLD]
)
def test_pld_cost_is_the_known_one(name: str) -> None:
    release, delta = TRAININGS[name]
    found = account([release], delta)
    assert found.accountant == "pld"
    assert found.epsilon == pytest.approx(PLD[name], abs=1e-3)


def test_rdp_hides_what_a_tiny_sample_is_worth() -> None:
    many = Release(Gaussian(1.0), Poisson(5000 / 1e8), 5000)
    assert account([many], 1e-9, accountant="rdp").epsilon == pytest.approx(0.934, abs=1e-3)
    assert account([many], 1e-9).epsilon < 0.0257


def test_full_participation_is_the_analytic_gaussian_and_rdp_is_above_it() -> None:
    run = [Release(Gaussian(5.0), Everyone(), 100)]
    assert account(run, 1e-5).epsilon == pytest.approx(9.99726, abs=1e-5)
    assert account(run, 1e-5, accountant="pld").epsilon == pytest.approx(9.9973, abs=1e-3)
    assert account(run, 1e-5, accountant="rdp").epsilon == pytest.approx(10.7255, abs=1e-3)
    assert account(run, 1e-5, "replace_one").epsilon == pytest.approx(24.38, abs=5e-3)


def test_fixed_size_without_replacement() -> None:
    # dp-accounting's noise multiplier is that of a replaced unit, which is half of ours.
    run = Release(Gaussian(2.0), FixedSize(100, 10000), 1000)
    assert account([run], 1e-5, "replace_one").epsilon == pytest.approx(3.5761, abs=1e-3)


def test_poisson_sampling_of_replaced_units() -> None:
    run, delta = TRAININGS["100 of 10,000 clients"]
    assert account([run], delta, "replace_one").epsilon == pytest.approx(2.8434, abs=1e-3)


@pytest.mark.parametrize(("steps", "cost"), [(8, 1.8975), (64, 2.5738), (512, 3.1311)])
def test_tree_aggregation(steps: int, cost: float) -> None:
    accountant = rdp.RdpAccountant(neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_SPECIAL)
    accountant.compose(dp_accounting.SingleEpochTreeAggregationDpEvent(5.0, steps))
    run = [Release(TreeAggregation(5.0, steps))]
    found = account(run, 1e-6, accountant="rdp").epsilon
    assert found == pytest.approx(cost, abs=1e-3)
    assert found == pytest.approx(accountant.get_epsilon(1e-6), rel=1e-6)
    assert account(run, 1e-6).epsilon < found


def test_ten_participations_without_amplification() -> None:
    assert account([Release(Gaussian(1.0), count=10)], 1e-5).epsilon == pytest.approx(17.86, abs=5e-3)


def test_the_classic_formula_is_on_the_wrong_side() -> None:
    # σ = √(2·ln(1.25/δ))/ε says 10.598 for σ = 0.5, δ = 1e-6; it holds for ε ≤ 1 alone.
    classic = math.sqrt(2 * math.log(1.25 / 1e-6)) / 0.5
    assert classic == pytest.approx(10.598, abs=1e-3)
    found = account([Release(Gaussian(0.5))], 1e-6).epsilon
    assert found == pytest.approx(10.997, abs=1e-3)
    assert found > classic


def test_the_analytic_gaussian_is_the_known_one() -> None:
    assert gaussian_epsilon(1.0, 1e-5) == pytest.approx(4.37718, abs=1e-5)
    assert math.sqrt(2 * math.log(1.25 / 1e-5)) == pytest.approx(4.8448, abs=1e-4)
    assert gaussian_sigma(1.0, 1e-5) == pytest.approx(3.730632, abs=1e-6)


def test_zcdp_of_a_published_launch() -> None:
    # Xu et al., "Federated Learning of Gboard Language Models with Differential Privacy", 2023: ρ = 0.81, ε = 8.9.
    run = [Release(Gaussian(1 / math.sqrt(2 * 0.81)))]
    assert account(run, 1e-10, accountant="rdp").epsilon == pytest.approx(8.9223, abs=1e-3)


def test_noise_is_split_between_an_update_and_the_count_of_adaptive_clipping() -> None:
    # Andrew et al., "Differentially Private Learning with Adaptive Clipping", NeurIPS 2021, Theorem 1: with z = 1 and
    # σ_b = 50/20, z_Δ = (1 − 1/25)^−½ = 1.02062; the count, centred, has sensitivity ½.
    split = [Release(Gaussian(1.02062)), Release(Gaussian(2 * 2.5))]
    whole = account([Release(Gaussian(1.0))], 1e-5).epsilon
    assert account(split, 1e-5).epsilon == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize(("there", "cost"), [(1.0, 10.00), (0.8, 11.48), (0.7, 12.48), (0.4, 17.86)])
def test_noise_shares_that_are_missing_weaken_the_guarantee(there: float, cost: float) -> None:
    run = [Release(Gaussian(5.0 * math.sqrt(there)), count=100)]
    assert account(run, 1e-5).epsilon == pytest.approx(cost, abs=5e-3)


def rounded_norms(scale: float, dimension: int) -> tuple[float, float]:
    """L1 and L2 norm after stochastic rounding of a vector of norm `scale` (Kairouz, Liu and Steinke, Theorem 1)."""
    squared = scale**2 + dimension / 4 + math.sqrt(2 * 0.5) * (scale + math.sqrt(dimension) / 2)
    l2 = min(math.sqrt(squared), scale + math.sqrt(dimension))
    return l2 * min(math.sqrt(dimension), l2), l2


def of_ring(bits: int, dimension: int, clients: int) -> tuple[Skellam, DiscreteGaussian]:
    """Noise 4 on a ring of so many bits, of which 4 standard deviations of the sum are not to wrap."""
    noise, margin = 4.0, 4.0
    spread = math.sqrt(clients**2 / dimension + noise**2)
    scale = math.sqrt(4.0**bits - clients * margin**2) / (2 * margin * spread)
    l1, l2 = rounded_norms(scale, dimension)
    multiplier = noise * scale / l2
    return Skellam(multiplier, l1, l2), DiscreteGaussian(multiplier, l2, dimension, shares=clients)


@pytest.mark.parametrize(
    ("bits", "dimension", "clients", "cost"),
    [
        (12, 2**20, 10, 116.6),
        (14, 2**20, 100, 22.65),
        (16, 2**20, 100, 14.77),
        (18, 2**20, 10, 14.215),
        (18, 2**20, 100, 14.215),
        (20, 2**20, 100, 14.179),
        (24, 2**20, 100, 14.177),
        (32, 2**20, 10, 14.177),
        (12, 2**24, 100, 1617),
        (14, 2**24, 100, 116.4),
        (16, 2**24, 100, 22.63),
        (18, 2**24, 100, 14.76),
        (20, 2**24, 100, 14.214),
        (24, 2**24, 100, 14.177),
    ],
)
def test_skellam_noise_on_a_ring(bits: int, dimension: int, clients: int, cost: float) -> None:
    skellam, _ = of_ring(bits, dimension, clients)
    assert account([Release(skellam, count=100)], 1e-5).epsilon == pytest.approx(cost, rel=5e-4)


@pytest.mark.parametrize("bits", [14, 16, 18, 20, 24])
def test_distributed_discrete_gaussian_costs_no_more_than_skellam(bits: int) -> None:
    skellam, discrete = of_ring(bits, 2**20, 100)
    ours = account([Release(discrete, count=100)], 1e-5).epsilon
    theirs = account([Release(skellam, count=100)], 1e-5).epsilon
    # Its bound holds for fractional orders too, and is up to 3 % smaller for it.
    assert 0.97 * theirs < ours <= theirs


def test_central_gaussian_is_what_skellam_comes_to() -> None:
    run = [Release(Gaussian(4.0), count=100)]
    assert account(run, 1e-5, accountant="rdp").epsilon == pytest.approx(14.132, abs=1e-3)
    orders = np.array(INTEGER_ORDERS, float)
    whole, _ = rdp.compute_epsilon(orders, orders * 100 / 32, 1e-5)
    assert whole == pytest.approx(14.177, abs=1e-3)


@pytest.mark.parametrize("mechanism", [Skellam(1.0, 1e9, 1e6), DiscreteGaussian(1.0, 1e6, 2**20, 100)])
def test_any_discrete_noise_on_a_poisson_sample(mechanism: Mechanism) -> None:
    # 2.10 for the Gaussian: the difference is the bound for noise of any kind.
    assert account([Release(mechanism, Poisson(0.01), 1000)], 1e-5).epsilon == pytest.approx(2.45, abs=5e-3)


def draw(seed: int) -> tuple[Release, float]:
    random = np.random.default_rng(seed)
    rate, noise = math.exp(random.uniform(-7, -1)), math.exp(random.uniform(-0.4, 1.5))
    rounds, delta = int(math.exp(random.uniform(0, 7))), 10.0 ** -int(random.integers(3, 10))
    mechanism = Gaussian(noise) if seed % 4 else Laplace(noise)
    return Release(mechanism, Poisson(rate), rounds), delta


def optimistic(release: Release, delta: float) -> float:
    """A lower bound: the losses of dp-accounting's other algorithm, on a grid and rounded down."""
    from dp_accounting.pld import privacy_loss_distribution as losses

    settings: dict[str, Any] = {
        "pessimistic_estimate": False,
        "use_connect_dots": False,
        "value_discretization_interval": 1e-3,
        "sampling_prob": release.sampling.rate,  # type: ignore[union-attr]
    }
    noise = release.mechanism.noise_multiplier
    make = (
        losses.from_gaussian_mechanism
        if isinstance(release.mechanism, Gaussian)
        else losses.from_laplace_mechanism
    )
    return float(make(noise, **settings).self_compose(release.count).get_epsilon_for_delta(delta))


@pytest.mark.parametrize(
    "seed", [*range(10), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(10, 200))]
)
def test_random_training_costs_what_dp_accounting_says_and_no_less_than_it_must(seed: int) -> None:
    release, delta = draw(seed)
    found = account([release], delta).epsilon
    reference = pld.PLDAccountant(value_discretization_interval=3e-4)
    noise = release.mechanism.noise_multiplier
    gaussian = isinstance(release.mechanism, Gaussian)
    inner = dp_accounting.GaussianDpEvent(noise) if gaussian else dp_accounting.LaplaceDpEvent(noise)
    rate = release.sampling.rate  # type: ignore[union-attr]
    reference.compose(dp_accounting.PoissonSampledDpEvent(rate, inner), release.count)
    assert found == pytest.approx(reference.get_epsilon(delta), rel=1e-2, abs=2e-3)
    assert found >= optimistic(release, delta) - 1e-9
    assert account([release], delta, accountant="rdp").epsilon >= found - 1e-6
