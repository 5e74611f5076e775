"""Evaluation of predicted numbers: an error is predicted minus observed."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedpact.core.errors import DataError
from fedpact.learn.metrics import checks

NAMES: tuple[str, ...] = ("rmse", "mse", "mae", "r2", "bias")

_SUMS = ("count", "target", "target_squared", "error", "error_squared", "error_absolute")

# Below this share of the mean square, the variance of the targets drowns in the rounding of their sums.
_RESOLVED_VARIANCE = 1e-12


def shapes(n_classes: int) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the statistics, which are the same for any number of classes."""
    return dict.fromkeys(_SUMS, (1,))


def statistics(y_true: ArrayLike, y_score: ArrayLike, n_classes: int) -> dict[str, NDArray[np.float64]]:
    """Return the sums over rows, from observed values [n] and predicted ones [n]."""
    observed, predicted = checks.real(y_true, "y_true"), checks.real(y_score, "y_score")
    if observed.shape != predicted.shape:
        raise DataError(f"y_true has {observed.size} rows and y_score has {predicted.size}: they must match.")
    error = predicted - observed
    sums = (
        observed.size,
        observed.sum(),
        np.square(observed).sum(),
        error.sum(),
        np.square(error).sum(),
        np.abs(error).sum(),
    )
    return {name: np.array([total], dtype=np.float64) for name, total in zip(_SUMS, sums, strict=True)}


def metrics(sums: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """Return the metrics of summed statistics."""
    count, target, target_squared, error, error_squared, error_absolute = (sums[name][0] for name in _SUMS)
    mse = error_squared / count
    variation = target_squared - target**2 / count
    resolved = variation > _RESOLVED_VARIANCE * target_squared
    return {
        "rmse": float(np.sqrt(mse)),
        "mse": float(mse),
        "mae": float(error_absolute / count),
        "r2": float(1.0 - error_squared / variation) if resolved else float("nan"),
        "bias": float(error / count),
    }
