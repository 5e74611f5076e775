"""What a linear model minimises: each row's loss of its scores, with the weight of its class."""

from dataclasses import dataclass

import numpy as np

from fedpact.core.model import Kind
from fedpact.learn import focal
from fedpact.learn.links import LINKS, LOSSES, Floats


@dataclass(frozen=True, eq=False)
class ScoreLoss:
    """The loss of each row: squared error, log loss or focal loss, times the weight of its class.

    Scores are [...], or [..., classes] among three classes or more; labels likewise, 0s and a 1.

    Args:
        kind: of label.
        gamma: of the focal loss; 0 for the log loss.
        weights: what a row of each class counts [classes]; None where each counts 1.
    """

    kind: Kind
    gamma: float = 0.0
    weights: Floats | None = None

    def losses(self, scores: Floats, y: Floats) -> Floats:
        """Return the losses [...]."""
        if not self.gamma:
            return self.weighed(LOSSES[self.kind](scores, y), y)
        of_rows = focal.multiclass_losses if self.kind == "multiclass" else focal.binary_losses
        return self.weighed(of_rows(scores, y, self.gamma), y)

    def slopes(self, scores: Floats, y: Floats) -> Floats:
        """Return the derivatives of the losses by the scores, of the scores' shape, in an array of their own."""
        if self.gamma:
            of_rows = focal.multiclass_slopes if self.kind == "multiclass" else focal.binary_slopes
            return self.weighed(of_rows(scores, y, self.gamma), y)
        if self.kind == "regression":
            return scores - y
        slopes = LINKS[self.kind](scores)
        slopes -= y
        return self.weighed(slopes, y)

    def weighed(self, values: Floats, y: Floats) -> Floats:
        """Return values of rows [...], or [..., classes], times the weights of their classes."""
        if self.weights is None:
            return values
        if self.kind != "multiclass":
            return values * np.where(y > 0, self.weights[1], self.weights[0])
        weights = y @ self.weights
        return values * (weights if values.ndim == weights.ndim else weights[..., None])
