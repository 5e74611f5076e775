"""How far predicted probabilities can be believed: log loss and calibration.

Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equations 2, 3 and 5: of the rows given
a probability of 0.8, are 8 in 10 right?
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError

BINS = 15
CALIBRATION_SHAPES = {
    "calibration_rows": (BINS,),
    "calibration_hits": (BINS,),
    "calibration_scores": (BINS,),
}

# A score on an edge belongs to the bin below it, as in sklearn.calibration.calibration_curve.
_INNER_EDGES = np.linspace(0.0, 1.0, BINS + 1)[1:-1]


class CalibrationCurve(NamedTuple):
    """The bins that have rows, by rising score: three arrays of one length, at most 15."""

    mean_predicted: NDArray[np.float64]
    observed_share: NDArray[np.float64]
    rows: NDArray[np.float64]


def log_loss(probability_of_truth: NDArray[np.float64], epsilon: float) -> NDArray[np.float64]:
    """Return the sum [1] of the log losses of rows, each probability clipped to [epsilon, 1 - epsilon]."""
    return np.array([-np.log(np.clip(probability_of_truth, epsilon, 1.0 - epsilon)).sum()])


def calibration(is_hit: NDArray[np.bool_], score: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return, for each bin of the score, its rows, how many of them are hits, and the sum of their scores."""
    bin_of_row = np.searchsorted(_INNER_EDGES, score)
    return {
        "calibration_rows": np.bincount(bin_of_row, minlength=BINS).astype(np.float64),
        "calibration_hits": np.bincount(bin_of_row[is_hit], minlength=BINS).astype(np.float64),
        "calibration_scores": np.bincount(bin_of_row, weights=score, minlength=BINS).astype(np.float64),
    }


def expected_calibration_error(sums: Mapping[str, NDArray[np.float64]]) -> float:
    """Return the gap between mean predicted and observed share, averaged over the bins by their rows."""
    # A bin's weight is its rows, which divide both its means too: what is left is a gap of sums.
    gaps = np.abs(sums["calibration_scores"] - sums["calibration_hits"])
    return float(gaps.sum() / sums["calibration_rows"].sum())


def calibration_curve(sums: Mapping[str, NDArray[np.float64]]) -> CalibrationCurve:
    """Return the reliability curve that the summed statistics of a classifier hold.

    Of a binary classifier the score is the probability of class 1 and the share is that of class 1; of one
    with more classes they are the probability of the predicted class and the accuracy.

    Raises ConfigError where the sums are not a classifier's.
    """
    if not CALIBRATION_SHAPES.keys() <= sums.keys():
        raise ConfigError("These statistics are not a classifier's, so there is no calibration curve.")
    filled = sums["calibration_rows"] > 0
    rows = sums["calibration_rows"][filled]
    return CalibrationCurve(
        sums["calibration_scores"][filled] / rows, sums["calibration_hits"][filled] / rows, rows
    )
