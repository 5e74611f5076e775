"""Metrics that rank rows (AUC, average precision), from histograms of the scores of each class.

A histogram forgets the order within a bin. The value given takes the rows of a bin as tied, which is the
exact metric of scores rounded to bins; the error given bounds its distance to the metric of the scores
themselves, over every order and every tie that the bins allow.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError

# Powers of two: multiplying a score by one is exact, so that no row is put in the wrong bin by rounding.
BINARY_BINS = 4096
MULTICLASS_BINS = 1024

Histogram = NDArray[np.float64]


class RocCurve(NamedTuple):
    """A ROC curve by falling threshold: two arrays [bins + 1], from (0, 0) to (1, 1)."""

    fpr: NDArray[np.float64]
    tpr: NDArray[np.float64]


def histogram(is_positive: NDArray[np.bool_], score: NDArray[np.float64], bins: int) -> Histogram:
    """Count scores in equal bins on [0, 1]: [2, bins], the rows being negatives and positives."""
    bin_of_row = (score * bins).astype(np.intp)
    np.minimum(bin_of_row, bins - 1, out=bin_of_row)
    bin_of_row += is_positive * np.intp(bins)
    return np.bincount(bin_of_row, minlength=2 * bins).reshape(2, bins).astype(np.float64)


def auc(counts: Histogram) -> tuple[float, float]:
    """Return the area under the ROC curve, and a bound on its error; both NaN unless both classes have rows.

    A pair in different bins is ordered for certain; one within a bin counts as a half and may be off by
    a half.
    """
    negatives, positives = counts
    below = np.cumsum(negatives) - negatives
    pairs = negatives.sum() * positives.sum()
    undecided = 0.5 * (positives @ negatives) / pairs
    return float((positives @ below) / pairs + undecided), float(undecided)


def average_precision(counts: Histogram) -> tuple[float, float]:
    """Return the average precision, and a bound on its error; both NaN when there are no positives.

    Highest bin first, let T positives and F negatives stand above a bin of p positives and q negatives.
    In any order of the bin, ties included, the precision at its i-th positive is

        at most  (T+p) / (T+p+F), reached when the positives are tied and above the negatives, and
        at least (T+i) / (T+i+F+q), reached when they come one by one below the negatives.

    The sum of the latter is bounded below by its integral from 1/2 to p+1/2, since it is concave in i.
    """
    negatives, positives = counts[:, ::-1]
    true_above_or_in, false_above_or_in = np.cumsum(positives), np.cumsum(negatives)
    true_above, false_above = true_above_or_in - positives, false_above_or_in - negatives

    precision_if_tied = true_above_or_in / (true_above_or_in + false_above_or_in)
    precision_if_first = true_above_or_in / (true_above_or_in + false_above)
    lost_if_last = false_above_or_in * np.log1p(positives / (true_above + false_above_or_in + 0.5))

    total, has_positives = positives.sum(), positives > 0
    value = np.sum(positives * precision_if_tied, where=has_positives) / total
    best = np.sum(positives * precision_if_first, where=has_positives) / total
    worst = np.sum(positives - lost_if_last, where=has_positives) / total
    return float(value), float(np.maximum(best - value, value - worst))


def roc_curve(sums: Mapping[str, NDArray[np.float64]], label: int | None = None) -> RocCurve:
    """Return the ROC curve that the summed statistics of a classifier hold, one point per bin.

    The rate of a class without rows is NaN.

    Args:
        sums: the summed statistics.
        label: for more than two classes, the class that is set against the rest.

    Raises ConfigError where the sums hold no histogram of scores, and for a label they do not know.
    """
    if "scores" not in sums:
        raise ConfigError(
            "These statistics hold no histogram of scores, so there is no ROC curve: "
            "it needs a classifier of at most 100 classes."
        )
    counts = sums["scores"]
    if counts.ndim == 3:
        if label is None or not 0 <= label < len(counts):
            raise ConfigError(
                f"A ROC curve of {len(counts)} classes needs a label in 0..{len(counts) - 1}: got {label}."
            )
        counts = counts[label]
    elif label not in (None, 1):
        raise ConfigError(f"A binary ROC curve is that of class 1: leave label out, instead of {label}.")
    reached = np.concatenate([np.zeros((2, 1)), np.cumsum(counts[:, ::-1], axis=1)], axis=1)
    with np.errstate(invalid="ignore"):
        fpr, tpr = reached / reached[:, -1:]
    return RocCurve(fpr, tpr)
