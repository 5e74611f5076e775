import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fedpact as fp
from fedpact.core.job import Job
from fedpact.engine.train import complete
from fedpact.report.toml import job_toml
from tests.report.runs import trained

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
PLAIN = st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inside: st.lists(inside) | st.dictionaries(TEXT, inside),
    max_leaves=6,
)
PART = st.dictionaries(TEXT.filter(lambda key: key != "name"), PLAIN, max_size=3).map(
    lambda settings: {"name": "part", **settings}
)


@given(
    PART,
    PART,
    st.lists(PART, max_size=2),
    TEXT,
    st.integers(1, 10**6),
    st.floats(0.01, 1) | st.integers(1, 99),
)
def test_job_reads_back_to_the_same_digest(
    model: dict[str, object],
    algorithm: dict[str, object],
    steps: list[dict[str, object]],
    name: str,
    rounds: int,
    cohort: float,
) -> None:
    settings = {"name": name, "model": model, "algorithm": algorithm, "preprocess": steps}
    job = Job.of({**settings, "rounds": rounds, "cohort": cohort})
    assert Job.of(tomllib.loads(job_toml(job))).digest == job.digest


def test_job_of_a_run_can_be_run_again(tmp_path: Path) -> None:
    job = trained("binary", stop=fp.TimeLimit(100.0), channel=[fp.Clip(1.0)]).job
    (tmp_path / "job.toml").write_text(job_toml(job), encoding="utf-8")
    again = Job.from_toml(tmp_path / "job.toml")
    assert again.stop == job.stop
    assert again.rounds == job.rounds
    assert again.algorithm["lr"] == job.algorithm["lr"]


def test_settings_that_have_their_default_are_left_out() -> None:
    job = Job.of({"model": "Logistic", "algorithm": "FedAvg"})
    assert job_toml(job) == '[model]\nname = "Logistic"\n\n[algorithm]\nname = "FedAvg"\n'


@pytest.mark.parametrize("key", ["batch_size", "local_epochs"])
def test_none_is_written_and_read_back(key: str) -> None:
    job = complete(Job.of({"model": "Logistic", "algorithm": {"name": "FedAvg", key: None}}))
    again = complete(Job.of(tomllib.loads(job_toml(job))))
    assert again.digest == job.digest


def test_a_part_with_a_setting_that_may_be_text_or_none_reads_back() -> None:
    # The fill value of Impute: as "none" it would be read as text, for strategy "constant" alone.
    steps = [{"name": "Impute", "strategy": "median", "fill_value": None}]
    job = complete(Job.of({"model": "Logistic", "algorithm": "FedAvg", "preprocess": steps}))
    text = job_toml(job)
    assert "fill_value" not in text
    assert complete(Job.of(tomllib.loads(text))).digest == job.digest


def test_a_part_whose_class_is_elsewhere_is_written_out() -> None:
    job = Job.of({"model": {"name": "not.here:Model", "width": None}, "algorithm": "FedAvg"})
    assert tomllib.loads(job_toml(job))["model"] == {"name": "not.here:Model", "width": "none"}
