"""What the tests of algorithms share: rounds over clients in memory, and a model to be worked out by hand."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedpact.channel.channel import Channel
from fedpact.core.algorithm import ClientState
from fedpact.core.model import Schema
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.core.vector import Entry, Layout, Vector
from fedpact.engine.in_process import InProcess
from fedpact.engine.population import InMemory
from fedpact.engine.rounds import hold_round
from fedpact.engine.work import Rules, Setting

SEED = Seed.of(0)


def run_rounds(
    algorithm: Any,
    model: Any,
    clients: Sequence[ClientData],
    rounds: int,
    *,
    cohort: int | float | None = None,
    seed: Seed = SEED,
    kept: dict[str, ClientState] | None = None,
) -> Any:
    """Return the state after so many rounds, or when the algorithm is done; what clients keep goes to `kept`."""
    kept = {} if kept is None else kept
    population, channel = InMemory(clients), Channel((), algorithm)
    state = algorithm.init(model, seed)
    for number in range(rounds):
        task = algorithm.task(state)
        if task is None:
            break
        setting = Setting(algorithm, model, population, channel, Rules(cohort), seed)
        outcome = hold_round(InProcess(), setting, task, kept, number)
        kept.update(outcome.kept)
        state = algorithm.server(model, state, outcome.aggregate)
    return state


def split(x: NDArray[Any], y: NDArray[Any], sizes: Sequence[int]) -> list[ClientData]:
    """Return clients "0", "1", … that hold the rows in turn, as many as their size says."""
    stops = np.cumsum(sizes)
    assert stops[-1] == len(x)
    return [
        ClientData(str(i), Rows(x[stop - size : stop], y[stop - size : stop]))
        for i, (stop, size) in enumerate(zip(stops, sizes, strict=True))
    ]


class Quadratics:
    """A row's features x and label a stand for the loss a/2·‖w − x‖²: its gradient is a·(w − x)."""

    input_dtype = "float64"

    def __init__(self, start: ArrayLike) -> None:
        self._start = np.asarray(start, np.float64)
        self.schema = Schema("regression", self._start.shape)
        self.layout = Layout([Entry("w", self._start.shape, "float64")])

    def initial(self, seed: Seed) -> Vector:
        return Vector.from_arrays({"w": self._start}, self.layout)

    def predict(self, weights: Vector, x: Any) -> NDArray[np.float64]:
        return np.full(len(x), weights["w"].sum())

    def session(self) -> "QuadraticsSession":
        return QuadraticsSession(self.layout)


class QuadraticsSession:
    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.weights = [np.zeros(layout.size)]
        self.gradients = [np.zeros(layout.size)]
        self._rows = Rows(np.empty((0, 0)))

    def load(self, weights: Vector) -> None:
        self.weights[0][:] = weights["w"]

    def store(self) -> Vector:
        return Vector.from_arrays({"w": self.weights[0]}, self._layout)

    def change(self, start: Vector) -> Vector:
        return self.store().minus(start)

    def bind(self, rows: Rows, seed: Seed) -> None:
        self._rows = rows

    def gradient(self, index: NDArray[np.int64] | None) -> float:
        rows = self._rows if index is None else self._rows.take(index)
        distance, curvature = self.weights[0] - rows.x, np.asarray(rows.y, np.float64)
        self.gradients[0][:] = np.mean(curvature[:, None] * distance, axis=0)
        return float(np.mean(0.5 * curvature * np.sum(distance**2, axis=1)))

    def arrays(self, vector: Vector) -> list[NDArray[Any]]:
        return list(vector.flats)


def quadratic(id: str, curvature: float, optimum: ArrayLike, rows: int = 1) -> ClientData:
    """Return a client of so many equal rows, whose mean loss is curvature/2·‖w − optimum‖²."""
    x = np.tile(np.atleast_1d(np.asarray(optimum, np.float64)), (rows, 1))
    return ClientData(id, Rows(x, np.full(rows, float(curvature))))
