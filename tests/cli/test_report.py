import json
from pathlib import Path

from fedpact.engine.folder import RunFolder
from fedpact.store.checkpoint import Checkpoints
from tests.cli.terminal import call


def test_report_stands_in_the_run_s_folder_unless_told_otherwise(finished: Path, tmp_path: Path) -> None:
    assert call("report", finished).exit_code == 0
    assert call("report", finished, "--out", tmp_path / "other.html").exit_code == 0
    assert (finished / "report.html").read_bytes() == (tmp_path / "other.html").read_bytes()
    assert (finished / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_json_says_where_the_report_is(finished: Path, tmp_path: Path) -> None:
    ended = call("report", finished, "--out", tmp_path / "r.html", "--json")
    assert json.loads(ended.stdout)["report"] == str(tmp_path / "r.html")


def test_labels_are_shown_when_the_data_are_read_again(finished: Path, tmp_path: Path) -> None:
    call("report", finished, "--out", tmp_path / "without.html")
    call("report", finished, "--out", tmp_path / "with.html", "--with-data")
    assert "Labels of each client" not in (tmp_path / "without.html").read_text(encoding="utf-8")
    assert "Labels of each client" in (tmp_path / "with.html").read_text(encoding="utf-8")


def test_unfinished_run_says_how_far_it_is(finished: Path, tmp_path: Path) -> None:
    unfinished = tmp_path / "run"
    unfinished.mkdir()
    (unfinished / "job.json").write_bytes((finished / "job.json").read_bytes())
    source, target = RunFolder(finished).checkpoints, RunFolder(unfinished).checkpoints
    target.mkdir()
    last = Checkpoints(source).latest()
    assert last is not None
    (target / "round-00000002.safetensors").write_bytes(last.read_bytes())
    for words in (["report", unfinished], ["predict", unfinished, "rows.csv"]):
        ended = call(*words)
        assert ended.exit_code == 3
        assert "has not finished: 2 of 3 rounds are done" in ended.stderr
        assert "--resume" in ended.stderr


def test_folder_without_a_run_is_named(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        ended = call("report", place)
        assert ended.exit_code == 3
        assert str(place) in ended.stderr
