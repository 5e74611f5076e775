"""Judging a model on rows that no client trained on: sums up, metrics from the sums."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan, nan
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fedpact.channel.channel import Channel
from fedpact.core.algorithm import ClientState
from fedpact.core.errors import DataError
from fedpact.core.messages import Aggregate, Named, Task, Update
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.core.vector import Vector
from fedpact.engine.in_process import InProcess
from fedpact.engine.population import Population
from fedpact.engine.rounds import Rules, hold_round
from fedpact.learn.metrics import ClientSummary, metrics, statistics, summarise


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on held-out rows.

    Args:
        metrics: over all rows of all clients, from sums.
        clients: client → metrics over its own rows.
        rows: client → the number of its held-out rows.
        sums: the summed statistics, from which curves are drawn.
        failures: client → why it is not in the evaluation.
    """

    metrics: Mapping[str, float]
    clients: Mapping[str, Mapping[str, float]]
    rows: Mapping[str, int]
    sums: Mapping[str, NDArray[np.float64]]
    failures: Mapping[str, str]

    def record(self) -> dict[str, float]:
        """Return the metrics, and for each its mean over clients ("_mean") and its worst client's ("_worst")."""
        record = dict(self.metrics)
        for name, summary in self.summary().items():
            record[f"{name}_mean"] = summary.mean
            record[f"{name}_worst"] = summary.worst
        return record

    def to_json(self) -> dict[str, Any]:
        """Return the evaluation as plain data."""
        return {
            "metrics": _plain(self.metrics),
            "clients": {id: _plain(values) for id, values in self.clients.items()},
            "rows": dict(self.rows),
            "sums": {name: array.tolist() for name, array in self.sums.items()},
            "failures": dict(self.failures),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Evaluation":
        """Return the evaluation that `to_json` wrote down."""
        return cls(
            _numbers(data["metrics"]),
            {id: _numbers(values) for id, values in data["clients"].items()},
            data["rows"],
            {name: np.array(values, np.float64) for name, values in data["sums"].items()},
            data["failures"],
        )

    def summary(self) -> dict[str, ClientSummary]:
        """Return, for each metric, its mean over clients (plain and weighted by rows), spread and worst client."""
        return summarise(self.clients, self.rows)


@dataclass(frozen=True)
class Evaluate:
    """An algorithm of one task: every client judges the model on its held-out rows and sends sums.

    A client's own metrics are collected beside the sums.
    """

    weights: Vector
    ids: tuple[str, ...]

    releases: ClassVar[Literal["averaged", "summed"]] = "summed"

    def init(self, model: Any, seed: Seed) -> None:
        """There is no state."""

    def task(self, state: None) -> Task:
        """Ask the clients that hold rows aside."""
        return Task("evaluate", arrays={"model": self.weights}, to=Named(self.ids), answers="collect")

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return the statistics of the client's held-out rows."""
        if data.test is None:
            raise DataError(f'client "{data.id}" holds no rows aside to be evaluated on.')
        sums = row_statistics(model, task.arrays["model"], data.test)
        answer = {"rows": len(data.test), "metrics": metrics(model.schema.kind, sums)}
        return Update(data.id, task.version, "statistics", summed=sums, answer=answer), kept

    def server(self, model: Any, state: None, aggregate: Aggregate) -> None:
        """There is no state."""


def _plain(values: Mapping[str, float]) -> dict[str, float | None]:
    """Return metrics with None for NaN, which JSON does not know."""
    return {name: None if isnan(value) else value for name, value in values.items()}


def _numbers(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: nan if value is None else value for name, value in values.items()}


def row_statistics(model: Any, weights: Vector, rows: Rows) -> dict[str, NDArray[np.float64]]:
    """Return the summable statistics of a model's predictions for prepared rows."""
    if rows.y is None:
        raise DataError("rows without labels cannot be evaluated.")
    scores = model.predict(weights, rows.x)
    return statistics(model.schema.kind, rows.y, scores, max(2, len(model.schema.classes)))


def evaluate_clients(
    engine: InProcess,
    model: Any,
    weights: Vector,
    population: Population,
    round: int,
    seed: Seed,
) -> Evaluation | None:
    """Evaluate a model at every client that holds rows aside; None if none does.

    Clients that fail are recorded and left out.
    """
    present = population.ids(round)
    ids = tuple(id for id in present if population.load(id).test)
    if not ids:
        return None
    algorithm = Evaluate(weights, ids)
    outcome = hold_round(
        engine,
        algorithm,
        model,
        algorithm.task(None),
        population,
        {},
        Channel((), algorithm),
        Rules(),
        round,
        seed,
    )
    sums = {name: outcome.aggregate.sum(name) for name in outcome.aggregate.sums}
    answers = outcome.aggregate.answers
    return Evaluation(
        metrics=metrics(model.schema.kind, sums),
        clients={id: answer["metrics"] for id, answer in answers.items()},
        rows={id: answer["rows"] for id, answer in answers.items()},
        sums=sums,
        failures=outcome.failures,
    )
