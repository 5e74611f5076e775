import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpact.core.errors import ConfigError, DataError
from fedpact.core.rows import Rows
from fedpact.data.partition import by_column, dirichlet, federate, iid

seeds = st.integers(0, 1000)


def labelled(y) -> Rows:
    return Rows(np.arange(len(y)), np.asarray(y))


def positions(partition) -> list[int]:
    return sorted(np.concatenate(list(partition.values())).tolist())


@given(st.integers(1, 120), st.integers(1, 12), seeds)
def test_iid_gives_every_row_to_one_client_and_sizes_differ_by_one(rows, clients, seed):
    if clients > rows:
        with pytest.raises(ConfigError, match="fewer clients"):
            iid(labelled(np.zeros(rows)), clients, seed)
        return
    parts = iid(labelled(np.zeros(rows)), clients, seed)
    sizes = [len(part) for part in parts.values()]
    assert positions(parts) == list(range(rows))
    assert len(sizes) == clients
    assert max(sizes) - min(sizes) <= 1


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=200),
    st.integers(1, 8),
    st.sampled_from([1e-3, 0.1, 1.0, 100.0]),
    seeds,
)
def test_dirichlet_gives_every_row_to_exactly_one_client(y, clients, alpha, seed):
    parts = dirichlet(labelled(y), clients, alpha, seed, min_rows=0)
    assert positions(parts) == list(range(len(y)))
    assert len(parts) == clients


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(0, 30), st.sampled_from([0.05, 0.5, 5.0]), seeds)
def test_dirichlet_honours_min_rows_or_says_that_it_cannot(clients, min_rows, alpha, seed):
    y = np.tile(np.arange(4), 30)
    try:
        parts = dirichlet(labelled(y), clients, alpha, seed, min_rows=min_rows)
    except ConfigError:
        return
    assert min(len(part) for part in parts.values()) >= min_rows


def test_dirichlet_with_a_large_alpha_gives_every_client_the_global_labels():
    y = np.repeat([0, 1, 2], [5000, 3000, 2000])
    for part in dirichlet(labelled(y), 5, alpha=1e6).values():
        shares = np.bincount(y[part], minlength=3) / len(part)
        np.testing.assert_allclose(shares, [0.5, 0.3, 0.2], atol=0.005)
        assert abs(len(part) - 2000) < 40


def test_dirichlet_with_a_small_alpha_puts_a_class_almost_whole_at_one_client():
    y = np.repeat(np.arange(10), 1000)
    parts = dirichlet(labelled(y), 5, alpha=1e-3, min_rows=0)
    counts = np.array([np.bincount(y[part], minlength=10) for part in parts.values()])
    assert np.median(counts.max(axis=0)) > 990


def test_dirichlet_shares_have_the_mean_and_variance_of_the_dirichlet_distribution():
    # Dir(alpha) over J clients has mean 1/J = 0.25 and, as J·alpha = 2, variance (1/J)(1 - 1/J)/3 = 0.0625.
    y = np.repeat(np.arange(1000), 100)
    parts = dirichlet(labelled(y), 4, alpha=0.5)
    shares = np.array([np.bincount(y[part], minlength=1000) / 100 for part in parts.values()])
    np.testing.assert_allclose(shares.mean(axis=1), 0.25, atol=0.02)
    np.testing.assert_allclose(shares.var(axis=1), 0.0625, atol=0.008)


def test_a_partition_is_the_same_for_the_same_seed_and_another_for_another():
    rows = labelled(np.tile([0, 1, 2], 40))
    for draw in (lambda seed: iid(rows, 4, seed), lambda seed: dirichlet(rows, 4, 0.5, seed)):
        assert all(np.array_equal(*pair) for pair in zip(draw(1).values(), draw(1).values(), strict=True))
        assert any(not np.array_equal(*pair) for pair in zip(draw(1).values(), draw(2).values(), strict=True))


def test_clients_are_named_so_that_they_sort_in_order():
    names = list(iid(labelled(np.zeros(20)), 11))
    assert names[0] == "client-00"
    assert names == sorted(names)


@pytest.mark.parametrize("alpha", [0, -1, float("inf"), float("nan")])
def test_dirichlet_refuses_an_alpha_that_is_not_positive(alpha):
    with pytest.raises(ConfigError, match="alpha"):
        dirichlet(labelled([0, 1]), 1, alpha)


def test_dirichlet_refuses_more_than_the_rows_can_give():
    with pytest.raises(ConfigError, match=r"10 rows cannot give 4 clients 3 row\(s\) each"):
        dirichlet(labelled(np.zeros(10)), 4, 1.0, min_rows=3)


def test_dirichlet_says_so_when_no_draw_gives_every_client_enough():
    with pytest.raises(ConfigError, match="larger alpha"):
        dirichlet(labelled(np.zeros(100)), 10, 0.001, min_rows=9)


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (Rows(np.zeros(4)), "no labels"),
        (labelled([0.5, 1]), "measurements"),
        (labelled(range(1001)), "1,000 different"),
    ],
)
def test_dirichlet_refuses_rows_without_class_labels(rows, why):
    with pytest.raises(DataError, match=why):
        dirichlet(rows, 2, 1.0)


def test_by_column_makes_a_client_of_each_value():
    table = pd.DataFrame({"hospital": ["b", "a", "b", "c"], "age": [1, 2, 3, 4]})
    parts = by_column(Rows(table), "hospital")
    assert {id: part.tolist() for id, part in parts.items()} == {"b": [0, 2], "a": [1], "c": [3]}


def test_by_column_keeps_a_number_and_its_text_together_so_that_no_row_is_lost():
    parts = by_column(Rows(pd.DataFrame({"site": [1, "1", 2]})), "site")
    assert {id: part.tolist() for id, part in parts.items()} == {"1": [0, 1], "2": [2]}


def test_by_column_names_the_nearest_column():
    with pytest.raises(DataError, match='Did you mean "hospital"'):
        by_column(Rows(pd.DataFrame({"hospital": [1]})), "hopsital")


def test_by_column_refuses_a_row_that_belongs_to_nobody():
    with pytest.raises(DataError, match=r"missing in 2 row\(s\), first in row 2"):
        by_column(Rows(pd.DataFrame({"site": ["a", None, None]})), "site")


def test_by_column_needs_a_table():
    with pytest.raises(DataError, match="array"):
        by_column(labelled([0]), "site")


def test_a_federation_holds_the_rows_that_the_partition_says():
    rows = labelled(np.tile([0, 1], 20))
    parts = iid(rows, 3)
    federation = federate(rows, parts, test=0.25, name="toy")
    for member in federation:
        assert sorted([*member.train.x, *member.test.x]) == parts[member.id].tolist()
        assert np.array_equal(rows.y[member.train.x], member.train.y)


def test_a_partition_may_be_written_as_lists():
    federation = federate(labelled([0, 1, 0, 1]), {"a": [3, 0], "b": [1]}, test=0)
    assert [member.train.x.tolist() for member in federation] == [[3, 0], [1]]


@pytest.mark.parametrize("positions", [[0.0, 1.0], [True, False, True], [[0, 1]], ["0"]])
def test_positions_that_are_no_whole_numbers_are_refused(positions):
    with pytest.raises(DataError, match=r'Client "a" is given .*: give a list of the positions of its rows'):
        federate(labelled([0, 1, 0]), {"a": positions})


def test_a_federation_can_keep_no_rows_aside():
    federation = federate(labelled([0, 1, 0, 1]), iid(labelled(np.zeros(4)), 2), test=0)
    assert [member.test for member in federation] == [None, None]


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ({"a": [0, 1], "b": [1]}, "two clients"),
        ({"a": [0], "b": []}, '"b" has no rows'),
        ({"a": [0], "b": [3]}, "does not exist"),
        ({}, "no clients"),
    ],
)
def test_a_partition_that_cannot_be_is_refused(parts, why):
    with pytest.raises(DataError, match=why):
        federate(labelled([0, 1, 0]), {id: np.array(part, dtype=int) for id, part in parts.items()})
