import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpact.core import Accumulator, ClientData, Rows, Seed
from fedpact.core.errors import QuorumError
from fedpact.data.summary.frequent import BUCKETS, Frequent, FrequentCategories


def found(clients: Sequence[ClientData], minimum: int = 5) -> tuple[Frequent, list[Any]]:
    """Return the frequent categories of column "x", and all that the server was sent; tasks pass through JSON."""
    algorithm = FrequentCategories(("x",), minimum)
    state, seen = algorithm.init(None, Seed.of(0)), []
    while (task := algorithm.task(state)) is not None:
        task = replace(task, parameters=json.loads(json.dumps(task.parameters)))
        total = Accumulator(task, limit=65536, total_weight=len(clients), population=len(clients))
        for client in clients:
            update, _ = algorithm.client(None, task, client, {}, Seed.of(0))
            assert update.answer is None
            total.add(update)
        seen.append(total.aggregate().sums)
        state = algorithm.server(None, state, total.aggregate())
        json.dumps(state.found)
    return algorithm.fitted(state)["x"], seen


def spread(values: Sequence[Any], owners: Sequence[int]) -> list[ClientData]:
    table = pd.DataFrame({"x": pd.Series(values, dtype=object)})
    parts = [table[np.array(owners) == owner].reset_index(drop=True) for owner in sorted(set(owners))]
    return [ClientData(f"client {i}", Rows(part)) for i, part in enumerate(parts)]


values = st.one_of(
    st.sampled_from(["a", "b", "ä", "", "\x00x", "日本" * 20, "1", "\ud83d\ude00"]),
    st.integers(-(10**30), 10**30),
    st.floats(-1e99, 1e99),
    st.text(max_size=3),
)


@settings(max_examples=40)
@given(st.lists(st.tuples(values, st.integers(0, 3)), min_size=1, max_size=80), st.integers(1, 4))
def test_named_are_exactly_the_categories_with_enough_rows(rows: list[tuple[Any, int]], minimum: int) -> None:
    rows = [
        (value, owner) for value, owner in rows if not (isinstance(value, str) and value.endswith("\x00"))
    ]
    if not rows:
        return
    listed, owners = zip(*rows, strict=True)
    told, _ = found(spread(listed, owners), minimum)
    # 1, 1.0 and True are one category, as hashes of Python have it.
    expected = {value: n for value, n in Counter(listed).items() if n >= minimum}
    assert told.counts == expected
    assert told.unnamed_at_most == minimum - 1


def test_order_is_by_rows_and_then_numbers_before_text() -> None:
    told, _ = found(spread(["b"] * 6 + [2] * 6 + ["a"] * 6 + [1] * 7, [0] * 25))
    assert list(told.counts) == [1, 2, "a", "b"]


def test_values_that_share_a_bucket_are_told_apart_by_another_hash() -> None:
    # So many that by the birthday bound hundreds share one of the 2^14 buckets with another.
    names = [f"code {i}" for i in range(1500)]
    listed = [name for name in names for _ in range(5)]
    told, _ = found(spread(listed, [i % 2 for i in range(len(listed))]))
    assert told.counts == dict.fromkeys(sorted(names), 5)


def test_where_not_all_can_be_told_apart_it_is_said_how_many_rows_may_be_left() -> None:
    # Of the fullest 256 buckets, which each of eight hashes opens, many hold two of these.
    names = [f"code {i}" for i in range(2500)]
    listed = [name for name in names for _ in range(6)]
    told, _ = found(spread(listed, [0] * len(listed)))
    assert 500 < len(told.counts) < 2500
    assert told.unnamed_at_most >= 6
    assert set(told.counts.values()) == {6}


def test_a_frequent_category_is_found_among_many_rare_ones() -> None:
    rare = [f"name {i}" for i in range(5000)]
    told, _ = found(spread(["cold"] * 40 + rare, [0] * 5040))
    assert told.counts == {"cold": 40}


def test_names_of_rare_categories_are_in_nothing_that_is_summed() -> None:
    told, seen = found(spread(["cold"] * 9 + ["secret"] * 4, [0, 1] * 6 + [0]))
    assert told.counts == {"cold": 9}
    rows = seen[0]["rows"]
    assert rows.shape == (1, BUCKETS)
    assert sorted(rows[rows > 0].tolist()) == [4, 9]
    opened = [row for sums in seen[1:] if "sums" in sums for row in sums["sums"]]
    assert [int(row[0]) for row in opened] == [9]


def test_a_value_too_long_to_be_named_is_left_out() -> None:
    told, _ = found(spread(["x" * 300] * 9 + ["y"] * 5, [0] * 14))
    assert told.counts == {"y": 5}


def test_missing_values_are_no_category() -> None:
    told, _ = found(spread([None] * 9 + ["y"] * 5, [0] * 14))
    assert told.counts == {"y": 5}


def test_a_client_that_leaves_meanwhile_is_noticed() -> None:
    algorithm = FrequentCategories(("x",))
    clients = spread(["a"] * 12, [0, 1] * 6)
    state = algorithm.init(None, Seed.of(0))
    for present in (clients, clients[:1]):
        task = algorithm.task(state)
        assert task is not None
        total = Accumulator(task, limit=65536, total_weight=2, population=2)
        for client in present:
            total.add(algorithm.client(None, task, client, {}, Seed.of(0))[0])
        if present is clients:
            state = algorithm.server(None, state, total.aggregate())
    with pytest.raises(QuorumError, match="other rows answered"):
        algorithm.server(None, state, total.aggregate())
