"""What the tests of reports share: small runs of every kind, with names that must be escaped."""

from collections.abc import Sequence
from typing import Any

import numpy as np

import fedpact as fp
from fedpact.core.rows import ClientData, Rows
from fedpact.engine.result import Result

HOSTILE = "<script>alert(1)</script> & \"Co\" 'x'"


def clients(kind: str, count: int = 3, rows: int = 24, held_out: int = 8, seed: int = 0) -> list[ClientData]:
    """Return clients with numbers to predict, or with two or three classes."""
    random = np.random.default_rng(seed)
    made = []
    for place in range(count):
        x = random.normal(size=(rows + held_out, 4))
        score = x[:, 0] + 0.5 * x[:, 1] + 0.3 * random.normal(size=len(x))
        y = {
            "regression": score,
            "binary": (score > 0).astype(np.int64),
            "multiclass": np.digitize(score, [-0.5, 0.5]).astype(np.int64),
        }[kind]
        test = Rows(x[rows:], y[rows:]) if held_out else None
        made.append(ClientData(f"client {place}", Rows(x[:rows], y[:rows]), test))
    return made


MODELS = {"regression": fp.models.Linear, "binary": fp.models.Logistic, "multiclass": fp.models.Softmax}


def trained(kind: str, given: Sequence[ClientData] | None = None, **options: Any) -> Result:
    """Return a small run."""
    settings = {"algorithm": fp.FedAvg(lr=0.1, local_steps=5), "rounds": 3, **options}
    return fp.train(MODELS[kind](), clients(kind) if given is None else given, **settings)
