"""Print the tables of docs/heart-missing.md: all 920 patients, with federated imputation of what was not recorded."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from flamby_heart import CENTRES, METHODS, ROUNDS, SEEDS
from tables import PER_CENTRE, cells, heading, line

import fedpact as fp

L2 = 1e-2
RARELY_RECORDED = ("slope", "ca", "thal")
PREPARE = [
    fp.Impute("median"),
    fp.Impute("most_frequent"),
    fp.OneHot(drop_first=True),
    fp.Standardize(),
]
FEDAVG = fp.FedAvg(lr=0.003, local_steps=100, batch_size=4)

Clients = Sequence[fp.ClientData]


def main() -> None:
    """Print every table, as Markdown."""
    heading("What was not recorded, in percent of a centre's rows", ["", *CENTRES])
    for name, shares in missing().iterrows():
        line(str(name), [f"{100 * shares[centre]:.0f}" for centre in CENTRES])
    for title, without in (
        ("Ten features: without slope, ca and thal", RARELY_RECORDED),
        ("All thirteen features", ()),
    ):
        heading(title, PER_CENTRE)
        line("the more frequent answer of each centre", cells(over_seeds(without, without_a_model)))
        line("each centre by its own model, Newton", cells(over_seeds(without, at_home)))
        for centre in CENTRES:
            line(f"all by the model of {centre} alone, Newton", cells(over_seeds(without, alone(centre))))
        for label, algorithm in {**METHODS, "FedAvg at rate 0.003": FEDAVG, "Newton": fp.Newton()}.items():
            line(f"federated, {label}", cells(over_seeds(without, federated(algorithm))))
        line(
            "pooled, FedAvg at rate 0.003", cells(over_seeds(without, pooled(FEDAVG, ROUNDS * len(CENTRES))))
        )
        line("pooled, Newton", cells(over_seeds(without, pooled(fp.Newton(), 25))))


@cache
def centres(seed: int, without: tuple[str, ...]) -> tuple[fp.ClientData, ...]:
    """Return the centres with all their rows, a quarter of them held out as the seed draws."""
    return tuple(
        fp.ClientData(each.id, *(_without(rows, without) for rows in (each.train, each.test)))
        for each in fp.datasets.heart(variant="full", seed=seed)
    )


def missing() -> pd.DataFrame:
    """Return the share of rows in which a feature is missing: one row for each feature, a column for each centre."""
    whole = {each.id: pd.concat([each.train.x, each.test.x]).isna().mean() for each in centres(0, ())}
    table = pd.DataFrame(whole)
    return table[table.any(axis=1)]


def over_seeds(
    without: tuple[str, ...], accuracies: Callable[[Clients, int], dict[str, float]]
) -> pd.DataFrame:
    """Return the accuracy on each centre's own test rows: one row for each seed, one column for each centre."""
    found = {seed: accuracies(centres(seed, without), seed) for seed in SEEDS}
    return pd.DataFrame.from_dict(found, orient="index", columns=CENTRES).rename_axis("seed")


def federated(algorithm: Any) -> Callable[[Clients, int], dict[str, float]]:
    """Return what trains one model over the centres and judges it at each."""
    rounds = 25 if isinstance(algorithm, fp.Newton) else ROUNDS
    return lambda clients, seed: _judged(train(clients, algorithm, rounds, seed), clients)


def pooled(algorithm: Any, rounds: int) -> Callable[[Clients, int], dict[str, float]]:
    """Return what trains one model on the rows of all centres in one place and judges it at each."""
    return lambda clients, seed: _judged(
        train([fp.Federation(tuple(clients)).pooled()], algorithm, rounds, seed), clients
    )


def alone(centre: str) -> Callable[[Clients, int], dict[str, float]]:
    """Return what trains a model on the rows of one centre, prepared by its own statistics, and judges it at each."""
    return lambda clients, seed: _judged(
        train([each for each in clients if each.id == centre], fp.Newton(), 25, seed), clients
    )


def at_home(clients: Clients, seed: int) -> dict[str, float]:
    """Return the accuracy of each centre's own model on its own test rows."""
    return {centre: alone(centre)(clients, seed)[centre] for centre in CENTRES}


def without_a_model(clients: Clients, seed: int) -> dict[str, float]:
    """Return how often the more frequent label of a centre's train rows is that of its test rows."""
    return {each.id: float(np.mean(each.test.y == (each.train.y.mean() > 0.5))) for each in clients}


def train(clients: Clients, algorithm: Any, rounds: int, seed: int) -> fp.Result:
    """Train a logistic regression, from zeros, with rows that the clients prepare together."""
    return fp.train(
        fp.models.Logistic(l2=L2),
        clients,
        algorithm=algorithm,
        preprocess=PREPARE,
        rounds=rounds,
        evaluate_every=0,
        seed=seed,
    )


def _judged(result: fp.Result, clients: Clients) -> dict[str, float]:
    return {id: each["accuracy"] for id, each in result.evaluate(clients).clients.items()}


def _without(rows: Any, columns: tuple[str, ...]) -> fp.Rows:
    return fp.Rows(rows.x.drop(columns=list(columns)), rows.y)


if __name__ == "__main__":
    main()
