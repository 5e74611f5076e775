"""Populations in memory and out of functions: names made on demand, views instead of copies, clear refusals."""

import bisect
import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fedpact as fp
from fedpact.core.errors import ConfigError, DataError
from fedpact.core.rows import ClientData, Rows
from fedpact.data.populations.describe import standing_for_all
from fedpact.data.populations.names import Listed, Names, Numbered, Some
from fedpact.engine.population import Described, HeldOut, InMemory, Population, stand_in

names_of_clients = st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=30, unique=True)


def kinds_of_names(texts: list[str]) -> list[Names]:
    listed = Listed(sorted(texts))
    half = Some(listed, np.arange(0, len(texts), 2))
    return [listed, half, Numbered(len(texts)), Some(Numbered(12_345), np.array([3, 10_000, 12_344]))]


@given(names_of_clients)
def test_names_behave_like_the_sorted_list_of_them(texts):
    for names in kinds_of_names(texts):
        spelt = [names[place] for place in range(len(names))]
        assert list(names) == spelt == sorted(set(spelt))
        assert names[::-2] == spelt[::-2]
        assert names[-1] == spelt[-1]
        assert [names.index(name) for name in spelt] == list(range(len(spelt)))
        assert all(name in names and bisect.bisect_left(names, name) == names.place(name) for name in spelt)


@given(names_of_clients, st.text(max_size=6))
def test_who_is_not_among_the_names_is_not_found(texts, other):
    for names in kinds_of_names(texts):
        assert (other in names) == (other in list(names))


def test_numbered_names_sort_as_their_numbers_do_and_spell_no_number_in_two_ways():
    names = Numbered(10_001)
    assert (names[0], names[10_000]) == ("00000", "10000")
    assert [each in names for each in ("0", "0000", "-0001", " 0001", "٠٠٠٠١", "10001", "1e3", 7)] == [
        False
    ] * 8
    assert Numbered(3)[2] == "0002"


@given(names_of_clients, st.randoms())
def test_places_of_many_names_are_those_of_each(texts, shuffler):
    for names in kinds_of_names(texts):
        asked = [shuffler.choice(names) for _ in range(5)]
        assert names.places(asked).tolist() == [names.place(name) for name in asked]
        assert names.places([]).tolist() == []


@pytest.mark.parametrize("other", ["10001", "-0001", "1", "٠٠٠٠١", "lyon", "", 7])
def test_who_is_none_of_many_is_named_as_when_asked_alone(other):
    names = Numbered(10_001)
    with pytest.raises(DataError) as alone:
        names.place(other)
    with pytest.raises(DataError) as among:
        names.places(["00000", other, "10000"])
    assert str(among.value) == str(alone.value)


def test_ten_million_names_hold_no_memory():
    names = Numbered(10_000_000)
    assert len(pickle.dumps(names)) < 200
    assert "9999999" in names
    assert names[9_999_999] == "9999999"


def test_a_place_that_no_client_has_is_an_index_error():
    with pytest.raises(IndexError, match="there are 3 clients; place 3 is none of theirs"):
        Numbered(3)[3]
    with pytest.raises(ValueError, match="'0002' is not among the names"):
        Numbered(3).index("0002", 0, 2)


def test_names_in_any_order_are_sorted_and_where_they_stood_is_told():
    names, order = Listed.of(["nice", "lyon", "paris"])
    assert list(names) == ["lyon", "nice", "paris"]
    assert order is not None
    assert order.tolist() == [1, 0, 2]
    assert Listed.of(["a", "b"])[1] is None


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "at least one client"),
        (["a", 3], "a client is called 3; a name is text that is not empty"),
        (["a", ""], "a name is text that is not empty"),
        (["b", "a", "b"], 'two clients are called "b"; every name must be unique'),
    ],
)
def test_names_that_are_none_are_refused(names, message):
    with pytest.raises(ConfigError, match=message):
        Listed.of(names)


def three_clients(rows=4, width=2):
    random = np.random.default_rng(0)
    return random.normal(size=(3, rows, width)).astype(np.float32), np.arange(3 * rows).reshape(3, rows) % 2


def test_clients_of_one_size_are_views_of_the_arrays():
    x, y = three_clients()
    population = fp.populations.arrays(x, y)
    assert isinstance(population, Population)
    assert list(population.ids(7)) == ["0000", "0001", "0002"]
    lyon = population.load("0001")
    np.testing.assert_array_equal(lyon.train.x, x[1])
    np.testing.assert_array_equal(lyon.train.y, y[1])
    assert np.shares_memory(lyon.train.x, x)
    assert (lyon.id, lyon.test, population.size("0001")) == ("0001", None, 4)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_any_cut_of_the_rows_gives_the_same_clients_as_in_memory(sizes, shuffler):
    n = sum(sizes)
    x, y = np.arange(2 * n).reshape(n, 2), np.arange(n)
    ids = [f"client {i}" for i in range(len(sizes))]
    shuffler.shuffle(ids)
    cuts = np.cumsum([0, *sizes])
    parts = list(zip(ids, cuts, cuts[1:], strict=False))
    in_memory = InMemory([ClientData(id, Rows(x[a:b], y[a:b])) for id, a, b in parts])
    for how in ({"sizes": sizes}, {"offsets": cuts}):
        population = fp.populations.arrays(x, y, ids=ids, **how)
        assert list(population.ids(0)) == in_memory.ids(0)
        for id in ids:
            ours, other = population.load(id), in_memory.load(id)
            np.testing.assert_array_equal(ours.train.x, other.train.x)
            np.testing.assert_array_equal(ours.train.y, other.train.y)
            assert population.size(id) == in_memory.size(id) == len(ours.train)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8), st.randoms())
def test_sizes_of_many_clients_are_those_of_each(sizes, shuffler):
    ids = [f"site {i}" for i in range(len(sizes))]
    shuffler.shuffle(ids)
    rows = sum(sizes)
    uneven = fp.populations.arrays(
        np.zeros((rows, 2)), np.zeros(rows, int), sizes=sizes, ids=ids, classes=(0, 1)
    )
    even = fp.populations.arrays(np.zeros((len(ids), 3, 2)), np.zeros((len(ids), 3), int), classes=(0, 1))
    for population in (uneven, even):
        names = [*population.ids(0)][::-1]
        assert population.sizes(names) == [population.size(name) for name in names]
    assert dict(zip(ids, uneven.sizes(ids), strict=True)) == dict(zip(ids, sizes, strict=True))


def test_clients_with_test_rows_are_named_and_those_without_have_none():
    x, y = three_clients()
    sizes = np.array([2, 0, 3])
    held_out = (np.ones((5, 2), np.float32), np.array([0, 1, 1, 1, 0]), sizes)
    population = fp.populations.arrays(x, y, ids=["c", "b", "a"], test=held_out)
    assert isinstance(population, HeldOut)
    assert list(population.tested(0)) == ["a", "c"]
    assert population.load("b").test is None
    assert [population.load(id).test.y.tolist() for id in ("c", "a")] == [[0, 1], [1, 1, 0]]
    assert list(fp.populations.arrays(x, y).tested(0)) == []
    assert list(fp.populations.arrays(x, y, test=(x, y)).tested(0)) == ["0000", "0001", "0002"]


def agreed(population):
    (client,) = (stand_in(population).load(id) for id in stand_in(population).ids(0))
    return client


@given(st.lists(st.integers(-3, 3), min_size=6, max_size=6))
def test_the_client_that_stands_for_all_has_every_label_once(labels):
    population = fp.populations.arrays(np.zeros((3, 2, 5)), np.reshape(labels, (3, 2)))
    assert isinstance(population, Described)
    client = agreed(population)
    assert sorted(set(client.train.y.tolist())) == sorted(set(labels))
    assert client.train.x.shape[1:] == (5,)


def test_labels_of_test_rows_stand_for_all_too():
    x, y = three_clients()
    assert set(agreed(fp.populations.arrays(x, y, test=(x, y + 5))).train.y) == {0, 1, 5, 6}


def test_labels_for_each_position_keep_their_positions():
    y = np.arange(3 * 4 * 7).reshape(3, 4, 7) % 3
    client = agreed(fp.populations.arrays(np.zeros((3, 4, 7)), y))
    assert client.train.y.shape[1:] == (7,)
    assert set(client.train.y.flat) == {0, 1, 2}


def test_declared_classes_are_taken_at_their_word():
    x, y = three_clients()
    assert set(agreed(fp.populations.arrays(x, y, classes=["f", "m"])).train.y) == {"f", "m"}
    continuous = agreed(fp.populations.arrays(x, y, classes=())).train.y
    assert not np.array_equal(continuous, np.floor(continuous))


def test_a_missing_label_names_the_client_and_its_row():
    x, y = three_clients()
    y = y.astype(float)
    y[2, 1] = np.nan
    with pytest.raises(DataError, match=r'client "a", training rows: the label is missing .* first in row 2'):
        fp.populations.arrays(x, y, ids=["c", "b", "a"]).description()


X, Y = three_clients()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: fp.populations.arrays(X, Y[:2]),
            DataError,
            r"x has shape \[3, 4, 2\] and y \[2, 4\]; .* give sizes",
        ),
        (
            lambda: fp.populations.arrays(X[0], Y[0], sizes=[2, 1]),
            DataError,
            "sizes add up to 3 rows, and x has 4",
        ),
        (
            lambda: fp.populations.arrays(X[0], Y[0], sizes=[4, 0]),
            DataError,
            '"0001" has no training rows; leave',
        ),
        (
            lambda: fp.populations.arrays(X[0], Y[0], sizes=[5, -1]),
            DataError,
            "a whole number of rows for each",
        ),
        (
            lambda: fp.populations.arrays(X[0], Y[0], offsets=[0, 3, 2, 4]),
            DataError,
            "begin with 0 and never fall",
        ),
        (
            lambda: fp.populations.arrays(X[0], Y[0], sizes=[4], offsets=[0, 4]),
            ConfigError,
            "give one of them",
        ),
        (lambda: fp.populations.arrays(X, Y, ids=["a"]), DataError, "3 clients in the arrays, and 1 ids"),
        (lambda: fp.populations.arrays(X[:0], Y[:0]), ConfigError, "at least one client"),
        (
            lambda: fp.populations.arrays(X.astype(str), Y),
            DataError,
            "x is an array of dtype <U32; give numbers",
        ),
        (
            lambda: fp.populations.arrays(X, Y, test=X),
            DataError,
            r"test must be \(x, y\), or \(x, y, sizes\)",
        ),
        (lambda: fp.populations.arrays(X, Y, test=(X[:2], Y[:2])), DataError, "test has rows for 2"),
        (lambda: fp.populations.arrays(X, Y, test=(X[:, :, :1], Y)), DataError, "different shapes"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("ask", ["load", "size"])
def test_a_client_that_is_not_there_is_named_with_the_nearest(ask):
    x, y = three_clients()
    with pytest.raises(DataError, match=r'there is no client "lion"\. Did you mean "lyon"'):
        getattr(fp.populations.arrays(x, y, ids=["lyon", "nice", "paris"]), ask)("lion")
    many = fp.populations.function(1_000_000, lambda id: None, 5)
    with pytest.raises(DataError, match=r'no client "x"\. There are 1,000,000, from "000000" to "999999"'):
        getattr(many, ask)("x")


def made(id):
    return np.full((3, 2), int(id)), [0, 1, 1]


def test_a_function_makes_clients_and_only_those_asked():
    asked = []

    def load(id):
        asked.append(id)
        return made(id)

    population = fp.populations.function(1_000_000, load, 3, tested=False, classes=[0, 1])
    assert isinstance(population, Population)
    assert (len(population.ids(0)), population.size("000007"), asked) == (1_000_000, 3, [])
    np.testing.assert_array_equal(population.load("000007").train.x, np.full((3, 2), 7))
    assert asked == ["000007"]
    assert set(agreed(population).train.y) == {0, 1}
    assert set(asked) == {"000007", "000000"}
    assert len(population.tested(0)) == 0


@pytest.mark.parametrize(
    "give",
    [
        lambda id: ClientData(id, Rows(pd.DataFrame({"p": [1.0, 2.0]}), np.array([0, 1]))),
        lambda id: Rows(pd.DataFrame({"p": [1.0, 2.0]}), np.array([0, 1])),
        lambda id: (pd.DataFrame({"p": [1.0, 2.0]}), [0, 1]),
    ],
)
def test_a_function_may_give_a_client_its_rows_or_a_pair(give):
    population = fp.populations.function(["nice", "lyon"], give, len)
    assert list(population.ids(0)) == ["lyon", "nice"]
    client = population.load("lyon")
    assert (client.id, client.train.x["p"].tolist(), client.train.y.tolist()) == ("lyon", [1, 2], [0, 1])
    assert population.size("lyon") == 4
    assert population.description() is None


@pytest.mark.parametrize(
    ("give", "error", "message"),
    [
        (lambda id: None, ConfigError, 'gives a NoneType for client "lyon"; return a ClientData'),
        (
            lambda id: ClientData("nice", Rows(X[0], Y[0])),
            ConfigError,
            'gives client "nice" when it is asked for "lyon"',
        ),
        (lambda id: Rows(X[0][:0], Y[0][:0]), DataError, 'client "lyon" has no training rows'),
    ],
)
def test_a_function_that_gives_no_client_is_told_so(give, error, message):
    with pytest.raises(error, match=message):
        fp.populations.function(["lyon"], give, 4).load("lyon")


def test_no_clients_are_refused():
    with pytest.raises(ConfigError, match="at least one client"):
        fp.populations.function(0, made, 3)


def test_a_misspelt_population_names_the_nearest():
    with pytest.raises(AttributeError, match=r'there is no population "parket"\. Did you mean "parquet"\?'):
        _ = fp.populations.parket
    assert dir(fp.populations) == ["arrays", "folder", "function", "parquet", "sqlite"]


def test_one_that_stands_for_all_has_a_tables_own_rows_and_few_of_an_array() -> None:
    labels = ["a", "b", "c"]
    table = pd.DataFrame({"size": [np.nan, 1.0, 2.0, 3.0]})
    assert standing_for_all(ClientData("lyon", Rows(table)), labels).train.x is table
    few = standing_for_all(ClientData("lyon", Rows(table[:2])), labels).train
    assert few.x["size"].isna().tolist() == [True, False, True]
    images = standing_for_all(ClientData("lyon", Rows(np.zeros((1000, 8, 8)))), labels).train
    assert images.x.shape == (3, 8, 8)
    assert list(images.y) == labels
