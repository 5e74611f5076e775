"""Top-k: the largest are sent as they are, and with error feedback nothing is lost."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedpact.algorithms.fedavg import FedAvg
from fedpact.algorithms.newton import Newton
from fedpact.algorithms.scaffold import SCAFFOLD
from fedpact.channel.hadamard import Hadamard
from fedpact.channel.top_k import TopK
from fedpact.core.errors import ChannelError, ConfigError, UpdateError
from tests.channel.packing import altered, error_of, received, sent_of, serialised
from tests.channel.rounds import MIXED, begin, flat, random_vector, update, vector

floats = st.floats(-1e6, 1e6, width=32)


@given(hnp.arrays(np.float32, st.integers(1, 40), elements=floats), st.integers(1, 45))
def test_the_k_largest_arrive_as_they_are_and_the_others_as_zeros(x, k):
    found = received(TopK(k=k, error_feedback=False), {"model": vector(x)})["model"]["x"]
    wanted = np.zeros_like(x)
    chosen = np.argsort(-np.abs(x), kind="stable")[:k]
    wanted[chosen] = x[chosen]
    np.testing.assert_array_equal(found, wanted)


def test_the_error_is_what_the_others_weigh():
    # 16 + 9 of 16 + 9 + 4 + 1 are sent: 5 of 30 are missing.
    assert error_of(TopK(0.5), vector([1.0, -4.0, 3.0, -2.0])) == pytest.approx(5 / 30)


def test_eight_bytes_are_sent_for_each():
    vectors = {"model": random_vector(MIXED, np.random.default_rng(0))}
    sent, _ = sent_of(TopK(k=4), vectors)
    # The buffers whole: two float32 and one float64.
    assert sent.nbytes == len(serialised(sent)) == 4 * 8 + 2 * 4 + 8
    assert sent.averaged == {}


def test_buffers_and_counts_of_other_stages_pass():
    rng = np.random.default_rng(0)
    vectors = {"model": random_vector(MIXED, rng)}
    before, count = vectors["model"].copy(), vector([0.5])
    stage = TopK(k=1, error_feedback=False)
    context = begin(stage, vectors)
    arrived = stage.receive(stage.encode(update(**vectors, count=count), context), context).averaged
    assert arrived["count"] is count
    assert arrived["model"].layout == MIXED
    for name in ("var", "steps"):
        np.testing.assert_array_equal(arrived["model"][name], before[name])
    assert vectors["model"] == before


@given(hnp.arrays(np.float32, (6, 12), elements=st.floats(-100, 100, width=32)), st.integers(1, 12))
def test_what_was_sent_and_what_is_kept_is_all_there_was(xs, k):
    stage, kept, total = TopK(k=k), {}, np.zeros(12)
    for t, x in enumerate(xs):
        vectors = {"model": vector(x)}
        context = begin(stage, vectors, number=t)
        sent, kept = stage.encode_remembering(update(**vectors), kept, context)
        total += flat(stage.receive(sent, context).averaged["model"])
    np.testing.assert_allclose(total + flat(kept["error.model"]), xs.astype(np.float64).sum(0), atol=1e-3)


def test_what_float32_takes_from_a_float64_is_kept_too():
    vectors = {"model": vector([1.0 + 2.0**-40, 0.1], np.float64)}
    stage = TopK(k=2)
    sent, kept = stage.encode_remembering(update(**vectors), {}, begin(stage, vectors))
    arrived = flat(stage.receive(sent, begin(stage, vectors)).averaged["model"])
    assert kept["error.model"]["parameters"].dtype == np.float64
    np.testing.assert_array_equal(arrived + flat(kept["error.model"]), flat(vectors["model"]))


def descent(stage, lr, number):
    """How far from the optimum three clients are after so many steps, whose gradients agree only in small numbers.

    Beznosikov et al., "On Biased Compression for Distributed Learning", 2020, Example 1: f_i = ⟨a_i, w⟩² + ‖w‖² / 4,
    a_1 = (−3, 2, 2), a_2 = (2, −3, 2), a_3 = (2, 2, −3). From (t, t, t) the largest of each gradient points away from
    the optimum, 0, and the sum of these largest does too.
    """
    a = 5.0 * -np.eye(3) + 2.0
    w, kept = np.ones(3), [{}, {}, {}]
    for t in range(number):
        total = np.zeros(3)
        for i in range(3):
            vectors = {"model": vector(2 * (a[i] @ w) * a[i] + w / 2, np.float64)}
            context = begin(stage, vectors, number=t)
            sent, kept[i] = stage.encode_remembering(update(str(i), **vectors), kept[i], context)
            total += flat(stage.receive(sent, context).averaged["model"])
        w = w - lr * total / 3
    return np.abs(w).max()


def test_error_feedback_converges_where_plain_top_k_grows_without_bound():
    # By hand, at (t, t, t): a_i·w = t, so client 1 has 2t·(−3, 2, 2) + (t, t, t)/2, of which −5.5t is the largest; the
    # mean of the three is −5.5t/3 in each coordinate, and w is multiplied by 1 + 0.02 · 5.5 / 3 in each step.
    assert descent(TopK(k=1, error_feedback=False), 0.02, 100) == pytest.approx((1 + 0.11 / 3) ** 100)
    assert descent(TopK(k=1), 0.02, 700) < 1e-6


def test_momentum_is_that_of_what_is_kept_and_is_cleared_where_it_was_sent():
    stage, kept = TopK(k=1, momentum=0.5), {}
    # u and e by hand: round 1: u = x = (4, 3), e = (4, 3): 4 is sent, and u = (0, 3), e = (0, 3) are left.
    # Round 2: u = ½·(0, 3) + (1, 1) = (1, 2.5), e = (1, 5.5): 5.5 is sent, and u = (1, 0), e = (1, 0) are left.
    for x, wanted, left in [([4, 3], [4, 0], ([0, 3], [0, 3])), ([1, 1], [0, 5.5], ([1, 0], [1, 0]))]:
        vectors = {"model": vector(x, np.float32)}
        context = begin(stage, vectors)
        sent, kept = stage.encode_remembering(update(**vectors), kept, context)
        assert flat(stage.receive(sent, context).averaged["model"]).tolist() == wanted
        assert (flat(kept["momentum.model"]).tolist(), flat(kept["error.model"]).tolist()) == left


def test_several_vectors_have_errors_of_their_own_and_none_is_kept_without_feedback():
    rng = np.random.default_rng(0)
    vectors = {"model": random_vector(MIXED, rng), "control": random_vector(MIXED, rng)}
    context = begin(TopK(k=2), vectors)
    kept = TopK(k=2).encode_remembering(update(**vectors), {}, context)[1]
    assert sorted(kept) == ["error.control", "error.model"]
    assert kept["error.control"] != kept["error.model"]
    assert TopK(k=2, error_feedback=False).encode_remembering(update(**vectors), {}, context)[1] == {}


def test_what_no_client_half_makes_is_refused():
    stage = TopK(k=2)
    sent, context = sent_of(stage, {"model": vector([1.0, 2.0, 3.0], np.float32)})
    indices = [[2, 1], [1, 1], [1, 3]]
    wrong = [altered(sent, {"indices": np.array(each, np.uint32)}) for each in indices]
    wrong += [
        altered(sent, {"indices": np.array([1, 2], np.int64)}),
        altered(sent, {"values": np.ones(3, np.float32)}),
        altered(sent, {"values": np.array([np.nan, 1], np.float32)}),
        altered(sent, {"values": None}),
        altered(sent, {"more": np.ones(3)}),
        altered(sent, numbers={"scale": 1.0}),
        altered(sent, layout=vector([1.0]).layout),
    ]
    for each in wrong:
        with pytest.raises(UpdateError, match='client "lyon": "model"'):
            stage.receive(each, context)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e300])
def test_what_cannot_be_sent_is_refused_by_name(value):
    vectors = {"model": vector([1.0, value])}
    with pytest.raises(UpdateError, match='client "lyon"'):
        TopK(k=1).encode(update(**vectors), begin(TopK(k=1), vectors))


def test_algorithms_stages_and_settings_that_it_does_not_go_with_are_refused():
    for algorithm in (Newton(), SCAFFOLD()):
        with pytest.raises(ChannelError, match="take TopK out"):
            TopK(0.1).check([], algorithm, None)
    with pytest.raises(ChannelError, match="behind Hadamard a number stands for something else"):
        TopK(0.1).check([Hadamard()], FedAvg(), None)
    TopK(0.1, error_feedback=False).check([Hadamard()], FedAvg(), None)
    vectors = {"model": vector([1.0])}
    with pytest.raises(ChannelError, match="TopK keeps only part"):
        TopK(k=1).encode(update(kind="model", **vectors), begin(TopK(k=1), vectors))
    for settings in (
        {},
        {"fraction": 0.1, "k": 3},
        {"fraction": 1.5},
        {"k": 0},
        {"k": 1, "error_feedback": 1},
        {"k": 1, "momentum": 1.0},
        {"k": 1, "momentum": 0.5, "error_feedback": False},
    ):
        with pytest.raises(ConfigError, match="TopK: "):
            TopK(**settings)
