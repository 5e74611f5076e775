"""Populations: who is there, and what is loaded when."""

from dataclasses import replace

import numpy as np
import pytest

from fedpact.core.errors import ConfigError, DataError
from fedpact.core.rows import ClientData, Rows
from fedpact.engine.population import InMemory, Population, Prepared, as_population


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


@pytest.mark.parametrize("clients", [3, "clients.csv", {"a": client("a")}, [client("a"), "b"], client("a")])
def test_what_is_no_population_is_refused(clients):
    with pytest.raises(ConfigError, match="clients must be a federation or a list of clients"):
        as_population(clients)


def test_a_name_that_is_no_text_is_refused():
    with pytest.raises(ConfigError, match="a client is called 3; a name is text"):
        InMemory([replace(client("a"), id=3)])
