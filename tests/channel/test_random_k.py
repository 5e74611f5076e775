"""Random coordinates, shared by all clients: linear to the bit, unbiased, with the error that theory gives."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedpact.algorithms.fedavg import FedAvg
from fedpact.algorithms.newton import Newton
from fedpact.algorithms.scaffold import SCAFFOLD
from fedpact.channel.random_k import RandomK
from fedpact.core.errors import ChannelError, ConfigError, UpdateError
from fedpact.core.vector import Layout, Vector
from tests.channel.rounds import MIXED, begin, flat, mean, norm, random_vector, through, update, vector

whole = hnp.arrays(np.int64, 40, elements=st.integers(-1000, 1000))


@given(whole, whole, st.integers(1, 40), st.integers(0, 5))
def test_it_is_linear_bit_for_bit(x, y, k, seed):
    def sent(z):
        vectors = {"model": vector(z, np.float32)}
        return RandomK(k=k).encode(update(**vectors), begin(RandomK(k=k), vectors, seed)).averaged["model"]

    np.testing.assert_array_equal(flat(sent(x + y)), flat(sent(x)) + flat(sent(y)))


@pytest.mark.parametrize("fraction", [0.001, 0.01, 0.1])
def test_the_error_is_that_of_theory(fraction):
    # E‖x̂ − x‖² = (d / k − 1) · ‖x‖², of one vector over many draws: of all coordinates alike in size each draw is the
    # same, so it is exact; of others it is on average.
    x = np.random.default_rng(0).choice([-1.0, 1.0], 100_000)
    found = flat(through(RandomK(fraction), {"model": vector(x)})["model"])
    assert np.sum((found - x) ** 2) / np.sum(x**2) == pytest.approx(1 / fraction - 1, rel=1e-9)


def test_the_error_of_a_heavy_tailed_vector_is_that_of_theory_on_average():
    x = np.random.default_rng(0).lognormal(0, 1, 2000)
    errors = [
        np.sum((flat(through(RandomK(0.1), {"model": vector(x)}, seed=seed)["model"]) - x) ** 2)
        for seed in range(4000)
    ]
    assert np.mean(errors) / np.sum(x**2) == pytest.approx(9, rel=0.01)


def test_it_is_unbiased():
    x = np.random.default_rng(1).normal(size=50)
    found = np.array(
        [flat(through(RandomK(0.2), {"model": vector(x)}, seed=seed)["model"]) for seed in range(2000)]
    )
    t = (found.mean(axis=0) - x) / (found.std(axis=0, ddof=1) / math.sqrt(len(found)))
    assert np.abs(t).max() < 4.5


def test_without_scaling_the_coordinates_sent_arrive_as_they_are():
    x = np.arange(1, 101, dtype=np.float32)
    found = through(RandomK(0.3, unbiased=False), {"model": vector(x)})["model"]["x"]
    assert np.count_nonzero(found) == 30
    np.testing.assert_array_equal(found[found > 0], x[found > 0])


def test_coordinates_are_drawn_anew_each_round_and_for_each_vector():
    x = vector(np.ones(1000, np.float32))
    found = through(RandomK(0.1), {"model": x, "control": x})
    other = through(RandomK(0.1), {"model": x, "control": x}, number=1)
    overlaps = [
        np.count_nonzero(found["model"]["x"] * each["x"])
        for each in (found["control"], other["model"], other["control"])
    ]
    assert max(overlaps) < 30
    assert through(RandomK(0.1), {"model": x, "control": x}) == found


def test_a_vector_of_several_dtypes_is_sent_as_one_array_beside_its_buffers():
    rng = np.random.default_rng(0)
    vectors = {"model": random_vector(MIXED, rng), "control": random_vector(MIXED, rng)}
    stage = RandomK(k=7)
    context = begin(stage, vectors)
    sent = stage.encode(update(**vectors), context)
    behind = stage.layout_behind(MIXED)
    assert [(e.name, e.shape, e.dtype, e.role) for e in behind.entries] == [
        ("parameters", (7,), "float64", "parameter"),
        ("var", (2,), "float32", "buffer"),
        ("steps", (), "float64", "buffer"),
    ]
    for name, before in vectors.items():
        assert sent.averaged[name].layout == behind
        after = stage.decode(mean([sent]), context).means[name]
        assert after.layout == MIXED
        np.testing.assert_array_equal(after["var"], before["var"])
        assert after["steps"] == before["steps"]
        kept = [(a, b) for e in ("a", "b") for a, b in zip(after[e].flat, before[e].flat, strict=True) if a]
        assert len(kept) == 7
        np.testing.assert_allclose([a for a, _ in kept], [b * 23 / 7 for _, b in kept], rtol=1e-6)


def test_an_update_is_not_modified_and_what_answers_no_array_of_the_task_passes():
    vectors = {"model": vector(np.arange(100.0))}
    before = vectors["model"].copy()
    context = begin(RandomK(0.1), vectors)
    count = vector([0.5])
    sent = RandomK(0.1).encode(update(**vectors, clip_count=count), context)
    assert vectors["model"] == before
    assert sent.averaged["clip_count"] is count
    assert RandomK(0.1).decode(mean([sent]), context).means["clip_count"] == count
    assert sent.nbytes == 10 * 8 + 8


@given(hnp.arrays(np.float32, 40, elements=st.floats(-1e6, 1e6, width=32)), st.integers(1, 50))
def test_nothing_gets_larger_and_all_of_k_is_all(x, k):
    vectors = {"model": vector(x)}
    stage = RandomK(k=k)
    bound = stage.bound(norm(update(**vectors)), {})
    assert norm(stage.encode(update(**vectors), begin(stage, vectors))) <= bound * (1 + 1e-14)
    if k >= 40:
        np.testing.assert_array_equal(through(stage, vectors)["model"]["x"], x)


def test_a_vector_without_parameters_passes():
    buffers = Layout([entry for entry in MIXED.entries if entry.role == "buffer"])
    vectors = {"model": random_vector(buffers, np.random.default_rng(0)), "empty": Vector.zeros(Layout([]))}
    assert through(RandomK(0.5), vectors) == vectors


def test_a_whole_model_is_refused():
    vectors = {"model": vector([1.0, 2.0])}
    with pytest.raises(ChannelError, match=r'RandomK keeps only part .* client "lyon" sent a whole model'):
        RandomK(0.5).encode(update(kind="model", **vectors), begin(RandomK(0.5), vectors))


def test_algorithms_that_it_does_not_go_with_are_refused():
    for algorithm in (Newton(), SCAFFOLD()):
        with pytest.raises(ChannelError, match="take RandomK out"):
            RandomK(0.1).check([], algorithm, None)
    RandomK(0.1).check([], FedAvg(), None)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"fraction": 0.1, "k": 3},
        {"fraction": 0},
        {"fraction": 1.1},
        {"k": 0},
        {"k": 2.5},
        {"k": 1, "unbiased": "no"},
    ],
)
def test_settings_out_of_their_range_are_refused(settings):
    with pytest.raises(ConfigError, match="RandomK: "):
        RandomK(**settings)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_is_refused_by_name(value):
    model = random_vector(MIXED, np.random.default_rng(0))
    model["b"][2] = value
    stage = RandomK(0.5)
    with pytest.raises(UpdateError, match=rf'client "lyon": b\[2\] is {value}; lower the learning rate'):
        stage.encode(update(model=model), begin(stage, {"model": model}))
