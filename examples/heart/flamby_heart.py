"""Fed-Heart-Disease of FLamby: four hospitals, two ways to scale their rows, seven algorithms.

Ogier du Terrail et al., "FLamby: Datasets and Benchmarks for Cross-Silo Federated Learning in Realistic Healthcare
Settings", NeurIPS 2022 Datasets and Benchmarks. Logistic regression on 13 features; 15 rounds of 100 local steps on
4 rows; updates weighed by examples; accuracy at 0.5 on each centre's test rows. The rates are those of FLamby's
config_heart_disease.json.
"""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import save_file

import fedpact as fp

CENTRES = ["Cleveland", "Hungary", "Switzerland", "Long Beach"]
SEEDS = (42, 43, 44, 45, 46)
ROUNDS = 15

Scaling = Literal["per centre", "federated"]
Start = Literal["flamby", "uniform", "zeros"]

# Student's t with 19 degrees of freedom stays below it in 95 % of cases.
_T_19 = 2.093

_LOCAL: dict[str, Any] = {"local_steps": 100, "batch_size": 4}
_TAU = 1e-8
_REDDI: dict[str, Any] = {"bias_correction": False, "initial_accumulator": 0.0}
_BETAS = (0.9, 0.999)

METHODS: dict[str, fp.FedAvg] = {
    "FedAvg": fp.FedAvg(lr=0.001, **_LOCAL),
    "FedProx": fp.FedProx(lr=0.001, mu=0.01, **_LOCAL),
    "SCAFFOLD": fp.SCAFFOLD(lr=0.001, **_LOCAL),
    "Cyclic": fp.Cyclic(lr=0.01, **_LOCAL),
    "FedAdam": fp.FedAdam(
        lr=0.01, server_lr=0.01, server_optimizer=fp.Adam(betas=_BETAS, eps=_TAU, **_REDDI), **_LOCAL
    ),
    "FedAdagrad": fp.FedAdagrad(
        lr=0.003162, server_lr=0.316228, server_optimizer=fp.Adagrad(beta1=_BETAS[0], eps=_TAU), **_LOCAL
    ),
    "FedYogi": fp.FedYogi(
        lr=0.003162, server_lr=0.01, server_optimizer=fp.Yogi(betas=_BETAS, eps=_TAU, **_REDDI), **_LOCAL
    ),
}
# FLamby's FedAdagrad steps along a moving average of the updates, fp.FedAdagrad by default along the last one.
ADAGRAD_WITHOUT_AVERAGE = fp.FedAdagrad(
    lr=0.003162, server_lr=0.316228, server_optimizer=fp.Adagrad(eps=_TAU), **_LOCAL
)


@cache
def clients(scaling: Scaling) -> tuple[fp.ClientData, ...]:
    """Return the four centres: scaled, each by its own train rows, or as recorded where the job is to scale them."""
    centres = fp.datasets.heart()
    return tuple(map(_scaled_by_itself, centres) if scaling == "per centre" else centres)


def _scaled_by_itself(centre: fp.ClientData) -> fp.ClientData:
    # As FLamby's FedHeartDisease: the deviation of n − 1, and 1e-9 for Switzerland, where nobody's chol was measured.
    mean, deviation = centre.train.x.mean(), centre.train.x.std(ddof=1) + 1e-9
    train, test = (fp.Rows((rows.x - mean) / deviation, rows.y) for rows in (centre.train, held_out(centre)))
    return fp.ClientData(centre.id, train, test)


def held_out(centre: fp.ClientData) -> fp.Rows:
    """Return the rows that a centre keeps aside, which in this data set every centre does."""
    return cast(fp.Rows, centre.test)


def first_weights(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the weight [13] and bias [] that FLamby starts from: torch.nn.Linear's, uniform in ±1/√13."""
    torch.manual_seed(seed)
    linear = torch.nn.Linear(13, 1)
    return linear.weight.detach().numpy().reshape(13), linear.bias.detach().numpy().reshape(())


def train(
    algorithm: Any,
    rows: tuple[fp.ClientData, ...],
    seed: int,
    *,
    scaling: Scaling = "per centre",
    start: Start = "flamby",
    rounds: int = ROUNDS,
) -> fp.Result:
    """Train a logistic regression from FLamby's first weights, from others like them, or from zeros."""
    model = fp.models.Logistic(init="uniform" if start == "uniform" else "zeros")
    with TemporaryDirectory() as folder:
        initial = None
        if start == "flamby":
            initial = Path(folder) / "first.safetensors"
            coef, intercept = first_weights(seed)
            save_file({"coef": coef, "intercept": intercept}, initial)
        return fp.train(
            model,
            rows,
            algorithm=algorithm,
            preprocess=[fp.Standardize()] if scaling == "federated" else [],
            rounds=rounds,
            evaluate_every=0,
            initial=initial,
            seed=seed,
        )


@cache
def accuracies(
    algorithm: Any, scaling: Scaling, start: Start = "flamby", seeds: tuple[int, ...] = SEEDS
) -> pd.DataFrame:
    """Return the accuracy at each centre: one row for each seed, one column for each centre."""
    rows = clients(scaling)
    return _table(
        {seed: train(algorithm, rows, seed, scaling=scaling, start=start).evaluation for seed in seeds}
    )


@cache
def newton(scaling: Scaling) -> pd.DataFrame:
    """Return the accuracy of the converged regression, which depends on no seed."""
    result = train(fp.Newton(), clients(scaling), 0, scaling=scaling, start="zeros", rounds=25)
    return _table({0: result.evaluation})


@cache
def cleveland_alone() -> pd.DataFrame:
    """Return what comes of as many rounds on Cleveland's rows alone as Cleveland has turns in FLamby's Cyclic."""
    centres = clients("per centre")
    algorithm = fp.FedAvg(lr=METHODS["Cyclic"].lr, **_LOCAL)
    models = {seed: train(algorithm, centres[:1], seed, rounds=cleveland_turns(seed)) for seed in SEEDS}
    return _table({seed: model.evaluate(centres) for seed, model in models.items()})


def cleveland_turns(seed: int) -> int:
    """Return how often Cleveland's turn comes in 15 rounds, by the orders that FLamby draws."""
    generator = np.random.default_rng(seed)
    order = np.concatenate([generator.permutation(4) for _ in range(4)])
    return int(np.sum(order[:ROUNDS] == 0))


def judged(method: str) -> pd.DataFrame:
    """Return the accuracies of what FLamby's row of this name measures: for Cyclic, Cleveland alone."""
    return cleveland_alone() if method == "Cyclic" else accuracies(METHODS[method], "per centre")


def differ(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Return whether two methods differ at the 5 % level: a t-test paired over the 20 pairs of seed and centre."""
    difference = (one - other).to_numpy().ravel()
    error = difference.std(ddof=1) / np.sqrt(difference.size)
    return bool(abs(difference.mean()) > _T_19 * error)


def _table(evaluations: dict[int, Any]) -> pd.DataFrame:
    accuracy = {
        seed: {centre: evaluation.clients[centre]["accuracy"] for centre in CENTRES}
        for seed, evaluation in evaluations.items()
    }
    return pd.DataFrame.from_dict(accuracy, orient="index", columns=CENTRES).rename_axis("seed")
