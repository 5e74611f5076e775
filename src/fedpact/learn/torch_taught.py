"""Torch classifiers that learn from class probabilities instead of labels.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, Section 2.
"""

import copy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, stack
from torch.nn import functional

from fedpact.core.vector import Vector

if TYPE_CHECKING:
    from fedpact.learn.torch import TorchModel


class Teachable:
    """What makes a torch model a `fedpact.core.model.TeachableModel`."""

    def scores(self: "TorchModel", weights: Vector, x: Any) -> NDArray[np.float64]:  # type: ignore[misc]
        """Return the logits of each row less their mean [n, classes].

        Raises:
            DataError: x is not numeric, or its examples have another shape.
            ModelError: the weights are another model's.
            ClientError: the module fails on these examples.
        """
        scores = self.session().predict(weights, x, centred).astype(np.float64)
        # Of two classes a prediction says the second one's.
        return np.stack([-scores, scores], axis=1) if self.schema.kind == "binary" else scores

    def taught(self: "TorchModel", temperature: float) -> "TorchModel":  # type: ignore[misc]
        """Return this classifier as it learns from class probabilities [n, classes], its rows' labels.

        The loss of a row is T²·KL(label ‖ softmax(scores / T)).
        """
        # With the model, so that its sessions are as few as those of the model.
        twins: dict[tuple[str, float], TorchModel] = vars(self).setdefault("_twins", {})
        key = str(self.device), temperature
        if key not in twins:
            twin = copy.copy(self)
            twin.loss = partial(divergence, temperature)
            # What the labels are of is the rows as they are.
            twin.spec = replace(twin.spec, augment=())
            twin._sessions = {}
            twins[key] = twin
        return twins[key]


def centred(outputs: Tensor) -> Tensor:
    """Return logits less their mean: of outputs [n] of two classes the second one's."""
    return outputs / 2 if outputs.ndim == 1 else outputs - outputs.mean(dim=1, keepdim=True)


def divergence(temperature: float, outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of T²·KL(label ‖ softmax(scores / T)) over the rows.

    Args:
        temperature: T.
        outputs: logits [n, classes], or [n] of two classes.
        labels: class probabilities [n, classes].
    """
    scores = stack([-outputs / 2, outputs / 2], dim=1) if outputs.ndim == 1 else outputs
    logs = functional.log_softmax(scores / temperature, dim=1)
    return temperature**2 * functional.kl_div(logs, labels, reduction="batchmean")
