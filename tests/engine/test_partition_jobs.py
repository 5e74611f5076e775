"""A job file that simulates its clients."""

import numpy as np
import pandas as pd
import pytest

import fedpact as fp
from fedpact.core.errors import ConfigError
from fedpact.core.job import Job
from fedpact.engine.sources import load_clients

JOB = """
model = "Logistic"
algorithm = "FedAvg"

[data]
table = "{path}"
label = "ill"
seed = 3
partition = {{ name = "FlippedLabels", of = {{ name = "Dirichlet", clients = 3, alpha = 1.0 }}, shares = [0, 0.5] }}
"""


@pytest.fixture
def path(tmp_path):
    draw = np.random.default_rng(0)
    table = pd.DataFrame(
        {"age": draw.normal(size=90), "dose": draw.normal(size=90), "ill": draw.integers(0, 2, 90)}
    )
    table.to_csv(tmp_path / "all.csv", index=False)
    return tmp_path / "all.csv"


def job_at(path, tmp_path) -> Job:
    (tmp_path / "job.toml").write_text(JOB.format(path=path))
    return Job.from_toml(tmp_path / "job.toml")


def test_a_job_file_simulates_the_clients_that_python_does(path, tmp_path) -> None:
    read = load_clients(job_at(path, tmp_path))
    how = fp.partitions.FlippedLabels(fp.partitions.Dirichlet(3, alpha=1.0), shares=(0.0, 0.5))
    made = fp.partitions.simulate(fp.read_rows(path, label="ill"), how, seed=3).clients
    assert read.ids == made.ids
    for one, other in zip(read, made, strict=True):
        assert one.train.x.equals(other.train.x)
        assert np.array_equal(one.train.y, other.train.y)


def test_how_rows_are_simulated_is_no_part_of_what_an_owner_approves(path, tmp_path) -> None:
    job = job_at(path, tmp_path)
    real = job.model_copy(update={"data": {"clients": {"lyon": "lyon.csv"}, "label": "ill"}})
    assert job.digest == real.digest
    assert job.identity != real.identity


def test_a_job_with_simulated_clients_runs(path, tmp_path) -> None:
    result = fp.run(job_at(path, tmp_path).model_copy(update={"rounds": 2}))
    assert len(result.history) == 2


def test_a_misspelt_partition_of_a_job_names_the_nearest(path, tmp_path) -> None:
    job = job_at(path, tmp_path)
    wrong = job.model_copy(
        update={"data": {"table": str(path), "label": "ill", "partition": {"name": "Shard"}}}
    )
    with pytest.raises(ConfigError, match='Did you mean "Shards"'):
        load_clients(wrong)
