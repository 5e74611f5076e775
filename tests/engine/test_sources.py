"""Clients that a job names: a population written into a job by one run is found by the next."""

import numpy as np
import pandas as pd
import pytest

import fedpact as fp
from fedpact.core.errors import ConfigError
from fedpact.core.job import Job
from fedpact.engine.population import InMemory, Population
from fedpact.engine.sources import load_clients
from fedpact.report.toml import job_toml
from tests.data.visits import assert_same_clients, visits, write_parquet, write_sqlite
from tests.engine.runs import same_bits

TABLE = visits(list("abcabcab"))
ASKED = {"client": "site", "label": "ill"}


def job(data):
    return Job.of({"model": "Logistic", "algorithm": "FedAvg", "data": data})


def in_parquet(folder, **options):
    return fp.populations.parquet(write_parquet(TABLE, folder), **ASKED, **options)


def in_sqlite(folder, **options):
    return fp.populations.sqlite(write_sqlite(TABLE, folder), "visits", **ASKED, **options)


def by_query(folder, **options):
    return fp.populations.sqlite(
        write_sqlite(TABLE, folder), query="SELECT * FROM visits", **ASKED, **options
    )


def in_folder(folder, **options):
    for id, part in TABLE.groupby("site"):
        part.drop(columns="site").to_parquet(folder / f"{id}.parquet")
    return fp.populations.folder(folder, "ill", **options)


WAYS = [in_parquet, in_sqlite, by_query, in_folder]


@pytest.mark.parametrize("made", WAYS)
@pytest.mark.parametrize(
    "options",
    [{}, {"test": 0.5, "seed": 4}, {"columns": ["age"], "classes": [0, 1]}, {"test": 0.3, "stratify": False}],
)
def test_a_population_written_into_a_job_is_found_again(tmp_path, made, options):
    population = made(tmp_path, **options)
    path = tmp_path / "job.toml"
    path.write_text(job_toml(job(population.reads)))
    again = load_clients(Job.from_toml(path))
    assert type(again) is type(population)
    for id in population.ids(0):
        ours, other = again.load(id), population.load(id)
        pd.testing.assert_frame_equal(ours.train.x, other.train.x)
        np.testing.assert_array_equal(ours.train.y, other.train.y)
        assert (ours.test is None) == (other.test is None)
        assert again.size(id) == population.size(id)


@pytest.mark.parametrize("made", WAYS)
def test_the_digest_says_what_is_read_and_not_where(tmp_path, made):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    here, there = (job(made(tmp_path / name).reads) for name in "ab")
    assert here.names_rows
    assert here.digest == there.digest
    assert here.identity != there.identity
    assert here.reading == {"label": "ill"}


@pytest.mark.parametrize("made", WAYS)
def test_a_run_over_a_population_is_done_again_from_its_job(tmp_path, made):
    population = made(tmp_path, columns=["age"], test=0.25, seed=3)
    steps = {"preprocess": [fp.Impute("mean"), fp.Standardize()], "rounds": 2, "cohort": 2, "seed": 5}
    result = fp.train(fp.models.Logistic(), population, engine="in_process", **steps)
    path = tmp_path / "job.toml"
    path.write_text(job_toml(result.job))
    again = fp.run(Job.from_toml(path), engine="in_process")
    assert again.job.digest == result.job.digest
    assert again.job.identity == result.job.identity
    assert same_bits(again.weights, result.weights)


@pytest.mark.parametrize("made", WAYS)
@pytest.mark.parametrize("test", [0.0, 0.25])
def test_a_job_that_leaves_out_defaults_goes_on_with_the_run_that_spells_them_out(tmp_path, made, test):
    population, folder = made(tmp_path, columns=["age"], test=test), tmp_path / "run"
    settings = {"preprocess": fp.Impute("mean"), "cohort": 2, "engine": "in_process", "folder": folder}
    first = fp.train(fp.models.Logistic(), population, rounds=1, **settings)
    shorter = dict(population.reads) if test else {k: v for k, v in population.reads.items() if k != "test"}
    shorter.pop("seed", None)
    shorter.pop("stratify", None)
    longer = Job.of({**first.job.model_dump(mode="json"), "data": shorter, "rounds": 2})
    again = fp.run(longer, engine="in_process", folder=folder, resume=True)
    assert again.job.identity == Job.of({**first.job.model_dump(mode="json"), "rounds": 2}).identity


def test_that_labels_are_numbers_to_predict_is_part_of_the_digest(tmp_path):
    digests = [job(in_parquet(tmp_path, classes=classes).reads).digest for classes in (None, (), (0, 1))]
    assert len(set(digests)) == 3


def test_a_job_may_name_a_folder_of_test_rows(tmp_path):
    held_out = tmp_path / "held out"
    held_out.mkdir()
    in_folder(held_out)
    population = in_folder(tmp_path, test=held_out)
    again = load_clients(job(population.reads))
    assert isinstance(again, Population)
    assert len(again.load("a").test) == 3


def test_a_job_names_arrays_and_functions_nowhere():
    for population in (
        fp.populations.arrays(np.zeros((2, 1, 1)), np.zeros((2, 1))),
        fp.populations.function(2, lambda id: None, 1),
    ):
        assert not hasattr(population, "reads")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"parquet": "all.parquet", "label": "ill"}, r'\[data\] has parquet, but no "client"; add it'),
        ({"sqlite": "all.db", "table": "t", "client": "c"}, r'\[data\] has sqlite, but no "label"; add it'),
        ({"parquet": "x", "client": "c", "lable": "ill"}, 'has parquet, but no "label"'),
        ({"parquet": "x", "client": "c", "label": "y", "sed": 3}, r'no setting "sed"\. Did you mean "seed"'),
        ({"folder": "x", "client": "c"}, r'\[data\] with folder has no setting "client"'),
        (
            {"parket": "x"},
            r'Did you mean "parquet"\? A large population is given as parquet, sqlite or folder',
        ),
    ],
)
def test_a_population_that_a_job_names_wrongly_is_refused(data, message):
    with pytest.raises(ConfigError, match=message):
        load_clients(job(data))


def test_one_file_gives_the_same_clients_as_a_table_and_as_a_population(tmp_path):
    path = write_parquet(TABLE, tmp_path)
    federation = load_clients(job({"table": str(path), "by": "site", "label": "ill", "test": 0.25}))
    population = load_clients(job({"parquet": str(path), **ASKED, "test": 0.25}))
    assert_same_clients(population, InMemory(federation))
