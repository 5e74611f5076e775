"""Claims about a run's folder: what is in it, when it holds a run, and what a killed process leaves there."""

import json
from pathlib import Path
from typing import Any

import pytest

import fedpact as fp
from fedpact.core.errors import CheckpointError, ConfigError, FedpactError
from fedpact.engine.folder import RunFolder
from fedpact.engine.preparation import Preparation
from tests.engine.runs import contents, two_classes

JOB = fp.Job.of(
    {"model": "Logistic", "algorithm": {"name": "FedAvg", "lr": 0.1}, "preprocess": ["Standardize"]}
)


def preparation() -> Preparation:
    return fp.train(
        fp.models.Logistic(), two_classes(), preprocess=fp.Standardize(), rounds=1
    ).fitted.preparation


def changed(**settings: Any) -> fp.Job:
    return fp.Job.of({**JOB.model_dump(), **settings})


def test_finished_run_has_these_files(tmp_path: Path) -> None:
    fp.train(fp.models.Logistic(), two_classes(), rounds=3, folder=tmp_path / "run")
    assert contents(tmp_path / "run").keys() == {
        "job.json",
        "preparation.json",
        "checkpoints/round-00000002.safetensors",
        "checkpoints/round-00000003.safetensors",
        "model.safetensors",
        "result.json",
        "history.csv",
        "clients.csv",
    }


def test_job_in_the_folder_is_the_job(tmp_path: Path) -> None:
    result = fp.train(fp.models.Logistic(), two_classes(), rounds=1, folder=tmp_path)
    written = fp.Job.of(json.loads((tmp_path / "job.json").read_bytes()))
    assert written == result.job
    assert written.digest == result.job.digest


def test_preparation_is_read_back_as_it_was(tmp_path: Path) -> None:
    prepared = preparation()
    RunFolder.open(tmp_path, JOB, resume=False).begin(JOB, prepared)
    assert RunFolder.open(tmp_path, JOB, resume=True).read_preparation() == prepared


def test_opened_folder_holds_no_run_until_it_has_begun(tmp_path: Path) -> None:
    folder = RunFolder.open(tmp_path / "deep" / "run", JOB, resume=False)
    assert not folder.begun
    assert contents(tmp_path) == {}
    folder.begin(JOB, preparation())
    assert folder.begun


def test_preparation_without_a_job_is_no_run_and_is_replaced(tmp_path: Path) -> None:
    # A process that was killed between the two files leaves this.
    (tmp_path / "preparation.json").write_text("of another job")
    prepared = preparation()
    folder = RunFolder.open(tmp_path, JOB, resume=False)
    folder.begin(JOB, prepared)
    assert folder.read_preparation() == prepared


def test_name_data_length_stop_rules_and_evaluations_may_change(tmp_path: Path) -> None:
    RunFolder.open(tmp_path, JOB, resume=False).begin(JOB, preparation())
    rule = {"name": "TimeLimit", "seconds": 9.0}
    other = changed(name="longer", data={"name": "heart"}, rounds=99, stop=[rule], evaluate_every=7)
    assert RunFolder.open(tmp_path, other, resume=True).begun


def test_everything_that_decides_a_round_may_not_change(tmp_path: Path) -> None:
    RunFolder.open(tmp_path, JOB, resume=False).begin(JOB, preparation())
    others: dict[str, Any] = {
        "seed": 1,
        "model": {"name": "Softmax"},
        "algorithm": {"name": "FedAvg", "lr": 0.2},
        "preprocess": [],
        "channel": [{"name": "Clip", "norm": 1.0}],
        "cohort": 2,
        "quorum": 0.5,
        "timeout_s": 9.0,
        "update_range": 8.0,
        "initial": "start.safetensors",
    }
    may_change = {"name", "data", "rounds", "stop", "evaluate_every"}
    assert others.keys() | may_change == fp.Job.model_fields.keys()
    for name, value in others.items():
        with pytest.raises(
            CheckpointError, match=rf"holds a run of another job: {name}.* was .* and is .* now"
        ):
            RunFolder.open(tmp_path, changed(**{name: value}), resume=True)


def test_run_is_not_opened_twice_without_resuming(tmp_path: Path) -> None:
    RunFolder.open(tmp_path, JOB, resume=False).begin(JOB, preparation())
    with pytest.raises(ConfigError, match="holds a run already"):
        RunFolder.open(tmp_path, JOB, resume=False)


def test_job_of_a_folder_without_one_is_missed(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is no run folder: it has no job\.json"):
        RunFolder(tmp_path).read_job()


def test_files_of_others_in_the_folder_stay(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    fp.train(fp.models.Logistic(), two_classes(), rounds=1, folder=tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_half_written_files_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "checkpoints"):
        place.mkdir(exist_ok=True)
        (place / ".fedpact-0123456789abcdef.tmp").write_bytes(b"half")
    fp.train(fp.models.Logistic(), two_classes(), rounds=1, folder=tmp_path)
    assert not list(tmp_path.rglob(".fedpact-*"))


def test_folder_that_may_not_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FedpactError, match="its folder is a file; choose another folder"):
        RunFolder.open(tmp_path / "file" / "run", JOB, resume=False)
