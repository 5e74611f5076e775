"""Populations: who is there, and what is loaded when."""

import pickle
import weakref
from dataclasses import replace

import numpy as np
import pytest

import fedpact as fp
from fedpact.core.errors import ConfigError, DataError
from fedpact.core.rows import ClientData, ClientStack, Rows
from fedpact.core.seeds import Seed
from fedpact.data.agree import Labels
from fedpact.engine.in_process import InProcess
from fedpact.engine.population import (
    InMemory,
    Population,
    Prepared,
    as_population,
    holding_tests,
    load_all,
    reads_files,
    stand_in,
)
from fedpact.engine.preparation import Preparation
from fedpact.engine.preparing import prepare
from fedpact.engine.work import Rules


def client(id, rows=2):
    return ClientData(id, Rows(np.ones((rows, 1)), np.zeros(rows)))


def test_clients_are_named_in_order_whatever_order_they_came_in():
    population = InMemory([client("nice"), client("lyon"), client("paris")])
    assert population.ids(0) == ["lyon", "nice", "paris"]
    assert isinstance(population, Population)


def test_a_clients_rows_and_their_number_are_its_own():
    lyon = client("lyon", rows=5)
    population = InMemory(iter([lyon, client("nice")]))
    assert population.load("lyon") is lyon
    assert (population.size("lyon"), population.size("nice")) == (5, 2)


def test_clients_join_and_leave():
    population = InMemory([client("lyon"), client("nice")])
    population.join(client("paris"))
    population.leave("lyon")
    assert population.ids(1) == ["nice", "paris"]
    population.join(client("lyon"))
    assert population.ids(2) == ["lyon", "nice", "paris"]


def test_two_clients_of_one_name_are_refused():
    with pytest.raises(ConfigError, match='two clients are called "lyon"'):
        InMemory([client("lyon"), client("nice"), client("lyon")])
    with pytest.raises(ConfigError, match='two clients are called "lyon"'):
        InMemory([client("lyon")]).join(client("lyon"))


def test_a_client_that_is_not_there_cannot_leave():
    with pytest.raises(ConfigError, match=r'there is no client "lyn"\. Did you mean "lyon"\?'):
        InMemory([client("lyon")]).leave("lyn")


def test_no_client_and_a_client_without_rows_are_refused():
    with pytest.raises(ConfigError, match="at least one client"):
        InMemory([])
    with pytest.raises(DataError, match='client "lyon" has no training rows; leave it out'):
        InMemory([client("lyon", rows=0)])


class Doubling:
    """Prepares rows by doubling them, and counts how often."""

    def __init__(self):
        self.calls = []

    def __call__(self, data):
        self.calls.append(data.id)
        return ClientData(data.id, Rows(data.train.x * 2, data.train.y))


def test_rows_are_prepared_when_a_client_is_first_asked_and_then_kept():
    prepare = Doubling()
    population = Prepared(InMemory([client("lyon"), client("nice")]), prepare)
    assert (population.ids(0), population.size("nice"), prepare.calls) == (["lyon", "nice"], 2, [])
    first = population.load("nice")
    np.testing.assert_array_equal(first.train.x, [[2], [2]])
    assert population.load("nice") is first
    assert prepare.calls == ["nice"]


def test_a_client_that_comes_back_with_other_rows_is_prepared_anew():
    prepare, raw = Doubling(), InMemory([client("lyon"), client("nice")])
    population = Prepared(raw, prepare)
    population.load("lyon")
    raw.leave("lyon")
    raw.join(client("lyon", rows=7))
    assert len(population.load("lyon").train) == 7
    assert prepare.calls == ["lyon", "lyon"]


def test_prepared_rows_of_a_client_that_has_left_are_let_go():
    raw = InMemory([client("lyon"), client("nice")])
    population = Prepared(raw, Doubling())
    prepared = weakref.ref(population.load("lyon"))
    kept = population.load("nice")
    assert prepared() is not None
    raw.leave("lyon")
    assert population.load("nice") is kept
    assert prepared() is None


def test_rows_that_are_prepared_twice_are_kept_as_they_come_out_and_not_in_between():
    first, then = Doubling(), Doubling()
    once = Prepared(InMemory([client("lyon")]), first)
    twice = Prepared(once, then)
    prepared = twice.load("lyon")
    np.testing.assert_array_equal(prepared.train.x, [[4], [4]])
    assert twice.load("lyon") is prepared
    assert (first.calls, then.calls) == (["lyon"], ["lyon"])
    # The first population was asked for nothing, and so keeps nothing.
    once.load("lyon")
    assert first.calls == ["lyon", "lyon"]


def test_rows_that_are_prepared_twice_travel_to_other_processes_and_clients():
    twice = Prepared(Prepared(InMemory([client("lyon")]), Doubling()), Doubling())
    copied = pickle.loads(pickle.dumps(twice))  # noqa: S301
    for travelled in (copied, twice.over(InMemory([client("lyon")]))):
        np.testing.assert_array_equal(travelled.load("lyon").train.x, [[4], [4]])


@pytest.mark.parametrize("first", [True, False])
def test_clients_in_one_array_are_prepared_one_by_one_where_either_preparation_is_of_whole_clients(first):
    prepare = Doubling()
    population = fp.populations.arrays(np.ones((4, 1)), np.zeros(4), sizes=[2, 2])
    twice = Prepared(Prepared(population, prepare, row_by_row=first), Doubling(), row_by_row=not first)
    ids = list(population.ids(0))
    twice.load_many(ids)
    assert prepare.calls == ids


@pytest.mark.parametrize("clients", [3, "clients.csv", {"a": client("a")}, [client("a"), "b"], client("a")])
def test_what_is_no_population_is_refused(clients):
    with pytest.raises(ConfigError, match="clients must be a federation or a list of clients"):
        as_population(clients)


def test_a_name_that_is_no_text_is_refused():
    with pytest.raises(ConfigError, match="a client is called 3; a name is text"):
        InMemory([replace(client("a"), id=3)])


def test_names_are_sorted_once_for_many_rounds_and_anew_when_someone_joins_or_leaves():
    population = InMemory([client("nice"), client("lyon")])
    first = population.ids(0)
    assert population.ids(1) is first
    population.join(client("brest"))
    assert (list(first), population.ids(2)) == (["lyon", "nice"], ["brest", "lyon", "nice"])
    population.leave("nice")
    assert population.ids(3) == ["brest", "lyon"]


def test_clients_with_test_rows_are_those_that_hold_some():
    held_out = Rows(np.ones((1, 1)), np.zeros(1))
    with_rows, with_none = (
        replace(client(id), test=rows) for id, rows in (("b", held_out), ("a", held_out.take([])))
    )
    population = InMemory([client("c"), with_rows, with_none])
    assert population.tested(0) == ["b"]
    assert holding_tests(population, 0) == holding_tests(Prepared(population, Doubling()), 0) == ["b"]


class Plain:
    """A population with the three things that it must have, and nothing else."""

    def ids(self, round):
        return ["a", "b"]

    def load(self, id):
        return client(id)

    def size(self, id):
        return 2


def test_what_a_population_does_not_know_is_asked_of_all_clients():
    population = Plain()
    assert stand_in(population) is None
    assert holding_tests(population, 0) == ["a", "b"]
    assert [each.id for each in load_all(population, ["b", "a"])] == ["b", "a"]
    assert not reads_files(population)


def test_a_cohort_in_one_array_is_prepared_at_once_to_the_same_bits():
    x, y = np.arange(24.0).reshape(4, 3, 2), np.arange(12).reshape(4, 3)
    prepare = Doubling()
    population = Prepared(fp.populations.arrays(x, y), prepare)
    together = population.load_many(["0003", "0001"])
    assert isinstance(together, ClientStack)
    assert len(prepare.calls) == 1
    for each in together:
        alone = population.load(each.id)
        np.testing.assert_array_equal(each.train.x, alone.train.x)
        np.testing.assert_array_equal(each.train.y, alone.train.y)


def test_clients_of_different_sizes_are_prepared_one_by_one():
    population = Prepared(fp.populations.arrays(np.ones((3, 1)), np.zeros(3), sizes=[2, 1]), Doubling())
    assert [len(each.train) for each in population.load_many(["0001", "0000"])] == [1, 2]


def test_a_row_that_cannot_be_prepared_in_a_cohort_names_its_client():
    x = np.ones((4, 3, 2))
    x[2, 1, 0] = np.nan
    preparation = Preparation(Labels("binary", (0, 1)), (2,), None)
    population = Prepared(
        fp.populations.arrays(x, np.zeros((4, 3), int)), lambda data: preparation.client(data, "float32")
    )
    with pytest.raises(DataError, match=r'client "0002", training rows: .* first in row 2'):
        population.load_many(["0001", "0002"])


def test_prepared_rows_of_files_are_read_in_files(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.ones((2, 1)), y=[0, 1])
    assert reads_files(Prepared(fp.populations.folder(tmp_path), Doubling()))
    assert not reads_files(Prepared(InMemory([client("a")]), Doubling()))


def test_the_client_that_stands_for_all_leads_to_the_agreement_that_all_lead_to():
    x, y = np.zeros((5, 4, 3)), np.arange(20).reshape(5, 4) % 3
    for labels in (y, y.astype(str), y / 2, y % 2, np.stack([y, y + 1], axis=2)):
        population = fp.populations.arrays(x, labels)
        rules, engine = Rules(fatal=(DataError,)), InProcess()
        everyone = prepare(None, (), Plainly(population), engine, rules, Seed.of(0))
        alone = prepare(None, (), stand_in(population), engine, rules, Seed.of(0))
        assert alone.to_json() == everyone.to_json()


class Plainly(Plain):
    """Another population without all that it might know besides."""

    def __init__(self, population):
        self.ids, self.load, self.size = population.ids, population.load, population.size
