"""DRIVE and EDEN: their errors are those of the theory whatever the vector, and the unbiased ones are."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedpact.algorithms.newton import Newton
from fedpact.channel.drive import Drive
from fedpact.channel.eden import Eden, normal_centroids
from fedpact.channel.rotation import rotated, rotated_back
from fedpact.core.errors import ChannelError, ConfigError, UpdateError
from fedpact.core.seeds import Seed
from tests.channel.packing import altered, error_of, mean_received, received, sent_of, serialised
from tests.channel.rounds import MIXED, begin, flat, random_vector, update, vector

# 1 / (1 − D) − 1 for D the least squared error of 2, 4, 8 and 16 levels for a normal number (Max, 1960, Table I).
EDEN = {bits: 1 / (1 - least) - 1 for bits, least in ((1, 0.3634), (2, 0.1175), (3, 0.03454), (4, 0.009497))}
THEORY = [
    (Drive(unbiased=False), 1 - 2 / math.pi),
    (Drive(), math.pi / 2 - 1),
    *((Eden(bits), error) for bits, error in EDEN.items()),
]


def heavy_tailed(size):
    return vector(np.random.default_rng(0).standard_t(2.1, size), np.float32)


@pytest.mark.parametrize(("stage", "wanted"), THEORY, ids=str)
@pytest.mark.parametrize("size", [1 << 18, 200_003])
def test_errors_are_those_of_the_theory(stage, wanted, size):
    assert error_of(stage, heavy_tailed(size)) == pytest.approx(wanted, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "wanted"), THEORY, ids=str)
def test_errors_of_a_million_are_those_of_the_theory(stage, wanted):
    assert error_of(stage, heavy_tailed(1 << 20)) == pytest.approx(wanted, rel=0.01)


@pytest.mark.parametrize(("stage", "wanted"), THEORY, ids=str)
@pytest.mark.parametrize("place", [0, 50_000, 99_999])
def test_errors_of_a_single_large_number_are_too(stage, wanted, place):
    x = np.zeros(100_000)
    x[place] = 7.0
    assert error_of(stage, vector(x)) == pytest.approx(wanted, rel=0.03)


@pytest.mark.parametrize("stage", [Drive(), Eden(1), Eden(3)], ids=str)
def test_the_expectation_is_the_vector(stage):
    x = vector(np.random.default_rng(0).standard_t(3, 64))
    found, deviation = mean_received(stage, x, 2000)
    assert np.all(np.abs(found - flat(x)) < 5 * deviation)


def test_of_many_clients_the_unbiased_mean_is_better_and_of_one_the_biased():
    x = np.random.default_rng(0).normal(size=4096)
    context = begin(Drive(), {"model": vector(x)})

    def error(stage, clients):
        found = np.zeros(4096)
        for i in range(clients):
            found += flat(
                stage.receive(stage.encode(update(str(i), model=vector(x)), context), context).averaged[
                    "model"
                ]
            )
        return np.sum((found / clients - x) ** 2) / np.sum(x**2)

    assert error(Drive(unbiased=False), 1) < error(Drive(), 1)
    # Errors of rotations of their own are independent: (π/2 − 1) / 50, against (1 − 2/π)² and what is left of the rest.
    assert error(Drive(), 50) == pytest.approx((math.pi / 2 - 1) / 50, rel=0.1)
    assert error(Drive(unbiased=False), 50) > 10 * error(Drive(), 50)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_centroids_are_the_means_of_what_is_nearest_to_them(bits):
    centroids = normal_centroids(bits)
    assert len(centroids) == 2**bits
    borders = [-math.inf, *(centroids[1:] + centroids[:-1]) / 2, math.inf]
    for low, high, found in zip(borders, borders[1:], centroids, strict=False):
        first = scipy.integrate.quad(lambda x: x * scipy.stats.norm.pdf(x), low, high)[0]
        mass = scipy.stats.norm.cdf(high) - scipy.stats.norm.cdf(low)
        assert found == pytest.approx(first / mass, abs=1e-7)


@given(st.integers(1, 70), st.integers(0, 5))
def test_the_rotation_is_orthonormal_and_undone(size, seed):
    x = np.random.default_rng(seed).normal(size=size)
    turned = rotated(x, Seed.of(seed))
    assert turned.shape == x.shape
    assert np.linalg.norm(turned) == pytest.approx(np.linalg.norm(x), rel=1e-12)
    np.testing.assert_allclose(rotated_back(turned, Seed.of(seed)), x, atol=1e-12)


@pytest.mark.parametrize("size", [1 << 14, (1 << 14) + 1, 25_000, (1 << 15) - 1])
def test_behind_the_rotation_any_vector_looks_normal_in_every_part(size):
    x = np.zeros(size)
    x[3] = math.sqrt(size)
    turned = rotated(x, Seed.of(0))
    for part in np.array_split(turned, 4):
        assert scipy.stats.kstest(part, "norm").pvalue > 1e-4


@pytest.mark.parametrize(("stage", "bits"), [(Drive(), 1), (Eden(1), 1), (Eden(3), 3)], ids=str)
def test_bits_and_a_scale_are_sent_and_buffers_whole(stage, bits):
    vectors = {"model": random_vector(MIXED, np.random.default_rng(0))}
    sent, _ = sent_of(stage, vectors)
    assert sent.nbytes == len(serialised(sent)) == math.ceil(23 * bits / 8) + 8 + 2 * 4 + 8
    arrived = received(stage, vectors)["model"]
    np.testing.assert_array_equal(arrived["var"], vectors["model"]["var"])


@given(hnp.arrays(np.float32, st.integers(1, 20), elements=st.floats(-1e6, 1e6, width=32)))
def test_one_bit_of_eden_is_drive(x):
    one, two = (received(stage, {"model": vector(x)})["model"]["x"] for stage in (Drive(), Eden(1)))
    np.testing.assert_allclose(one, two, atol=1e-5 * np.linalg.norm(x) + 1e-40)


@pytest.mark.parametrize("stage", [Drive(), Drive(unbiased=False), Eden(2)], ids=str)
def test_zeros_and_models_pass_and_what_no_client_half_makes_is_refused(stage):
    assert not flat(received(stage, {"model": vector(np.zeros(7))})["model"]).any()
    vectors = {"model": vector([1.0, -2.0])}
    sent, context = sent_of(stage, vectors)
    assert stage.encode(update(kind="model", **vectors), context).kind == "model"
    name = next(iter(sent.packed["model"].arrays))
    wrong = [altered(sent, numbers={"scale": each}) for each in (math.nan, math.inf)]
    wrong += [altered(sent, {name: np.zeros(2, np.uint8)}), altered(sent, numbers={"more": 1.0})]
    for each in wrong:
        with pytest.raises(UpdateError, match='client "lyon": "model"'):
            stage.receive(each, context)


@pytest.mark.parametrize("stage", [Drive(), Eden(2)], ids=str)
def test_what_they_do_not_go_with_is_refused(stage):
    with pytest.raises(ChannelError, match=f"take {type(stage).__name__} out"):
        stage.check([], Newton(), None)
    vectors = {"model": vector([1e300, 1e300])}
    with pytest.raises(UpdateError, match='client "lyon": "model" is too large'):
        stage.encode(update(**vectors), begin(stage, vectors))
    for settings in ({"bits": 0}, {"bits": 5}, {"unbiased": 1}):
        with pytest.raises(ConfigError, match=r"(Eden|Drive): "):
            (Eden if "bits" in settings else Drive)(**settings)
