"""What labels, scores and predictions must be before they are counted.

Messages name the row and never its value: an error may travel where the data may not.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedpact.core.errors import DataError

_EPSILON = {np.dtype(narrow): float(np.finfo(narrow).eps) for narrow in (np.float16, np.float32)}
_ROW_SUM_TOLERANCE = 1e-2  # a float16 softmax over a hundred classes is off by this much


def labels(y_true: ArrayLike, n_classes: int) -> NDArray[np.intp]:
    """Return class labels [n] as integers in 0..n_classes-1. Raises DataError for anything else."""
    given = _numbers(y_true, "y_true", "encode the classes as 0..K-1 first")
    if given.ndim != 1:
        raise DataError(f"y_true has shape {_shape(given)}; expected one label per row, [n].")
    with np.errstate(invalid="ignore"):
        whole = given.astype(np.intp)
    wrong = (whole != given) | (whole < 0) | (whole >= n_classes)
    if wrong.any():
        raise DataError(
            f"y_true holds {wrong.sum()} labels that are not whole numbers in 0..{n_classes - 1}, the first "
            f"in row {wrong.argmax()}: check the label encoding and the number of classes."
        )
    return whole


def probabilities(y_score: ArrayLike, shape: tuple[int, ...]) -> tuple[NDArray[np.float64], float]:
    """Return probabilities of this shape as float64, and the machine epsilon of the dtype they came in.

    Raises DataError for another shape, for NaN, for values outside [0, 1], and for rows of a matrix
    that do not sum to 1.
    """
    given = _numbers(y_score, "y_score", "pass probabilities")
    if given.shape != shape:
        wanted = (
            "the probability of class 1 for each row"
            if len(shape) == 1
            else "a row of class probabilities each"
        )
        raise DataError(
            f"y_score has shape {_shape(given)}; expected {wanted}, {_shape(shape)}, to match y_true."
        )
    scores = given.astype(np.float64, copy=False)
    # Written so that NaN, which compares false with everything, fails it too.
    if scores.size and not (scores.min() >= 0.0 and scores.max() <= 1.0):
        raise _not_probabilities(scores)
    if scores.ndim == 2:
        off = np.abs(scores.sum(axis=1) - 1.0) > _ROW_SUM_TOLERANCE
        if off.any():
            raise DataError(
                f"y_score holds {off.sum()} rows that do not sum to 1, the first is row {off.argmax()}: "
                "pass class probabilities, such as a softmax gives."
            )
    return scores, _EPSILON.get(given.dtype, float(np.finfo(np.float64).eps))


def real(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return finite numbers [n] as float64. Raises DataError for another shape, NaN or infinity."""
    given = _numbers(values, name, "pass real numbers").astype(np.float64, copy=False)
    if given.ndim != 1:
        raise DataError(f"{name} has shape {_shape(given)}; expected one number per row, [n].")
    wrong = ~np.isfinite(given)
    if wrong.any():
        raise DataError(
            f"{name} holds {wrong.sum()} values that are NaN or infinite, the first in row {wrong.argmax()}: "
            "leave these rows out, or see why the model predicts so."
        )
    return given


def _numbers(values: ArrayLike, name: str, remedy: str) -> NDArray[np.generic]:
    given = np.asarray(values)
    if given.dtype.kind not in "fiub":
        raise DataError(f"{name} has dtype {given.dtype}, which is not a number: {remedy}.")
    return given


def _not_probabilities(scores: NDArray[np.float64]) -> DataError:
    missing = np.isnan(scores)
    if missing.any():
        return DataError(
            f"y_score holds {missing.sum()} NaN, the first in row {_first_row(missing)}: "
            "the model may have diverged, or its features hold NaN."
        )
    wrong = (scores < 0.0) | (scores > 1.0)
    return DataError(
        f"y_score holds {wrong.sum()} values outside [0, 1], the first in row {_first_row(wrong)}: "
        "pass probabilities (apply a sigmoid or a softmax to logits first)."
    )


def _first_row(wrong: NDArray[np.bool_]) -> int:
    return int(np.argwhere(wrong)[0, 0])


def _shape(of: NDArray[np.generic] | tuple[int, ...]) -> str:
    return str(list(of if isinstance(of, tuple) else of.shape))
