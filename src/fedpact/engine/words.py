"""Numbers and names as people read them."""

from collections.abc import Iterable
from math import isfinite, isnan
from typing import Literal, NamedTuple

MISSING = "–"


class MetricWords(NamedTuple):
    """What a metric is called, what it says, and how it is written.

    A share is written in per cent, a score to three decimals, an amount to about four figures.
    """

    label: str
    meaning: str
    scale: Literal["share", "score", "amount"] = "score"


METRICS: dict[str, MetricWords] = {
    "train_loss": MetricWords(
        "training loss", "the loss on the clients' training rows, averaged over the rows seen", "amount"
    ),
    "accuracy": MetricWords("accuracy", "the share of rows whose class is predicted right", "share"),
    "balanced_accuracy": MetricWords(
        "balanced accuracy", "the mean over classes of the share found", "share"
    ),
    "precision": MetricWords("precision", "of the rows predicted as class 1, the share that are", "share"),
    "recall": MetricWords("recall", "of the rows of class 1, the share found (sensitivity)", "share"),
    "f1": MetricWords("F1", "the harmonic mean of precision and recall; over classes, their mean"),
    "f1_weighted": MetricWords("weighted F1", "F1 averaged over classes by their rows"),
    "mcc": MetricWords("MCC", "Matthews correlation of predicted and true classes, from -1 to 1"),
    "log_loss": MetricWords("log loss", "minus the mean log of the probability given to the truth"),
    "brier": MetricWords("Brier score", "the mean squared error of the predicted probability"),
    "auc": MetricWords("AUC", "how often a row of class 1 scores above one of class 0; 0.5 is chance"),
    "auc_error": MetricWords(
        "AUC error", "how far the AUC may be from that of the scores themselves", "amount"
    ),
    "average_precision": MetricWords("average precision", "the area under the precision-recall curve"),
    "average_precision_error": MetricWords(
        "average precision error",
        "how far the average precision may be from that of the scores themselves",
        "amount",
    ),
    "ece": MetricWords("calibration error", "the mean gap between predicted and observed shares (ECE)"),
    "rmse": MetricWords("RMSE", "the root of the mean squared error, in the label's unit", "amount"),
    "mse": MetricWords("MSE", "the mean squared error", "amount"),
    "mae": MetricWords("MAE", "the mean absolute error, in the label's unit", "amount"),
    "r2": MetricWords("R²", "the share of the label's variance that is explained; 1 is all of it"),
    "bias": MetricWords("bias", "the mean of predicted minus observed", "amount"),
}

_MAIN = ("accuracy", "rmse")


def main_metric(names: Iterable[str]) -> str | None:
    """Return the metric that a run is summed up by: accuracy or RMSE, whichever it has; None for neither."""
    present = set(names)
    return next((name for name in _MAIN if name in present), None)


def label(metric: str) -> str:
    """Return what a metric is called."""
    return METRICS[metric].label if metric in METRICS else metric.replace("_", " ")


def capital(text: str) -> str:
    """Return a text with its first letter large."""
    return text[:1].upper() + text[1:]


def is_share(metric: str) -> bool:
    """Return whether a metric is a share, written in per cent."""
    return metric in METRICS and METRICS[metric].scale == "share"


def score(metric: str, value: float | None) -> str:
    """Return a metric's value as it is written; a dash for NaN or None.

    >>> score("accuracy", 0.9721), score("auc", 1.0), score("rmse", 12.3456), score("auc", float("nan"))
    ('97.2 %', '1.000', '12.35', '–')
    """
    if value is None or isnan(value):
        return MISSING
    if is_share(metric):
        return f"{100 * value:.1f} %"
    if metric in METRICS and METRICS[metric].scale == "score":
        return f"{value:.3f}"
    return number(value)


def number(value: float | None) -> str:
    """Return a number with about four figures.

    >>> [number(value) for value in (0.98765, 3.0, 12345.6, 0.0000123, None)]
    ['0.988', '3', '12,346', '1.23e-05', '–']
    """
    if value is None or isnan(value):
        return MISSING
    if not isfinite(value):
        return "∞" if value > 0 else "−∞"
    if value == int(value) and abs(value) < 1e15:
        return count(int(value))
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 1:
        return f"{value:.4g}"
    return f"{value:.3f}" if abs(value) >= 0.001 else f"{value:.3g}"


def count(value: int) -> str:
    """Return a whole number with separators."""
    return f"{value:,}"


def many(value: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun.

    >>> many(1, "round"), many(1200, "round"), many(2, "class", "classes")
    ('1 round', '1,200 rounds', '2 classes')
    """
    return f"{count(value)} {noun if value == 1 else plural or noun + 's'}"


def size(n_bytes: float) -> str:
    """Return a number of bytes in decimal units.

    >>> size(0), size(999), size(12_345), size(3_400_000_000)
    ('0 B', '999 B', '12.3 kB', '3.4 GB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 999.5:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:,.3g} TB"


def duration(seconds: float) -> str:
    """Return a length of time.

    >>> duration(0.0042), duration(3.14159), duration(83), duration(7300)
    ('4.2 ms', '3.1 s', '1 min 23 s', '2 h 1 min')
    """
    if seconds < 0.9995:
        return f"{seconds * 1000:.2g} ms" if seconds < 0.0995 else f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{count(hours)} h {minutes} min"


def listed(names: Iterable[str]) -> str:
    """Return names as a sentence lists them.

    >>> listed(["Lyon", "Osaka", "Quito"])
    'Lyon, Osaka and Quito'
    """
    *first, last = list(names) or [""]
    return f"{', '.join(first)} and {last}" if first else last
