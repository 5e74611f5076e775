"""What the tests of whole runs share: clients with few rows, and what two runs have in common to the last bit."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedpact.algorithms import ALGORITHMS
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.core.vector import Vector
from fedpact.engine.folder import RunFolder
from fedpact.engine.result import Result
from fedpact.engine.runner import Progress
from fedpact.store.checkpoint import Checkpoints
from fedpact.store.states import states_for


def two_classes(count: int = 4, rows: int = 20, width: int = 3, seed: int = 0) -> list[ClientData]:
    """Return clients "a", "b", … of different sizes, with arrays, labels 0 and 1, and five test rows each."""
    random = np.random.default_rng(seed)
    clients = []
    for place in range(count):
        n = rows + 3 * place
        x = random.normal(size=(n + 5, width)) + 0.3 * place
        y = (x.sum(axis=1) + random.normal(size=n + 5) > width * 0.3 * place).astype(np.int64)
        clients.append(ClientData(chr(97 + place), Rows(x[:n], y[:n]), Rows(x[n:], y[n:])))
    return clients


def as_tables(clients: list[ClientData]) -> list[ClientData]:
    """Return the clients with DataFrames, columns "p", "q", "r", …, in the place of arrays."""

    def table(rows: Rows) -> Rows:
        return Rows(pd.DataFrame(rows.x, columns=list("pqrstuvw"[: rows.x.shape[1]])), rows.y)

    return [ClientData(c.id, table(c.train), None if c.test is None else table(c.test)) for c in clients]


def outcome(result: Result) -> dict[str, Any]:
    """Return all that a run gave but how long it took."""
    return {
        "weights": result.weights,
        "history": result.history.drop(columns=_durations(result.history)),
        "clients": result.clients.drop(columns="seconds"),
        "failures": result.failures,
        "evaluation": None if result.evaluation is None else result.evaluation.to_json(),
        "stopped": result.stopped,
    }


def _durations(names: Iterable[str]) -> list[str]:
    # Of the round, and of the stages of the channel, such as "clip.seconds".
    return [name for name in names if name.endswith("seconds")]


def state_like(folder: Path) -> dict[str, Any]:
    """Return a fresh state of the algorithm of a finished run, which its checkpoints are read with."""
    result = Result.load(folder)
    return {"state": ALGORITHMS.build(result.job.algorithm).init(result.fitted.model, Seed.of(0))}


def last_state(folder: Path) -> dict[str, Any]:
    """Return what the newest checkpoint of a finished run holds but how long it took."""
    place = RunFolder(folder)
    progress = Progress(None, states_for(place.states))
    place.go_back(progress, Checkpoints(place.checkpoints).load(like=state_like(folder)))
    clients, history = dict(progress.clients.items()), [dict(record) for record in progress.history]
    for record in [*history, *clients.values()]:
        for name in _durations(record):
            del record[name]
    return {
        "state": progress.state,
        "kept": {id: progress.kept.get(id) for id in sorted(progress.kept.ids())},
        "history": history,
        "clients": clients,
        "failures": progress.failures,
        "channel": progress.channel,
        "spent": progress.spent,
    }


def same_bits(a: Any, b: Any) -> bool:
    """Return whether two values are the same to the last bit; NaN is the same as NaN."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same_bits(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same_bits, a, b))
    if isinstance(a, Vector) or isinstance(b, Vector):
        return bool(a == b)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, pd.DataFrame) and isinstance(b, pd.DataFrame):
        return a.equals(b) and list(a.index) == list(b.index)
    if hasattr(a, "__dataclass_fields__"):
        return type(a) is type(b) and same_bits(vars(a), vars(b))
    return bool(a == b) or (a != a and b != b)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the name and bytes of every file in a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
