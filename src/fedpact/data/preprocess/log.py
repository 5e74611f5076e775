"""Logarithms of numeric columns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError, DataError
from fedpact.data.preprocess.columns import Columns
from fedpact.data.preprocess.estimate import Estimate
from fedpact.data.preprocess.moments import Means
from fedpact.data.preprocess.numeric import FittedNumeric, numeric_names
from fedpact.data.preprocess.steps import as_names


@dataclass(frozen=True)
class Log:
    """Replace each value by the natural logarithm of value + offset, in no round: nothing leaves a client.

    With the offset 1 it is `numpy.log1p`, right also for values near 0. Missing values stay missing; a value
    that has no logarithm is refused, with its column and row.

    Args:
        offset: what is added to each value first: all values must be larger than −offset.
        columns: the columns to replace; by default all numeric ones.

    Raises:
        ConfigError: the offset is no finite number.
    """

    offset: float = 1.0
    columns: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", as_names("Log", self.columns))
        if not math.isfinite(self.offset):
            raise ConfigError(f"Log: offset is {self.offset}; it must be a finite number.")

    def estimate(self, columns: Columns) -> Estimate:
        """Return an estimate of no columns: nothing has to be found out."""
        return Means(())

    def fitted(self, columns: Columns, estimates: Mapping[str, Any]) -> FittedLog:
        """Return the step with the offset of each column."""
        return FittedLog(dict.fromkeys(numeric_names("Log", self.columns, columns), float(self.offset)))


@dataclass(frozen=True)
class FittedLog(FittedNumeric):
    """log(value + offset).

    Args:
        offset: column → what is added.
    """

    offset: Mapping[str, float]

    def names(self) -> Iterable[str]:
        """Return the columns that are replaced."""
        return self.offset

    def prepared(self, name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the logarithms.

        Raises:
            DataError: a value is −offset or less; its row is named.
        """
        offset = self.offset[name]
        outside = np.flatnonzero(values <= -offset)
        if outside.size:
            raise DataError(
                f'column "{name}" has {outside.size} value(s) of {-offset:g} or less, first in row '
                f"{outside[0] + 1}, which have no logarithm with the offset {offset:g}; give Log a larger "
                "offset, clip the column with ClipRange first, or take YeoJohnson, which is for all numbers."
            )
        return np.log1p(values) if offset == 1 else np.log(values + offset)
