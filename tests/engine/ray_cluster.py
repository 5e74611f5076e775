"""A Ray cluster of two nodes on this machine, and what its clients do: modules that an actor can import."""

import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.cluster_utils import Cluster

from fedpact.algorithms.fedavg import FedAvg
from fedpact.core.errors import DataError
from fedpact.core.messages import Task, Update
from fedpact.core.rows import ClientData, Rows
from fedpact.engine.in_process import InProcess
from fedpact.engine.work import Intake, Work


@contextmanager
def two_nodes() -> Iterator[Cluster]:
    """A cluster of two nodes with a CPU and a resource of its own each, "first" and "second"; this one has a GPU.

    Ray takes the GPU's being there on trust.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "resources": {"first": 1}, "include_dashboard": False},
    )
    try:
        cluster.add_node(num_cpus=1, num_gpus=1, resources={"second": 1})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def wait_for(what: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Return what a condition gives as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing happened within {seconds:g} s")
        time.sleep(0.02)
    return found


@dataclass(frozen=True, kw_only=True)
class Reporting(FedAvg):
    """FedAvg whose clients note in a folder on which node, in which process and with which GPUs they are run."""

    folder: str

    def client(self, model: Any, task: Any, data: ClientData, kept: Any, seed: Any) -> Any:
        with open(Path(self.folder) / data.id, "a") as file:
            print(node_here(), os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES"), file=file)
        self.happen(data)
        return super().client(model, task, data, kept, seed)

    def happen(self, data: ClientData) -> None:
        """Do what a client does first: nothing, if it is none of those below."""

    def runs(self, id: str) -> list[tuple[str, int]]:
        """Return the node and the process of every time that a client was run."""
        return [(node, int(process)) for node, process, _ in self._lines(id)]

    def gpus(self, id: str) -> list[str]:
        """Return the GPUs of every time that a client was run."""
        return [gpus for _, _, gpus in self._lines(id)]

    def _lines(self, id: str) -> list[list[str]]:
        path = Path(self.folder) / id
        return [line.split(" ") for line in path.read_text().splitlines()] if path.exists() else []


def node_here() -> str:
    return ray.get_runtime_context().get_node_id()


@dataclass(frozen=True, kw_only=True)
class Deadly(Reporting):
    """FedAvg whose clients end their process, so many times each."""

    deaths: dict[str, int] = field(default_factory=dict)

    def happen(self, data: ClientData) -> None:
        if len(self.runs(data.id)) <= self.deaths.get(data.id, 0):
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True, kw_only=True)
class HeldUp(Reporting):
    """FedAvg whose clients are held up on one node, or on all (""), until there is a file called "go"."""

    node: str

    def happen(self, data: ClientData) -> None:
        go = Path(self.folder) / "go"
        if node_here().startswith(self.node):
            try:
                wait_for(go.exists)
            except TimeoutError:
                # Of a test that fails not every client is to wait so long.
                go.touch()
                raise


@dataclass(frozen=True, kw_only=True)
class Raising(FedAvg):
    """FedAvg one of whose clients fails."""

    who: str
    kind: type[BaseException]
    words: tuple[str, ...]

    def client(self, model: Any, task: Any, data: ClientData, kept: Any, seed: Any) -> Any:
        if data.id == self.who:
            raise self.kind(*self.words)
        return super().client(model, task, data, kept, seed)


class Noting(InProcess):
    """Runs clients one by one, and notes in a folder how many it was asked to."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def ask(self, work: Work, ids: Sequence[str], intake: Intake) -> None:
        with open(self._folder / "asked", "a") as file:
            print(len(ids), file=file)
        super().ask(work, ids, intake)


class TwoPartError(Exception):
    """An error that cannot be read back, since it is made of two texts and keeps them as one."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


@dataclass(frozen=True, kw_only=True)
class Locked(FedAvg):
    """FedAvg whose clients answer with something that no other process can have."""

    def task(self, state: Any) -> Task:
        return Task("train", state.round, {"model": state.model}, answers="collect")

    def client(self, model: Any, task: Any, data: ClientData, kept: Any, seed: Any) -> Any:
        return Update(data.id, task.version, "statistics", answer=threading.Lock()), kept


@dataclass(frozen=True, kw_only=True)
class Disagreeing(FedAvg):
    """FedAvg for statistics, of which some clients send one and others another."""

    def task(self, state: Any) -> Task:
        return Task("train", state.round, {"model": state.model})

    def client(self, model: Any, task: Any, data: ClientData, kept: Any, seed: Any) -> Any:
        name = "vowels" if data.id in "aeiou" else "consonants"
        return Update(data.id, task.version, "statistics", summed={name: np.ones(2)}), kept

    def server(self, model: Any, state: Any, aggregate: Any) -> Any:
        return state


def doubled(data: ClientData) -> ClientData:
    return ClientData(data.id, Rows(2 * data.train.x, data.train.y))


class Made:
    """A population of clients "a" to "f" whose rows are made when they are asked for, one of them in vain."""

    def ids(self, round: int) -> list[str]:
        return list("abcdef")

    def size(self, id: str) -> int:
        return 20

    def load(self, id: str) -> ClientData:
        if id == "b":
            raise DataError("no file")
        random = np.random.default_rng(ord(id))
        return ClientData(id, Rows(random.normal(size=(20, 3)), random.integers(0, 2, 20)))
