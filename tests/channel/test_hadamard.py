"""The rotation: orthonormal for any size, undone by the server, and what was large is spread."""

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedpact.algorithms.newton import Newton
from fedpact.algorithms.scaffold import SCAFFOLD
from fedpact.channel.hadamard import Hadamard, transformed
from fedpact.channel.random_k import RandomK
from fedpact.core.errors import ChannelError, UpdateError
from tests.channel.rounds import MIXED, begin, flat, mean, norm, random_vector, through, update, vector

floats = st.floats(-1e6, 1e6, width=32)


def sent(x, seed=0):
    vectors = {"model": vector(x)}
    return flat(Hadamard().encode(update(**vectors), begin(Hadamard(), vectors, seed)).averaged["model"])


@pytest.mark.parametrize("size", [1, 2, 8, 32, 64, 2048])
def test_the_transform_is_that_of_scipy(size):
    x = np.random.default_rng(0).normal(size=size)
    np.testing.assert_allclose(transformed(x), scipy.linalg.hadamard(size) @ x / math.sqrt(size), atol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 40, 64])
def test_it_is_an_orthonormal_map_of_any_size_without_padding(size):
    matrix = np.array([sent(row) for row in np.eye(size)]).T
    assert matrix.shape == (size, size)
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(size), atol=1e-14)


@given(st.integers(1, 70).flatmap(lambda n: hnp.arrays(np.float32, n, elements=floats)), st.integers(0, 3))
def test_norms_are_kept_and_the_server_rotates_back(x, seed):
    before = norm(update(model=vector(x)))
    rotated = sent(x, seed)
    assert np.linalg.norm(rotated) <= Hadamard().bound(before, {}) * (1 + 1e-14) + 1e-40
    assert np.linalg.norm(rotated) == pytest.approx(before, rel=1e-6, abs=1e-40)
    back = through(Hadamard(), {"model": vector(x)}, seed=seed)["model"]["x"]
    np.testing.assert_allclose(back, x, atol=1e-6 * (before + 1e-30))


@given(hnp.arrays(np.float64, 50, elements=floats), hnp.arrays(np.float64, 50, elements=floats))
def test_it_is_linear(x, y):
    np.testing.assert_allclose(sent(x + y), sent(x) + sent(y), rtol=1e-12, atol=1e-8)


def test_means_of_clients_of_several_dtypes_and_vectors_come_back():
    rng = np.random.default_rng(0)
    clients = [
        update(str(i), weight=i + 1, model=random_vector(MIXED, rng), control=random_vector(MIXED, rng))
        for i in range(3)
    ]
    context = begin(Hadamard(), clients[0].averaged)
    before = [{name: v.copy() for name, v in each.averaged.items()} for each in clients]
    found = Hadamard().decode(mean([Hadamard().encode(each, context) for each in clients]), context).means
    for name, wanted in mean(clients).means.items():
        assert found[name].layout == MIXED
        np.testing.assert_allclose(flat(found[name]), flat(wanted), atol=1e-6)
    assert [dict(each.averaged) for each in clients] == before


@pytest.mark.parametrize("size", [4096, 5000])
def test_a_single_large_number_is_spread_over_all_that_it_is_rotated_with(size):
    x = np.zeros(size)
    x[size // 2] = 1.0
    rotated = np.abs(sent(x))
    # 1 / √4096 each, where one rotation reaches it, and no more than a few times that where two do.
    assert rotated.max() <= 5 / 64
    assert np.count_nonzero(rotated > 1e-9) > size / 3


def test_a_heavy_tailed_vector_looks_normal_behind_it():
    x = np.random.default_rng(0).standard_t(2.1, 8192)
    assert scipy.stats.kurtosis(x) > 50
    assert abs(scipy.stats.kurtosis(sent(x))) < 1


def test_rotations_differ_by_round_and_by_vector_and_not_by_client():
    x = vector(np.random.default_rng(0).normal(size=64))
    context = begin(Hadamard(), {"model": x, "control": x})
    one, two = (Hadamard().encode(update(name, model=x, control=x), context).averaged for name in ("a", "b"))
    assert one["model"] == two["model"]
    assert one["model"] != one["control"]
    assert not np.array_equal(flat(one["model"]), sent(flat(x), seed=1))


def test_rand_k_behind_it_has_its_error_whatever_the_vector():
    # One number of 4096: without rotation the estimate is 0 or d / k times too large. With it (d / k − 1) · ‖x‖² holds
    # of each single draw, for all rotated numbers are of one size.
    x = np.zeros(4096)
    x[17] = 3.0
    stages = (Hadamard(), RandomK(0.25))
    vectors = {"model": vector(x)}
    first = begin(stages[0], vectors)
    rotated = stages[0].encode(update(**vectors), first)
    second = begin(stages[1], rotated.averaged)
    aggregate = stages[1].decode(mean([stages[1].encode(rotated, second)]), second)
    found = flat(stages[0].decode(aggregate, first).means["model"])
    assert np.sum((found - x) ** 2) / 9 == pytest.approx(3, rel=1e-9)


def test_models_and_control_variates_pass_and_statistics_are_refused():
    vectors = {"model": vector([1.0, 2.0])}
    assert Hadamard().encode(update(kind="model", **vectors), begin(Hadamard(), vectors)).kind == "model"
    Hadamard().check([], SCAFFOLD(), None)
    with pytest.raises(ChannelError, match="take Hadamard out"):
        Hadamard().check([], Newton(), None)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_is_refused_by_name(value):
    model = random_vector(MIXED, np.random.default_rng(0))
    model["b"][2] = value
    stage = Hadamard()
    with pytest.raises(UpdateError, match=rf'client "lyon": b\[2\] is {value}; lower the learning rate'):
        stage.encode(update(model=model), begin(stage, {"model": model}))
