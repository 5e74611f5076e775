"""The kinds of evaluation: what a client sums in each, and what the server makes of the sums."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedpact.core.errors import ConfigError, UpdateError, suggest
from fedpact.core.model import Kind
from fedpact.learn.metrics import binary, multiclass, regression

LARGER_IS_BETTER: dict[str, bool] = {
    "accuracy": True,
    "balanced_accuracy": True,
    "precision": True,
    "recall": True,
    "f1": True,
    "f1_weighted": True,
    "mcc": True,
    "log_loss": False,
    "brier": False,
    "auc": True,
    "auc_error": False,
    "average_precision": True,
    "average_precision_error": False,
    "ece": False,
    "rmse": False,
    "mse": False,
    "mae": False,
    "r2": True,
    "bias": False,  # by its size: a bias of -2 is as bad as one of 2
}


COUNTS = frozenset({"count", "confusion", "scores", "calibration_rows", "calibration_hits"})
"""The statistics that are whole numbers."""


class _Evaluation(Protocol):
    """What the module of each kind holds."""

    NAMES: tuple[str, ...]

    def shapes(self, n_classes: int) -> dict[str, tuple[int, ...]]: ...
    def statistics(
        self, y_true: ArrayLike, y_score: ArrayLike, n_classes: int
    ) -> dict[str, NDArray[np.float64]]: ...
    def metrics(self, sums: Mapping[str, NDArray[np.float64]]) -> dict[str, float]: ...


_EVALUATIONS: dict[str, _Evaluation] = {
    "binary": binary,
    "multiclass": multiclass,
    "regression": regression,
}


def shapes(kind: Kind, n_classes: int = 2) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the statistics that a client releases; all are float64.

    Raises ConfigError for an unknown kind, and for a number of classes that the kind cannot have.
    """
    return _evaluation(kind).shapes(n_classes)


def statistics(
    kind: Kind, y_true: ArrayLike, y_score: ArrayLike, n_classes: int = 2
) -> dict[str, NDArray[np.float64]]:
    """Return the sums over one client's rows that its metrics are made of.

    The statistics of two sets of rows add up to those of both, by plain addition of each array. Every
    kind has `count` [1], the number of rows.

    * binary: `confusion` [2, 2] (true, predicted; a score strictly above 0.5 is positive, as argmax and
      scikit-learn's `predict` decide), `log_loss` [1] (scores clipped to [eps, 1 - eps] of their own dtype,
      as in scikit-learn), `brier` [1], `scores` [2, 4096] (negatives and positives in equal bins on [0, 1]),
      and `calibration_rows`, `calibration_hits`, `calibration_scores` [15].
    * multiclass: `confusion` [K, K] (the first of the largest scores is predicted), `log_loss` [1], for up to
      100 classes `scores` [K, 2, 1024] (each class against the rest), and the calibration of the predicted
      class.
    * regression: `target`, `target_squared`, `error`, `error_squared`, `error_absolute` [1], an error being
      predicted minus observed.

    Those in `COUNTS` are whole numbers, so their sums are exact; the others depend on the order of addition in
    their last bits.

    Args:
        kind: what is evaluated.
        y_true: labels [n], whole numbers in 0..n_classes-1; for regression, the observed values [n].
        y_score: binary: the probability of class 1 [n]; multiclass: class probabilities [n, n_classes];
            regression: the predicted values [n].
        n_classes: how many classes there are; without meaning for regression.

    Raises:
        ConfigError: the kind is unknown, or cannot have this number of classes.
        DataError: shapes do not match, a score is NaN or no probability, a label is not a class.
    """
    evaluation = _evaluation(kind)
    evaluation.shapes(n_classes)
    return evaluation.statistics(y_true, y_score, n_classes)


def metrics(kind: Kind, sums: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """Return the metrics of all rows that went into summed statistics, by name, in the order of `names`.

    They are those of scikit-learn over the pooled rows. What these rows cannot tell is NaN, never an error
    and never a 0: everything for no rows; AUC and MCC where one class alone has rows; recall and average
    precision without positives, and precision and F1 if none is predicted either; R² of constant targets, or
    of ones that vary by less than a millionth of their size, which sums do not resolve; macro AUC when a
    class has no rows, or above 100 classes. As in scikit-learn, precision is 0 when there are positives and
    none is predicted, MCC is 0 when one class alone is predicted, and balanced accuracy and macro F1 leave
    out classes that do not occur.

    * binary: accuracy, balanced_accuracy, precision, recall, f1, mcc, log_loss, brier, auc, auc_error,
      average_precision, average_precision_error, ece.
    * multiclass: accuracy, balanced_accuracy, f1 (macro), f1_weighted, mcc, log_loss, auc (macro, one
      against the rest), auc_error, ece (of the predicted class).
    * regression: rmse, mse, mae, r2, bias (mean of predicted minus observed).

    `auc_error` and `average_precision_error` bound how far `auc` and `average_precision`, read off a
    histogram, may be from those of the scores themselves. They hold for exact sums, not for noisy ones.

    Raises:
        ConfigError: the kind is unknown.
        UpdateError: an array is missing or has another shape than `shapes` tells.
    """
    evaluation = _evaluation(kind)
    n_classes = len(sums["confusion"]) if kind == "multiclass" and "confusion" in sums else 2
    for name, shape in evaluation.shapes(n_classes).items():
        if name not in sums:
            raise UpdateError(
                f'The statistics of a {kind} evaluation lack "{name}": they have {", ".join(sums)}.'
            )
        if sums[name].shape != shape:
            raise UpdateError(
                f'The statistic "{name}" of a {kind} evaluation has shape {list(sums[name].shape)}; '
                f"expected {list(shape)}."
            )
    with np.errstate(divide="ignore", invalid="ignore"):
        return evaluation.metrics(sums)


def names(kind: Kind) -> tuple[str, ...]:
    """Return the names of the metrics of a kind. Raises ConfigError for an unknown kind."""
    return _evaluation(kind).NAMES


def check_name(name: str, kind: Kind | None = None) -> str:
    """Return the name of a metric if it is one, of this kind or of any.

    Raises ConfigError that names the nearest right one.
    """
    known = tuple(LARGER_IS_BETTER) if kind is None else names(kind)
    if name not in known:
        whose = "metric" if kind is None else f"metric of a {kind} evaluation"
        raise ConfigError(f'"{name}" is not a {whose}.{suggest(name, known)} There are: {", ".join(known)}.')
    return name


def _evaluation(kind: str) -> _Evaluation:
    if kind not in _EVALUATIONS:
        known = ", ".join(_EVALUATIONS)
        raise ConfigError(
            f'"{kind}" is not a kind of evaluation.{suggest(kind, _EVALUATIONS)} There are: {known}.'
        )
    return _EVALUATIONS[kind]
