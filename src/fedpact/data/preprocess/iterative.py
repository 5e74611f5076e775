"""Iterative imputation: a missing value is what a regression on the row's other values says it would be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fedpact.core.settings import check_counts, check_numbers
from fedpact.data.preprocess.columns import Columns, as_numbers, with_columns
from fedpact.data.preprocess.estimate import Estimate
from fedpact.data.preprocess.iterative_fit import Regression, RidgeRounds, filled
from fedpact.data.preprocess.numeric import numeric_names
from fedpact.data.preprocess.steps import as_names

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class IterativeImpute:
    """Fill missing values by ridge regressions on the other columns, fitted in turn to all clients' training rows.

    As scikit-learn's IterativeImputer(Ridge(ridge), max_iter=rounds, tol=0, skip_complete=True) on the pooled rows:
    missing values are the column's mean at first; then, round after round, each column with missing values, the one
    with the fewest first, is regressed on all others, by the rows that have its value, and its missing values are
    predicted anew. New rows go through the same regressions. A column in which no training row misses a value has no
    regression, and is filled with its mean.

    This asks clients once, and once more for every column with missing values in every round. The server sees sums of
    values, of squares and of products over the rows that have a column's value. They are exact, so the regressions are
    the same bits for any partition of the rows.

    Args:
        rounds: how often the columns are gone through.
        ridge: the penalty on the regressions' squared weights, above 0. It depends on the columns' units: put
            Standardize, which leaves missing values missing, before it.
        columns: the columns to fill, and to fill them from; by default all numeric ones.

    Raises:
        ConfigError: a setting that cannot be.
    """

    rounds: int = 10
    ridge: float = 1e-3
    columns: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", as_names("IterativeImpute", self.columns))
        check_counts(self, "rounds")
        check_numbers(self, "ridge", positive=True)

    def estimate(self, columns: Columns) -> Estimate:
        """Return what finds the regressions."""
        return RidgeRounds(numeric_names("IterativeImpute", self.columns, columns), self.rounds, self.ridge)

    def fitted(self, columns: Columns, estimates: Mapping[str, Any]) -> FittedIterativeImpute:
        """Return the step with the regressions."""
        names = numeric_names("IterativeImpute", self.columns, columns)
        return FittedIterativeImpute(
            names, estimates["means"], estimates["exponents"], tuple(estimates["regressions"])
        )


@dataclass(frozen=True)
class FittedIterativeImpute:
    """Regressions that missing values are predicted by, one after the other.

    Args:
        columns: the columns.
        means: of these columns.
        exponents: the powers of two that the regressions measure the columns in, from the means.
        regressions: in order.
    """

    columns: tuple[str, ...]
    means: tuple[float, ...]
    exponents: tuple[int, ...]
    regressions: tuple[Regression, ...]

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the table with the missing values of these columns filled.

        Raises:
            DataError: a column is missing, or a value is no finite number.
        """
        if not self.columns:
            return frame
        values = np.stack([as_numbers(frame, name) for name in self.columns], axis=1)
        missing = np.isnan(values)
        predicted = filled(values, self.means, self.exponents, self.regressions)
        changed = {}
        for i, (name, mean, exponent) in enumerate(
            zip(self.columns, self.means, self.exponents, strict=True)
        ):
            back = mean + np.ldexp(predicted[:, i], exponent)
            changed[name] = {name: np.where(missing[:, i], back, values[:, i])}
        return with_columns(frame, changed)

    def columns_out(self, columns: Columns) -> Columns:
        """Return the same columns."""
        return columns

    def to_json(self) -> dict[str, Any]:
        """Return the step as plain data."""
        return {
            "columns": list(self.columns),
            "means": list(self.means),
            "exponents": list(self.exponents),
            "regressions": [
                {"of": each.of, "intercept": each.intercept, "weights": list(each.weights)}
                for each in self.regressions
            ],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FittedIterativeImpute:
        """Return the step that `to_json` wrote down."""
        regressions = tuple(
            Regression(each["of"], each["intercept"], tuple(each["weights"])) for each in data["regressions"]
        )
        return cls(tuple(data["columns"]), tuple(data["means"]), tuple(data["exponents"]), regressions)
