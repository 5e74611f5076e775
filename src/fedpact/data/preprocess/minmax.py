"""Scaling by the least and the largest values of all clients' rows: to a range, or by the largest magnitude."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.data.preprocess.columns import Columns
from fedpact.data.preprocess.estimate import Estimate
from fedpact.data.preprocess.numeric import FittedNumeric, as_pair, distance, numeric_names
from fedpact.data.preprocess.quantiles import Quantiles
from fedpact.data.preprocess.steps import as_names


@dataclass(frozen=True)
class MinMax:
    """Shift and scale each column so that all clients' training rows fill a range, in eight rounds.

    As scikit-learn's MinMaxScaler on the pooled rows: missing values are left out and stay missing, a constant
    column becomes the lower end of the range, and other rows may leave it unless they are clipped. (scikit-learn
    takes columns that vary by less than 2.2e-15 for constant; here they are scaled as all others.)

    The least and the largest value are found from counts, never from a client's own extremes; but each is the value
    of some row, and becomes known. `Robust` and `Standardize` scale without them.

    Args:
        feature_range: the range, its lower end first.
        clip: hold all values in the range, also those of rows that are none of the training rows.
        columns: the columns to scale; by default all numeric ones.

    Raises:
        ConfigError: the range is none.
    """

    feature_range: tuple[float, float] = (0.0, 1.0)
    clip: bool = False
    columns: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "feature_range", as_pair("MinMax", "feature_range", self.feature_range))
        object.__setattr__(self, "columns", as_names("MinMax", self.columns))

    def estimate(self, columns: Columns) -> Estimate:
        """Return what finds the least and largest values."""
        return Quantiles(numeric_names("MinMax", self.columns, columns), (0.0, 1.0))

    def fitted(self, columns: Columns, estimates: Mapping[str, Any]) -> FittedMinMax:
        """Return the step with these values.

        Raises:
            DataError: a column spans more than a float64 holds.
        """
        low, high = self.feature_range
        return FittedMinMax(
            {name: least for name, (least, _) in estimates.items()},
            {name: distance(name, *ends) for name, ends in estimates.items()},
            low,
            high,
            self.clip,
        )


@dataclass(frozen=True)
class FittedMinMax(FittedNumeric):
    """low + (value − least) / span · (high − low).

    Args:
        least: column → its least value.
        span: column → how much larger the largest is, 1 for a constant column.
        low: what becomes of the least value.
        high: what becomes of the largest.
        clip: whether to hold all values between.
    """

    least: Mapping[str, float]
    span: Mapping[str, float]
    low: float = 0.0
    high: float = 1.0
    clip: bool = False

    def names(self) -> Iterable[str]:
        """Return the columns that are scaled."""
        return self.least

    def prepared(self, name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scaled values."""
        scaled = self.low + (values - self.least[name]) / self.span[name] * (self.high - self.low)
        return np.clip(scaled, self.low, self.high) if self.clip else scaled


@dataclass(frozen=True)
class MaxAbs:
    """Divide each column by the largest absolute value of all clients' training rows, in eight rounds.

    As scikit-learn's MaxAbsScaler on the pooled rows: zeros stay zeros, missing values are left out and stay missing,
    and a column of zeros is not scaled. The largest absolute value is found from counts; it is that of some row, and
    becomes known without its sign.

    Args:
        columns: the columns to scale; by default all numeric ones.
    """

    columns: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", as_names("MaxAbs", self.columns))

    def estimate(self, columns: Columns) -> Estimate:
        """Return what finds the largest absolute values."""
        return Quantiles(numeric_names("MaxAbs", self.columns, columns), (1.0,), absolute=True)

    def fitted(self, columns: Columns, estimates: Mapping[str, Any]) -> FittedMaxAbs:
        """Return the step with these values."""
        return FittedMaxAbs({name: largest or 1.0 for name, (largest,) in estimates.items()})


@dataclass(frozen=True)
class FittedMaxAbs(FittedNumeric):
    """value / scale.

    Args:
        scale: column → its largest absolute value, 1 for a column of zeros.
    """

    scale: Mapping[str, float]

    def names(self) -> Iterable[str]:
        """Return the columns that are scaled."""
        return self.scale

    def prepared(self, name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scaled values."""
        return values / self.scale[name]
