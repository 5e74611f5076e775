"""Claims about client states whose process is killed, or whose machine loses its power."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpact.core.algorithm import ClientState
from fedpact.store.checkpoint import Checkpoints
from fedpact.store.states_on_disk import StatesOnDisk
from tests.store.client_states import CLIENTS, all_of, state

JOB = "j" * 64


class Disk:
    """A disk whose power can be cut: what was written to a file and not synced is then undone."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self._undo: list[tuple[int, bytes, int]] = []
        pwrite, fsync = os.pwrite, os.fsync

        def noting_pwrite(descriptor: int, data: Any, offset: int) -> int:
            size = os.fstat(descriptor).st_size
            self._undo.append((offset, os.pread(descriptor, len(data), offset), size))
            return pwrite(descriptor, data, offset)

        def noting_fsync(descriptor: int) -> None:
            fsync(descriptor)
            if self.path.exists() and os.path.samestat(os.fstat(descriptor), self.path.stat()):
                self._undo.clear()

        monkeypatch.setattr(os, "pwrite", noting_pwrite)
        monkeypatch.setattr(os, "fsync", noting_fsync)

    def lose_power(self) -> None:
        with open(self.path, "r+b") as file:
            for offset, data, size in reversed(self._undo):
                file.seek(offset)
                file.write(data)
                file.truncate(size)


@pytest.mark.parametrize("moment", ["staged", "committed", "noted", "saved", "retained"])
@pytest.mark.parametrize("last", range(1, 7))
def test_power_cut_takes_nothing_from_any_checkpoint_that_is_kept(
    last: int, moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, random = Disk(tmp_path / "states", monkeypatch), np.random.default_rng(last)
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep_last=2, keep_every=3)
    states = StatesOnDisk(tmp_path / "states")
    kept: dict[str, float] = {}
    truths: dict[int, dict[str, ClientState]] = {}
    for round in range(1, last + 1):
        cohort = {str(id): float(random.integers(99)) for id in random.choice(CLIENTS, 3, replace=False)}
        for id, value in cohort.items():
            states.stage(id, state(value))
        if (round, moment) == (last, "staged"):
            break
        states.commit()
        kept.update(cohort)
        if (round, moment) == (last, "committed"):
            break
        contents = states.contents(round)
        if (round, moment) == (last, "noted"):
            break
        checkpoints.save(round, {"kept": contents}, job=JOB)
        truths[round] = {id: state(value) for id, value in kept.items()}
        if (round, moment) == (last, "saved"):
            break
        states.retain(checkpoints.rounds())
    disk.lose_power()
    found = {}
    for round in checkpoints.rounds():
        again = StatesOnDisk(tmp_path / "states")
        again.restore(checkpoints.load(checkpoints.path(round))["kept"])
        found[round] = all_of(again)
    assert found == {round: truths[round] for round in checkpoints.rounds()}


# Forks runs that go on for ever, and kills each: at a line of a function of the store, or at a moment. Then every
# checkpoint must hold the states that its round had, and the latest the records.
KILLER = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from fedpact.core import Entry, Layout, Vector
from fedpact.store.checkpoint import Checkpoints
from fedpact.store.records import Records
from fedpact.store.states_on_disk import StatesOnDisk

folder, repeats = Path(sys.argv[1]), int(sys.argv[2])
LAYOUT = Layout([Entry("w", (3000,))])
luck = np.random.default_rng(7)

def cohort(round):
    random = np.random.default_rng(round)
    return {f"client-{i}": 100 * round + int(i) for i in random.choice(12, 4, replace=False)}

def truth(round):
    kept = {}
    for number in range(1, round + 1):
        kept.update(cohort(number))
    return kept

def state(value):
    vector = Vector.zeros(LAYOUT)
    vector["w"] = value
    return {"control": vector}

def resumed(path=None):
    checkpoints = Checkpoints(folder / "checkpoints", keep_last=2, keep_every=7)
    states, history, round = StatesOnDisk(folder / "states"), Records(folder / "history.jsonl"), 0
    if checkpoints.rounds():
        content = checkpoints.load(path, job="j" * 64)
        states.restore(content["kept"])
        history.cut(content["history"])
        round = content["round"]
    states.retain(checkpoints.rounds())
    return checkpoints, states, history, round

def run_for_ever():
    checkpoints, states, history, round = resumed()
    while True:
        round += 1
        if round % 3 == 0:
            states.stage("client-0", state(-1))
            states.discard()
        for id, value in cohort(round).items():
            states.stage(id, state(value))
        states.commit()
        history.append([{"round": round}])
        if round % 2 == 0:
            content = {"round": round, "kept": states.contents(round), "history": history.position()}
            checkpoints.save(round, content, job="j" * 64)
            states.retain(checkpoints.rounds())

def dying_in(function, call, step):
    seen = [0, 0]
    def in_a_call(frame, event, argument):
        seen[1] += 1
        if seen[1] > step or event == "return":
            os.kill(os.getpid(), signal.SIGKILL)
        return in_a_call
    def in_any(frame, event, argument):
        if frame.f_code.co_name == function and "fedpact/store" in frame.f_code.co_filename:
            seen[0] += 1
            return in_a_call if seen[0] == call else None
    return in_any

def killed(function=None):
    # A run goes on from a checkpoint once.
    call = 1 if function in ("restore", "cut") else int(luck.integers(1, 4))
    step = int(luck.integers(0, 8))
    child = os.fork()
    if not child:
        # In the place of a wait without end, should the function never be called.
        signal.alarm(60)
        if function:
            sys.settrace(dying_in(function, call, step))
        run_for_ever()
    if not function:
        time.sleep(luck.uniform(0, 0.05))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (function, status)

def check():
    checkpoints = Checkpoints(folder / "checkpoints")
    for round in checkpoints.rounds():
        states = StatesOnDisk(folder / "states")
        states.restore(checkpoints.load(checkpoints.path(round))["kept"])
        found = {id: set(states.get(id)["control"]["w"].tolist()) for id in states.ids()}
        assert found == {id: {float(value)} for id, value in truth(round).items()}, round
    _, _, history, round = resumed()
    assert [record["round"] for record in history.read()] == list(range(1, round + 1))
    return round

FUNCTIONS = "stage write commit _retire discard contents sync append _write position save write_atomically".split()
FUNCTIONS += "_sync_folder tidy _delete retain restore cut".split()
rounds = [0]
for function in FUNCTIONS * repeats:
    killed()
    rounds.append(check())
    while not rounds[-1]:
        killed()
        rounds.append(check())
    killed(function)
    rounds.append(check())
assert rounds == sorted(rounds) and rounds[-1] > len(FUNCTIONS)
print(len(rounds) - 1)
"""


def survives_kills(folder: Path, repeats: int) -> int:
    command = [sys.executable, "-c", KILLER, str(folder), str(repeats)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return int(ended.stdout)


def test_killed_anywhere_each_checkpoint_holds_the_states_of_its_round(tmp_path: Path) -> None:
    assert survives_kills(tmp_path, 1) >= 36


@pytest.mark.slow
def test_killed_anywhere_many_times_each_checkpoint_holds_the_states_of_its_round(tmp_path: Path) -> None:
    assert survives_kills(tmp_path, 5) >= 180
