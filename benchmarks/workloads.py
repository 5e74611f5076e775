"""The five workloads that simulators are compared on: shapes, sizes, settings, and data drawn from fixed seeds.

All train by FedAvg: SGD without momentum, one local epoch, updates weighted by rows, a server rate of 1. A follows the
CIFAR-10 benchmark of pfl-research (Granqvist et al., 2024), B to E the tasks of McMahan et al. (2017) and LEAF
(Caldas et al., 2018). Only numpy is imported, so that every contestant's environment can read this file.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# How many clients' rows a loss is taken over.
JUDGED_CLIENTS = 20
_SEED, _TEACHER_SEED = 1234, 9


@dataclass(frozen=True)
class Workload:
    """One task and its setting.

    Args:
        letter: what it is called on the command line.
        title: the task in a few words.
        model: the model in a few words.
        clients: the size of the population.
        rows: training rows of each client.
        shape: of one example; images have their channels last.
        classes: the number of classes; 1 for a yes or no.
        cohort: clients a round.
        batch_size: rows a step.
        lr: the clients' learning rate.
        rounds: rounds in a run, warm-up included.
        hidden: units in each hidden layer, where the model has such.
    """

    letter: str
    title: str
    model: str
    clients: int
    rows: int
    shape: tuple[int, ...]
    classes: int
    cohort: int
    batch_size: int
    lr: float
    rounds: int
    hidden: int = 0

    @property
    def steps(self) -> int:
        """Gradient steps in a round, over the cohort."""
        return self.cohort * -(-self.rows // self.batch_size)

    @property
    def predicts_sequences(self) -> bool:
        """Whether there is a label for every position of an example."""
        return self.letter == "E"

    @property
    def judged(self) -> range:
        """The clients whose rows the loss before and after training is taken over."""
        return range(min(JUDGED_CLIENTS, self.clients))


WORKLOADS: Mapping[str, Workload] = {
    workload.letter: workload
    for workload in (
        Workload(
            letter="A",
            title="images like CIFAR-10",
            model="CNN with dropout, 1,626,442 parameters",
            clients=1000,
            rows=50,
            shape=(32, 32, 3),
            classes=10,
            cohort=50,
            batch_size=10,
            lr=0.1,
            rounds=9,
        ),
        Workload(
            letter="B",
            title="images like FEMNIST",
            model="CNN, 1,206,590 parameters",
            clients=500,
            rows=200,
            shape=(28, 28, 1),
            classes=62,
            cohort=10,
            batch_size=20,
            lr=0.1,
            rounds=9,
        ),
        Workload(
            letter="C",
            title="a table of 30 columns",
            model="logistic regression, 31 parameters",
            clients=5000,
            rows=50,
            shape=(30,),
            classes=1,
            cohort=500,
            batch_size=10,
            lr=0.1,
            rounds=14,
        ),
        Workload(
            letter="D",
            title="images like MNIST",
            model="MLP 784-200-200-10, 199,210 parameters",
            clients=1000,
            rows=60,
            shape=(784,),
            classes=10,
            cohort=100,
            batch_size=10,
            lr=0.1,
            rounds=22,
            hidden=200,
        ),
        Workload(
            letter="E",
            title="text like Shakespeare",
            model="embedding, 2 × LSTM 256, a loss at every character",
            clients=100,
            rows=40,
            shape=(80,),
            classes=90,
            cohort=10,
            batch_size=4,
            lr=0.5,
            rounds=7,
        ),
    )
}


def cache_folder() -> Path:
    """Return the folder that data and environments are kept in unless another is named."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fedpact"


@dataclass(frozen=True)
class Files:
    """Where a workload's arrays lie.

    Args:
        workload: the workload.
        folder: a folder for all workloads.
    """

    workload: Workload
    folder: Path

    @property
    def features(self) -> Path:
        """The features [clients, rows, ...]."""
        return self.folder / f"{self._sizes}-x.npy"

    @property
    def labels(self) -> Path:
        """The labels [clients, rows], or [clients, rows, positions]."""
        return self.folder / f"{self._sizes}-y.npy"

    @property
    def weights(self) -> Path:
        """The weights that every contestant starts from, by the names of the torch model."""
        hidden = f"-{self.workload.hidden}" if self.workload.hidden else ""
        return self.folder / f"{self.workload.letter}{hidden}-weights.npz"

    @property
    def regression(self) -> Path:
        """The same weights of workload C as a file that Fedpact's own regression starts from."""
        return self.folder / "C-weights.safetensors"

    @property
    def _sizes(self) -> str:
        return f"{self.workload.letter}-{self.workload.clients}x{self.workload.rows}"


def load(workload: Workload, folder: Path, mode: Literal["r", "c"] = "c") -> tuple[Array, Array]:
    """Return features and labels as memory maps; int32 labels, and int32 features where they are characters.

    Args:
        workload: whose they are.
        folder: where its files are.
        mode: "r" for maps that are only read, or "c" for copies on write: nobody writes, but torch warns of every
            array that it may not write to.
    """
    files = Files(workload, folder)
    return np.load(files.features, mmap_mode=mode), np.load(files.labels, mmap_mode=mode)


def load_weights(workload: Workload, folder: Path) -> dict[str, Array]:
    """Return the weights to start from, by the names of the torch model."""
    with np.load(Files(workload, folder).weights) as arrays:
        return {name: arrays[name] for name in arrays.files}


def prepare(workload: Workload, folder: Path) -> None:
    """Write the files of a workload, unless they are there. Needs torch, which draws the weights."""
    files = Files(workload, folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not (files.features.exists() and files.labels.exists()):
        x, y = (_text if workload.predicts_sequences else _numbers)(workload)
        _save(files.features, lambda path: np.save(path, x))
        _save(files.labels, lambda path: np.save(path, y))
    if not files.weights.exists():
        from benchmarks.torch_models import first_weights

        weights: dict[str, Any] = first_weights(workload)
        _save(files.weights, lambda path: np.savez(path, **weights))
    if workload.letter == "C" and not files.regression.exists():
        from safetensors.numpy import save_file

        weights = load_weights(workload, folder)
        regression = {
            "coef": weights["weight"][0].astype(np.float64),
            "intercept": weights["bias"].reshape(()).astype(np.float64),
        }
        _save(files.regression, lambda path: save_file(regression, path))


def log_loss(scores: Array, labels: Array) -> float:
    """Return the mean log loss of a yes or no, of scores and labels in 0 and 1 of one shape."""
    return float(np.mean(np.logaddexp(0.0, scores) - labels * scores))


def cohorts(workload: Workload, rounds: int) -> Iterator[Array]:
    """Yield the cohorts of a contestant that has no sampler of its own."""
    random = np.random.default_rng(0)
    for _ in range(rounds):
        yield random.choice(workload.clients, workload.cohort, replace=False)


def _numbers(workload: Workload) -> tuple[Array, Array]:
    """Rows of a normal distribution, labelled by a linear teacher."""
    clients, rows, width = workload.clients, workload.rows, int(np.prod(workload.shape))
    x = np.random.default_rng(_SEED).standard_normal((clients, rows, *workload.shape), dtype=np.float32)
    teacher = np.random.default_rng(_TEACHER_SEED).standard_normal((width, workload.classes), np.float32)
    scores = x.reshape(clients * rows, width) @ teacher
    labels = scores[:, 0] > 0 if workload.classes == 1 else scores.argmax(axis=1)
    return x, labels.astype(np.int32).reshape(clients, rows)


def _text(workload: Workload) -> tuple[Array, Array]:
    """Characters of which each is mostly followed by its successor in a permutation."""
    (length,), random = workload.shape, np.random.default_rng(_SEED)
    size = (workload.clients, workload.rows)
    successor = np.random.default_rng(_TEACHER_SEED).permutation(workload.classes)
    text = np.empty((*size, length + 1), np.int32)
    text[..., 0] = random.integers(0, workload.classes, size)
    for place in range(length):
        regular = random.random(size) < 0.8
        text[..., place + 1] = np.where(
            regular, successor[text[..., place]], random.integers(0, workload.classes, size)
        )
    return np.ascontiguousarray(text[..., :-1]), np.ascontiguousarray(text[..., 1:])


def _save(path: Path, write: Callable[[Path], Any]) -> None:
    with _whole(path) as partial:
        write(partial)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Give a name to write to, and the file its own name once it is whole: two runs may want it at once."""
    partial = path.with_name(f"{os.getpid()}-{path.name}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
