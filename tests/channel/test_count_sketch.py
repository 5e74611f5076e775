"""Count sketches: sums of sketches are sketches of sums, large parameters are found, and errors are made up for."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedpact.algorithms.fedavg import FedAvg
from fedpact.algorithms.newton import Newton
from fedpact.channel.count_sketch import CountSketch
from fedpact.core.errors import ChannelError, ConfigError
from fedpact.core.seeds import Seed
from fedpact.core.vector import Entry, Layout
from tests.channel.rounds import MIXED, begin, flat, mean, norm, random_vector, through, update, vector

floats = st.floats(-1e6, 1e6, width=32)


def sketch(stage, x, **settings):
    vectors = {"model": vector(x)}
    return flat(stage.encode(update(**vectors), begin(stage, vectors, **settings)).averaged["model"])


@given(hnp.arrays(np.float64, 60, elements=floats), hnp.arrays(np.float64, 60, elements=floats))
def test_it_is_linear(x, y):
    stage = CountSketch(3, 10, 5)
    np.testing.assert_allclose(
        sketch(stage, x + y), sketch(stage, x) + sketch(stage, y), rtol=1e-12, atol=1e-8
    )


@given(hnp.arrays(np.float32, 60, elements=floats), st.integers(1, 5), st.integers(1, 60), st.integers(0, 3))
def test_for_all_draws_nothing_gets_larger(x, rows, columns, seed):
    stage = CountSketch(rows, columns, 5)
    before = norm(update(model=vector(x)))
    assert np.linalg.norm(sketch(stage, x, seed=seed)) <= stage.bound(before, {}) * (1 + 1e-14) + 1e-40


def test_of_a_vector_with_few_large_numbers_these_are_found():
    rng = np.random.default_rng(0)
    x = rng.normal(size=2000) * 0.01
    places = rng.choice(2000, 10, replace=False)
    x[places] = rng.choice([-5.0, 5.0], 10)
    found = through(CountSketch(5, 200, 10), {"model": vector(x)})["model"]["x"]
    np.testing.assert_array_equal(np.flatnonzero(found), np.sort(places))
    np.testing.assert_allclose(found[places], x[places], rtol=0.1)


def test_the_estimate_of_each_parameter_is_that_of_charikar_chen_and_farach_colton():
    # One row is unbiased with variance about ‖x‖² / columns; the median of many rows is nearer.
    x = np.random.default_rng(1).normal(size=400)
    found = np.array(
        [
            flat(through(CountSketch(1, 40, 400), {"model": vector(x)}, seed=seed)["model"])
            for seed in range(1500)
        ]
    )
    t = (found.mean(axis=0) - x) / (found.std(axis=0, ddof=1) / math.sqrt(len(found)))
    assert np.abs(t).max() < 4.5
    # 10 in each bucket: 9 / 399 of the others' squares.
    assert np.mean(np.sum((found - x) ** 2, axis=1)) / np.sum(x**2) == pytest.approx(9, rel=0.01)
    many = flat(through(CountSketch(9, 40, 400), {"model": vector(x)})["model"])
    assert np.sum((many - x) ** 2) / np.sum(x**2) < 9 / 4


@pytest.mark.parametrize("rows", range(1, 8))
def test_estimates_are_medians_over_the_rows(rows):
    stage, seed = CountSketch(rows, 7, 3), Seed.of(0)
    values = stage.forward(np.random.default_rng(0).normal(size=50), seed)
    each = [
        row.estimates(sums) for row, sums in zip(stage._rows(50, seed), values.reshape(rows, -1), strict=True)
    ]
    np.testing.assert_allclose(
        stage.backward(values, 50, seed), np.median(each, axis=0) * math.sqrt(rows), rtol=1e-14
    )


def test_of_equal_estimates_the_first_are_taken():
    # With as many columns as parameters estimates are exact; of equal ones a partition takes what suits the machine.
    x = np.array([1.0, -2.0, 2.0, 2.0, -2.0, 2.0])
    found = through(CountSketch(1, 6, 3), {"model": vector(x)})["model"]["x"]
    np.testing.assert_array_equal(np.flatnonzero(found), [1, 2, 3])


def test_the_mean_of_clients_is_found_though_no_client_shows_it():
    # Each client's largest number is its own; what they share is found in their sum.
    rng = np.random.default_rng(2)
    shared, clients = np.zeros(1000), []
    shared[[3, 500]] = 2.0
    for i in range(20):
        own = np.zeros(1000)
        own[rng.integers(1000)] = 10.0
        clients.append(update(str(i), model=vector(shared + own)))
    stage = CountSketch(5, 150, 2)
    context = begin(stage, clients[0].averaged)
    found = stage.decode(mean([stage.encode(each, context) for each in clients]), context).means["model"]["x"]
    np.testing.assert_array_equal(np.flatnonzero(found), [3, 500])


def descent(stage, rounds=500):
    """What three parameters of 40 become by steps to 1, while the gradients of five others swing from 20 to −20."""
    target, swing = np.zeros(40), np.zeros(40)
    target[20:23], swing[:5] = 1, 20
    w, state = np.zeros(40), None
    for number in range(rounds):
        gradient = vector(w - target + (-1) ** number * swing)
        context = begin(stage, {"model": gradient}, state=state, number=number)
        aggregate = mean([stage.encode(update(kind="gradient", model=gradient), context)])
        state = stage.after(aggregate, context)
        w = w - 0.02 * stage.decode(aggregate, context).means["model"]["x"]
    return w[20:23]


def test_error_feedback_converges_where_plain_top_k_does_not():
    # What swings is always the largest, and on average nothing.
    plain, fed_back = (descent(CountSketch(5, 20, 5, error_feedback=on)) for on in (False, True))
    assert np.abs(plain - 1).min() > 0.8
    assert np.abs(fed_back - 1).max() < 0.2


def test_momentum_and_error_are_those_done_by_hand():
    # A sketch with as many columns as parameters is exact, so that the server's steps can be done by hand.
    stage, state = CountSketch(1, 3, 1, momentum=0.5), None
    found = []
    for number, x in enumerate([[4.0, 3.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]):
        vectors = {"model": vector(x)}
        context = begin(stage, vectors, state=state, number=number)
        aggregate = mean([stage.encode(update(**vectors), context)])
        state = stage.after(aggregate, context)
        found.append(stage.decode(aggregate, context).means["model"]["x"].tolist())
    # u = e = (4, 3, 0) → 4, and (0, 3, 0) is left of both; u = (0, 1.5, 1), e = (0, 4.5, 1) → 4.5, and (0, 0, 1) is
    # left of both; u = (0, 0, 0.5), e = (0, 0, 1.5) → 1.5.
    np.testing.assert_allclose(found, [[4, 0, 0], [0, 4.5, 0], [0, 0, 1.5]], rtol=1e-12)


def test_a_vector_without_large_numbers_does_not_make_errors_grow():
    # With error ← error − sketch(Δ) they would grow without bound, by the errors of the estimates.
    rng, stage, state = np.random.default_rng(0), CountSketch(5, 20, 40), None
    largest = []
    for number in range(100):
        vectors = {"model": vector(rng.normal(size=400))}
        context = begin(stage, vectors, state=state, number=number)
        aggregate = mean([stage.encode(update(**vectors), context)])
        state = stage.after(aggregate, context)
        largest.append(np.linalg.norm(stage.decode(aggregate, context).means["model"]["x"]))
    assert max(largest) < 10 * math.sqrt(400)


def test_hash_functions_are_those_of_the_first_round_in_all_rounds():
    stage, vectors = CountSketch(3, 10, 5, momentum=0.9), {"model": vector(np.arange(60.0))}
    context = begin(stage, vectors)
    first = stage.encode(update(**vectors), context)
    state = stage.after(mean([first]), context)
    assert sorted(state) == ["error", "momentum", "seed"]
    later = begin(stage, vectors, state=state, number=7)
    assert stage.encode(update(**vectors), later).averaged == first.averaged
    assert sketch(stage, np.arange(60.0), number=7).tolist() != flat(first.averaged["model"]).tolist()


def test_several_vectors_of_several_dtypes_and_buffers():
    rng = np.random.default_rng(0)
    layout = Layout([*MIXED.entries, Entry("c", (50,))])
    vectors = {"model": random_vector(layout, rng), "control": random_vector(layout, rng)}
    before = {name: v.copy() for name, v in vectors.items()}
    found = through(CountSketch(3, 10, 4), vectors)
    assert vectors == before
    for name, each in found.items():
        assert each.layout == layout
        np.testing.assert_array_equal(each["var"], vectors[name]["var"])
        assert each["steps"] == vectors[name]["steps"]
        assert sum(np.count_nonzero(each[entry]) for entry in "abc") == 4


def test_a_sketch_as_large_as_the_model_is_refused():
    layout = Layout([Entry("w", (100,))])
    with pytest.raises(
        ChannelError, match="5 rows of 20 columns are 100 numbers, no fewer than the 100 parameters"
    ):
        CountSketch(5, 20, 3).check([], FedAvg(), layout)
    CountSketch(5, 19, 3).check([], FedAvg(), layout)


def test_statistics_models_and_wrong_settings_are_refused():
    with pytest.raises(ChannelError, match="take CountSketch out"):
        CountSketch(5, 20, 3).check([], Newton(), None)
    vectors = {"model": vector(np.ones(9))}
    with pytest.raises(ChannelError, match="CountSketch keeps only part"):
        CountSketch(1, 3, 1).encode(update(kind="model", **vectors), begin(CountSketch(1, 3, 1), vectors))
    for settings in ({"rows": 0}, {"columns": 1.5}, {"top_k": 0}, {"momentum": 1}, {"error_feedback": "no"}):
        with pytest.raises(ConfigError, match="CountSketch: "):
            CountSketch(**{"rows": 1, "columns": 3, "top_k": 1, **settings})
