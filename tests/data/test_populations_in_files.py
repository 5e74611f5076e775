"""Populations in files: the same rows as in memory, found without reading the others'."""

import os
import pickle
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fedpact as fp
from fedpact.core.errors import ConfigError, DataError
from fedpact.data.populations.parquet import Parquet
from fedpact.data.populations.sqlite import SQLite
from fedpact.engine.population import Gathered, InMemory, stand_in
from tests.data.visits import WRITERS, assert_same_clients, assert_same_rows, opened, visits

few = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
TABLE = visits(list("ab"))


@pytest.mark.parametrize("writer", WRITERS)
@few
@given(
    st.lists(st.sampled_from(["lyon", "nice", "é", "Z"]), min_size=1, max_size=40),
    st.sampled_from([0.0, 0.25, 0.5]),
)
def test_any_partition_gives_the_same_clients_as_in_memory(tmp_path_factory, writer, sites, test):
    table = visits(sites)
    population = opened(writer, table, tmp_path_factory.mktemp("population"), test=test, seed=3)
    in_memory = InMemory(fp.by_column(table, "site", "ill", test=test, seed=3))
    assert_same_clients(population, in_memory)


@pytest.mark.parametrize("writer", WRITERS)
def test_clients_may_be_called_by_numbers(tmp_path, writer):
    table = visits([9, 10, 9, 8, 10, 10])
    population = opened(writer, table, tmp_path)
    assert list(population.ids(0)) == ["10", "8", "9"]
    assert_same_clients(population, InMemory(fp.by_column(table, "site", "ill", test=0)))


@pytest.mark.parametrize("writer", WRITERS)
def test_a_column_may_mark_test_rows(tmp_path, writer):
    table = visits(["a", "b", "a", "b", "a"]).assign(later=[False, False, True, False, True])
    population = opened(writer, table, tmp_path, test="later")
    assert list(population.tested(0)) == ["a"]
    client = population.load("a")
    assert client.train.x["dose"].tolist() == table["dose"][[0]].tolist()
    assert client.test.x["dose"].tolist() == table["dose"][[2, 4]].tolist()
    assert "later" not in client.train.x
    assert population.load("b").test is None
    assert [population.size(id) for id in "ab"] == [1, 2]
    assert [len(each.train) for each in population.load_many(["a", "b"])] == [1, 2]


@pytest.mark.parametrize("writer", WRITERS)
def test_only_a_client_with_training_rows_can_be_asked(tmp_path, writer):
    table = visits(["a", "b"]).assign(later=[0, 1])
    with pytest.raises(DataError, match='client "b" has no training rows; leave it out'):
        opened(writer, table, tmp_path, test="later")


@pytest.mark.parametrize("writer", WRITERS)
def test_the_client_that_stands_for_all_has_their_columns_and_labels(tmp_path, writer):
    table = visits(["b", "a", "a", "c"]).assign(ill=["no", "yes", "no", "perhaps"])
    table["gene"] = [None, None, "x", None]
    described = stand_in(opened(writer, table, tmp_path))
    (name,) = described.ids(0)
    client = described.load(name)
    assert set(client.train.y) == {"no", "yes", "perhaps"}
    assert list(client.train.x.columns) == ["dose", "age", "gene"]
    # A column that is empty at most clients is of the kind that it has at the others.
    assert set(client.train.x["gene"]) == {"x"}


@pytest.mark.parametrize("writer", WRITERS)
def test_declared_classes_and_chosen_columns_are_kept_to(tmp_path, writer):
    population = opened(writer, visits(["a", "b"]), tmp_path, columns=["age", "dose"], classes=[0, 1, 2])
    assert list(population.load("b").train.x.columns) == ["age", "dose"]
    assert set(population.description().train.y) == {0, 1, 2}


@pytest.mark.parametrize("writer", WRITERS)
def test_another_process_opens_the_files_itself(tmp_path, writer):
    population = opened(writer, visits(list("abab")), tmp_path, test=0.5, seed=2)
    again = pickle.loads(pickle.dumps(population))  # noqa: S301
    assert_same_rows(again.load("b").test, population.load("b").test)
    assert len(pickle.dumps(population)) < 1000


@pytest.mark.parametrize("writer", WRITERS)
def test_threads_and_forked_processes_read_the_same_rows(tmp_path, writer):
    population = opened(writer, visits(list("abab")), tmp_path)
    expected = population.load("a").train.x["dose"].tolist()
    seen = []
    thread = threading.Thread(target=lambda: seen.append(population.load("a").train.x["dose"].tolist()))
    thread.start()
    thread.join()
    assert seen == [expected]
    child = os.fork()
    if child == 0:
        os._exit(0 if population.load("a").train.x["dose"].tolist() == expected else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert population.load("a").train.x["dose"].tolist() == expected


def test_databases_and_tables_load_a_cohort_at_once(tmp_path):
    for writer in ("arrow", "sqlite"):
        population = opened(writer, visits(list("abc")), tmp_path)
        assert isinstance(population, Gathered)
        assert list(population.load_many([])) == []
        with pytest.raises(DataError, match='there is no client "d"'):
            population.load_many(["a", "d"])


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        ({}, {"client": "sight"}, DataError, 'has no column "sight".*Did you mean "site"'),
        ({}, {"label": "il"}, DataError, 'has no column "il".*Did you mean "ill"'),
        ({}, {"columns": ["doze"]}, DataError, 'has no column "doze".*Did you mean "dose"'),
        ({}, {"columns": ["ill"]}, ConfigError, 'column "ill" is the label column; leave it out of columns'),
        ({}, {"columns": []}, DataError, "there is no feature column"),
        ({}, {"test": 1.0}, ConfigError, "test is 1.0; give a share"),
        ({"site": ["a", None]}, {}, DataError, 'column "site".* says whose row it is, and is missing'),
        ({"site": [0.5, 1.5]}, {}, DataError, 'column "site".* says whose row it is, and holds'),
        ({"site": ["a", ""]}, {}, ConfigError, "a name is text that is not empty"),
    ],
)
def test_a_table_that_cannot_be_a_population_is_refused(tmp_path, writer, change, options, error, message):
    with pytest.raises(error, match=message):
        opened(writer, TABLE.assign(**change), tmp_path, **options)


@pytest.mark.parametrize("writer", [name for name in WRITERS if name != "sqlite"])
def test_a_missing_label_or_mark_is_found_when_the_file_is_opened(tmp_path, writer):
    with pytest.raises(DataError, match=r'1 label\(s\) are missing in column "ill", the first in row 2'):
        opened(writer, TABLE.assign(ill=[0.0, None]), tmp_path)
    with pytest.raises(DataError, match=r'column "later" of .* must mark test rows with true or 1'):
        opened(writer, TABLE.assign(later=[False, None]), tmp_path, test="later")


def test_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "broken.parquet").write_text("nothing")
    (tmp_path / "broken.db").write_text("nothing at all, but long enough to be no database" * 9)
    (tmp_path / "broken.npz").write_text("nothing")
    (tmp_path / "empty").mkdir()
    TABLE.to_parquet(tmp_path / "one.parquet")
    wrong = {
        "broken.parquet": "cannot be read",
        "brokn.parquet": 'there is no file .* Did you mean "broken.parquet"',
        "empty": "has no file whose name ends in .parquet",
        "broken.db": "is no Arrow or Parquet file; its name must end in .parquet",
    }
    for name, message in wrong.items():
        with pytest.raises(DataError, match=message):
            Parquet(tmp_path / name, "site", "ill")
    for name, message in {"broken.db": "cannot be read", "brokn.db": 'Did you mean "broken.db"'}.items():
        with pytest.raises(DataError, match=message):
            SQLite(tmp_path / name, "visits", client="site", label="ill")
    (tmp_path / "broken.parquet").unlink()
    with pytest.raises(DataError, match="cannot be read as arrays x and y"):
        fp.populations.folder(tmp_path, "ill").load("broken")
    with pytest.raises(DataError, match="there is no folder"):
        fp.populations.folder(tmp_path / "nowhere", "ill")
    with pytest.raises(DataError, match=r"has no file whose name ends in \.csv"):
        fp.populations.folder(tmp_path / "empty", "ill")
