import json
import os
from pathlib import Path

import pytest

from fedpact.engine.result import Result
from tests.cli.terminal import call, process, said

FILES = {"report.html", "picture.png", "job.toml", "federation", "patients.csv"}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("demo")
    ended = process("demo", "--repeats", "2", "--rounds", "5", cwd=folder)
    assert ended.returncode == 0, ended.stderr
    return folder, ended.stdout


def test_demo_shows_each_hospital_alone_the_federation_and_all_rows_pooled(shown: tuple[Path, str]) -> None:
    lines = shown[1].splitlines()
    names = ["Northgate Cancer Centre", "Harbour Screening Clinic", "Eastfield General", "Westbrook General"]
    for name in [*names, "Federation", "All rows pooled"]:
        (line,) = [line for line in lines if line.startswith(f"{name} ")]
        # Accuracy at four hospitals and over all rows, AUC and balanced accuracy.
        assert sum(word.replace(".", "").isdigit() for word in line.split()) >= 7
    (federation,) = [line for line in lines if line.startswith("Federation ")]
    assert "of updates" in federation


def test_demo_writes_what_it_names(shown: tuple[Path, str]) -> None:
    folder, text = shown
    assert {path.name for path in (folder / "fedpact-demo").iterdir()} == FILES
    assert (folder / "fedpact-demo" / "picture.png").read_bytes().startswith(b"\x89PNG")
    for name in FILES - {"federation"}:
        assert f"fedpact-demo/{name}" in text


def test_what_the_demo_proposes_next_works(shown: tuple[Path, str]) -> None:
    folder, text = shown
    proposed = [line[line.index("fedpact ") :].split() for line in text.splitlines() if "  fedpact " in line]
    assert [words[1] for words in proposed] == ["run", "predict", "list"]
    for words in proposed:
        ended = process(*words[1:], cwd=folder)
        assert ended.returncode == 0, ended.stderr


def test_runs_of_two_demos_have_folders_of_their_own(tmp_path: Path) -> None:
    for seed in ("0", "1"):
        ended = process("demo", "--repeats", "1", "--rounds", "1", "--seed", seed, cwd=tmp_path)
        (line,) = [line for line in ended.stdout.splitlines() if "  fedpact run " in line]
        again = process(*line[line.index("fedpact ") :].split()[1:], cwd=tmp_path)
        assert again.returncode == 0, again.stderr
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_data_that_is_none_names_the_nearest() -> None:
    ended = process("demo", "--data", "hart")
    assert ended.returncode == 2
    assert 'Did you mean "heart"?' in said(ended.stderr)


def test_job_file_is_the_federation_to_the_last_bit(shown: tuple[Path, str]) -> None:
    demo = shown[0] / "fedpact-demo"
    assert call("run", demo / "job.toml", "--folder", demo / "again", "--quiet").exit_code == 0
    again, federation = Result.load(demo / "again"), Result.load(demo / "federation")
    assert again.weights == federation.weights
    assert again.job.digest == federation.job.digest


def test_json_has_the_numbers_and_the_same_seed_gives_the_same(tmp_path: Path) -> None:
    words = ["demo", "--repeats", "2", "--rounds", "1", "--seed", "3", "--json", "--no-report"]
    first, second = (process(*words, cwd=tmp_path).stdout for _ in range(2))
    assert first == second
    data = json.loads(first)
    assert [model["kind"] for model in data["models"]] == ["alone"] * 4 + ["federation", "pooled"]
    assert all(len(model["accuracy_of_repeats"]) == 2 for model in data["models"])
    assert data["files"] == {}
    assert list(tmp_path.iterdir()) == []


def test_heart_that_is_nowhere_is_a_clear_message(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    ended = process(
        "demo",
        "--data",
        "heart",
        cwd=tmp_path,
        FEDPACT_DATA=str(tmp_path / "nowhere"),
        XDG_CACHE_HOME=str(tmp_path / "cache"),
    )
    assert ended.returncode == 4
    assert ended.stderr.startswith("Error: ")
    assert "Traceback" not in ended.stderr


@pytest.mark.skipif("FEDPACT_DATA" not in os.environ, reason="the four centres' files are not here")
def test_demo_over_the_four_real_centres(tmp_path: Path) -> None:
    ended = process("demo", "--data", "heart", "--repeats", "1", "--json", "--no-report", cwd=tmp_path)
    data = json.loads(ended.stdout)
    assert [model["name"] for model in data["models"][:4]] == [
        "Cleveland",
        "Hungary",
        "Switzerland",
        "Long Beach",
    ]


def test_without_matplotlib_there_is_a_report_and_no_picture(tmp_path: Path) -> None:
    (tmp_path / "matplotlib.py").write_text("raise ImportError('not here')")
    ended = process(
        "demo",
        "--repeats",
        "1",
        "--rounds",
        "1",
        cwd=tmp_path,
        PYTHONPATH=f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
    )
    assert ended.returncode == 0, ended.stderr
    assert "fedpact[plot]" in ended.stderr
    assert (tmp_path / "fedpact-demo" / "report.html").exists()
    assert not (tmp_path / "fedpact-demo" / "picture.png").exists()
