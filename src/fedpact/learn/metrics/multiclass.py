"""Evaluation of a classifier of K classes, from the probabilities of all of them."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedpact.core.errors import ConfigError
from fedpact.learn.metrics import checks, confusion, probability, ranking

NAMES: tuple[str, ...] = (
    "accuracy",
    "balanced_accuracy",
    "f1",
    "f1_weighted",
    "mcc",
    "log_loss",
    "auc",
    "auc_error",
    "ece",
)

# Histograms of scores take K·2·1024 counts: 1.6 MB at this many classes, the last at which they are sent.
MAX_RANKED_CLASSES = 100


def shapes(n_classes: int) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the statistics. Raises ConfigError for fewer than two classes."""
    if n_classes < 2:
        raise ConfigError(f"A classifier needs at least 2 classes, not {n_classes}.")
    found: dict[str, tuple[int, ...]] = {
        "count": (1,),
        "confusion": (n_classes, n_classes),
        "log_loss": (1,),
        **probability.CALIBRATION_SHAPES,
    }
    if n_classes <= MAX_RANKED_CLASSES:
        found["scores"] = (n_classes, 2, ranking.MULTICLASS_BINS)
    return found


def statistics(y_true: ArrayLike, y_score: ArrayLike, n_classes: int) -> dict[str, NDArray[np.float64]]:
    """Return the sums over rows, from labels [n] and class probabilities [n, n_classes]."""
    true = checks.labels(y_true, n_classes)
    score, epsilon = checks.probabilities(y_score, (true.size, n_classes))
    predicted = score.argmax(axis=1)
    row = np.arange(true.size)
    found = {
        "count": np.array([true.size], dtype=np.float64),
        "confusion": confusion.confusion(true, predicted, n_classes),
        "log_loss": probability.log_loss(score[row, true], epsilon),
        **probability.calibration(predicted == true, score[row, predicted]),
    }
    if n_classes <= MAX_RANKED_CLASSES:
        found["scores"] = np.stack(
            [ranking.histogram(true == k, score[:, k], ranking.MULTICLASS_BINS) for k in range(n_classes)]
        )
    return found


def metrics(sums: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """Return the metrics of summed statistics, F1 and AUC being means over the classes."""
    matrix, count = sums["confusion"], sums["count"][0]
    auc, auc_error = float("nan"), float("nan")
    if "scores" in sums:
        # A class without rows makes the mean NaN, as in scikit-learn: left out, it would be another metric.
        auc, auc_error = np.mean([ranking.auc(counts) for counts in sums["scores"]], axis=0).tolist()
    return {
        "accuracy": confusion.accuracy(matrix),
        "balanced_accuracy": confusion.balanced_accuracy(matrix),
        "f1": confusion.mean_of_defined(confusion.f1(matrix)),
        "f1_weighted": confusion.f1_weighted(matrix),
        "mcc": confusion.mcc(matrix),
        "log_loss": float(sums["log_loss"][0] / count),
        "auc": auc,
        "auc_error": auc_error,
        "ece": probability.expected_calibration_error(sums),
    }
