"""The accumulator: one aggregate for any order of arrival, and no trace of what is refused."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedpact.core.accumulator import Accumulator
from fedpact.core.errors import UpdateError
from fedpact.core.messages import Task, Update, Updates
from fedpact.core.stack import Stack
from fedpact.core.vector import Entry, Layout, Vector
from fedpact.core.wide import Wide

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
            accumulator.clients,
            accumulator.weight,
            {
                name: (sum_.layout, sum_.integers.tobytes(), sum_.weight)
                for name, sum_ in accumulator._averaged.items()
            },
            {name: exact(term) for name, term in accumulator._summed.items()},
            dict(accumulator._metrics),
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
        'client "nice": loss is nan, so training diverged; lower the learning rate',
    ),
    "too large a metric": (
        update("nice", metrics={"rows": 1, "loss": 1e300}),
        r'client "nice": loss is 1e\+300; only finite numbers below 2\^99',
    ),
    "a NaN in a vector and in a metric": (
        update("nice", (1, math.nan, 3, 4), metrics={"rows": 1, "loss": math.nan}),
        r'client "nice": w\[1\] is nan; .* Lower the learning rate',
    ),
    "a second answer": (update("lyon", (9, 9, 9, 9)), 'client "lyon" has answered this round before'),
    "a count that no int64 holds": (
        update("nice", summed={**update().summed, "count": np.array([1, 2**63 + 5], np.uint64)}),
        'client "nice": count is 9223372036854775813; a count must be below 2\\^63',
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


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"averaged": {"model": vector(CONTROL, [1, 2])}},
            'client "nice" sent other arrays than the round expects: "w" is missing',
        ),
        ({"kind": "gradient"}, 'client "nice" sent a gradient where the task asks for a delta'),
        ({"kind": "model"}, 'client "nice" sent a model where the task asks for a delta'),
    ],
)
def test_a_wrong_answer_that_comes_first_is_refused_like_one_that_comes_later(changes, sentence):
    narrow = Layout([Entry("w", (3,), "float16"), Entry("b", (), "float64")])
    assert narrow.wide == MODEL
    task = Task("train", version=4, arrays={"model": Vector.zeros(narrow)}, kind="delta")
    first, second = accumulator(task), added([update()], task)
    with pytest.raises(UpdateError, match=sentence):
        first.add(replace(update("nice"), **changes))
    with pytest.raises(UpdateError, match='client "nice" sent'):
        second.add(replace(update("nice"), **changes))
    first.add(update())
    assert contents(first) == contents(second)


def test_counts_of_any_integer_dtype_are_added_as_int64():
    counts = [np.array([200, 1], np.uint8), np.array([2**63 - 300, 1], np.uint64), np.array([True, False])]
    updates = [Update(f"{i}", 4, "statistics", summed={"n": count}) for i, count in enumerate(counts)]
    total = added(updates).aggregate().sum("n")
    assert total.tolist() == [2**63 - 99, 2]
    assert total.dtype == np.int64


def test_updates_and_aggregates_can_be_compared_without_an_error():
    one, other = update(), update()
    assert one == one
    assert one != other
    assert added([one]).aggregate() != added([other]).aggregate()


@pytest.mark.parametrize("weight", [math.nan, -1, math.inf])
def test_a_weight_is_looked_at_although_only_statistics_come_with_it(weight):
    with pytest.raises(UpdateError, match="a weight is a finite number"):
        accumulator().add(Update("nice", 4, "statistics", weight, summed={"n": np.array(1)}))


def test_a_model_that_was_not_widened_is_refused():
    layout = Layout([Entry("w", (2,)), Entry("steps", (), "int64", "buffer")])
    with pytest.raises(UpdateError, match=r'"steps" is int64; .*Vector\.widened'):
        accumulator().add(Update("nice", 4, "model", averaged={"model": Vector.zeros(layout)}))


MODELS = {"model": vector(MODEL, range(4)), "control": vector(MODEL, range(4))}
PARTIAL = {
    "another version": (
        added([update("nice", version=5)], Task("train", version=5)),
        "different versions of the model",
    ),
    "another kind": (added([update("nice", kind="model")]), "sent a model where the others sent a delta"),
    "other vectors": (
        added([update("nice", averaged={"model": vector(MODEL, range(4))})]),
        'sent the arrays "model"; the rest of its cohort sent "control", "model"',
    ),
    "other layouts": (added([update("nice", averaged=MODELS)]), 'sums of "control" have different layouts'),
    "other shapes": (
        added([update("nice", summed={**update().summed, "moment": np.zeros(3)})]),
        r"moment has shape \(3,\)",
    ),
    "too large weights": (added([update("nice", weight=99)]), "weigh 101 together"),
    "a client of both": (added([update("nice"), update()]), 'client "lyon" has answered this round before'),
}


@pytest.mark.parametrize("case", PARTIAL)
def test_a_partial_sum_that_is_refused_leaves_no_trace(case):
    other, sentence = PARTIAL[case]
    made = added([update()])
    before = contents(made)
    with pytest.raises(UpdateError, match=sentence):
        made.merge(other)
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


def stacked(updates):
    """Return updates without statistics as one."""
    first = updates[0]
    return Updates(
        clients=[each.client for each in updates],
        version=first.version,
        kind=first.kind,
        weights=[each.weight for each in updates],
        averaged={
            name: Stack.of([each.averaged[name] for each in updates], vector.layout)
            for name, vector in first.averaged.items()
        },
        metrics={name: np.array([each.metrics[name] for each in updates], float) for name in first.metrics},
    )


def averaging(client, numbers=(1, 2, 3, 4), **changes):
    return update(client, numbers, **{"summed": {}, **changes})


cohorts = st.lists(
    st.tuples(
        hnp.arrays(np.float64, 4, elements=st.floats(-60000, 60000, width=32)),
        st.one_of(st.integers(0, 9), st.floats(0, 9)),
        st.floats(-1e9, 1e9),
    ),
    min_size=1,
    max_size=6,
)


@given(cohorts)
def test_a_stack_of_updates_leaves_what_they_leave_one_by_one(cohort):
    updates = [
        averaging(str(i), numbers, weight=weight, metrics={"loss": loss, "rows": i})
        for i, (numbers, weight, loss) in enumerate(cohort)
    ]
    together = accumulator()
    assert together.add_stack(stacked(updates)) == {}
    assert contents(together) == contents(added(updates))


@given(cohorts)
def test_an_update_taken_out_of_a_stack_is_the_one_that_went_in(cohort):
    updates = [averaging(str(i), n, weight=w, metrics={"loss": x}) for i, (n, w, x) in enumerate(cohort)]
    stack = stacked(updates)
    for place, each in enumerate(updates):
        for found in (stack.one(place), stack.take([place]).one(0)):
            assert (found.client, found.version, found.kind) == (each.client, each.version, each.kind)
            assert (found.weight, found.averaged, found.metrics) == (each.weight, each.averaged, each.metrics)
            assert found.nbytes == each.nbytes == stack.nbytes


BAD = {
    "a weight of the model is not a number": averaging("bob", (1, math.nan, 3, 4)),
    "a weight of the model is out of range": averaging("bob", (1, 70000, 3, 4)),
    "the loss is not a number": averaging("bob", metrics={"loss": math.nan, "rows": 2}),
    "the loss is infinite": averaging("bob", metrics={"loss": math.inf, "rows": 2}),
    "the loss is too large to be summed": averaging("bob", metrics={"loss": 1e30, "rows": 2}),
    "both": averaging("bob", (1, math.nan, 3, 4), metrics={"loss": math.nan, "rows": 2}),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_who_is_refused_from_a_stack_is_told_why_and_the_others_count(bad):
    good = [averaging("ann"), averaging("cleo", (5, 6, 7, 8))]
    together = accumulator()
    refused = together.add_stack(stacked([good[0], bad, good[1]]))
    with pytest.raises(UpdateError) as alone:
        accumulator().add(bad)
    assert {client: str(error) for client, error in refused.items()} == {"bob": str(alone.value)}
    assert contents(together) == contents(added(good))


def test_a_stack_of_which_all_are_refused_leaves_no_trace():
    together = accumulator()
    bad = [averaging(client, (math.nan, 0, 0, 0)) for client in ("ann", "bob")]
    assert list(together.add_stack(stacked(bad))) == ["ann", "bob"]
    assert contents(together) == contents(accumulator())


@pytest.mark.parametrize(
    ("updates", "why"),
    [
        ([averaging("ann", version=3)], "answer version 3 of the model; this round is at version 4"),
        ([averaging("bob"), averaging("ann")], 'client "ann" has answered this round before'),
        ([averaging("bob", kind="gradient")], 'client "bob" sent a gradient where the others sent a delta'),
        ([averaging("bob", averaged={})], "sent the arrays none"),
        ([averaging("bob", weight=99)], "more than the total of 100"),
    ],
)
def test_a_stack_that_is_wrong_as_a_whole_is_refused_without_a_trace(updates, why):
    together = added([averaging("ann")])
    before = contents(together)
    with pytest.raises(UpdateError, match=why):
        together.add_stack(stacked(updates))
    assert contents(together) == before
