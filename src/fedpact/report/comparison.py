"""A federation beside its alternatives: each client alone, and all rows in one place, judged on the same rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError, suggest
from fedpact.core.job import Job
from fedpact.core.rows import ClientData
from fedpact.data.datasets import load
from fedpact.data.federation import Federation
from fedpact.engine.evaluation import Evaluation
from fedpact.engine.result import Result
from fedpact.engine.train import run
from fedpact.engine.words import many, size

OnTraining = Callable[[str], None]


@dataclass(frozen=True)
class Study:
    """A data set and the settings with which a federation over it is compared.

    Args:
        title: what it is about.
        data: the data set's name.
        algorithm: how every model is trained; by steps, so that all take equally many.
        is_drawn: whether a seed draws who holds which row, and which rows are held out; else that is fixed.
    """

    title: str
    data: str
    algorithm: Mapping[str, Any]
    is_drawn: bool

    def job(self, rounds: int, seed: int) -> Job:
        """Return the federation's job."""
        return Job.of(
            {
                "name": self.data,
                "seed": seed,
                "data": {"name": self.data, **({"seed": seed} if self.is_drawn else {})},
                "model": {"name": "Logistic"},
                "algorithm": dict(self.algorithm),
                "preprocess": [{"name": "Standardize"}],
                "rounds": rounds,
            }
        )


STUDIES = {
    "breast_cancer": Study(
        "Breast-cancer diagnosis in four hospitals",
        "breast_cancer",
        {"name": "FedAvg", "lr": 0.1, "local_steps": 10, "batch_size": 16},
        is_drawn=True,
    ),
    "heart": Study(
        "Heart disease in four hospitals",
        "heart",
        {"name": "FedAvg", "lr": 0.05, "local_steps": 10, "batch_size": 16},
        is_drawn=False,
    ),
}


def study(name: str) -> Study:
    """Return the study of this name.

    Raises:
        ConfigError: there is none; the nearest name is suggested.
    """
    if name not in STUDIES:
        raise ConfigError(
            f'there is no demo over "{name}".{suggest(name, STUDIES)} There are: {", ".join(STUDIES)}.'
        )
    return STUDIES[name]


@dataclass(frozen=True)
class Candidate:
    """One way to get a model.

    Args:
        name: what to call it.
        kind: whether one client trained it alone, the federation did, or it saw all rows.
        left: what left a client for it.
        evaluations: how good it is on all clients' held-out rows, once for each repetition.
    """

    name: str
    kind: Literal["alone", "federation", "pooled"]
    left: str
    evaluations: tuple[Evaluation, ...]

    def values(self, metric: str) -> NDArray[np.float64]:
        """Return a metric over all held-out rows, once for each repetition."""
        return np.array([each.metrics[metric] for each in self.evaluations])

    def mean(self, metric: str) -> float:
        """Return the mean of a metric over repetitions; NaN where it is never defined."""
        return _mean(self.values(metric))

    def at(self, client: str, metric: str) -> float:
        """Return the mean of a metric on one client's held-out rows."""
        return _mean(np.array([each.clients[client][metric] for each in self.evaluations]))


@dataclass(frozen=True)
class Comparison:
    """What a study gave.

    Args:
        study: the study.
        job: the federation's, in the first repetition.
        federation: the clients of the first repetition.
        result: the federation's run in the first repetition.
        candidates: each client alone, the federation, and all rows pooled.
    """

    study: Study
    job: Job
    federation: Federation
    result: Result
    candidates: tuple[Candidate, ...]

    @property
    def repeats(self) -> int:
        """How often everything was done."""
        return len(self.candidates[0].evaluations)

    @property
    def alone(self) -> Sequence[Candidate]:
        """The models of single clients."""
        return [each for each in self.candidates if each.kind == "alone"]

    @property
    def federated(self) -> Candidate:
        """The federation's model."""
        return next(each for each in self.candidates if each.kind == "federation")

    @property
    def pooled(self) -> Candidate:
        """The model that saw all rows."""
        return next(each for each in self.candidates if each.kind == "pooled")

    def sentences(self) -> list[str]:
        """Return what there is to see: one sentence each on the clients alone, the federation, all rows pooled."""
        alone = sorted(self.alone, key=lambda each: each.mean("accuracy"))
        worst, best = alone[0], alone[-1]
        federated, pooled = self.federated, self.pooled
        wins = int(
            np.sum(federated.values("accuracy") > np.max([each.values("accuracy") for each in alone], axis=0))
        )
        often = (
            f"in {wins} of {self.repeats} repetitions it beat every one of them" if self.repeats > 1 else ""
        )
        return [
            f"Alone, a hospital knows its own patients only: on everybody's held-out patients its model is right on "
            f"{_share(worst)} ({worst.name}) to {_share(best)} ({best.name}).",
            f"The federation is right on {_share(federated)}, {_difference(federated, best)} the best hospital "
            f"alone, and no row left a hospital{'; ' + often if often else ''}.",
            f"With all rows in one place, which a federation is there to avoid, the same training is right on "
            f"{_share(pooled)}: the federation is {_difference(federated, pooled)} that.",
        ]

    def method(self) -> str:
        """Return how the numbers came about."""
        job, rows = self.job, sum(self.federated.evaluations[0].rows.values())
        steps = job.rounds * int(job.algorithm["local_steps"])
        trained = (
            f"Every model is a logistic regression after {steps} steps of {job.algorithm['batch_size']} rows, judged "
            f"on the same {rows} held-out rows of all hospitals"
        )
        if self.repeats == 1:
            return f"{trained}, of which one is {100 / rows:.1f} points of accuracy."
        anew = (
            "each with hospitals and held-out rows drawn anew"
            if self.study.is_drawn
            else "each in another order of the rows; who holds which row, and which are held out, is fixed"
        )
        return f"{trained}; the numbers are means over {self.repeats} repetitions, {anew}."

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as plain data, NaN as None."""
        return {
            "data": self.study.data,
            "seed": self.job.seed,
            "rounds": self.job.rounds,
            "repeats": self.repeats,
            "job": self.result.job.digest,
            "models": [
                {
                    "name": each.name,
                    "kind": each.kind,
                    "left": each.left,
                    "metrics": {name: _plain(each.mean(name)) for name in each.evaluations[0].metrics},
                    "accuracy_of_repeats": each.values("accuracy").tolist(),
                    "accuracy_of_clients": {
                        id: _plain(each.at(id, "accuracy")) for id in self.federation.ids
                    },
                }
                for each in self.candidates
            ],
        }


def compare(
    study: Study, rounds: int, seed: int, repeats: int, on_training: OnTraining = lambda name: None
) -> Comparison:
    """Train each client alone, the federation, and all rows pooled; judge all on every client's held-out rows.

    All are trained with the same settings and for equally many steps; a client alone, and the pooled rows, are a
    federation of one. What prepares the rows is fitted on the rows that a model may see.

    Args:
        study: what over.
        rounds: of the federation.
        seed: of the first repetition; the next has the next.
        repeats: how often to do everything.
        on_training: called before each training with what is to be trained.

    Raises:
        FedpactError: the data cannot be had, or a run cannot be carried out.
    """
    evaluations: dict[str, list[Evaluation]] = {}
    first: tuple[Federation, Result] | None = None
    for number in range(seed, seed + repeats):
        job = study.job(rounds, number)
        federation = load(**(job.data or {}))

        def judged(
            name: str, clients: Sequence[ClientData], job: Job = job, all: Federation = federation
        ) -> Result:
            on_training(name)
            alone = {} if len(clients) > 1 else {"name": name, "data": None, "evaluate_every": 0}
            result = run(job.model_copy(update=alone), clients)
            evaluations.setdefault(name, []).append(result.evaluate(all))
            return result

        for client in federation:
            judged(client.id, [client])
        result = judged("Federation", federation)
        judged("All rows pooled", [federation.pooled()])
        first = first or (federation, result)
    if first is None:
        raise ConfigError(f"everything is to be repeated {repeats} times; it must be 1 or more.")
    federation, result = first
    update = size(float(result.clients["upload_bytes"].max()))
    left = {
        "Federation": f"{update} of updates",
        "All rows pooled": f"all {many(len(federation.pooled().train), 'row')}",
    }
    kinds: dict[str, Literal["federation", "pooled"]] = {
        "Federation": "federation",
        "All rows pooled": "pooled",
    }
    candidates = tuple(
        Candidate(name, kinds.get(name, "alone"), left.get(name, "nothing"), tuple(found))
        for name, found in evaluations.items()
    )
    return Comparison(study, study.job(rounds, seed), federation, result, candidates)


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _share(candidate: Candidate) -> str:
    return f"{100 * candidate.mean('accuracy'):.1f} %"


def _difference(one: Candidate, other: Candidate) -> str:
    points = 100 * (one.mean("accuracy") - other.mean("accuracy"))
    if abs(points) < 0.05:
        return "as accurate as"
    return f"{abs(points):.1f} points {'above' if points > 0 else 'below'}"


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else value
