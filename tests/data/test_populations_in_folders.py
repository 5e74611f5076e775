"""A folder as a population: a file for each client."""

import pickle

import numpy as np
import pytest

import fedpact as fp
from fedpact.core.errors import ConfigError
from fedpact.engine.population import InMemory
from tests.data.visits import assert_same_rows, visits

TABLE = visits(list("ab"))


def test_a_file_for_each_client_is_read_as_fp_client_reads_it(tmp_path):
    table = visits(list("ababab")).drop(columns="gene")
    sources = {id: part.drop(columns="site") for id, part in table.groupby("site")}
    sources["a"].to_csv(tmp_path / "a.csv", index=False)
    sources["b"].to_parquet(tmp_path / "b.parquet")
    (tmp_path / "README").write_text("no client")
    for test in (0.0, 0.5):
        population = fp.populations.folder(tmp_path, "ill", test=test, seed=5)
        in_memory = InMemory(
            fp.clients(
                {id: tmp_path / f"{id}.{e}" for id, e in (("a", "csv"), ("b", "parquet"))},
                "ill",
                test=test,
                seed=5,
            )
        )
        assert list(population.ids(0)) == ["a", "b"]
        for id in "ab":
            assert population.size(id) == in_memory.size(id)
            assert_same_rows(population.load(id).train, in_memory.load(id).train)
            assert_same_rows(population.load(id).test, in_memory.load(id).test)
        assert list(population.tested(0)) == (["a", "b"] if test else [])


def test_arrays_in_a_folder_tell_their_number_of_rows_by_their_header(tmp_path, monkeypatch):
    for id, n in (("a", 3), ("b", 5)):
        np.savez(tmp_path / f"{id}.npz", x=np.full((n, 2), n), y=np.arange(n) % 2)
    (tmp_path / "held out").mkdir()
    np.savez(tmp_path / "held out" / "b.npz", x=np.ones((1, 2)), y=[1])
    population = fp.populations.folder(tmp_path, test=tmp_path / "held out", classes=[0, 1])
    monkeypatch.setattr(population, "load", None)
    assert [population.size(id) for id in "ab"] == [3, 5]
    monkeypatch.undo()
    assert list(population.tested(0)) == ["b"]
    client = pickle.loads(pickle.dumps(population)).load("b")  # noqa: S301
    assert (client.train.x.tolist(), client.test.y.tolist()) == ([[5, 5]] * 5, [1])
    assert population.load("a").test is None
    assert set(population.description().train.y) == {0, 1}


def test_a_number_of_rows_counts_none_that_are_held_out(tmp_path):
    visits(["a"] * 8).drop(columns="site").to_parquet(tmp_path / "a.parquet")
    population = fp.populations.folder(tmp_path, "ill", test=0.25)
    assert population.size("a") == len(population.load("a").train) == 6


def test_two_files_of_one_client_are_refused(tmp_path):
    TABLE.to_csv(tmp_path / "a.csv")
    TABLE.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match='two clients are called "a"'):
        fp.populations.folder(tmp_path, "ill")
