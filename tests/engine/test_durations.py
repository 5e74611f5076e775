"""Claims about who is run first, and how many at once."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpact.algorithms.fedavg import FedAvg
from fedpact.channel.channel import Channel
from fedpact.engine.durations import Durations, longest_first, ranges
from fedpact.engine.population import InMemory
from fedpact.engine.work import Rules, Setting, Work
from tests.federation import SEED, Quadratics, quadratic

SIZES = {"a": 2, "b": 4, "c": 10, "d": 1}


def work(weighting="examples"):
    algorithm, model = FedAvg(weighting=weighting), Quadratics([0.0])
    population = InMemory([quadratic(id, 1.0, [1.0], rows) for id, rows in SIZES.items()])
    channel = Channel((), algorithm)
    setting = Setting(algorithm, model, population, channel, Rules(), SEED)
    task = algorithm.task(algorithm.init(model, SEED))
    weights = SIZES if weighting == "examples" else dict.fromkeys(SIZES, 1)
    return Work(setting, task, {}, channel.begin(task, list(weights), SEED), SEED, weights, len(SIZES))


efforts = st.lists(st.floats(0, 1e6), min_size=1, max_size=300).map(
    lambda e: np.array(sorted(e, reverse=True))
)


@given(efforts, st.floats(0, 1e5), st.integers(2, 50))
def test_ranges_are_the_list_cut_up_into_at_most_so_many(efforts, least, most):
    found = ranges(efforts, least, most)
    assert [place for start, stop in found for place in range(start, stop)] == list(range(len(efforts)))
    assert all(start < stop for start, stop in found)
    assert len(found) <= most


@given(efforts, st.floats(1e-3, 1e5))
def test_a_range_has_the_effort_wanted_or_one_client_more(efforts, least):
    for start, stop in ranges(efforts, least, 1 << 20):
        assert efforts[start : stop - 1].sum() <= max(least, 2 * efforts.sum() / (1 << 20)) * (1 + 1e-9)


def test_where_nothing_is_wanted_together_each_is_a_range():
    assert ranges(np.array([3.0, 2.0, 2.0, 0.5]), 0.0, 4096) == [(0, 1), (1, 2), (2, 3), (3, 4)]


def test_the_longest_come_first_and_equals_as_they_were_given():
    assert longest_first(np.array([1.0, 3.0, 2.0, 3.0])).tolist() == [1, 3, 2, 0]


def test_nothing_is_expected_before_anything_was_measured():
    durations = Durations()
    assert durations.expected(work(), ["a"]) is None
    durations.note(work(), {"a": 1.0})
    assert durations.expected(work(), ["a"]) is not None


@pytest.mark.parametrize("weighting", ["examples", "uniform"])
def test_clients_not_seen_are_expected_to_take_as_long_a_row_as_the_others(weighting):
    durations = Durations()
    # 8 s for 2 + 4 rows before: c has 10, d has 1.
    durations.note(work(weighting), {"a": 2.0, "b": 6.0})
    expected = durations.expected(work(weighting), ["a", "b", "c", "d"])
    np.testing.assert_allclose(expected, [2, 6, 10 * 8 / 6, 8 / 6])


def test_a_client_is_expected_to_take_the_running_mean_of_what_it_took():
    durations = Durations()
    for seconds in (4.0, 2.0, 1.0):
        durations.note(work(), {"a": seconds})
    # (4 + 2)/2 = 3, (3 + 1)/2 = 2.
    assert durations.expected(work(), ["a"]).tolist() == [2.0]


def test_an_evaluation_says_nothing_about_training():
    durations, training = Durations(), work()
    durations.note(replace(training, task=replace(training.task, verb="evaluate")), {"a": 4.0})
    assert durations.expected(work(), ["a"]) is None


def test_memory_is_bounded_whoever_is_sampled():
    durations, many = Durations(), replace(work(), weights={str(i): 1.0 for i in range(6000)})
    for start in range(0, 6000, 1000):
        durations.note(many, {str(i): float(i) for i in range(start, start + 1000)})
    assert [len(known) for known in durations._known.values()] == [4096]
    # The last was not remembered: it is expected to take as long as those last met for the first time, 5000 to 5999.
    assert durations.expected(many, ["5999", "17"]).tolist() == [5499.5, 17.0]
