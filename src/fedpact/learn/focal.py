"""Focal loss: a log loss that rows which are well predicted hardly count in.

Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equation 4; with the weights of classes as its α, 5.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fedpact.core.errors import ConfigError
from fedpact.core.settings import check_numbers
from fedpact.learn.links import Floats, softmax, softplus


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


class ClassLoss(Protocol):
    """A loss of classes that a model's setting `loss` may be besides the log loss: `Focal`."""

    @property
    def gamma(self) -> float: ...


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
    margin = np.where(y > 0, scores, -scores)
    return np.exp(-gamma * softplus(margin)) * softplus(-margin)


def binary_slopes(scores: Floats, y: Floats, gamma: float) -> Floats:
    """Return the derivative of each row's loss by its score."""
    sign = np.where(y > 0, 1.0, -1.0)
    margin = sign * scores
    missed = np.exp(-softplus(margin))
    # With q = 1 − p of the own class, the derivative by the margin is −q^γ·(γ·p·(−log p) + q).
    return -sign * np.exp(-gamma * softplus(margin)) * (gamma * (1 - missed) * softplus(-margin) + missed)


def multiclass_losses(scores: Floats, y: Floats, gamma: float) -> Floats:
    """Return each row's loss of its scores [..., classes] and its label, 0s and a 1 [..., classes]."""
    hit, missed, _ = _logs(scores, y)
    return np.exp(gamma * missed) * -hit


def multiclass_slopes(scores: Floats, y: Floats, gamma: float) -> Floats:
    """Return the derivative of each row's loss by its scores [..., classes]."""
    hit, missed, others = _logs(scores, y)
    size = np.exp(gamma * missed) * (gamma * np.exp(hit) * -hit + np.exp(missed))
    # The softmax less the label is q = 1 − p times this, and q^(γ−1), which may be infinite, is nowhere computed.
    return (softmax(others) - y) * size[..., None]


def _logs(scores: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """Return log p and log(1 − p) of each row's own class, and the scores with −∞ for it."""
    top = scores.max(axis=-1, keepdims=True)
    logs = scores - top - np.log(np.exp(scores - top).sum(axis=-1, keepdims=True))
    others = np.where(y > 0, -np.inf, logs)
    highest = others.max(axis=-1, keepdims=True)
    missed = highest[..., 0] + np.log(np.exp(others - highest).sum(axis=-1))
    return np.sum(logs * y, axis=-1), missed, others
