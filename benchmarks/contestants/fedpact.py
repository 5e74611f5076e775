"""Fedpact, through its public interface alone."""

from typing import Any

import numpy as np

import fedpact as fp
from benchmarks.contestants.common import Clock, Run, asked
from benchmarks.workloads import Array, Files, Workload, load, load_weights, log_loss


def new_model(run: Run) -> Any:
    """Return what is trained: for C the regression in numpy, which needs no torch, and else the torch module."""
    if run.workload.letter == "C":
        return fp.models.Logistic()
    from benchmarks.torch_models import model

    return fp.models.Torch(model(run.workload, run.data), precision=run.precision, device=run.device)


def regression_loss(workload: Workload, x: Array, y: Array, coef: Array, intercept: Array) -> float:
    """Return the mean log loss of a logistic regression over the judged clients' rows."""
    judged = list(workload.judged)
    return log_loss(x[judged] @ coef + intercept, y[judged])


def losses(run: Run, result: fp.Result) -> tuple[float, float]:
    """Return the mean losses over the judged clients' rows before and after training."""
    workload, data = run.workload, run.data
    if workload.letter == "C":
        x, y = load(workload, data)
        first, last = load_weights(workload, data), result.weights
        return (
            regression_loss(workload, x, y, first["weight"][0], first["bias"]),
            regression_loss(workload, x, y, last["coef"], last["intercept"]),
        )
    from benchmarks.torch_models import mean_loss

    weights = {name: np.array(array) for name, array in result.weights.items()}
    return mean_loss(workload, data), mean_loss(workload, data, weights)


def train(run: Run, clock: Clock) -> fp.Result:
    """Train, and note the beginning and the end of each round."""
    workload, data = run.workload, run.data
    population = fp.populations.arrays(*load(workload, data, "r"))
    clock.tick()
    return fp.train(
        new_model(run),
        population,
        algorithm=fp.FedAvg(lr=workload.lr, local_epochs=1, batch_size=workload.batch_size),
        cohort=workload.cohort,
        rounds=run.rounds,
        evaluate_every=0,
        initial=Files(workload, data).regression if workload.letter == "C" else None,
        engine=run.engine,
        workers=None if run.engine == "in_process" else run.workers,
        on_round=lambda record: clock.tick(),
        progress=False,
    )


def main(run: Run) -> None:
    clock = Clock()
    result = train(run, clock)
    clock.report(
        *losses(run, result),
        engine=run.engine,
        ran=result.engine,
        precision=run.precision,
        device=run.device,
    )


if __name__ == "__main__":
    main(asked())
