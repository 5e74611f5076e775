"""Claims about checkpoints."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fedpact.core import Entry, Layout, Vector
from fedpact.core.errors import CheckpointError, ConfigError, FedpactError
from fedpact.store import checkpoint
from fedpact.store.checkpoint import Checkpoints, read_info
from fedpact.store.modelfile import save_model
from fedpact.store.tensors import TensorFile

JOB, OTHER = "a" * 64, "b" * 64

# Forks writers that save round after round and kills each at a random moment of its work; then the latest
# checkpoint must load and be the one its round wrote.
KILLER = """
import os, signal, sys, time
import numpy as np
from fedpact.core import Entry, Layout, Vector
from fedpact.store.checkpoint import Checkpoints

folder, kills = sys.argv[1], int(sys.argv[2])
generator = np.random.default_rng(7)

def content(round):
    model = Vector.zeros(Layout([Entry("w", (1 << 18,))]))
    model["w"] = np.random.default_rng(round).random(1 << 18)
    return {"model": model, "round": round}

def save_for_ever():
    checkpoints = Checkpoints(folder, keep_last=2)
    round = checkpoints.rounds()[-1] if checkpoints.rounds() else 0
    while True:
        round += 1
        checkpoints.save(round, content(round), job="j" * 64, score=-round)

def leftovers():
    return sum(name.endswith(".tmp") for name in os.listdir(folder))

def into_a_write():
    until = time.monotonic() + 10
    while not leftovers() and time.monotonic() < until:
        pass

killed_while_writing, rounds, attempts = 0, [0], 0
start = time.perf_counter()
for round in range(3):
    Checkpoints(folder).save(round, content(round), job="j" * 64)
pace_s = (time.perf_counter() - start) / 3
# By what has happened, not by the clock, so that a busy machine kills as much as an idle one.
while attempts < kills or killed_while_writing < 5 or rounds[-1] < 10:
    attempts += 1
    assert attempts < 20 * kills
    writer = os.fork()
    if not writer:
        save_for_ever()
    time.sleep(generator.uniform(0, 4 * pace_s))
    if attempts % 4 == 0:
        into_a_write()
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    assert leftovers() <= 1
    killed_while_writing += leftovers()
    checkpoints = Checkpoints(folder)
    assert leftovers() == 0
    loaded = checkpoints.load(job="j" * 64)
    assert loaded["round"] == checkpoints.rounds()[-1]
    assert loaded["model"] == content(loaded["round"])["model"]
    rounds.append(loaded["round"])
assert rounds == sorted(rounds)
print(killed_while_writing, rounds[-1])
"""


@dataclass(frozen=True)
class State:
    model: Vector
    round: int = 0
    exp_avg: Vector | None = None


def model(value: float = 0.0, name: str = "w") -> Vector:
    vector = Vector.zeros(Layout([Entry(name, (2, 3)), Entry("steps", (), "int64", "buffer")]))
    vector[name] = value
    return vector


def content(round: int = 0) -> dict[str, Any]:
    return {
        "state": State(model(round), round, model(0.1)),
        "clients": {"lyon": {"control": model(-1)}},
        "history": [{"round": 0, "loss": float("inf")}],
    }


LIKE = {"state": State(model())}


def saved(
    folder: Path, rounds: range, score: Callable[[int], float | None] = lambda round: None, **keep: Any
) -> Path:
    checkpoints = Checkpoints(folder, **keep)
    for round in rounds:
        path = checkpoints.save(round, content(round), job=JOB, score=score(round))
    return path


def change(path: Path, position: int, mask: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= mask
    path.write_bytes(data)


def test_latest_checkpoint_comes_back_whole(tmp_path: Path) -> None:
    saved(tmp_path, range(1, 4))
    loaded = Checkpoints(tmp_path).load(like=LIKE, job=JOB)
    assert loaded == content(3)


def test_earlier_checkpoint_is_loaded_by_its_path(tmp_path: Path) -> None:
    saved(tmp_path, range(1, 4))
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.load(checkpoints.path(2), like=LIKE, job=JOB) == content(2)


def test_checkpoint_says_what_it_is_of(tmp_path: Path) -> None:
    path = Checkpoints(tmp_path).save(7, content(7), job=JOB, score=0.9, scored_by="auc")
    info = read_info(path)
    assert path.name == "round-00000007.safetensors"
    assert (info.round, info.job, info.score, info.scored_by) == (7, JOB, 0.9, "auc")


def test_same_state_is_the_same_bytes(tmp_path: Path) -> None:
    assert saved(tmp_path / "a", range(5, 6)).read_bytes() == saved(tmp_path / "b", range(5, 6)).read_bytes()


def test_other_tools_can_open_a_checkpoint(tmp_path: Path) -> None:
    arrays = load_file(saved(tmp_path, range(1, 2)))
    assert sorted(arrays) == ["clients.lyon.control", "state.exp_avg", "state.model"]
    assert arrays["state.model"].tobytes() == model(1).buffer.tobytes()


def test_last_ones_are_kept(tmp_path: Path) -> None:
    saved(tmp_path, range(1, 10), keep_last=3)
    assert Checkpoints(tmp_path).rounds() == [7, 8, 9]


def test_best_one_is_kept_and_the_first_of_equals(tmp_path: Path) -> None:
    saved(tmp_path, range(1, 10), lambda round: 0.9 if round in (4, 5) else 0.1, keep_last=1)
    assert Checkpoints(tmp_path).rounds() == [4, 9]


def test_best_one_is_not_kept_when_not_wanted(tmp_path: Path) -> None:
    saved(tmp_path, range(1, 10), lambda round: -round, keep_last=1, keep_best=False)
    assert Checkpoints(tmp_path).rounds() == [9]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), None])
def test_score_that_is_no_number_is_no_best_one(tmp_path: Path, bad: float | None) -> None:
    saved(tmp_path, range(1, 5), lambda round: bad if round == 2 else 0.5, keep_last=1)
    assert Checkpoints(tmp_path).rounds() == [1, 4]


def test_every_kth_is_kept(tmp_path: Path) -> None:
    saved(tmp_path, range(1, 12), keep_last=1, keep_every=5)
    assert Checkpoints(tmp_path).rounds() == [5, 10, 11]


def test_best_one_is_still_known_after_a_restart(tmp_path: Path) -> None:
    saved(tmp_path, range(1, 4), lambda round: -round, keep_last=1)
    saved(tmp_path, range(4, 6), lambda round: -round, keep_last=1)
    assert Checkpoints(tmp_path).rounds() == [1, 5]


def test_best_one_is_chosen_among_those_that_measure_what_the_newest_score_does(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep_last=1)
    scores = [(0.9, "auc"), (-0.3, "log_loss"), (-0.2, "log_loss"), (-0.4, "log_loss"), (None, None)]
    for round, (score, name) in enumerate(scores, start=1):
        checkpoints.save(round, content(round), job=JOB, score=score, scored_by=name)
    assert checkpoints.rounds() == [3, 5]


def test_save_reads_no_checkpoint_that_was_read_before_however_many_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = saved(tmp_path, range(1, 2)).read_bytes()
    checkpoints = Checkpoints(tmp_path, keep_every=1)
    for round in range(2, 1200):
        checkpoints.path(round).write_bytes(data)
    checkpoints.save(1200, content(), job=JOB)
    read: list[Path] = []

    def noting(path: Path) -> TensorFile:
        read.append(path)
        return TensorFile(path)

    monkeypatch.setattr(checkpoint, "TensorFile", noting)
    checkpoints.save(1201, content(), job=JOB)
    assert len(checkpoints.rounds()) == 1201
    assert read == [checkpoints.path(1201)]


def test_nothing_else_in_the_folder_is_deleted(tmp_path: Path) -> None:
    others = ["round-1.safetensors", "round-00000001.safetensors.bak", "notes.txt", "model.safetensors"]
    for name in others:
        (tmp_path / name).touch()
    saved(tmp_path, range(1, 5), keep_last=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, "round-00000004.safetensors"])


@pytest.mark.parametrize("keep", [{"keep_last": 0}, {"keep_every": 0}])
def test_keeping_less_than_one_is_refused(tmp_path: Path, keep: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="must be at least 1"):
        Checkpoints(tmp_path, **keep)  # type: ignore[arg-type]


def test_empty_or_missing_folder_has_no_checkpoint(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        assert Checkpoints(folder).latest() is None
        with pytest.raises(CheckpointError, match=f'there is no checkpoint in "{folder}"'):
            Checkpoints(folder).load()


def test_checkpoint_with_any_byte_changed_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, range(1, 2))
    data = path.read_bytes()
    checkpoints = Checkpoints(tmp_path)
    for position in range(len(data)):
        for mask in (0x01, 0x20) if position % 7 else (0x80, 0xFF):
            path.write_bytes(data[:position] + bytes([data[position] ^ mask]) + data[position + 1 :])
            with pytest.raises(CheckpointError):
                checkpoints.load(like=LIKE, job=JOB)


def test_checkpoint_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, range(1, 2))
    data = path.read_bytes()
    checkpoints = Checkpoints(tmp_path)
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match=r"truncated"):
            checkpoints.load(like=LIKE, job=JOB)


def test_longer_checkpoint_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, range(1, 2))
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match="is damaged"):
        Checkpoints(tmp_path).load()


def test_other_spelling_of_the_same_header_is_refused(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for spaces in range(8):
        path = checkpoints.save(1, content(), job=JOB, scored_by=" " * spaces)
        data = path.read_bytes()
        end = 8 + int.from_bytes(data[:8], "little")
        if data[end - 1 : end] == b" ":
            path.write_bytes(data[: end - 1] + b"\t" + data[end:])
            assert load_file(path).keys() == {"clients.lyon.control", "state.exp_avg", "state.model"}
            with pytest.raises(CheckpointError, match="is corrupt"):
                checkpoints.load()


def test_newest_intact_checkpoint_is_named_and_nothing_is_deleted(tmp_path: Path) -> None:
    path = saved(tmp_path, range(1, 5), keep_last=4)
    checkpoints = Checkpoints(tmp_path)
    change(path, -1, 1)
    checkpoints.path(3).write_bytes(b"")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(
        CheckpointError,
        match=r"4.safetensors\" is corrupt.* round-00000002.safetensors is intact: to go on from it",
    ):
        checkpoints.load(like=LIKE, job=JOB)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert checkpoints.load(checkpoints.path(2), like=LIKE, job=JOB) == content(2)


def test_no_other_checkpoint_is_promised_where_none_is_intact(tmp_path: Path) -> None:
    change(saved(tmp_path, range(1, 2)), -1, 1)
    with pytest.raises(CheckpointError, match=r"SHA-256 it was written with\.$"):
        Checkpoints(tmp_path).load()


def test_checkpoint_of_another_job_is_refused_with_both_digests(tmp_path: Path) -> None:
    saved(tmp_path, range(1, 2))
    with pytest.raises(
        CheckpointError, match=f"another job: {'a' * 12}, not {'b' * 12}. Resume it with its own job"
    ):
        Checkpoints(tmp_path).load(job=OTHER)


def test_folder_of_another_job_is_not_written_to(tmp_path: Path) -> None:
    path = saved(tmp_path, range(1, 2))
    before = path.read_bytes()
    with pytest.raises(
        CheckpointError, match=f"holds checkpoints of another job: {'a' * 12}, not {'b' * 12}"
    ):
        Checkpoints(tmp_path).save(1, content(), job=OTHER)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [before]


def test_round_before_the_latest_is_not_saved(tmp_path: Path) -> None:
    saved(tmp_path, range(1, 6), keep_last=5)
    checkpoints = Checkpoints(tmp_path, keep_last=5)
    with pytest.raises(CheckpointError, match="holds round 5 already, so round 3 is not saved"):
        checkpoints.save(3, content(), job=JOB)
    assert checkpoints.rounds() == [1, 2, 3, 4, 5]


def test_checkpoint_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, range(1, 2))
    newer = json.dumps({"format": 99, "written_by": "9.0"})
    save_file({"a": np.zeros(1)}, path, {"checkpoint": newer})
    with pytest.raises(
        CheckpointError, match=r"was written by Fedpact 9.0 in a newer format; upgrade Fedpact"
    ):
        Checkpoints(tmp_path).load()


def test_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path / "model.safetensors", model(), {})
    (tmp_path / "notes.txt").write_text("Notes on the rounds so far.")
    for name in ("model.safetensors", "notes.txt"):
        with pytest.raises(CheckpointError, match=r"is no (checkpoint|safetensors file)"):
            Checkpoints(tmp_path).load(tmp_path / name)


def test_checkpoint_of_another_model_is_refused_with_the_path_of_what_differs(tmp_path: Path) -> None:
    saved(tmp_path, range(1, 2))
    with pytest.raises(
        CheckpointError, match=r'does not fit this job: state.model: as saved, "weight" is missing'
    ):
        Checkpoints(tmp_path).load(like={"state": State(model(name="weight"))}, job=JOB)


def test_content_that_cannot_be_saved_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    saved(tmp_path, range(1, 2))
    with pytest.raises(CheckpointError, match=r"clients.lyon: a set cannot be saved"):
        Checkpoints(tmp_path).save(2, {"clients": {"lyon": {1}}}, job=JOB)
    assert [path.name for path in tmp_path.iterdir()] == ["round-00000001.safetensors"]


def test_file_in_the_place_of_the_folder_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(
        FedpactError, match=r"there is a file where its folder should be; choose another folder"
    ):
        Checkpoints(tmp_path / "run").save(1, content(), job=JOB)


def test_killed_at_any_moment_the_folder_holds_a_whole_latest_checkpoint(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLER, str(tmp_path), "40"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    killed_while_writing, rounds = map(int, ended.stdout.split())
    # Otherwise the test would have shown nothing.
    assert killed_while_writing >= 5
    assert rounds >= 10
