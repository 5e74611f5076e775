"""A client that stands for all of a population: every label that occurs, examples like everyone's."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.rows import ClientData, Rows
from fedpact.data.split import MOST_CLASSES

# A label that is no class: where the labels are numbers to predict, one of them says as much as all.
_A_NUMBER = (0.5,)


def standing_for_all(example: ClientData, labels: Sequence[Any] | NDArray[Any]) -> ClientData:
    """Return a client with examples like this one's, and these labels.

    Args:
        example: any client, or part of one.
        labels: each at least once; none where labels are numbers to predict.
    """
    given = np.asarray(labels if len(labels) else _A_NUMBER)
    rows = len(example.train)
    # What a table's columns hold is told from all rows of them, and an array's shape from any.
    n = max(rows if hasattr(example.train.x, "columns") else 1, len(given))
    x = example.train.x if n == rows else example.train.take(np.arange(n) % rows).x
    y = given[np.arange(n) % len(given)]
    # Where there is a label for each position of an example, a row of the stand-in has the same at all.
    positions = () if example.train.y is None else np.shape(example.train.y)[1:]
    y = np.broadcast_to(y.reshape(n, *(1 for _ in positions)), (n, *positions))
    return ClientData(example.id, Rows(x, y))


def distinct(parts: Iterable[NDArray[Any]]) -> NDArray[Any]:
    """Return the different labels of all parts, ascending; no more than it takes to see that they are no classes."""
    found: NDArray[Any] | None = None
    for part in parts:
        values = np.unique(part)
        found = values if found is None else np.unique(np.concatenate([found, values]))
        if len(found) > MOST_CLASSES:
            return found[: MOST_CLASSES + 1]
    return np.empty(0) if found is None else found
