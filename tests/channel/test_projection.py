"""Sparse random projection: linear, never larger than what it is given, unbiased, with the error that theory gives."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedpact.algorithms.newton import Newton
from fedpact.channel.projection import Projection
from fedpact.core.errors import ChannelError, ConfigError
from tests.channel.rounds import MIXED, begin, flat, mean, norm, random_vector, through, update, vector

floats = st.floats(-1e6, 1e6, width=32)


def sent(stage, x, seed=0):
    vectors = {"model": vector(x)}
    return flat(stage.encode(update(**vectors), begin(stage, vectors, seed)).averaged["model"])


@given(
    hnp.arrays(np.float64, 40, elements=floats),
    hnp.arrays(np.float64, 40, elements=floats),
    st.integers(1, 40),
)
def test_it_is_linear(x, y, k):
    stage = Projection(k=k)
    np.testing.assert_allclose(sent(stage, x + y), sent(stage, x) + sent(stage, y), rtol=1e-12, atol=1e-8)


@given(hnp.arrays(np.float32, 40, elements=floats), st.integers(1, 50), st.integers(0, 5))
def test_for_all_draws_nothing_gets_larger(x, k, seed):
    stage = Projection(k=k)
    before = norm(update(model=vector(x)))
    assert np.linalg.norm(sent(stage, x, seed)) <= stage.bound(before, {}) * (1 + 1e-14) + 1e-40


@pytest.mark.parametrize("k", [1, 7, 20, 40])
def test_its_rows_are_orthonormal(k):
    matrix = np.array([sent(Projection(k=k), row) for row in np.eye(40)]).T
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(k), atol=1e-14)
    # One entry a column.
    np.testing.assert_array_equal(np.count_nonzero(matrix, axis=0), 1)


def test_the_error_is_that_of_theory():
    # 20 in each of 100 buckets: each pair of parameters shares one with probability 19 / 1999, so that
    # E‖x̂ − x‖² = 19 · ‖x‖².
    x = np.random.default_rng(0).lognormal(0, 1, 2000)
    stage = Projection(0.05)
    errors = [
        np.sum((flat(through(stage, {"model": vector(x)}, seed=seed)["model"]) - x) ** 2)
        for seed in range(2000)
    ]
    assert np.mean(errors) / np.sum(x**2) == pytest.approx(19, rel=0.01)


def test_it_is_unbiased():
    x = np.random.default_rng(1).normal(size=50)
    found = np.array(
        [flat(through(Projection(k=13), {"model": vector(x)}, seed=seed)["model"]) for seed in range(2000)]
    )
    t = (found.mean(axis=0) - x) / (found.std(axis=0, ddof=1) / math.sqrt(len(found)))
    assert np.abs(t).max() < 4.5


def test_the_mean_of_clients_is_decoded_as_the_mean_of_their_vectors():
    rng = np.random.default_rng(0)
    stage = Projection(k=5)
    clients = [
        update(str(i), weight=i + 1, model=random_vector(MIXED, rng), control=random_vector(MIXED, rng))
        for i in range(3)
    ]
    context = begin(stage, clients[0].averaged)
    found = stage.decode(mean([stage.encode(each, context) for each in clients]), context).means
    by_hand = through(stage, mean(clients).means)
    for name in ("model", "control"):
        assert found[name].layout == MIXED
        np.testing.assert_allclose(flat(found[name]), flat(by_hand[name]), rtol=1e-5, atol=1e-5)


def test_what_no_smaller_number_could_hold_is_sent_as_it_is_but_for_order_and_sign():
    x = np.random.default_rng(0).normal(size=30).astype(np.float32)
    assert through(Projection(k=30), {"model": vector(x)})["model"] == vector(x)
    np.testing.assert_array_equal(
        np.sort(np.abs(sent(Projection(k=99), x))), np.sort(np.abs(x.astype(float)))
    )


def test_an_update_is_not_modified_and_buffers_are_sent_whole():
    model = random_vector(MIXED, np.random.default_rng(0))
    before = model.copy()
    stage = Projection(0.5)
    coded = stage.encode(update(model=model), begin(stage, {"model": model})).averaged["model"]
    assert model == before
    assert coded.layout == stage.layout_behind(MIXED)
    np.testing.assert_array_equal(coded["var"], model["var"])
    assert coded["parameters"].shape == (12,)


def test_statistics_and_wrong_settings_are_refused():
    with pytest.raises(ChannelError, match="take Projection out"):
        Projection(0.1).check([], Newton(), None)
    for settings in ({}, {"fraction": 0.1, "k": 3}, {"fraction": 2}, {"k": 0}):
        with pytest.raises(ConfigError, match="Projection: "):
            Projection(**settings)
