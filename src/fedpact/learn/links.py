"""How the scores of a linear model become predictions and losses."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from fedpact.core.model import Kind

Floats = NDArray[np.float64]


def softmax(scores: Floats) -> Floats:
    """Return class probabilities [..., classes] of scores [..., classes]."""
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))


def _sigmoid(scores: Floats) -> Floats:
    # exp of a negative number cannot overflow; tanh is the same function and one call.
    return 0.5 * (1.0 + np.tanh(0.5 * scores))


# P(class 1) [n], class probabilities [n, classes], or values [n].
LINKS: Mapping[Kind, Callable[[Floats], Floats]] = {
    "binary": _sigmoid,
    "multiclass": softmax,
    "regression": lambda scores: scores,
}


def softplus(scores: Floats) -> Floats:
    """Return log(1 + exp(score)) of each score, whatever its size."""
    # Half the time of logaddexp.
    return np.maximum(scores, 0.0) + np.log1p(np.exp(-np.abs(scores)))


def _log_sum_exp(scores: Floats) -> Floats:
    top = scores.max(axis=-1)
    return np.asarray(top + np.log(np.exp(scores - top[..., None]).sum(axis=-1)))


# Each row's loss, of its score or scores [..., classes] and its label: among three classes or more, 0s and a 1.
LOSSES: Mapping[Kind, Callable[[Floats, Floats], Floats]] = {
    "binary": lambda scores, y: softplus(scores) - y * scores,
    "multiclass": lambda scores, y: _log_sum_exp(scores) - np.sum(scores * y, axis=-1),
    "regression": lambda scores, y: 0.5 * np.square(scores - y),
}
