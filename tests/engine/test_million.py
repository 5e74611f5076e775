"""Runs over a million clients: nobody is loaded but those asked, and it makes no difference where rows come from."""

import tracemalloc
from collections import Counter

import numpy as np
import pytest

import fedpact as fp
from fedpact.core.job import Job
from fedpact.core.messages import Cohort
from fedpact.core.seeds import Seed
from fedpact.data.populations.names import Numbered
from fedpact.engine.population import InMemory
from fedpact.engine.sampler import choose
from tests.data.visits import visits, write_arrow, write_sqlite
from tests.engine.runs import outcome, same_bits

MILLION = 1_000_000
SETTINGS = {"algorithm": fp.FedAvg(lr=0.1, local_epochs=1, batch_size=2), "rounds": 3, "seed": 7}


class Counted:
    """Makes a client's rows from its number, and counts how often."""

    def __init__(self):
        self.loads = Counter()

    def __call__(self, id):
        self.loads[id] += 1
        random = np.random.default_rng(int(id))
        y = random.integers(2, size=4)
        return y[:, None] + random.normal(size=(4, 3)), y


def asked_in(rounds, names, cohort):
    return [id for r in range(rounds) for id in choose(Cohort(), names, cohort, r, Seed.of(7))]


def population_of(writer, table, folder, **options):
    path, asked = writer(table, folder), {"client": "site", "label": "ill", **options}
    if writer is write_sqlite:
        return fp.populations.sqlite(path, "visits", **asked)
    return fp.populations.parquet(path, **asked)


def test_of_a_million_clients_those_that_are_asked_are_loaded_and_one_that_stands_for_all():
    load = Counted()
    population = fp.populations.function(MILLION, load, 4, tested=False, classes=[0, 1])
    result = fp.train(fp.models.Logistic(), population, cohort=5, engine="in_process", **SETTINGS)
    asked = asked_in(3, population.ids(0), 5)
    assert load.loads == Counter([*asked, "000000"])
    assert result.evaluation is None
    assert set(result.clients.index) == set(asked)


def test_a_quorum_is_one_of_those_asked_and_not_of_the_one_that_stands_for_all():
    load = Counted()
    population = fp.populations.function(1000, load, 4, tested=False, classes=[0, 1])
    result = fp.train(fp.models.Logistic(), population, cohort=5, quorum=5, engine="in_process", **SETTINGS)
    assert result.history["clients"].tolist() == [5, 5, 5]


@pytest.mark.parametrize("writer", [write_arrow, write_sqlite])
def test_a_table_without_steps_is_described_and_only_the_cohort_is_read(tmp_path, writer, monkeypatch):
    table = visits([f"{i % 300:03}" for i in range(900)])
    population = population_of(writer, table.drop(columns=["age", "gene"]), tmp_path)
    read = Counter()
    block = population._block

    def counting(places):
        read.update(population.ids(0)[place] for place in places)
        return block(places)

    monkeypatch.setattr(population, "_block", counting)
    fp.train(fp.models.Logistic(), population, cohort=4, engine="in_process", **SETTINGS)
    assert read == Counter(asked_in(3, population.ids(0), 4))


def test_an_evaluation_asks_those_who_hold_test_rows():
    population = fp.populations.arrays(
        np.zeros((MILLION, 1, 3), np.int8),
        np.zeros((MILLION, 1), np.int8),
        classes=[0, 1],
        test=(np.ones((2, 3), np.int8), np.array([0, 1]), np.bincount([17, 400_000], minlength=MILLION)),
    )
    result = fp.train(fp.models.Logistic(), population, cohort=5, engine="in_process", **SETTINGS)
    assert dict(result.evaluation.rows) == {"000017": 1, "400000": 1}
    assert len(result.evaluation.failures) == 0


def test_a_million_clients_in_arrays_take_no_memory_beyond_the_arrays():
    x, y = np.zeros((MILLION, 2, 3), np.float16), np.zeros((MILLION, 2), np.int8)
    y[::2] = 1
    tracemalloc.start()
    population = fp.populations.arrays(x, y)
    result = fp.train(fp.models.Logistic(), population, cohort=20, engine="in_process", **SETTINGS)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Names alone would take 56 MB. Looking for empty clients and through the labels takes a byte or two for each.
    assert peak < 10_000_000
    assert isinstance(population.ids(0), Numbered)
    assert result.history["clients"].tolist() == [20, 20, 20]


def test_ten_million_are_sampled_from_again_and_again_in_the_same_way():
    names = Numbered(10_000_000)
    first, again = (asked_in(5, names, 1000) for _ in range(2))
    assert first == again
    assert len(set(first)) > 4990  # 5,000 draws from 10^7: two meet in one round and another once on average


def test_a_run_gives_the_same_bits_wherever_the_rows_come_from():
    made = fp.populations.function(12, Counted(), 4, tested=False, classes=[0, 1])
    x, y = (np.stack([getattr(made.load(id).train, name) for id in made.ids(0)]) for name in "xy")
    others = [
        InMemory([made.load(id) for id in made.ids(0)]),
        fp.populations.arrays(x, y),
        fp.populations.arrays(x.reshape(-1, 3), y.reshape(-1), sizes=[4] * 12),
    ]
    settings = {"cohort": 5, "engine": "in_process", **SETTINGS}
    expected = outcome(fp.train(fp.models.Logistic(), made, **settings))
    for other in others:
        got = outcome(fp.train(fp.models.Logistic(), other, **settings))
        assert same_bits(got["weights"], expected["weights"])
        assert same_bits(got["history"], expected["history"])


@pytest.mark.parametrize("writer", [write_arrow, write_sqlite])
def test_a_run_over_files_gives_the_same_bits_as_over_a_federation_and_again_from_its_job(tmp_path, writer):
    table = visits(list("abcdefgh") * 9)
    population = population_of(writer, table, tmp_path, test=0.25)
    steps = [fp.Impute("median"), fp.Impute("most_frequent"), fp.OneHot(), fp.Standardize()]
    settings = {**SETTINGS, "preprocess": steps, "cohort": 3}
    expected = fp.train(
        fp.models.Logistic(), fp.by_column(table, "site", "ill"), engine="in_process", **settings
    )
    result = fp.train(fp.models.Logistic(), population, engine="in_process", **settings)
    again = fp.run(Job.of(result.job.model_dump(mode="json")), engine="in_process")
    for other in (result, again):
        assert same_bits(other.weights, expected.weights)
        assert other.evaluation.to_json() == expected.evaluation.to_json()
