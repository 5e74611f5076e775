"""Logistic and softmax regression that learn from class probabilities instead of labels.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, Section 2.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import DataError
from fedpact.core.model import Schema
from fedpact.learn.linear import RegressionModel, RegressionSession
from fedpact.learn.links import Floats, softmax
from fedpact.learn.score_losses import ScoreLoss


class TaughtRegression(RegressionModel):
    """A logistic or softmax regression whose rows' labels are class probabilities [n, classes].

    The loss of a row is T²·KL(label ‖ softmax(scores / T)).
    """

    def __init__(self, schema: Schema, l2: float, temperature: float) -> None:
        super().__init__(schema, l2, "zeros", ScoreLoss(schema.kind))
        self.temperature = temperature

    def session(self) -> "TaughtSession":
        """Return this thread's session."""
        if not hasattr(self._sessions, "session"):
            self._sessions.session = TaughtSession(self, self.temperature)
        return self._sessions.session

    def __reduce__(self) -> tuple[Any, ...]:
        return TaughtRegression, (self.schema, self.l2, self.temperature)

    def unstackable(self) -> str | None:
        """Probabilities are learned from by one client at a time."""
        return "the model learns from probabilities"

    def targets(self, labels: NDArray[Any] | None) -> Floats:
        """Return class probabilities as the loss takes them [n, classes].

        Raises:
            DataError: there are none.
        """
        if labels is None:
            raise DataError("the rows have no class probabilities to learn from.")
        return labels.astype(np.float64)


class TaughtSession(RegressionSession):
    """One taught regression's gradients, computed in place on flat weights."""

    def __init__(self, model: TaughtRegression, temperature: float) -> None:
        super().__init__(model)
        self._temperature = temperature
        self._binary = model.schema.kind == "binary"

    def _gradient_of(self, x: Floats, y: NDArray[Any]) -> float:
        heat, flat = self._temperature, self.gradients[0]
        if self._binary:
            scores = x @ self.weights[0]
            scores = np.stack([-scores / 2, scores / 2], axis=1)
        else:
            scores = self._model._scores(self._weights, x)
        predicted = softmax(scores / heat)
        # The derivative of T²·KL by a score is T·(softmax(scores / T) − label).
        residual = heat * (predicted - y) / len(x)
        if self._binary:
            np.matmul(residual[:, 1], x, out=flat)
        else:
            np.matmul(residual.T, x, out=self._gradient["coef"])
            np.sum(residual, axis=0, out=self._gradient["intercept"])
        if self._model.l2:
            flat += self._penalty * self.weights[0]
        return heat**2 * float(_divergences(y, scores / heat).mean())


def _divergences(labels: Floats, scores: Floats) -> Floats:
    """Return KL(label ‖ softmax(scores)) of each row; 0·log 0 is 0."""
    top = scores.max(axis=1, keepdims=True)
    logs = scores - top - np.log(np.exp(scores - top).sum(axis=1, keepdims=True))
    known = np.log(labels, out=np.zeros_like(labels), where=labels > 0)
    return np.asarray(np.sum(labels * (known - logs), axis=1))
