"""Robust scaling: numeric columns shifted by their median and scaled by the distance of two quantiles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError
from fedpact.data.preprocess.columns import Columns
from fedpact.data.preprocess.estimate import Estimate
from fedpact.data.preprocess.numeric import FittedNumeric, as_pair, distance, numeric_names
from fedpact.data.preprocess.quantiles import Quantiles
from fedpact.data.preprocess.steps import as_names


@dataclass(frozen=True)
class Robust:
    """Subtract the median and divide by the distance of two quantiles of all clients' training rows, in eight rounds.

    As scikit-learn's RobustScaler on the pooled rows: quantiles are numpy's, missing values are left out and stay
    missing, and a column whose two quantiles are equal is not scaled. Median and quantiles are found from counts;
    each is the value of some row, or lies between those of two.

    Args:
        quantile_range: the two quantiles, in percent.
        with_centering: subtract the median.
        with_scaling: divide by the distance of the quantiles.
        unit_variance: scale so that a normal column gets the variance 1.
        columns: the columns to scale; by default all numeric ones.

    Raises:
        ConfigError: the range is none, or nothing is to be done.
    """

    quantile_range: tuple[float, float] = (25.0, 75.0)
    with_centering: bool = True
    with_scaling: bool = True
    unit_variance: bool = False
    columns: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        percent = as_pair("Robust", "quantile_range", self.quantile_range, 0, 100)
        object.__setattr__(self, "quantile_range", percent)
        object.__setattr__(self, "columns", as_names("Robust", self.columns))
        if not (self.with_centering or self.with_scaling):
            raise ConfigError(
                "Robust: with_centering and with_scaling are both false, so nothing is left to do."
            )
        if self.unit_variance and not (self.with_scaling and percent[0] > 0 and percent[1] < 100):
            raise ConfigError(
                "Robust: unit_variance needs with_scaling and a quantile_range inside (0, 100): a normal "
                "column has no quantiles at 0 and 100."
            )

    def estimate(self, columns: Columns) -> Estimate:
        """Return what finds the quantiles; only those that are used."""
        low, high = self.quantile_range
        ends = (low / 100, high / 100) if self.with_scaling else ()
        middle = (0.5,) if self.with_centering else ()
        return Quantiles(numeric_names("Robust", self.columns, columns), (*ends, *middle))

    def fitted(self, columns: Columns, estimates: Mapping[str, Any]) -> FittedRobust:
        """Return the step with these quantiles.

        Raises:
            DataError: two quantiles lie further apart than a float64 can say.
        """
        center, scale = {}, {}
        for name, found in estimates.items():
            center[name] = found[-1] if self.with_centering else 0.0
            scale[name] = distance(name, *found[:2]) / self._normal() if self.with_scaling else 1.0
        return FittedRobust(center, scale)

    def _normal(self) -> float:
        if not self.unit_variance:
            return 1.0
        low, high = (NormalDist().inv_cdf(percent / 100) for percent in self.quantile_range)
        return high - low


@dataclass(frozen=True)
class FittedRobust(FittedNumeric):
    """(value − center) / scale.

    Args:
        center: column → what is subtracted.
        scale: column → what it is divided by.
    """

    center: Mapping[str, float]
    scale: Mapping[str, float]

    def names(self) -> Iterable[str]:
        """Return the columns that are scaled."""
        return self.center

    def prepared(self, name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scaled values."""
        return (values - self.center[name]) / self.scale[name]
