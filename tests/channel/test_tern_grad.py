"""TernGrad: three values, 1.6 bits each, right on average."""

import math

import numpy as np
import pytest

from fedpact.algorithms.newton import Newton
from fedpact.channel.tern_grad import TernGrad
from fedpact.core.errors import ChannelError, ConfigError, UpdateError
from tests.channel.packing import altered, error_of, mean_received, received, sent_of, serialised
from tests.channel.rounds import MIXED, begin, flat, random_vector, update, vector


def test_values_are_zero_or_the_largest_of_their_array():
    x = random_vector(MIXED, np.random.default_rng(0))
    arrived = received(TernGrad(None), {"model": x})["model"]
    for name in ("a", "b"):
        largest = np.abs(x[name]).max()
        np.testing.assert_allclose(np.unique(np.abs(arrived[name])), [0, largest], rtol=1e-6)
        kept = arrived[name] != 0
        np.testing.assert_array_equal(np.sign(arrived[name])[kept], np.sign(x[name])[kept])


def test_the_expectation_is_the_vector():
    x = vector(np.random.default_rng(0).normal(size=40))
    found, deviation = mean_received(TernGrad(None), x, 2000)
    # The largest is always sent as it is.
    assert np.all(np.abs(found - flat(x)) < 5 * deviation + 1e-6)


def test_the_error_is_that_of_the_theory():
    # E ‖ternary(x) − x‖² = s·‖x‖₁ − ‖x‖², for b is 1 with probability |x| / s.
    x = np.random.default_rng(1).normal(size=100_000)
    wanted = np.abs(x).max() * np.abs(x).sum() / np.sum(x**2) - 1
    assert error_of(TernGrad(None), vector(x)) == pytest.approx(wanted, rel=0.01)


def test_clipping_makes_the_scale_smaller():
    x = np.append(np.random.default_rng(0).normal(size=10_000), 100.0)
    arrived = received(TernGrad(), {"model": vector(x)})["model"]["x"]
    # Their deviation from 0.
    assert np.abs(arrived).max() == pytest.approx(2.5 * np.sqrt(np.mean(x**2)), rel=1e-6)
    assert error_of(TernGrad(), vector(x)) < error_of(TernGrad(None), vector(x)) / 10


@pytest.mark.parametrize("x", [[5.0], [-2.0, -2.0, -2.0]])
def test_a_lone_number_and_equal_ones_are_not_clipped_away(x):
    # About their mean, rather than about 0, they have no deviation at all.
    np.testing.assert_array_equal(flat(received(TernGrad(), {"model": vector(x)})["model"]), x)


def test_five_values_are_sent_in_a_byte():
    vectors = {"model": random_vector(MIXED, np.random.default_rng(0))}
    sent, _ = sent_of(TernGrad(), vectors)
    assert sent.nbytes == len(serialised(sent)) == math.ceil(23 / 5) + 2 * 4 + 2 * 4 + 8


def test_draws_differ_by_client_round_and_vector():
    x = vector(np.random.default_rng(0).normal(size=200))
    stage = TernGrad()

    def packed(client="a", number=0):
        context = begin(stage, {"model": x, "control": x}, number=number)
        return stage.encode(update(client, model=x, control=x), context).packed

    sent = [packed()["model"], packed()["control"], packed("b")["model"], packed(number=1)["model"]]
    assert len({each.arrays["trits"].tobytes() for each in sent}) == 4
    np.testing.assert_array_equal(packed()["model"].arrays["trits"], sent[0].arrays["trits"])


def test_a_vector_of_zeros_and_models_pass():
    assert not flat(received(TernGrad(), {"model": vector(np.zeros(7))})["model"]).any()
    vectors = {"model": vector([1.0, -2.0])}
    assert TernGrad().encode(update(kind="model", **vectors), begin(TernGrad(), vectors)).kind == "model"


def test_what_no_client_half_makes_is_refused():
    stage, vectors = TernGrad(), {"model": vector(np.ones(6), np.float32)}
    sent, context = sent_of(stage, vectors)
    for arrays in (
        {"trits": np.uint8([243, 0])},
        {"trits": np.uint8([0])},
        {"scales": np.float32([math.nan])},
    ):
        with pytest.raises(UpdateError, match='client "lyon": "model"'):
            stage.receive(altered(sent, arrays), context)


def test_what_it_does_not_go_with_is_refused():
    with pytest.raises(ChannelError, match="take TernGrad out"):
        TernGrad().check([], Newton(), None)
    with pytest.raises(ConfigError, match="TernGrad: clip is 0"):
        TernGrad(0)
    vectors = {"model": vector([1e300, 0.0])}
    with pytest.raises(UpdateError, match='client "lyon": "model" is larger'):
        TernGrad(None).encode(update(**vectors), begin(TernGrad(), vectors))
