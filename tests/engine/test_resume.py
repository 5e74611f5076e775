"""Claims about runs that are stopped, killed, damaged, lengthened or changed, and then resumed."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import fedpact as fp
from fedpact.channel.adaptive_clip import AdaptiveClip
from fedpact.channel.quantize import Quantize
from fedpact.channel.secure_sum import SecureSum
from fedpact.core.errors import CheckpointError, ConfigError, FedpactError
from fedpact.store.checkpoint import Checkpoints
from tests.engine.runs import contents, last_state, outcome, same_bits, state_like, two_classes

ROUNDS = 7
LOCAL: dict[str, Any] = {"lr": 0.3, "local_epochs": 2, "batch_size": 4}
JOBS: dict[str, dict[str, Any]] = {
    "FedAvg": {"algorithm": fp.FedAvg(**LOCAL)},
    "decay, momentum": {"algorithm": fp.FedAvgM(**LOCAL, lr_schedule=fp.StepDecay(every=2, rate=0.5))},
    "FedAdam": {"algorithm": fp.FedAdam(**LOCAL)},
    "SCAFFOLD": {"algorithm": fp.SCAFFOLD(**LOCAL)},
    "SCAFFOLD, two of four": {"algorithm": fp.SCAFFOLD(**LOCAL, option=1), "cohort": 2},
    "Cyclic": {"algorithm": fp.Cyclic(**LOCAL)},
    "Newton": {"algorithm": fp.Newton(tolerance=1e-3)},
    "half of the clients": {"algorithm": fp.FedAvg(**LOCAL), "cohort": 0.5},
    "clipped": {"algorithm": fp.FedAvg(**LOCAL), "channel": fp.Clip(0.05)},
    "bound found while training": {"algorithm": fp.FedAvg(**LOCAL), "channel": AdaptiveClip(initial=0.01)},
    "few bits, masked": {
        "algorithm": fp.FedAvg(**LOCAL),
        "channel": [AdaptiveClip(initial=0.01), Quantize(8), SecureSum(max_weight=100)],
    },
    "prepared": {"algorithm": fp.FedAvg(**LOCAL), "preprocess": [fp.Impute("median"), fp.Standardize()]},
    "no improvement": {"algorithm": fp.FedAvg(lr=1e-3), "stop": fp.NoImprovement("accuracy", patience=4)},
    "every other round judged": {"algorithm": fp.FedAvg(**LOCAL), "evaluate_every": 2},
    "the end alone judged": {"algorithm": fp.FedAvg(**LOCAL), "evaluate_every": 0},
    "every third round saved": {"algorithm": fp.SCAFFOLD(**LOCAL), "keep": fp.Keep(every=3)},
    "best kept": {"algorithm": fp.FedAvg(**LOCAL), "keep": fp.Keep(last=1, best="log_loss", each=4)},
}


def train(folder: Path | None, job: str = "FedAvg", **changed: Any) -> fp.Result:
    settings = {"rounds": ROUNDS, **JOBS[job], **changed}
    return fp.train(fp.models.Logistic(), two_classes(), folder=folder, **settings)


class StopAfter:
    """Stops a run as Ctrl-C would, after so many rounds."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds

    def __call__(self, record: Any) -> None:
        if record["round"] == self.rounds:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @cache
    def run(job: str) -> tuple[fp.Result, Path]:
        folder = tmp_path_factory.mktemp("uninterrupted")
        return train(folder, job), folder

    return run


@pytest.mark.parametrize("stopped_after", range(1, ROUNDS))
@pytest.mark.parametrize("job", JOBS)
def test_run_stopped_after_any_round_and_resumed_ends_with_the_bits_of_an_uninterrupted_one(
    job: str, stopped_after: int, uninterrupted: Any, tmp_path: Path
) -> None:
    whole, whole_folder = uninterrupted(job)
    try:
        train(tmp_path, job, on_round=StopAfter(stopped_after))
    except KeyboardInterrupt:
        resumed = train(tmp_path, job, resume=True)
    else:
        # It had ended by itself before; resumed, it has nothing left to do.
        assert len(whole.history) < stopped_after
        resumed = train(tmp_path, job, resume=True)
    assert same_bits(outcome(resumed), outcome(whole))
    assert same_bits(last_state(tmp_path), last_state(whole_folder))
    assert contents(tmp_path).keys() == contents(whole_folder).keys()


def test_jobs_above_end_in_each_of_the_three_ways(uninterrupted: Any) -> None:
    ends = {job: uninterrupted(job)[0].stopped for job in ("FedAvg", "Newton", "no improvement")}
    assert ends["FedAvg"] == "all 7 rounds done"
    assert ends["Newton"] == "the algorithm has converged"
    assert ends["no improvement"].startswith("accuracy has not improved")


def test_run_stopped_after_every_single_round_ends_with_the_same_bits(
    uninterrupted: Any, tmp_path: Path
) -> None:
    for rounds in range(1, ROUNDS):
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, "SCAFFOLD, two of four", on_round=StopAfter(rounds), resume=True)
    resumed = train(tmp_path, "SCAFFOLD, two of four", resume=True)
    whole, whole_folder = uninterrupted("SCAFFOLD, two of four")
    assert same_bits(outcome(resumed), outcome(whole))
    assert same_bits(last_state(tmp_path), last_state(whole_folder))


def test_run_stopped_within_a_round_repeats_that_round(uninterrupted: Any, tmp_path: Path) -> None:
    class Interrupted(fp.InMemory):
        loads = 0

        def load(self, id: str) -> fp.ClientData:
            self.loads += 1
            if self.loads == 30:
                raise KeyboardInterrupt
            return super().load(id)

    settings: dict[str, Any] = {"rounds": ROUNDS, **JOBS["FedAvg"]}
    with pytest.raises(KeyboardInterrupt):
        fp.train(fp.models.Logistic(), Interrupted(two_classes()), folder=tmp_path, **settings)
    assert 0 < Checkpoints(tmp_path / "checkpoints").rounds()[-1] < ROUNDS
    assert same_bits(outcome(train(tmp_path, resume=True)), outcome(uninterrupted("FedAvg")[0]))


def test_best_checkpoint_is_that_of_the_best_round(uninterrupted: Any) -> None:
    whole, folder = uninterrupted("best kept")
    best = int(whole.history["log_loss"].idxmin())
    assert Checkpoints(folder / "checkpoints").rounds() == sorted({best, 4, ROUNDS})


def test_best_checkpoint_by_another_metric_is_the_best_of_the_rounds_since(tmp_path: Path) -> None:
    train(tmp_path, rounds=3, keep=fp.Keep(last=1, best="accuracy"))
    whole = train(tmp_path, resume=True, keep=fp.Keep(last=1, best="log_loss"))
    best = int(whole.history["log_loss"].loc[4:].idxmin())
    assert Checkpoints(tmp_path / "checkpoints").rounds() == sorted({best, ROUNDS})


def test_finished_run_that_is_resumed_gives_its_result_again_without_a_round(tmp_path: Path) -> None:
    whole = train(tmp_path)
    rounds: list[Any] = []
    resumed = train(tmp_path, resume=True, on_round=rounds.append)
    assert rounds == []
    assert same_bits(outcome(resumed), outcome(whole))


def test_finished_run_is_lengthened_by_more_rounds(uninterrupted: Any, tmp_path: Path) -> None:
    train(tmp_path, rounds=3)
    longer = train(tmp_path, rounds=ROUNDS, resume=True)
    whole, whole_folder = uninterrupted("FedAvg")
    assert same_bits(outcome(longer), outcome(whole))
    assert same_bits(last_state(tmp_path), last_state(whole_folder))
    assert json.loads((tmp_path / "job.json").read_bytes())["rounds"] == ROUNDS


def test_resuming_with_fewer_rounds_than_done_is_refused(tmp_path: Path) -> None:
    train(tmp_path, rounds=5)
    before = (tmp_path / "result.json").read_bytes()
    with pytest.raises(CheckpointError, match="has 5 rounds behind it, and the job has 2"):
        train(tmp_path, rounds=2, resume=True)
    assert (tmp_path / "result.json").read_bytes() == before


def test_run_goes_on_where_a_stop_rule_that_is_taken_away_had_ended_it(
    uninterrupted: Any, tmp_path: Path
) -> None:
    stopped = train(tmp_path, stop=fp.NoImprovement("accuracy", patience=1))
    assert len(stopped.history) < ROUNDS
    assert same_bits(outcome(train(tmp_path, resume=True)), outcome(uninterrupted("FedAvg")[0]))


def test_empty_folder_may_be_resumed_from(uninterrupted: Any, tmp_path: Path) -> None:
    assert same_bits(outcome(train(tmp_path / "new", resume=True)), outcome(uninterrupted("FedAvg")[0]))


def test_resuming_does_not_fit_the_preprocessing_anew(uninterrupted: Any, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, "prepared", on_round=StopAfter(2))
    before = (tmp_path / "preparation.json").read_bytes()
    newcomer = fp.ClientData("z", fp.Rows(two_classes()[0].train.x * 100, two_classes()[0].train.y))
    resumed = fp.train(
        fp.models.Logistic(),
        [*two_classes(), newcomer],
        rounds=ROUNDS,
        folder=tmp_path,
        resume=True,
        **JOBS["prepared"],
    )
    assert (tmp_path / "preparation.json").read_bytes() == before
    assert resumed.fitted.preparation == uninterrupted("prepared")[0].fitted.preparation
    assert list(resumed.history["clients"]) == [4, 4, 5, 5, 5, 5, 5]


def test_initial_file_is_not_needed_any_more_once_there_is_a_checkpoint(tmp_path: Path) -> None:
    start = tmp_path / "start.safetensors"
    train(None, rounds=1).fitted.save(start)
    whole = train(tmp_path / "whole", initial=start)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", initial=start, on_round=StopAfter(2))
    start.unlink()
    resumed = train(tmp_path / "run", initial=start, resume=True)
    assert same_bits(outcome(resumed), outcome(whole))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"algorithm": fp.FedAvg(**{**LOCAL, "lr": 0.2})}, "algorithm.lr was 0.3 and is 0.2 now"),
        ({"algorithm": fp.FedAdam(**LOCAL)}, "algorithm was FedAvg and is FedAdam now"),
        ({"seed": 1}, "seed was 0 and is 1 now"),
        ({"cohort": 2}, "cohort was null and is 2 now"),
        ({"preprocess": fp.Standardize()}, r"preprocess was \[\] and is \[Standardize\] now"),
        ({"quorum": 0.5, "seed": 1}, "seed was 0 and is 1 now; quorum was 1 and is 0.5 now"),
    ],
)
def test_another_job_is_refused_by_what_differs_and_changes_nothing(
    changed: dict[str, Any], said: str, tmp_path: Path
) -> None:
    train(tmp_path, rounds=2)
    before = contents(tmp_path)
    with pytest.raises(CheckpointError, match=rf"holds a run of another job: {said}\. Choose another folder"):
        train(tmp_path, rounds=3, resume=True, **changed)
    assert contents(tmp_path) == before


def test_changed_setting_of_a_step_is_named_by_its_place(tmp_path: Path) -> None:
    train(tmp_path, "prepared", rounds=1)
    with pytest.raises(CheckpointError, match=r'preprocess\[0\].strategy was "median" and is "mean" now'):
        train(tmp_path, "prepared", preprocess=[fp.Impute("mean"), fp.Standardize()], resume=True)


def test_folder_that_holds_a_run_is_not_overwritten(tmp_path: Path) -> None:
    train(tmp_path, rounds=2)
    before = contents(tmp_path)
    with pytest.raises(
        ConfigError, match=r"holds a run already: resume it \(resume=True, --resume\) or choose"
    ):
        train(tmp_path, rounds=3)
    assert contents(tmp_path) == before


def test_folder_that_holds_a_saved_result_is_not_overwritten(tmp_path: Path) -> None:
    train(None, rounds=1).save(tmp_path)
    before = contents(tmp_path)
    for resume in (False, True):
        with pytest.raises(ConfigError, match="holds a result already: choose another folder"):
            train(tmp_path, resume=resume)
    assert contents(tmp_path) == before


def test_start_that_failed_for_its_data_does_not_occupy_the_folder(
    uninterrupted: Any, tmp_path: Path
) -> None:
    with pytest.raises(FedpactError):
        fp.train(fp.models.Softmax(), two_classes(), folder=tmp_path)
    assert contents(tmp_path) == {}
    assert same_bits(outcome(train(tmp_path)), outcome(uninterrupted("FedAvg")[0]))


def test_resuming_without_a_folder_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to resume from: name the folder of the run"):
        train(None, resume=True)


def test_folder_that_is_a_file_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(FedpactError, match=r'cannot write ".*checkpoints": its folder is a file'):
        train(tmp_path / "run")
    assert (tmp_path / "run").read_text() == "mine"


def flipped(data: bytes) -> bytes:
    return data[:-100] + bytes([data[-100] ^ 1]) + data[-99:]


DAMAGES = {
    "a flipped bit": flipped,
    "the end cut off": lambda data: data[:-8],
    "the half cut off": lambda data: data[: len(data) // 2],
    "nothing left": lambda data: b"",
    "another file": lambda data: b"PK\x03\x04" + data,
    "zeros": lambda data: bytes(len(data)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint_is_refused_by_name_and_changes_nothing(damage: str, tmp_path: Path) -> None:
    train(tmp_path, rounds=3)
    latest = Checkpoints(tmp_path / "checkpoints").path(3)
    latest.write_bytes(DAMAGES[damage](latest.read_bytes()))
    before = contents(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"round-00000003\.safetensors.*round-00000002\.safetensors is intact"
    ):
        train(tmp_path, resume=True)
    assert contents(tmp_path) == before


def test_run_goes_on_from_the_intact_checkpoint_when_the_damaged_one_is_removed(
    uninterrupted: Any, tmp_path: Path
) -> None:
    train(tmp_path, rounds=3)
    Checkpoints(tmp_path / "checkpoints").path(3).unlink()
    assert same_bits(outcome(train(tmp_path, resume=True)), outcome(uninterrupted("FedAvg")[0]))


@pytest.mark.parametrize("name", ["job.json", "preparation.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"null", b"\xff\xfe"])
def test_damaged_description_of_a_run_is_refused_by_name_and_changes_nothing(
    name: str, content: bytes, tmp_path: Path
) -> None:
    train(tmp_path, rounds=2)
    (tmp_path / name).write_bytes(content)
    before = contents(tmp_path)
    with pytest.raises(CheckpointError, match=rf'{name}" cannot be read'):
        train(tmp_path, resume=True)
    assert contents(tmp_path) == before


def test_missing_description_of_the_rows_is_refused_by_name(tmp_path: Path) -> None:
    train(tmp_path, rounds=2)
    (tmp_path / "preparation.json").unlink()
    with pytest.raises(CheckpointError, match=r'preparation\.json" cannot be read'):
        train(tmp_path, resume=True)


def test_checkpoint_of_another_job_in_the_folder_is_refused(tmp_path: Path) -> None:
    train(tmp_path / "one", rounds=3)
    train(tmp_path / "other", rounds=5, seed=1)
    shutil.copy(
        Checkpoints(tmp_path / "other/checkpoints").path(5), Checkpoints(tmp_path / "one/checkpoints").path(5)
    )
    before = contents(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"round-00000005\.safetensors\" is a checkpoint of another job"
    ):
        train(tmp_path / "one", resume=True)
    assert contents(tmp_path) == before


# A server for forks: each of them is a new process that runs one job, without the time that imports take. For
# a line with a job it tells the fork's number, and for the next line how it ended; until then its number is not
# given to another process.
NURSERY = """
import os, sys
import numpy as np
import pandas, pyarrow
import fedpact as fp

LOCAL = {"lr": 0.1, "local_steps": 2, "batch_size": 8}
JOBS = {
    "FedAvg": {"algorithm": fp.FedAvg(**LOCAL), "keep": fp.Keep(every=3)},
    "FedAdam": {"algorithm": fp.FedAdam(**LOCAL), "cohort": 2},
    "SCAFFOLD": {"algorithm": fp.SCAFFOLD(**LOCAL), "cohort": 2, "evaluate_every": 2},
}
WIDTH, CLASSES = int(sys.argv[1]), 20

def rows(random, n):
    y = np.arange(n) % CLASSES
    return fp.Rows(random.normal(size=(n, WIDTH)) + y[:, None], y)

random = np.random.default_rng(0)
clients = [fp.ClientData(id, rows(random, 20), rows(random, 4)) for id in ("lyon", "nice", "paris")]
fp.train(fp.models.Softmax(), clients, rounds=1)
print("ready", flush=True)
for line in sys.stdin:
    job, rounds, folder = line.rstrip("\\n").split(" ", 2)
    fork = os.fork()
    if fork == 0:
        fp.train(
            fp.models.Softmax(), clients, rounds=int(rounds), folder=folder, resume=True, name=job, **JOBS[job]
        )
        os._exit(0)
    print(fork, flush=True)
    sys.stdin.readline()
    print(os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]), flush=True)
"""


class Nursery:
    """Runs jobs in processes of their own, to be killed."""

    def __init__(self, width: int) -> None:
        # A process with threads cannot be forked safely.
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", NURSERY, str(width)],
            env=one_thread,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._read() == "ready"

    def start(self, job: str, rounds: int, folder: Path) -> int:
        """Return the number of a process that runs a job."""
        self._write(f"{job} {rounds} {folder}")
        return int(self._read())

    def wait(self) -> int:
        """Return how the process ended: 0, or minus a signal."""
        self._write("")
        return int(self._read())

    def run(self, job: str, rounds: int, folder: Path) -> int:
        """Return how a job ends that is left alone."""
        self.start(job, rounds, folder)
        return self.wait()

    def close(self) -> None:
        self._process.communicate()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    # 200,020 weights: writing them takes as long as training them.
    made = Nursery(width=10_000)
    yield made
    made.close()


def being_written(folder: Path) -> list[Path]:
    return list((folder / "checkpoints").glob(".fedpact-*.tmp"))


def saved(folder: Path) -> list[Path]:
    return list((folder / "checkpoints").glob("round-*.safetensors"))


def wait_for(files: Callable[[Path], list[Path]], folder: Path, times: int) -> None:
    """Return when so many files have come since now, or after a minute."""
    before = {path.name for path in files(folder)}
    seen: set[str] = set()
    deadline = time.monotonic() + 60
    while len(seen) < times and time.monotonic() < deadline:
        time.sleep(2e-4)
        seen.update(path.name for path in files(folder) if path.name not in before)


def a_moment(luck: random.Random) -> float:
    """Return a random time in seconds, of the order of a round's."""
    return luck.expovariate(1 / 0.02)


# More than there is time for: a run of so many rounds ends by a kill, however fast the machine.
ENDLESS = 10**6


def kill_again_and_again(
    nursery: Nursery, job: str, folder: Path, like: Any, luck: random.Random, kills: int, within: int
) -> int:
    """Kill an endless run so many times, and so many times within a write; return how many kills that were.

    Every moment is random, and counted from what is seen in the folder: every other one follows the n-th
    checkpoint since the process began, by some time; the others are while the n-th is being written.

    Args:
        nursery: starts the processes.
        job: which job.
        folder: of the run.
        like: what its checkpoints are read with.
        luck: draws the moments.
        kills: at least so many.
        within: at least so many of them within a write.
    """
    killed = caught = 0
    while killed < kills or caught < within:
        process = nursery.start(job, ENDLESS, folder)
        if killed % 2:
            wait_for(being_written, folder, luck.randrange(1, 4))
        else:
            wait_for(saved, folder, luck.randrange(0, 3))
            time.sleep(a_moment(luck))
        os.kill(process, signal.SIGKILL)
        assert nursery.wait() == -signal.SIGKILL
        killed += 1
        assert killed < 200
        caught += bool(being_written(folder))
        checkpoints = Checkpoints(folder / "checkpoints")
        if checkpoints.rounds():
            checkpoints.load(like=like)
    return killed


def kill_at_the_end(nursery: Nursery, job: str, rounds: int, folder: Path, luck: random.Random) -> None:
    """Kill a run while it writes its result, if it has not ended by then; then let it end."""
    process = nursery.start(job, rounds, folder)
    last = Checkpoints(folder / "checkpoints").path(rounds)
    wait_for(lambda folder: [path for path in saved(folder) if path == last], folder, 1)
    for _ in range(3):
        time.sleep(a_moment(luck))
        os.kill(process, signal.SIGKILL)
        assert nursery.wait() in (0, -signal.SIGKILL)
        process = nursery.start(job, rounds, folder)
    assert nursery.wait() == 0


def survives_kills(nursery: Nursery, job: str, folder: Path, luck: random.Random) -> int:
    assert nursery.run(job, 1, folder / "first") == 0
    like = state_like(folder / "first")
    kills = kill_again_and_again(nursery, job, folder / "killed", like, luck, kills=12, within=4)
    rounds = max([0, *Checkpoints(folder / "killed/checkpoints").rounds()]) + 5
    kill_at_the_end(nursery, job, rounds, folder / "killed", luck)
    assert nursery.run(job, rounds, folder / "whole") == 0
    killed, whole = (fp.Result.load(folder / name) for name in ("killed", "whole"))
    assert len(whole.history) == rounds
    assert same_bits(outcome(killed), outcome(whole))
    assert same_bits(last_state(folder / "killed"), last_state(folder / "whole"))
    assert contents(folder / "killed").keys() == contents(folder / "whole").keys()
    return kills


@pytest.mark.parametrize("job", ["FedAvg", "FedAdam", "SCAFFOLD"])
def test_run_killed_at_random_moments_ends_with_the_bits_of_one_left_alone(
    job: str, nursery: Nursery, tmp_path: Path
) -> None:
    assert survives_kills(nursery, job, tmp_path, random.Random(job)) >= 12


@pytest.mark.slow
@pytest.mark.parametrize("job", ["FedAvg", "FedAdam", "SCAFFOLD"])
@pytest.mark.parametrize("attempt", range(3))
def test_run_of_a_large_model_killed_at_random_moments_ends_with_the_bits_of_one_left_alone(
    job: str, attempt: int, tmp_path: Path
) -> None:
    # 1,000,020 weights: a checkpoint of SCAFFOLD is 40 MB.
    nursery = Nursery(width=50_000)
    try:
        assert survives_kills(nursery, job, tmp_path, random.Random(attempt)) >= 12
    finally:
        nursery.close()
        shutil.rmtree(tmp_path)
