"""The accumulator: one aggregate for any order of arrival, and no trace of what is refused."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedpact.core.errors import UpdateError
from fedpact.core.exact import Wide
from fedpact.core.messages import Accumulator, Task, Update
from fedpact.core.vector import Entry, Layout, Vector

MODEL = Layout([Entry("w", (3,)), Entry("b", (), "float64")])
CONTROL = Layout([Entry("c", (2,), "float64")])
TASK = Task("train", version=4)
COLLECT = Task("describe", version=4, answers="collect")


def vector(layout, numbers):
    made = Vector.zeros(layout)
    for flat, part in zip(
        made.flats, np.split(np.asarray(numbers, np.float64), [made.flats[0].size]), strict=False
    ):
        flat[:] = part
    return made


def update(client="lyon", numbers=(1, 2, 3, 4), **changes):
    made = Update(
        client,
        version=4,
        kind="delta",
        weight=2,
        averaged={"model": vector(MODEL, numbers), "control": vector(CONTROL, [5, 6])},
        summed={"count": np.array([1, 2]), "moment": np.array([0.1, 0.2]), "wide": Wide.of([0.3])},
        metrics={"loss": 0.7, "rows": 2},
    )
    return replace(made, **changes)


def accumulator(task=TASK, total=100):
    return Accumulator(task, 65536.0, total, population=9)


def added(updates, task=TASK):
    made = accumulator(task)
    for each in updates:
        made.add(each)
    return made


def contents(accumulator):
    """Return all that an accumulator can tell, in a form in which equal bits are equal."""
    return copy.deepcopy(
        (
            accumulator.kind,
            accumulator.count,
            accumulator.weight,
            {
                name: (sum_.layout, sum_.integers.tobytes(), sum_.weight)
                for name, sum_ in accumulator._averaged.items()
            },
            {name: exact(term) for name, term in accumulator._summed.items()},
            {name: number.exact() for name, number in accumulator._metrics.items()},
            dict(accumulator._answers),
        )
    )


def exact(term):
    return term.exact() if isinstance(term, Wide) else term.tolist()


def told(aggregate):
    return (
        aggregate.kind,
        aggregate.count,
        aggregate.weight,
        aggregate.population,
        aggregate.means,
        {name: exact(term) for name, term in aggregate.sums.items()},
        aggregate.metrics,
        aggregate.answers,
    )


@st.composite
def cohorts(draw):
    floats = st.floats(-1000, 1000)
    return [
        Update(
            f"client {i}",
            version=4,
            kind="delta",
            weight=draw(st.one_of(st.integers(1, 10), st.floats(0.01, 10))),
            averaged={
                "model": vector(MODEL, draw(hnp.arrays(np.float64, 4, elements=floats))),
                "control": vector(CONTROL, draw(hnp.arrays(np.float64, 2, elements=floats))),
            },
            summed={
                "count": draw(hnp.arrays(np.int64, 2, elements=st.integers(-(2**40), 2**40))),
                "moment": draw(hnp.arrays(np.float64, (2, 2), elements=floats)),
            },
            metrics={"loss": draw(floats), "rows": draw(st.integers(0, 100))},
            answer={"id": i},
        )
        for i in range(draw(st.integers(1, 6)))
    ]


@given(cohorts(), st.randoms(use_true_random=False))
def test_aggregate_is_the_same_bits_for_any_arrival_order(cohort, random):
    shuffled = random.sample(cohort, len(cohort))
    assert told(added(cohort, COLLECT).aggregate()) == told(added(shuffled, COLLECT).aggregate())


@given(cohorts(), st.integers(0, 6), st.integers(0, 6), st.booleans())
def test_merged_accumulators_are_one_accumulator(cohort, first, second, backwards):
    cuts = sorted((first, second))
    parts = [
        added(part, COLLECT) for part in (cohort[: cuts[0]], cohort[cuts[0] : cuts[1]], cohort[cuts[1] :])
    ]
    merged = accumulator(COLLECT)
    for part in reversed(parts) if backwards else parts:
        merged.merge(part)
    assert contents(merged) == contents(added(cohort, COLLECT))


def test_the_aggregate_is_what_a_hand_calculation_gives():
    # Weights 2 and 6: means (2·a + 6·b)/8; statistics and metrics are added without weights.
    other = update("nice", [5, 6, 7, 8], weight=6, metrics={"loss": 0.1, "rows": 6})
    aggregate = added([update(), other]).aggregate()
    np.testing.assert_array_equal(aggregate.means["model"]["w"], [4, 5, 6])
    assert aggregate.means["model"]["b"] == 7
    np.testing.assert_array_equal(aggregate.means["control"]["c"], [5, 6])
    np.testing.assert_array_equal(aggregate.sum("count"), [2, 4])
    assert aggregate.sum("count").dtype == np.int64
    np.testing.assert_allclose(aggregate.sum("moment"), [0.2, 0.4], rtol=1e-15)
    np.testing.assert_allclose(aggregate.sum("wide"), [0.6], rtol=1e-15)
    assert aggregate.metrics == {"loss": pytest.approx(0.8, rel=1e-15), "rows": 8}
    assert (aggregate.count, aggregate.weight, aggregate.population, aggregate.kind) == (2, 8, 9, "delta")


def test_collected_answers_are_by_client_and_only_where_they_are_asked_for():
    updates = [Update(id, 4, "statistics", answer={"from": id}) for id in ("nice", "lyon")]
    assert list(added(updates, COLLECT).aggregate().answers.items()) == [
        ("lyon", {"from": "lyon"}),
        ("nice", {"from": "nice"}),
    ]
    assert added(updates).aggregate().answers == {}


def test_nothing_added_is_nothing_to_aggregate():
    with pytest.raises(UpdateError, match="no update arrived"):
        accumulator().aggregate()


def test_merging_an_empty_accumulator_changes_nothing():
    full, empty = added([update()]), accumulator()
    before = contents(full)
    full.merge(empty)
    assert contents(full) == before
    empty.merge(full)
    assert contents(empty) == before


NAN = vector(CONTROL, [5, math.nan])
REFUSED = {
    "another version": (update("nice", version=3), 'client "nice" answered version 3 .* is at version 4'),
    "a model to deltas": (
        update("nice", kind="model"),
        'client "nice" sent a model where the others sent a delta',
    ),
    "fewer vectors": (
        update("nice", averaged={"model": vector(MODEL, range(4))}),
        'client "nice" sent the arrays "model"; the rest of its cohort sent "control", "model"',
    ),
    "fewer statistics": (
        update("nice", summed={}),
        'client "nice" sent the arrays none; the rest .* "count"',
    ),
    "another layout": (
        update("nice", averaged={"model": vector(MODEL, range(4)), "control": vector(MODEL, range(4))}),
        'client "nice" sent other arrays than the round expects: "c" is missing',
    ),
    "a statistic of another shape": (
        update("nice", summed={**update().summed, "moment": np.zeros(3)}),
        r'client "nice": moment has shape \(3,\), the others \(2,\)',
    ),
    "a real number to counts": (
        update("nice", summed={**update().summed, "count": np.array([0.5, 1])}),
        'client "nice": count is a count at one client and a real number at another',
    ),
    "a count to real numbers": (
        update("nice", summed={**update().summed, "wide": np.array([1])}),
        'client "nice": wide is a count at one client and a real number at another',
    ),
    "a NaN in the last vector": (
        update("nice", averaged={"model": vector(MODEL, range(4)), "control": NAN}),
        r'client "nice": c\[1\] is nan',
    ),
    "a NaN in a statistic": (
        update("nice", summed={**update().summed, "moment": np.array([1, math.nan])}),
        'client "nice": moment is nan',
    ),
    "a NaN in a metric": (
        update("nice", metrics={"rows": 1, "loss": math.nan}),
        'client "nice": loss is nan',
    ),
    "too large a weight": (update("nice", weight=99), 'client "nice" gave .* the total of 100 declared'),
    "a weight that is none": (
        update("nice", weight=math.nan),
        'client "nice" gave its update the weight nan',
    ),
    "a negative weight": (update("nice", weight=-2), 'client "nice" gave its update the weight -2'),
    "a count that would wrap": (
        update("nice", summed={**update().summed, "count": np.array([0, 2**63 - 1])}),
        'client "nice": count makes the sum of counts exceed',
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_update_that_is_refused_leaves_no_trace(case):
    bad, sentence = REFUSED[case]
    made = added([update()])
    before = contents(made)
    with pytest.raises(UpdateError, match=sentence):
        made.add(bad)
    assert contents(made) == before
    good = update("paris", [9, 9, 9, 9])
    made.add(good)
    assert contents(made) == contents(added([update(), good]))


def test_a_first_update_that_is_refused_does_not_decide_what_the_others_send():
    made = accumulator()
    other = Layout([Entry("v", (1,))])
    with pytest.raises(UpdateError, match="is nan"):
        made.add(Update("nice", 4, "model", averaged={"model": Vector.from_arrays({"v": [math.nan]}, other)}))
    made.add(update())
    assert contents(made) == contents(added([update()]))


@pytest.mark.parametrize("weight", [math.nan, -1, math.inf])
def test_a_weight_is_looked_at_although_only_statistics_come_with_it(weight):
    with pytest.raises(UpdateError, match="a weight is a finite number"):
        accumulator().add(Update("nice", 4, "statistics", weight, summed={"n": np.array(1)}))


def test_a_model_that_was_not_widened_is_refused():
    layout = Layout([Entry("w", (2,)), Entry("steps", (), "int64", "buffer")])
    with pytest.raises(UpdateError, match=r'"steps" is int64; .*Vector\.widened'):
        accumulator().add(Update("nice", 4, "model", averaged={"model": Vector.zeros(layout)}))


PARTIAL = {
    "another version": added([replace(update(), version=5)], Task("train", version=5)),
    "another kind": added([update(kind="model")]),
    "other vectors": added([update(averaged={"model": vector(MODEL, range(4))})]),
    "other layouts": added(
        [update(averaged={"model": vector(MODEL, range(4)), "control": vector(MODEL, range(4))})]
    ),
    "other shapes": added([update(summed={**update().summed, "moment": np.zeros(3)})]),
    "too large weights": added([update(weight=99)]),
}


@pytest.mark.parametrize("case", PARTIAL)
def test_a_partial_sum_that_is_refused_leaves_no_trace(case):
    made = added([update()])
    before = contents(made)
    with pytest.raises(UpdateError):
        made.merge(PARTIAL[case])
    assert contents(made) == before


def test_a_clients_own_arrays_are_left_alone():
    count = np.array([1, 2])
    mine = update(summed={"count": count})
    made = added([mine, update("nice", summed={"count": count})])
    np.testing.assert_array_equal(made.aggregate().sum("count"), [2, 4])
    np.testing.assert_array_equal(count, [1, 2])


def test_bytes_are_those_of_the_arrays_as_sent():
    # MODEL: 3 float32 up to a cache line, and a float64; CONTROL: 2 float64.
    assert update().nbytes == (64 + 8) + 16 + 2 * 8 + 2 * 8 + 6 * 8 + 2 * 8
    assert Task("train", arrays={"model": Vector.zeros(MODEL)}).nbytes == 72
