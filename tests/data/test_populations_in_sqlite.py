"""SQLite as a population: connections, queries and the index that they need."""

import os
import pickle
import sqlite3

import pytest

import fedpact as fp
from fedpact.core.errors import ConfigError, DataError
from tests.data.visits import opened, visits, write_sqlite

TABLE = visits(list("ab"))


def test_a_forked_process_neither_uses_nor_closes_the_connection_it_inherits(tmp_path):
    population = opened("sqlite", visits(list("ab")), tmp_path)
    mine = population._connections.mine()
    child = os.fork()
    if child == 0:
        other = population._connections.mine()
        os._exit(0 if other is not mine and population._connections._inherited == [mine] else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert population._connections.mine() is mine


def test_a_query_can_join_and_an_index_is_used_through_it(tmp_path):
    path = write_sqlite(visits(list("abab")), tmp_path)
    query = "SELECT site, dose * 2 AS twice, ill FROM visits WHERE age IS NOT NULL;"
    population = fp.populations.sqlite(path, query=query, client="site", label="ill")
    table = visits(list("abab"))
    kept = table[table["age"].notna() & (table["site"] == "a")]
    assert population.load("a").train.x["twice"].tolist() == (2 * kept["dose"]).tolist()
    assert population.reads["query"] == query
    assert pickle.loads(pickle.dumps(population)).size("a") == len(kept)  # noqa: S301


def test_a_database_without_an_index_says_how_to_make_one(tmp_path):
    with sqlite3.connect(tmp_path / "all.db") as database:
        visits(list("ab")).to_sql("visits", database, index=False)
    with pytest.raises(DataError, match=r'CREATE INDEX by_client ON "visits" \("site"\)'):
        fp.populations.sqlite(tmp_path / "all.db", "visits", client="site", label="ill")


def test_a_missing_label_in_a_database_names_the_client(tmp_path):
    table = visits(list("ab"))
    table["ill"] = [0, None]
    with pytest.raises(DataError, match='client "b" has a row without a label'):
        opened("sqlite", table, tmp_path).description()


def test_tables_and_queries_that_are_not_there_are_named(tmp_path):
    path = write_sqlite(TABLE, tmp_path)
    asked = {"client": "site", "label": "ill"}
    with pytest.raises(DataError, match=r'has no table "visit".*Did you mean "visits"'):
        fp.populations.sqlite(path, "visit", **asked)
    with pytest.raises(DataError, match="the query cannot be carried out"):
        fp.populations.sqlite(path, query="SELECT nothing", **asked)
    for wrong in ({}, {"table": "visits", "query": "SELECT * FROM visits"}):
        with pytest.raises(ConfigError, match="in a table or come from a query; give one of the two"):
            fp.populations.sqlite(path, **wrong, **asked)


def test_rows_that_come_and_go_while_a_run_goes_on_are_an_error(tmp_path):
    population = opened("sqlite", visits(list("abab")), tmp_path)
    with sqlite3.connect(tmp_path / "all.db") as database:
        database.execute("DELETE FROM visits WHERE rowid = 1")
    database.close()
    with pytest.raises(DataError, match='client "a" had 2 rows when the database was opened, and has 1 now'):
        population.load_many(["a", "b"])
    assert len(population.load("b").train) == 2
