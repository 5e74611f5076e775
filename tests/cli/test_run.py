import json
import shlex
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from fedpact.core.job import Job
from fedpact.engine.result import Result
from fedpact.store.checkpoint import Checkpoints
from tests.cli.terminal import JOB, call, command, environment, job_file, process


def test_run_does_what_the_job_says(tmp_path: Path) -> None:
    path = job_file(tmp_path)
    assert call("run", path, "--folder", tmp_path / "run").exit_code == 0
    result = Result.load(tmp_path / "run")
    assert len(result.history) == 3
    assert result.job.name == "tumours"


def test_default_folder_has_the_name_and_the_identity_of_the_job_that_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("run", job_file(tmp_path)).exit_code == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name == f"tumours-{Result.load(folder).job.identity[:8]}"


def test_name_that_is_no_file_name_still_has_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = job_file(tmp_path, JOB.replace("tumours", "../../a b/ć"))
    assert call("run", path, "--quiet").exit_code == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("-..-a-b-ć-")


@pytest.mark.parametrize(
    ("text", "place", "value"),
    [
        ("algorithm.lr=0.5", "lr", 0.5),
        ("algorithm.local_steps=7", "local_steps", 7),
        ("algorithm.shuffle=false", "shuffle", False),
        ("algorithm.weighting=uniform", "weighting", "uniform"),
        ('algorithm.weighting="uniform"', "weighting", "uniform"),
        ('algorithm.optimizer={ name = "Adam" }', "optimizer.name", "Adam"),
        ("algorithm.optimizer.momentum=0.9", "optimizer.momentum", 0.9),
    ],
)
def test_set_replaces_a_setting_by_a_toml_value_or_else_text(
    tmp_path: Path, text: str, place: str, value: object
) -> None:
    job = JOB.replace("lr = 0.1", 'lr = 0.1\noptimizer = "SGD"')
    ended = call("run", job_file(tmp_path, job), "--folder", tmp_path / "run", "--set", text)
    assert ended.exit_code == 0, ended.stderr
    found: object = Result.load(tmp_path / "run").job.algorithm
    for part in place.split("."):
        assert isinstance(found, dict)
        found = found[part]
    assert found == value


def test_settings_of_the_job_itself_can_be_set(tmp_path: Path) -> None:
    ended = call(
        "run", job_file(tmp_path), "--folder", tmp_path / "run", "--set", "rounds=2", "--set", "seed=5"
    )
    assert ended.exit_code == 0
    job = Result.load(tmp_path / "run").job
    assert (job.rounds, job.seed) == (2, 5)


def test_json_is_all_that_standard_output_holds(tmp_path: Path) -> None:
    ended = process("run", job_file(tmp_path), "--folder", tmp_path / "run", "--json")
    data = json.loads(ended.stdout)
    result = Result.load(tmp_path / "run")
    assert result.evaluation is not None
    assert data["digest"] == result.job.digest
    assert data["metrics"]["accuracy"] == result.evaluation.metrics["accuracy"]
    assert data["over_clients"]["accuracy"]["worst"] == min(
        values["accuracy"] for values in result.evaluation.clients.values()
    )
    assert data["clients"].keys() == set(result.clients.index)
    assert data["upload_bytes"] == result.upload_bytes
    assert data["folder"] == str(tmp_path / "run")
    assert "round 3/3" in ended.stderr


def test_json_writes_null_for_nan(tmp_path: Path) -> None:
    rows = "x,y\n" + "".join(f"{i},{i % 2}\n" for i in range(40))
    (tmp_path / "a.csv").write_text(rows)
    # Of 4 test rows of one class no AUC is defined.
    (tmp_path / "b.csv").write_text("x,y\n" + "".join(f"{i},0\n" for i in range(16)))
    data = f'label = "y"\nclients = {{ a = "{tmp_path}/a.csv", b = "{tmp_path}/b.csv" }}'
    path = job_file(tmp_path, JOB.replace('name = "breast_cancer"', data))
    ended = call("run", path, "--folder", tmp_path / "run", "--json", "--quiet")
    assert ended.exit_code == 0, ended.stderr
    assert json.loads(ended.stdout)["clients"]["b"]["auc"] is None


def test_end_says_how_good_the_model_is_for_whom_and_where_it_is(tmp_path: Path) -> None:
    ended = process("run", job_file(tmp_path), "--folder", tmp_path / "run")
    result = Result.load(tmp_path / "run")
    assert result.evaluation is not None
    accuracy = result.evaluation.metrics["accuracy"]
    worst = result.evaluation.summary()["accuracy"].worst_client
    assert f"right on {100 * accuracy:.1f} % of 143 held-out rows" in " ".join(ended.stdout.split())
    assert worst is not None
    assert f"serves {worst} worst" in " ".join(ended.stdout.split())
    assert "all 3 rounds done" in ended.stdout
    assert f"fedpact report {tmp_path / 'run'}" in " ".join(ended.stdout.split())
    for id in result.clients.index:
        assert id in ended.stdout


def test_quiet_says_nothing_on_standard_error(tmp_path: Path) -> None:
    assert process("run", job_file(tmp_path), "--folder", tmp_path / "run", "--quiet").stderr == ""


def test_folder_with_a_run_is_left_alone_unless_it_is_resumed(tmp_path: Path) -> None:
    path = job_file(tmp_path)
    assert call("run", path, "--folder", tmp_path / "run").exit_code == 0
    before = (tmp_path / "run" / "result.json").read_bytes()
    ended = call("run", path, "--folder", tmp_path / "run")
    assert ended.exit_code == 3
    assert "--resume" in ended.stderr
    assert (tmp_path / "run" / "result.json").read_bytes() == before


def test_longer_job_resumes_the_shorter_one_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = job_file(tmp_path)
    assert call("run", path).exit_code == 0
    assert call("run", path, "--resume", "--set", "rounds=5").exit_code == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert len(Result.load(folder).history) == 5


def test_another_job_resumes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = job_file(tmp_path)
    assert call("run", path).exit_code == 0
    assert call("run", path, "--resume", "--set", "algorithm.lr=0.2").exit_code == 0
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_same_job_over_other_data_has_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = job_file(tmp_path)
    for words in ([], ["--set", "data.seed=1"]):
        assert call("run", path, *words).exit_code == 0
        assert call("run", path, *words).exit_code == 3
        assert call("run", path, *words, "--resume", "--set", "rounds=5").exit_code == 0
    folders = list((tmp_path / "runs").iterdir())
    assert sorted((Result.load(folder).job.data or {})["seed"] for folder in folders) == [0, 1]
    assert [len(Result.load(folder).history) for folder in folders] == [5, 5]


def test_run_is_not_resumed_over_other_data(tmp_path: Path) -> None:
    path = job_file(tmp_path)
    words = ["run", path, "--folder", tmp_path / "run"]
    assert call(*words).exit_code == 0
    ended = call(*words, "--resume", "--set", "rounds=5", "--set", "data.seed=1")
    assert ended.exit_code == 10
    assert "data.seed was 0 and is 1 now" in ended.stderr
    assert len(Result.load(tmp_path / "run").history) == 3


def test_failures_are_shown_with_their_reasons(tmp_path: Path) -> None:
    # Gradients of columns that are not standardised diverge at this rate.
    text = JOB.replace("lr = 0.1", "lr = 1e300").replace('[[preprocess]]\nname = "Standardize"\n', "")
    ended = call("run", job_file(tmp_path, text), "--folder", tmp_path / "run", "--quiet")
    assert ended.exit_code == 9
    for id in ("Eastfield General", "Westbrook General"):
        assert id in ended.stderr


def test_interrupted_run_says_how_to_go_on_and_ends_with_the_same_bits(tmp_path: Path) -> None:
    path = job_file(tmp_path)
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    words = ["run", path, "--folder", tmp_path / "run", "--set", "rounds=1000000"]
    # Tests started in the background ignore the signal, and what they start inherits that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        running = subprocess.Popen(
            command(*words), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    finally:
        signal.signal(signal.SIGINT, before)
    until = time.monotonic() + 60
    while len(checkpoints.rounds()) < 2 and running.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    stdout, stderr = running.communicate(timeout=60)
    assert running.returncode == 130
    assert stdout == ""
    assert "Traceback" not in stderr
    done = checkpoints.rounds()[-1]
    assert f"Stopped after round {done}, which is kept." in stderr

    again = shlex.split(stderr.strip().splitlines()[-1])
    assert again[:2] == ["fedpact", "run"]
    again[again.index("rounds=1000000")] = f"rounds={done + 3}"
    assert call(*again[1:], "--quiet").exit_code == 0
    whole = call("run", path, "--folder", tmp_path / "whole", "--set", f"rounds={done + 3}", "--quiet")
    assert whole.exit_code == 0
    resumed, uninterrupted = Result.load(tmp_path / "run"), Result.load(tmp_path / "whole")
    assert len(resumed.history) == done + 3
    assert resumed.weights == uninterrupted.weights
    assert resumed.job.digest == uninterrupted.job.digest
    np.testing.assert_array_equal(
        resumed.history.drop(columns="seconds"), uninterrupted.history.drop(columns="seconds")
    )


def test_job_of_the_run_folder_is_the_job_of_the_file(tmp_path: Path) -> None:
    path = job_file(tmp_path)
    assert call("run", path, "--folder", tmp_path / "run", "--quiet").exit_code == 0
    kept = Result.load(tmp_path / "run").job
    given = Job.from_toml(path)
    assert kept.model["name"] == given.model["name"]
    assert kept.data == {**(given.data or {}), "seed": 0, "test": 0.25}
    assert kept.rounds == given.rounds
