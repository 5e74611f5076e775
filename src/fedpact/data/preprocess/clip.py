"""Clipping: numeric columns held in a range, declared or found from all clients' rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError
from fedpact.data.preprocess.columns import Columns
from fedpact.data.preprocess.estimate import Estimate
from fedpact.data.preprocess.numeric import FittedNumeric, as_pair, numeric_names
from fedpact.data.preprocess.quantiles import Quantiles
from fedpact.data.preprocess.steps import as_names


@dataclass(frozen=True)
class ClipRange:
    """Hold each column in a range: declared bounds take no round, two quantiles of all clients' training rows eight.

    As pandas' `clip` and `quantile` on the pooled rows (winsorising); missing values are left out and stay missing.
    Quantiles are found from counts; each is the value of some row, or lies between those of two.

    Args:
        lower: the lower bound; None for none.
        upper: the upper bound; None for none.
        quantiles: instead of bounds, the two quantiles that bound each column, such as (0.01, 0.99).
        columns: the columns to clip; by default all numeric ones.

    Raises:
        ConfigError: bounds and quantiles are both given or both missing, or they are none.
    """

    lower: float | None = None
    upper: float | None = None
    quantiles: tuple[float, float] | None = None
    columns: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", as_names("ClipRange", self.columns))
        bounds = [bound for bound in (self.lower, self.upper) if bound is not None]
        if bool(bounds) == (self.quantiles is not None):
            raise ConfigError(
                "ClipRange: give lower, upper or both, or else quantiles, such as quantiles=(0.01, 0.99)."
            )
        if not all(map(math.isfinite, bounds)) or bounds != sorted(bounds):
            raise ConfigError(
                f"ClipRange: lower is {self.lower} and upper is {self.upper}; they must be finite numbers, the "
                "lower one not above the upper one."
            )
        if self.quantiles is not None:
            object.__setattr__(self, "quantiles", as_pair("ClipRange", "quantiles", self.quantiles, 0, 1))

    def estimate(self, columns: Columns) -> Estimate:
        """Return what finds the quantiles; an estimate of no columns for declared bounds."""
        names = numeric_names("ClipRange", self.columns, columns)
        return Quantiles(names, self.quantiles) if self.quantiles else Quantiles((), ())

    def fitted(self, columns: Columns, estimates: Mapping[str, Any]) -> FittedClipRange:
        """Return the step with its bounds."""
        if self.quantiles is not None:
            return FittedClipRange({name: list(bounds) for name, bounds in estimates.items()})
        names = numeric_names("ClipRange", self.columns, columns)
        return FittedClipRange({name: [self.lower, self.upper] for name in names})


@dataclass(frozen=True)
class FittedClipRange(FittedNumeric):
    """Bounds of columns.

    Args:
        bounds: column → [lower, upper], None for no bound.
    """

    bounds: Mapping[str, list[float | None]]

    def names(self) -> Iterable[str]:
        """Return the columns that are clipped."""
        return self.bounds

    def prepared(self, name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the values, those beyond a bound replaced by it."""
        lower, upper = self.bounds[name]
        return np.clip(values, lower, upper)
