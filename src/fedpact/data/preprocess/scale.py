"""Standardisation: numeric columns shifted and scaled by what all clients share."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedpact.core.errors import ConfigError
from fedpact.data.preprocess.columns import Columns, as_numbers, with_columns
from fedpact.data.preprocess.estimate import Estimate
from fedpact.data.preprocess.moments import Means, Moment, Moments
from fedpact.data.preprocess.on_demand import Transform
from fedpact.data.preprocess.steps import as_names

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Standardize:
    """Subtract the mean and divide by the standard deviation over all clients' training rows, in one round.

    As scikit-learn's StandardScaler on the pooled rows: the deviation is the population's, missing values are
    left out and stay missing, and a constant column is not scaled.

    Args:
        columns: the columns to standardise; by default all numeric ones, those of OneHot included.
        with_mean: subtract the mean.
        with_std: divide by the standard deviation.

    Raises:
        ConfigError: neither is to be done.
    """

    columns: tuple[str, ...] | None = None
    with_mean: bool = True
    with_std: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", as_names("Standardize", self.columns))
        if not (self.with_mean or self.with_std):
            raise ConfigError("Standardize: with_mean and with_std are both false, so nothing is left to do.")

    def estimate(self, columns: Columns) -> Estimate:
        """Return what finds the means and deviations."""
        names = columns.of_kind("numeric")
        if self.columns is not None:
            names = columns.check("Standardize", self.columns, "numeric")
        return Moments(names) if self.with_std else Means(names)

    def fitted(self, columns: Columns, estimates: Mapping[str, Any]) -> FittedStandardize:
        """Return the step with these means and deviations."""
        mean, scale = {}, {}
        for name, found in estimates.items():
            moment = found if isinstance(found, Moment) else Moment(found, 1.0)
            mean[name] = moment.mean if self.with_mean else 0.0
            scale[name] = moment.deviation or 1.0
        return FittedStandardize(mean, scale)


@dataclass(frozen=True)
class FittedStandardize:
    """(value − mean) / scale.

    Args:
        mean: column → what is subtracted.
        scale: column → what it is divided by.
    """

    mean: Mapping[str, float]
    scale: Mapping[str, float]

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the table with these columns standardised, as float64."""
        return with_columns(
            frame,
            {
                name: {name: (as_numbers(frame, name) - mean) / self.scale[name]}
                for name, mean in self.mean.items()
            },
        )

    def narrowed(self, names: Collection[str]) -> tuple[Transform, set[str]]:
        """Return what makes these columns, and that it takes the same."""
        mean = {name: each for name, each in self.mean.items() if name in names}
        return FittedStandardize(mean, self.scale).transform, set(names)

    def columns_out(self, columns: Columns) -> Columns:
        """Return the same columns."""
        return columns

    def to_json(self) -> dict[str, Any]:
        """Return the step as plain data."""
        return {"mean": dict(self.mean), "scale": dict(self.scale)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FittedStandardize:
        """Return the step that `to_json` wrote down."""
        return cls(data["mean"], data["scale"])
