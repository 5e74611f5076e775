"""Evaluation of a classifier of two classes, from the probability of class 1."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedpact.core.errors import ConfigError
from fedpact.learn.metrics import checks, confusion, probability, ranking

NAMES: tuple[str, ...] = (
    "accuracy",
    "balanced_accuracy",
    "precision",
    "recall",
    "f1",
    "mcc",
    "log_loss",
    "brier",
    "auc",
    "auc_error",
    "average_precision",
    "average_precision_error",
    "ece",
)


def shapes(n_classes: int) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the statistics. Raises ConfigError unless there are two classes."""
    if n_classes != 2:
        raise ConfigError(f'A binary classifier has 2 classes, not {n_classes}: use the kind "multiclass".')
    return {
        "count": (1,),
        "confusion": (2, 2),
        "log_loss": (1,),
        "brier": (1,),
        "scores": (2, ranking.BINARY_BINS),
        **probability.CALIBRATION_SHAPES,
    }


def statistics(y_true: ArrayLike, y_score: ArrayLike, n_classes: int) -> dict[str, NDArray[np.float64]]:
    """Return the sums over rows, from labels [n] and probabilities of class 1 [n]."""
    true = checks.labels(y_true, n_classes)
    score, epsilon = checks.probabilities(y_score, true.shape)
    is_positive = true == 1
    return {
        "count": np.array([true.size], dtype=np.float64),
        # Strictly above: argmax gives [0.5, 0.5] to class 0, and so does scikit-learn's predict.
        "confusion": confusion.confusion(true, (score > 0.5).astype(np.intp), n_classes),
        "log_loss": probability.log_loss(np.where(is_positive, score, 1.0 - score), epsilon),
        "brier": np.array([np.sum((score - is_positive) ** 2)]),
        "scores": ranking.histogram(is_positive, score, ranking.BINARY_BINS),
        **probability.calibration(is_positive, score),
    }


def metrics(sums: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """Return the metrics of summed statistics, precision, recall and F1 being those of class 1."""
    matrix, count = sums["confusion"], sums["count"][0]
    auc, auc_error = ranking.auc(sums["scores"])
    average_precision, average_precision_error = ranking.average_precision(sums["scores"])
    return {
        "accuracy": confusion.accuracy(matrix),
        "balanced_accuracy": confusion.balanced_accuracy(matrix),
        "precision": float(confusion.precision(matrix)[1]),
        "recall": float(confusion.recall(matrix)[1]),
        "f1": float(confusion.f1(matrix)[1]),
        "mcc": confusion.mcc(matrix),
        "log_loss": float(sums["log_loss"][0] / count),
        "brier": float(sums["brier"][0] / count),
        "auc": auc,
        "auc_error": auc_error,
        "average_precision": average_precision,
        "average_precision_error": average_precision_error,
        "ece": probability.expected_calibration_error(sums),
    }
