"""Focal loss: a log loss that rows which are well predicted hardly count in.

Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equation 4; with the weights of classes as its α, 5.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fedpact.core.errors import ConfigError
from fedpact.core.settings import check_numbers
from fedpact.learn.links import Floats, softplus


@dataclass(frozen=True)
class Focal:
    """Focal loss, −(1 − p)^γ·log p of the probability p that a model gives a row's own class.

    A model's `class_weight` is the α of the paper.

    Args:
        gamma: γ, how much less well-predicted rows count, ≥ 0; 0 is the log loss.

    Raises:
        ConfigError: gamma is no number, or negative.
    """

    gamma: float = 2.0

    def __post_init__(self) -> None:
        check_numbers(self, "gamma")


def check_loss(part: Any) -> None:
    """Check that a part's setting `loss` is a `Focal` or None.

    Raises:
        ConfigError: it is something else.
    """
    if part.loss is not None and not isinstance(part.loss, Focal):
        raise ConfigError(
            f"{type(part).__name__}: loss is {part.loss!r}; it must be fp.Focal(gamma=...), or None for the log loss."
        )


def binary_losses(scores: Floats, y: Floats, gamma: float) -> Floats:
    """Return each row's loss of its score and its label, 0 or 1."""
    return _losses(np.where(y > 0, scores, -scores), gamma)


def binary_slopes(scores: Floats, y: Floats, gamma: float) -> Floats:
    """Return the derivative of each row's loss by its score."""
    sign = np.where(y > 0, 1.0, -1.0)
    return sign * _slopes(sign * scores, gamma)


def multiclass_losses(scores: Floats, y: Floats, gamma: float) -> Floats:
    """Return each row's loss of its scores [..., classes] and its label, 0s and a 1 [..., classes]."""
    return _losses(_margins(scores, y)[0], gamma)


def multiclass_slopes(scores: Floats, y: Floats, gamma: float) -> Floats:
    """Return the derivative of each row's loss by its scores [..., classes]."""
    margins, others = _margins(scores, y)
    return _slopes(margins, gamma)[..., None] * (y - others)


def _losses(margins: Floats, gamma: float) -> Floats:
    """Return the losses where log p − log(1 − p) is the margin: neither logarithm is lost where p is nearly 0 or 1."""
    return np.exp(-gamma * softplus(margins)) * softplus(-margins)


def _slopes(margins: Floats, gamma: float) -> Floats:
    """Return the derivatives of the losses by the margins, −q^γ·(γ·p·(−log p) + q) with q = 1 − p."""
    hit, missed = -softplus(-margins), -softplus(margins)
    return -np.exp(gamma * missed) * (np.exp(missed) - gamma * np.exp(hit) * hit)


def _margins(scores: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return each row's margin, and the softmax of the other classes' scores [..., classes], which is its slope."""
    others = np.where(y > 0, -np.inf, scores)
    top = others.max(axis=-1, keepdims=True)
    powers = np.exp(others - top)
    total = powers.sum(axis=-1, keepdims=True)
    own = np.sum(scores * y, axis=-1)
    return own - (top + np.log(total))[..., 0], powers / total
