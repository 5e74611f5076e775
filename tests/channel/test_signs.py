"""Signs: one bit each, the majority decides; with scales and error feedback nothing is lost."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedpact.algorithms.fedavg import FedAvg
from fedpact.algorithms.newton import Newton
from fedpact.channel.channel import Channel
from fedpact.channel.ef_sign_sgd import EFSignSGD
from fedpact.channel.random_k import RandomK
from fedpact.channel.sign_sgd import SignSGD
from fedpact.core.errors import ChannelError, ConfigError, UpdateError
from fedpact.core.messages import Task
from fedpact.core.seeds import Seed
from fedpact.core.vector import Entry, Layout, Vector
from tests.channel.packing import altered, received, sent_of, serialised
from tests.channel.rounds import MIXED, begin, flat, mean, random_vector, update, vector

TWO = Layout([Entry("a", (2,)), Entry("b", (3,)), Entry("empty", (0, 4))])


def decided(stage, clients):
    """What the server makes of clients' weights and vectors."""
    vectors = {"model": vector(clients[0][1], np.float32)}
    context = begin(stage, vectors)
    updates = []
    for i, (weight, x) in enumerate(clients):
        sent = stage.encode(update(str(i), weight, model=vector(x, np.float32)), context)
        updates.append(stage.receive(sent, context))
    return stage.decode(mean(updates), context).means["model"]["x"]


def test_the_sign_of_most_decides_and_a_tie_is_zero():
    clients = [(1, [1, -5, 0, 2]), (1, [2, -1, -1, -7]), (1, [-9, 3, 0, 0]), (1, [4, -1, -1, -1])]
    # By votes: 3 of 4 are +, 3 are −, and a zero is +: two against two, twice.
    np.testing.assert_array_equal(decided(SignSGD(0.5), clients), np.float32([0.5, -0.5, 0, 0]))


def test_votes_weigh_what_clients_weigh():
    clients = [(3, [1.0]), (1, [-9.0]), (1, [-9.0])]
    assert decided(SignSGD(0.25), clients) == [0.25]
    assert decided(SignSGD(0.25, majority=False), clients) == [np.float32(0.25 * (3 - 1 - 1) / 5)]


def test_a_sign_is_sent_in_a_bit_and_buffers_are_the_mean_of_buffers():
    rng = np.random.default_rng(0)
    vectors = {"model": random_vector(MIXED, rng)}
    sent, context = sent_of(SignSGD(), vectors)
    assert sent.nbytes == len(serialised(sent)) == 3 + 2 * 4 + 8
    means = SignSGD().decode(mean([SignSGD().receive(sent, context)]), context).means["model"]
    np.testing.assert_array_equal(means["var"], vectors["model"]["var"])
    np.testing.assert_array_equal(means["b"], 0.001 * np.where(vectors["model"]["b"] < 0, -1, 1))


def test_scaled_signs_are_the_mean_sizes_of_arrays():
    x = Vector.from_arrays({"a": [1.0, -3.0], "b": [-1.0, 0.0, 5.0], "empty": np.zeros((0, 4))}, TWO)
    arrived = received(EFSignSGD(False), {"model": x})["model"]
    np.testing.assert_array_equal(arrived["a"], [2, -2])
    np.testing.assert_array_equal(arrived["b"], [-2, 2, 2])
    sent, _ = sent_of(EFSignSGD(), {"model": x})
    assert sent.nbytes == len(serialised(sent)) == 1 + 2 * 4


def test_the_error_of_scaled_signs_is_that_of_the_theory():
    # ‖x‖² − d·scale² for scale the mean size (Karimireddy et al., Lemma 8): 1 − 2/π of a normal vector.
    x = np.random.default_rng(0).normal(size=200_000)
    found = received(EFSignSGD(False), {"model": vector(x)})["model"]["x"]
    wanted = 1 - np.mean(np.abs(x)) ** 2 / np.mean(x**2)
    assert np.sum((found - x) ** 2) / np.sum(x**2) == pytest.approx(wanted, rel=1e-5)
    assert wanted == pytest.approx(1 - 2 / math.pi, rel=0.01)


@given(hnp.arrays(np.float32, (5, 9), elements=st.floats(-100, 100, width=32)))
def test_what_was_sent_and_what_is_kept_is_all_there_was(xs):
    stage, kept, total = EFSignSGD(), {}, np.zeros(9)
    for t, x in enumerate(xs):
        vectors = {"model": vector(x)}
        context = begin(stage, vectors, number=t)
        sent, kept = stage.encode_remembering(update(**vectors), kept, context)
        total += flat(stage.receive(sent, context).averaged["model"])
    np.testing.assert_allclose(total + flat(kept["error.model"]), xs.astype(np.float64).sum(0), atol=1e-2)


def descent(stage):
    """The least of f(w) = ε|w₁ + w₂| + |w₁ − w₂| on the way from (1, 1), ε = ½, with steps of 1/√t.

    Karimireddy et al., Counterexample 2: the signs of every subgradient are ±(1, −1), so that w₁ + w₂ never changes.
    """
    w, kept, least = np.array([1.0, 1.0]), {}, math.inf
    for t in range(1, 1000):
        s, d = np.sign(w.sum()), (np.sign(w[0] - w[1]) or 1.0)
        vectors = {"model": vector(0.1 / math.sqrt(t) * (0.5 * s * np.ones(2) + d * np.array([1.0, -1.0])))}
        context = begin(stage, vectors, number=t)
        sent, kept = stage.encode_remembering(update(**vectors), kept, context)
        w = w - flat(stage.receive(sent, context).averaged["model"])
        least = min(least, 0.5 * abs(w.sum()) + abs(w[0] - w[1]))
    return least


def test_error_feedback_converges_where_plain_signs_do_not():
    assert descent(EFSignSGD(error_feedback=False)) == pytest.approx(1.0, abs=1e-6)
    assert descent(EFSignSGD()) < 0.05


def test_what_no_client_half_makes_is_refused():
    vectors = {"model": vector(np.ones(9), np.float32)}
    for stage in (SignSGD(), EFSignSGD()):
        sent, context = sent_of(stage, vectors)
        wrong = [
            altered(sent, {"signs": np.ones(1, np.uint8)}),
            altered(sent, {"signs": np.ones(2, np.int8)}),
        ]
        if isinstance(stage, EFSignSGD):
            wrong += [altered(sent, {"scales": np.float32([each])}) for each in (math.nan, math.inf)]
        for each in wrong:
            with pytest.raises(UpdateError, match='client "lyon": "model"'):
                stage.receive(each, context)


def test_a_vote_cannot_be_made_larger_by_not_packing_it():
    vectors = {"model": vector(np.ones(9), np.float32)}
    channel = Channel([SignSGD()], FedAvg(), vectors["model"].layout)
    opened = channel.begin(Task("train", arrays=vectors), ["lyon"], Seed.of(0))
    loud = update(model=vector(np.full(9, 1e4), np.float32))
    with pytest.raises(UpdateError, match='client "lyon": "model" came as it is, where SignSGD packs it'):
        channel.receive(loud, opened)


def test_what_cannot_be_held_is_refused_by_name():
    vectors = {"model": vector([1e300, 1.0])}
    with pytest.raises(UpdateError, match='client "lyon": "model" is larger than its code can hold'):
        EFSignSGD().encode(update(**vectors), begin(EFSignSGD(), vectors))
    assert received(SignSGD(), vectors)["model"]["x"].tolist() == [1, 1]


def test_algorithms_stages_and_settings_that_they_do_not_go_with_are_refused():
    for stage in (SignSGD(), EFSignSGD()):
        with pytest.raises(ChannelError, match="SignSGD out"):
            stage.check([], Newton(), None)
        vectors = {"model": vector([1.0])}
        with pytest.raises(ChannelError, match="keeps only part"):
            stage.encode(update(kind="model", **vectors), begin(stage, vectors))
    with pytest.raises(ChannelError, match="behind RandomK a number stands for something else"):
        EFSignSGD().check([RandomK(0.5)], FedAvg(), None)
    SignSGD().check([RandomK(0.5)], FedAvg(), None)
    for cls, settings in (
        (SignSGD, {"step": 0}),
        (SignSGD, {"majority": "yes"}),
        (EFSignSGD, {"error_feedback": 0}),
    ):
        with pytest.raises(ConfigError, match="SignSGD: "):
            cls(**settings)
