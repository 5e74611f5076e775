"""Machine failures that are rare: three qualities of a product, ten ways to learn from their rows, two models.

The rows are those of the AI4I 2020 Predictive Maintenance Dataset (Matzka, "Explainable Artificial Intelligence for
Predictive Maintenance Applications", AI4I 2020), which are synthetic: 10,000 of them, of which 339 (3.4 %) are
failures. The quality of the product, L, M or H, says whose rows they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score

import fedpact as fp
from fedpact.core.errors import DataError
from fedpact.data.datasets.download import find

SEEDS = (42, 43, 44, 45, 46)
ROUNDS, STEPS = 100, 50
METRICS = ("recall", "precision", "F1", "average precision")

_LABEL, _QUALITY = "Machine failure", "Type"
# Numbers of single products, and the kinds of failure, of which the label is put together.
_LEFT_OUT = ("UDI", "Product ID", "TWF", "HDF", "PWF", "OSF", "RNF")


@dataclass(frozen=True)
class Remedy:
    """What is done about a rare class.

    Args:
        steps: at the end of preprocessing.
        model: settings of the model.
    """

    steps: tuple[Any, ...] = ()
    model: Mapping[str, Any] = field(default_factory=dict)


REMEDIES = {
    "nothing": Remedy(),
    '`class_weight="balanced"`': Remedy(model={"class_weight": "balanced"}),
    "`Focal(gamma=2)`": Remedy(model={"loss": fp.Focal(gamma=2.0)}),
    '`Focal(gamma=2)`, `class_weight="balanced"`': Remedy(
        model={"loss": fp.Focal(gamma=2.0), "class_weight": "balanced"}
    ),
    "`ExtraPasses()`": Remedy((fp.ExtraPasses(),)),
    "`OverSample()`": Remedy((fp.OverSample(),)),
    "`UnderSample()`": Remedy((fp.UnderSample(),)),
    "`SMOTE()`": Remedy((fp.SMOTE(),)),
    '`SMOTE(kind="borderline-1")`': Remedy((fp.SMOTE(kind="borderline-1"),)),
    "`ADASYN()`": Remedy((fp.ADASYN(),)),
}
# Besides, on all rows in one table.
POOLED = ("nothing", '`class_weight="balanced"`', "`SMOTE()`")
MODELS = ("logistic regression", "network")
# The share of failures in all rows.
SHARE = 0.034


@cache
def _table() -> pd.DataFrame:
    path = find("ai4i2020", "ai4i2020.csv")
    if path is None:
        raise DataError(
            "there is no ai4i2020/ai4i2020.csv in the folder that FEDPACT_DATA names; take it from "
            "https://doi.org/10.24432/C5HS5C."
        )
    return pd.read_csv(path).drop(columns=list(_LEFT_OUT))


def factories(seed: int) -> fp.Federation:
    """Return a client for each quality of the product, a quarter of whose rows are held aside, by class."""
    tables = {quality: rows.drop(columns=_QUALITY) for quality, rows in _table().groupby(_QUALITY)}
    return fp.clients(tables, label=_LABEL, test=0.25, seed=seed, stratify=True)


def _model(name: str, settings: Mapping[str, Any]) -> tuple[Any, float]:
    """Return a model and its learning rate."""
    if name == "logistic regression":
        return fp.models.Logistic(**settings), 0.3
    from torch import nn

    layers = nn.Sequential(nn.Linear(5, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))
    return fp.models.Torch(layers, init="seed", **settings), 0.2


def train(clients: Sequence[Any], model: str, remedy: Remedy, seed: int, steps: int = STEPS) -> fp.Result:
    """Return a run of so many rounds and local steps; statistics and weights are of the training rows."""
    made, lr = _model(model, remedy.model)
    return fp.train(
        made,
        clients,
        preprocess=[fp.Standardize(), *remedy.steps],
        algorithm=fp.FedAvg(lr=lr, local_steps=steps, batch_size=64),
        rounds=ROUNDS,
        evaluate_every=0,
        seed=seed,
        engine="in_process",
        progress=False,
    )


def judged(result: fp.Result, clients: fp.Federation, threshold: float = 0.5) -> list[float]:
    """Return the `METRICS` of failures on all test rows, the first three at a probability of `threshold`."""
    held_out = [client.test for client in clients]
    truth = np.concatenate([np.asarray(rows.y) for rows in held_out])
    scores = np.concatenate([result.predict_proba(rows.x)[:, 1] for rows in held_out])
    told = scores > threshold
    return [
        float(recall_score(truth, told)),
        float(precision_score(truth, told, zero_division=0)),
        float(f1_score(truth, told)),
        float(average_precision_score(truth, scores)),
    ]


def measured(
    model: str,
    remedy: Remedy,
    pooled: bool = False,
    threshold: float = 0.5,
    seeds: Sequence[int] = SEEDS,
) -> list[list[float]]:
    """Return the metrics of each seed; of all rows in one table after as many steps as the three take together."""
    found = []
    for seed in seeds:
        clients = factories(seed)
        if pooled:
            result = train([clients.pooled()], model, remedy, seed, steps=len(clients) * STEPS)
        else:
            result = train(list(clients), model, remedy, seed)
        found.append(judged(result, clients, threshold))
    return found
