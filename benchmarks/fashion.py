"""Fashion-MNIST dealt to many clients, and judged on images that none of them has."""

from functools import cache
from typing import Any

import numpy as np

import fedpact as fp


@cache
def _pooled() -> fp.ClientData:
    return fp.datasets.fashion_mnist().pooled()


@cache
def dealt(clients: int, alpha: float) -> fp.Population:
    """Return a population that shares the 56,000 or so training images, with labels skewed by Dir(alpha)."""
    rows = _pooled().train
    parts = fp.partition.dirichlet(rows, clients, alpha=alpha, min_rows=10)
    order = np.concatenate(list(parts.values()))
    sizes = [len(part) for part in parts.values()]
    images: Any = rows.x
    return fp.populations.arrays(images[order], rows.y[order], sizes=sizes, classes=range(10))


def accuracy(result: fp.Result) -> float:
    """Return the share of the 14,000 or so images held out of which the model finds the class."""
    test = _pooled().test
    assert test is not None
    return result.evaluate([fp.ClientData("held out", test, test)]).metrics["accuracy"]
