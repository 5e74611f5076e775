"""How the scores of a linear model become predictions."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from fedpact.core.model import Kind

Floats = NDArray[np.float64]


def softmax(scores: Floats) -> Floats:
    """Return class probabilities [n, classes] of scores [n, classes]."""
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def _sigmoid(scores: Floats) -> Floats:
    # exp of a negative number cannot overflow; tanh is the same function and one call.
    return 0.5 * (1.0 + np.tanh(0.5 * scores))


# P(class 1) [n], class probabilities [n, classes], or values [n].
LINKS: Mapping[Kind, Callable[[Floats], Floats]] = {
    "binary": _sigmoid,
    "multiclass": softmax,
    "regression": lambda scores: scores,
}
