import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpact.core.errors import ConfigError, DataError
from fedpact.core.rows import Rows
from fedpact.core.seeds import Seed
from fedpact.data.split import hold_out, holds_classes, train_test

labels = st.lists(st.integers(0, 4), min_size=1, max_size=200).map(np.array)
shares = st.floats(0.01, 0.99)


def numbered(y: np.ndarray) -> Rows:
    return Rows(np.arange(len(y)), y)


@given(labels, shares, st.integers(0, 99), st.booleans())
def test_every_row_is_in_train_or_in_test_in_its_old_order(y, share, seed, stratify):
    train, test = train_test(numbered(y), share, Seed.of(seed), stratify)
    assert sorted([*train.x, *test.x]) == list(range(len(y)))
    assert list(train.x) == sorted(train.x)
    assert list(test.x) == sorted(test.x)
    assert np.array_equal(y[train.x], train.y)


# Of one row each, most labels are names rather than classes: see the test of these below.
classes = labels.filter(lambda y: 2 * np.sum(np.bincount(y) == 1) <= len(y))


@given(classes, shares)
def test_each_class_gives_its_share_to_within_one_row(y, share):
    _, test = train_test(numbered(y), share, Seed.of(0))
    for value in np.unique(y):
        assert abs(np.sum(test.y == value) - share * np.sum(y == value)) <= 1


@given(classes, shares)
def test_every_class_keeps_a_row_to_train_on(y, share):
    train, _ = train_test(numbered(y), share, Seed.of(0))
    assert set(train.y) == set(y)


def test_remainders_go_to_the_classes_that_lose_most_by_rounding():
    # 0.25 of 7, 6 and 11 rows is 1.75, 1.5 and 2.75: 6 rows in all, so both the .75 round up and the .5 down.
    y = np.repeat([0, 1, 2], [7, 6, 11])
    _, test = train_test(numbered(y), 0.25, Seed.of(3))
    assert np.bincount(test.y).tolist() == [2, 1, 3]


def test_the_total_is_the_share_of_all_rows():
    # Each of ten classes has three rows, so each alone would round 0.75 up to 1 and make 10 of 30.
    y = np.repeat(np.arange(10), 3)
    _, test = train_test(numbered(y), 0.25, Seed.of(0))
    assert len(test) == 8


def test_the_same_seed_gives_the_same_split_and_another_seed_another():
    y = np.tile([0, 1], 50)
    first, again, other = (train_test(numbered(y), 0.3, Seed.of(seed))[1].x for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_rows_without_labels_are_split_by_number():
    train, test = train_test(Rows(np.arange(10)), 0.3, Seed.of(0))
    assert (len(train), len(test)) == (7, 3)
    assert train.y is None


def test_a_table_stays_a_table_with_its_columns():
    table = pd.DataFrame({"age": range(8), "sex": list("fmfmfmfm")})
    train, test = train_test(Rows(table, np.zeros(8)), 0.25, Seed.of(0))
    pd.testing.assert_frame_equal(pd.concat([train.x, test.x]).sort_values("age", ignore_index=True), table)


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        ([0, 1, 1], True),
        ([0.0, 1.0], True),
        (["ill", "well"], True),
        ([True, False], True),
        ([0.5, 1.0], False),
        (list(range(1000)), True),
        (list(range(1001)), False),
        ([str(number) for number in range(1001)], False),
        (np.array([1, "no"], object), False),
        ([[0, 1], [1, 0]], False),
    ],
)
def test_whole_numbers_and_names_are_classes_unless_there_are_more_than_a_thousand(values, classes):
    assert holds_classes(np.array(values)) is classes


def test_labels_that_are_mostly_of_one_row_each_still_give_test_rows():
    # Whole-number ages, of which 20 of 36 rows have one of their own: by class they would give test rows to none.
    y = np.concatenate([np.arange(20, 40), np.repeat(np.arange(40, 48), 2)])
    _, test = train_test(numbered(y), 0.25, Seed.of(0))
    assert len(test) == 9


def test_measured_labels_are_not_stratified_but_split():
    y = np.linspace(0, 1, 20)
    _, test = train_test(numbered(y), 0.25, Seed.of(0))
    assert len(test) == 5


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5])
def test_a_share_outside_0_to_1_is_refused(share):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        train_test(numbered(np.zeros(4)), share, Seed.of(0))


def test_no_rows_cannot_be_split():
    with pytest.raises(DataError, match="no rows"):
        train_test(Rows(np.empty(0), np.empty(0)), 0.5, Seed.of(0))


def test_a_client_whose_rows_make_no_test_row_keeps_none_aside():
    assert hold_out("lyon", numbered(np.array([0])), 0.25, Seed.of(0)).test is None
    assert hold_out("lyon", numbered(np.zeros(9)), 0, Seed.of(0)).test is None


def test_clients_with_the_same_rows_are_split_by_streams_of_their_own():
    y = np.zeros(100)
    lyon, nice = (hold_out(id, numbered(y), 0.25, Seed.of(0)) for id in ("lyon", "nice"))
    assert not np.array_equal(lyon.test.x, nice.test.x)
