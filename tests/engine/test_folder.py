"""Claims about a run's folder: what is in it, when it holds a run, and what a killed process leaves there."""

import json
import subprocess
import sys
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


def opened(path: Path, job: fp.Job, resume: bool) -> RunFolder:
    with RunFolder.held(path, job, resume) as folder:
        assert folder is not None
        return folder


def changed(**settings: Any) -> fp.Job:
    return fp.Job.of({**JOB.model_dump(), **settings})


def test_finished_run_has_these_files(tmp_path: Path) -> None:
    fp.train(fp.models.Logistic(), two_classes(), rounds=3, folder=tmp_path / "run")
    assert contents(tmp_path / "run").keys() == {
        "job.json",
        "preparation.json",
        "engine.json",
        "history.jsonl",
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
    opened(tmp_path, JOB, resume=False).begin(JOB, prepared)
    assert opened(tmp_path, JOB, resume=True).read_preparation() == prepared


def test_opened_folder_holds_no_run_until_it_has_begun(tmp_path: Path) -> None:
    folder = opened(tmp_path / "deep" / "run", JOB, resume=False)
    assert not folder.begun
    assert contents(tmp_path) == {}
    folder.begin(JOB, preparation())
    assert folder.begun


def test_preparation_without_a_job_is_no_run_and_is_replaced(tmp_path: Path) -> None:
    # A process that was killed between the two files leaves this.
    (tmp_path / "preparation.json").write_text("of another job")
    prepared = preparation()
    folder = opened(tmp_path, JOB, resume=False)
    folder.begin(JOB, prepared)
    assert folder.read_preparation() == prepared


def test_name_length_stop_rules_evaluations_and_whereabouts_may_change(tmp_path: Path) -> None:
    opened(tmp_path, JOB, resume=False).begin(JOB, preparation())
    rule = {"name": "TimeLimit", "seconds": 9.0}
    other = changed(name="longer", data={"clients": {"a": "a.csv"}}, rounds=99, stop=[rule], evaluate_every=7)
    assert opened(tmp_path, other, resume=True).begun


def test_everything_that_decides_a_round_may_not_change(tmp_path: Path) -> None:
    opened(tmp_path, JOB, resume=False).begin(JOB, preparation())
    others: dict[str, Any] = {
        "seed": 1,
        "model": {"name": "Softmax"},
        "algorithm": {"name": "FedAvg", "lr": 0.2},
        "table_schema": [{"name": "age", "kind": "numeric"}],
        "preprocess": [],
        "channel": [{"name": "Clip", "norm": 1.0}],
        "cohort": 2,
        "sampling": "poisson",
        "quorum": 0.5,
        "timeout_s": 9.0,
        "update_range": 8.0,
        "initial_sha256": "a" * 64,
    }
    may_change = {"name", "data", "rounds", "stop", "evaluate_every", "evaluate_cohort", "initial"}
    assert others.keys() | may_change == fp.Job.model_fields.keys()
    for name, value in others.items():
        with pytest.raises(
            CheckpointError, match=rf"holds a run of another job: {name}.* was .* and is .* now"
        ):
            opened(tmp_path, changed(**{name: value}), resume=True)


def test_run_is_not_opened_twice_without_resuming(tmp_path: Path) -> None:
    opened(tmp_path, JOB, resume=False).begin(JOB, preparation())
    with pytest.raises(ConfigError, match="holds a run already"):
        opened(tmp_path, JOB, resume=False)


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
        opened(tmp_path / "file" / "run", JOB, resume=False)


def test_two_processes_cannot_hold_one_folder(tmp_path: Path) -> None:
    code = (
        "import sys, fedpact.store.files as files\n"
        "with files.locked(sys.argv[1]):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    with pytest.raises(ConfigError, match="another process is at work in"):
        opened(tmp_path, JOB, resume=False)
    other.communicate()
    assert opened(tmp_path, JOB, resume=False).path == tmp_path


def test_what_is_read_may_not_change_where_both_jobs_say_it(tmp_path: Path) -> None:
    opened(tmp_path, changed(data={"label": "ill"}), resume=False).begin(
        changed(data={"label": "ill"}), preparation()
    )
    with pytest.raises(CheckpointError, match=r"data.label was .*ill.* and is .*hiv.* now"):
        opened(tmp_path, changed(data={"label": "hiv"}), resume=True)
    silent = opened(tmp_path, JOB, resume=True).continued(JOB)
    assert silent.lineage == changed(data={"label": "ill"}).lineage
