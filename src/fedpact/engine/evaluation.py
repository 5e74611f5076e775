"""Judging a model on rows that no client trained on: sums up, metrics from the sums."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan, nan
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fedpact.channel.channel import Channel
from fedpact.core.algorithm import ClientState
from fedpact.core.errors import DataError, QuorumError, SecureError
from fedpact.core.messages import Aggregate, Cohort, Everyone, Named, Recipients, Task, Update
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed
from fedpact.core.vector import Vector
from fedpact.engine.population import Population, holding_tests
from fedpact.engine.rounds import hold_round
from fedpact.engine.sampler import choose
from fedpact.engine.work import Engine, Rules, Setting
from fedpact.learn.metrics import COUNTS, ClientSummary, metrics, shapes, statistics, summarise


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on held-out rows.

    Args:
        metrics: over all rows of all clients, from sums.
        clients: client → metrics over its own rows.
        rows: client → the number of its held-out rows; of no client, as its metrics, where a mask hides them.
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

    @property
    def total_rows(self) -> int:
        """How many held-out rows the metrics are over."""
        return int(self.sums["count"].sum()) if "count" in self.sums else 0

    def summary(self) -> dict[str, ClientSummary]:
        """Return, for each metric, its mean over clients (plain and weighted by rows), spread and worst client."""
        return summarise(self.clients, self.rows)


@dataclass(frozen=True)
class Evaluate:
    """An algorithm of one task: every client judges the model on its held-out rows and sends sums.

    A client's own metrics are collected beside the sums; one that holds no rows aside sends zeros. Its state is
    the weights to judge.
    """

    releases: ClassVar[Literal["averaged", "summed"]] = "summed"

    def init(self, model: Any, seed: Seed) -> Vector:
        """Return the weights that training starts from."""
        return model.initial(seed)

    def task(self, state: Vector) -> Task:
        """Ask every client."""
        return self.of(state, Everyone())

    @staticmethod
    def of(weights: Vector, to: Recipients) -> Task:
        """Return the task to judge these weights."""
        return Task("evaluate", arrays={"model": weights}, to=to, answers="collect")

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return the statistics of the client's held-out rows."""
        kind, classes = model.schema.kind, max(2, len(model.schema.classes))
        if not data.test:
            empty = {name: np.zeros(shape) for name, shape in shapes(kind, classes).items()}
            return Update(data.id, task.version, "statistics", summed=_counted(empty)), kept
        if data.test.y is None:
            raise DataError(f'client "{data.id}": the test rows have no labels.')
        scores = model.predict(task.arrays["model"], data.test.x)
        # Where an example has a label at every position, each is judged as a row is.
        labels = data.test.y.reshape(-1)
        sums = statistics(kind, labels, scores.reshape(-1, *scores.shape[data.test.y.ndim :]), classes)
        answer = {"rows": len(data.test), "metrics": metrics(kind, sums)}
        return Update(data.id, task.version, "statistics", summed=_counted(sums), answer=answer), kept

    def server(self, model: Any, state: Vector, aggregate: Aggregate) -> Vector:
        """Leave the weights as they are."""
        return state


def _counted(sums: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[Any]]:
    """Return statistics with whole numbers as such: they are a sixth of a real number's size in a sum."""
    return {name: a.astype(np.int64) if name in COUNTS else a for name, a in sums.items()}


def _plain(values: Mapping[str, float]) -> dict[str, float | None]:
    """Return metrics with None for NaN, which JSON does not know."""
    return {name: None if isnan(value) else value for name, value in values.items()}


def _numbers(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: nan if value is None else value for name, value in values.items()}


def judging(
    model: Any,
    population: Population,
    seed: Seed,
    quorum: int | float = 1,
    cohort: int | float | None = None,
) -> Setting:
    """Return the setting in which a model is evaluated.

    Args:
        model: the model.
        population: the clients.
        seed: the job's.
        quorum: how many clients must answer: a number, or a share of those asked.
        cohort: how many of those that hold rows aside are asked: a number, a share, or None for all.
    """
    algorithm = Evaluate()
    return Setting(algorithm, model, population, Channel((), algorithm), Rules(cohort, quorum=quorum), seed)


def evaluate_clients(engine: Engine, setting: Setting, weights: Vector, round: int) -> Evaluation | None:
    """Evaluate weights at clients that hold rows aside; None if none does.

    Clients that fail are recorded and left out. With fewer answers than the quorum there are no metrics: those of
    whoever is left are not the federation's.

    Args:
        engine: who runs the clients.
        setting: as `judging` gives it.
        weights: the weights to judge.
        round: how many rounds are behind them.
    """
    ids, model = holding_tests(setting.population, round), setting.model
    algorithm: Any = setting.algorithm
    if not ids:
        return None
    chosen = choose(Cohort(), ids, setting.rules.cohort, round, setting.seed.child("evaluation"))
    task = algorithm.of(weights, Named(tuple(chosen)))
    try:
        outcome = hold_round(engine, setting, task, {}, round)
    except QuorumError as error:
        return Evaluation({}, {}, {}, {}, error.failures)
    except SecureError as error:
        return Evaluation({}, {}, {}, {}, dict.fromkeys(chosen, str(error)))
    if setting.channel.mask:
        sums = algorithm.sums(model, outcome.aggregate)
        return Evaluation(metrics(model.schema.kind, sums), {}, {}, sums, outcome.failures)
    answers = {id: answer for id, answer in outcome.aggregate.answers.items() if answer is not None}
    if not answers and not outcome.failures:
        return None
    sums = {name: outcome.aggregate.sum(name).astype(np.float64) for name in outcome.aggregate.sums}
    return Evaluation(
        metrics=metrics(model.schema.kind, sums),
        clients={id: answer["metrics"] for id, answer in answers.items()},
        rows={id: answer["rows"] for id, answer in answers.items()},
        sums=sums,
        failures=outcome.failures,
    )
