"""Columns that hardly vary are left out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedpact.core.settings import check_numbers
from fedpact.data.preprocess.columns import Columns
from fedpact.data.preprocess.drop import FittedDrop, dropping
from fedpact.data.preprocess.estimate import Estimate
from fedpact.data.preprocess.moments import Moments
from fedpact.data.preprocess.numeric import numeric_names
from fedpact.data.preprocess.steps import as_names


@dataclass(frozen=True)
class LowVariance:
    """Leave out columns whose variance over all clients' training rows is not above a threshold, in one round.

    As scikit-learn's VarianceThreshold on the pooled rows: missing values are left out, and a threshold of 0 leaves
    out constant columns. The server sees exact sums of values and of squares.

    Args:
        threshold: the largest variance, 0 or more, that a column is left out for.
        columns: the columns to judge; by default all numeric ones.

    Raises:
        ConfigError: a setting that cannot be.
    """

    threshold: float = 0.0
    columns: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", as_names("LowVariance", self.columns))
        check_numbers(self, "threshold")

    def estimate(self, columns: Columns) -> Estimate:
        """Return what finds the variances."""
        return Moments(numeric_names("LowVariance", self.columns, columns))

    def fitted(self, columns: Columns, estimates: Mapping[str, Any]) -> FittedDrop:
        """Return the step with the columns that it leaves out.

        Raises:
            DataError: no column would be left.
        """
        low = tuple(name for name, each in estimates.items() if self._is_low(each.deviation))
        return dropping("LowVariance", columns, low)

    def _is_low(self, deviation: float) -> bool:
        # The square of a small deviation may be 0.
        return deviation == 0 or (self.threshold > 0 and deviation * deviation <= self.threshold)
