"""Claims about worker processes themselves: how they start, what they leave behind, and that they end."""

import gc
import os
import signal
import subprocess
import sys
import threading
import warnings
from dataclasses import dataclass, replace
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest

import fedpact as fp
from fedpact.algorithms.fedavg import FedAvg
from fedpact.channel.channel import Channel
from fedpact.core.errors import ConfigError
from fedpact.core.model import Schema
from fedpact.engine.in_process import InProcess
from fedpact.engine.population import InMemory
from fedpact.engine.threads import single_threaded, usable_cores
from fedpact.engine.work import Rules, Setting
from fedpact.engine.workers import Workers
from fedpact.store.checkpoint import Checkpoints
from tests.engine.runs import outcome, same_bits, two_classes
from tests.engine.worker_tasks import IDS, counted, pids, round_of, setting_of, undisturbed, wait_for, work_of
from tests.federation import SEED


def is_there(pid):
    """Return whether a process runs: a child that has ended is a zombie until it is waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def held():
    """Return what this process holds that could leak."""
    return len(os.listdir("/proc/self/fd")), sorted(os.listdir("/dev/shm")), gc.get_freeze_count()


def test_an_engine_that_is_closed_leaves_nothing_behind():
    round_of(warm := Workers(1), work_of(setting_of()))
    warm.close()
    before = held()
    engine = Workers(3)
    round_of(engine, work_of(setting_of()))
    processes = pids(engine)
    assert all(is_there(pid) for pid in processes)
    engine.close()
    assert not any(is_there(pid) for pid in processes)
    assert held() == before


def test_an_engine_that_is_forgotten_leaves_no_process():
    engines = [Workers(2), Workers(2)]
    for engine in engines:
        round_of(engine, work_of(setting_of()))
    processes = [pid for engine in engines for pid in pids(engine)]
    del engine, engines
    wait_for(lambda: not any(is_there(pid) for pid in processes))
    assert not any(is_there(pid) for pid in processes)


def test_threads_may_ask_one_after_another():
    engine, found = Workers(2), []
    work = work_of(setting_of())
    for _ in range(2):
        # On Linux workers end with the thread that forked them.
        thread = threading.Thread(target=lambda: found.append(round_of(engine, work)))
        thread.start()
        thread.join()
    found.append(round_of(engine, work))
    engine.close()
    assert all(same_bits(each, undisturbed()) for each in found)


def test_an_engine_that_is_closed_can_be_asked_again():
    engine = Workers(2)
    for _ in range(2):
        assert same_bits(round_of(engine, work_of(setting_of())), undisturbed())
        engine.close()


def test_a_round_that_fails_leaves_no_process():
    engine, seen = Workers(2), []

    def first(id):
        if id == IDS[3]:
            raise ConfigError("a mistake")

    round_of(engine, work := work_of(setting_of()))
    seen = pids(engine)
    with pytest.raises(ConfigError):
        round_of(engine, work_of(setting_of(first, work.setting.population)))
    assert not any(is_there(pid) for pid in seen)


RUN = """
import os, sys, time
from fedpact.engine.workers import Workers
from tests.engine.worker_tasks import IDS, round_of, setting_of, work_of

def first(id):
    os.write(1, f"{os.getpid()}\\n".encode())
    time.sleep(60)

round_of(Workers(2), work_of(setting_of(first)))
"""


@pytest.fixture
def run():
    """A run in a process group of its own, and the workers that are at their first clients."""
    started = subprocess.Popen(
        [sys.executable, "-c", RUN],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    workers = [int(started.stdout.readline()) for _ in range(2)]
    assert all(is_there(pid) for pid in workers)
    yield started, workers
    started.kill()
    started.wait()
    started.stdout.close()
    started.stderr.close()


def test_ctrl_c_ends_the_parent_and_its_workers_with_one_traceback(run):
    started, workers = run
    os.killpg(started.pid, signal.SIGINT)
    _, said = started.communicate(timeout=30)
    assert started.returncode == -signal.SIGINT
    assert said.count("Traceback") == 1
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert not any(is_there(pid) for pid in workers)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_parent_whatever_ends_it(run, how):
    started, workers = run
    started.send_signal(how)
    started.wait(timeout=30)
    wait_for(lambda: not any(is_there(pid) for pid in workers))
    assert started.stderr.read() == ""


def test_a_fork_beside_threads_is_no_warning_of_ours():
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    engine = Workers(2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        round_of(engine, work_of(setting_of()))
        engine.close()
    stop.set()
    thread.join()
    assert caught == []


@dataclass(frozen=True, kw_only=True)
class Telling(FedAvg):
    """FedAvg that tells what its process is like."""

    def client(self, model, task, data, kept, seed):
        update, kept = super().client(model, task, data, kept, seed)
        told = {"OMP_NUM_THREADS": float(os.environ["OMP_NUM_THREADS"]), "pid": float(os.getpid())}
        return replace(update, metrics=told), kept


def logistic(algorithm):
    from fedpact.learn.linear import Logistic

    model = Logistic().build(Schema("binary", (3,), (0, 1)))
    return Setting(algorithm, model, InMemory(two_classes(6)), Channel((), algorithm), Rules(), SEED)


def test_each_worker_has_one_thread_and_the_parent_keeps_its_own(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    engine = Workers(2)
    found = round_of(engine, work_of(logistic(Telling())))
    engine.close()
    assert found["aggregate"]["metrics"]["OMP_NUM_THREADS"] == 6
    assert os.environ["OMP_NUM_THREADS"] == "5"
    assert "MKL_NUM_THREADS" not in os.environ


def test_numpy_computes_with_one_thread_in_it():
    threadpoolctl = pytest.importorskip("threadpoolctl")

    def threads():
        return [
            lib["num_threads"] for lib in threadpoolctl.threadpool_info() if lib["internal_api"] == "openblas"
        ]

    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        before = threads()
        with single_threaded():
            assert set(threads()) <= {1}
        assert threads() == before


def test_there_is_a_worker_for_each_core_unless_told_otherwise():
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))
    assert Workers().processes == usable_cores()
    assert Workers(1).describe() == "one by one, in 1 worker process"
    assert Workers(2).describe() == "one by one, in 2 worker processes"


def test_workers_that_are_not_forked_give_the_same_bits():
    work = work_of(logistic(FedAvg(lr=0.5)))
    engine = Workers(2, start="spawn")
    found = round_of(engine, work)
    # The second algorithm is sent to processes that run already.
    algorithm = FedAvg(lr=0.25)
    other = work_of(replace(work.setting, algorithm=algorithm, channel=Channel((), algorithm)))
    again, processes = round_of(engine, other), pids(engine)
    engine.close()
    assert same_bits(found, round_of(InProcess(), work))
    assert same_bits(again, round_of(InProcess(), other))
    assert not any(is_there(pid) for pid in processes)


def test_what_cannot_be_sent_to_workers_that_are_not_forked_is_a_mistake():
    with pytest.raises(ConfigError, match=r"worker processes cannot be forked here.*these cannot be sent"):
        round_of(Workers(2, start="spawn"), work_of(setting_of(lambda id: None)))


def test_torch_models_are_trained_after_the_parent_has_used_its_threads():
    torch = pytest.importorskip("torch")
    from fedpact.learn.torch import Torch

    module = torch.nn.Sequential(torch.nn.Linear(3, 300), torch.nn.ReLU(), torch.nn.Linear(300, 2))
    model = Torch(module).build(Schema("binary", (3,), (0, 1)))
    algorithm = FedAvg(lr=0.1, local_epochs=2, batch_size=8)
    setting = Setting(algorithm, model, InMemory(two_classes(6)), Channel((), algorithm), Rules(), SEED)
    work, before = work_of(setting), torch.get_num_threads()
    alone = round_of(InProcess(), work)
    torch.set_num_threads(2)
    try:
        (torch.randn(700, 700) @ torch.randn(700, 700)).exp().sum()
        torch.nn.Linear(900, 900)(torch.randn(900, 900)).sum().backward()
        engine = Workers(2, timeout_s=60)
        found = round_of(engine, work)
        engine.close()
    finally:
        torch.set_num_threads(before)
    assert found["failures"] == [[], {}]
    assert same_bits(found, alone)
    assert np.isfinite(found["aggregate"]["metrics"]["loss"])


class Interrupting(InMemory):
    """Clients of whom one interrupts the run, as Ctrl-C would, when its rows are read for the third time."""

    def __init__(self, folder):
        super().__init__(two_classes())
        self.folder = folder
        self.parent = os.getpid()

    def load(self, id):
        if id == "b" and os.getpid() != self.parent and counted(self.folder, "loads") == 3:
            os.kill(self.parent, signal.SIGINT)
        return super().load(id)


def test_a_run_interrupted_within_a_round_of_workers_goes_on_with_the_same_bits(tmp_path):
    def run(clients, **settings):
        algorithm = fp.SCAFFOLD(lr=0.3, local_steps=5)
        return fp.train(fp.models.Logistic(), clients, algorithm=algorithm, progress=False, **settings)

    in_workers = {"rounds": 5, "engine": "workers", "workers": 2, "folder": tmp_path / "run", "resume": True}
    # Where tests are started in the background, interrupts are ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(Interrupting(tmp_path), **in_workers)
    finally:
        signal.signal(signal.SIGINT, before)
    assert active_children() == []
    done = Checkpoints(tmp_path / "run" / "checkpoints").rounds()
    assert done
    assert done[-1] < 5
    resumed = run(InMemory(two_classes()), **in_workers)
    assert same_bits(outcome(resumed), outcome(run(two_classes(), rounds=5, engine="in_process")))


class Noting(InMemory):
    """Clients that note which process reads their rows."""

    def __init__(self, path):
        super().__init__(two_classes())
        self.path = path

    def load(self, id):
        with open(self.path, "a") as file:
            file.write(f"{os.getpid()}\n")
        return super().load(id)


def test_a_run_that_is_evaluated_in_each_round_keeps_its_workers(tmp_path):
    clients = Noting(tmp_path / "pids")
    fp.train(fp.models.Logistic(), clients, rounds=6, engine="workers", workers=2, progress=False)
    readers = set((tmp_path / "pids").read_text().split()) - {str(os.getpid())}
    assert 1 <= len(readers) <= 2
