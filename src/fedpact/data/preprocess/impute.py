"""Imputation: missing values are filled with a value that all clients share."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from fedpact.core.errors import ConfigError, suggest
from fedpact.data.preprocess.categories import Modes
from fedpact.data.preprocess.columns import (
    ColumnKind,
    Columns,
    Value,
    as_categories,
    as_category,
    as_numbers,
    coded,
    with_columns,
)
from fedpact.data.preprocess.estimate import Estimate
from fedpact.data.preprocess.gaps import WithMissing
from fedpact.data.preprocess.medians import Medians
from fedpact.data.preprocess.moments import Means
from fedpact.data.preprocess.on_demand import Transform
from fedpact.data.preprocess.steps import as_names

if TYPE_CHECKING:
    import pandas as pd

Strategy = Literal["mean", "median", "most_frequent", "constant"]


@dataclass(frozen=True)
class Impute:
    """Fill missing values with a mean, a median or a most frequent value over all clients, or a constant.

    The values are those of scikit-learn's SimpleImputer on the pooled training rows; of equally frequent ones
    the smallest. A mean takes one round, a most frequent value two, a median eight; an indicator one more.

    Args:
        strategy: "mean" or "median", for numeric columns; "most_frequent", for categories; or "constant".
        fill_value: the constant: a number, or text for columns of text.
        columns: the columns to fill; by default all of the kind that the strategy is for. Name numeric
            columns to fill them with their most frequent value: their distinct values then reach the server.
        indicator: whether to put a column "<column> missing" of zeros and ones behind each of the columns that misses
            a value in any client's training rows.

    Raises:
        ConfigError: the strategy is unknown, or it and `fill_value` do not go together.
    """

    strategy: Strategy = "mean"
    fill_value: float | str | None = None
    columns: tuple[str, ...] | None = None
    indicator: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", as_names("Impute", self.columns))
        known = get_args(Strategy)
        if self.strategy not in known:
            raise ConfigError(
                f'Impute: there is no strategy "{self.strategy}".{suggest(str(self.strategy), known)} '
                f"There are: {', '.join(known)}."
            )
        if self.strategy != "constant" and self.fill_value is not None:
            raise ConfigError(f'Impute: fill_value is for strategy "constant", not "{self.strategy}".')
        if self.strategy == "constant":
            self._check_fill_value()

    def _check_fill_value(self) -> None:
        value = self.fill_value
        if isinstance(value, str) or (isinstance(value, int | float) and np.isfinite(value)):
            return
        raise ConfigError(f"Impute: fill_value is {value!r}; it must be a finite number, or text.")

    def estimate(self, columns: Columns) -> Estimate:
        """Return what finds the values to fill with, and what is missing; of no columns for a constant alone."""
        names = self._names(columns)
        estimates: dict[Strategy, Estimate] = {
            "mean": Means(names),
            "median": Medians(names),
            "most_frequent": Modes(names),
            "constant": Means(()),
        }
        estimate = estimates[self.strategy]
        return WithMissing(names, estimate) if self.indicator else estimate

    def fitted(self, columns: Columns, estimates: Mapping[str, Any]) -> FittedImpute:
        """Return the step with the values to fill with."""
        missing = estimates["missing"] if self.indicator else {}
        estimates = estimates["found"] if self.indicator else estimates
        constants = dict.fromkeys(self._names(columns), self.fill_value)
        values: Mapping[str, Any] = constants if self.strategy == "constant" else estimates
        numeric = {name for name in values if columns.kinds[name] == "numeric"}
        return FittedImpute(
            {name: float(values[name]) for name in values if name in numeric},
            {name: as_category(value, name) for name, value in values.items() if name not in numeric},
            tuple(name for name, rows in missing.items() if rows),
        )

    def _names(self, columns: Columns) -> tuple[str, ...]:
        of_text = self.strategy == "most_frequent" or isinstance(self.fill_value, str)
        kind: ColumnKind = "category" if of_text else "numeric"
        if self.columns is None:
            return columns.of_kind(kind)
        either = self.strategy == "most_frequent" or isinstance(self.fill_value, int | float)
        return columns.check(f'Impute("{self.strategy}")', self.columns, None if either else kind)


@dataclass(frozen=True)
class FittedImpute:
    """Values to fill with.

    Args:
        numeric: numeric column → number.
        category: any other column → category.
        indicated: the columns that have an indicator behind them.
    """

    numeric: Mapping[str, float] = field(default_factory=dict)
    category: Mapping[str, Value] = field(default_factory=dict)
    indicated: tuple[str, ...] = ()

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the table with the missing values of these columns filled."""
        filled: dict[str, Any] = {}
        for name, number in self.numeric.items():
            values = as_numbers(frame, name)
            filled[name] = np.where(np.isnan(values), number, values)
        for name, category in self.category.items():
            codes, categories = as_categories(frame, name)
            if category not in categories:
                categories.append(category)
            filled[name] = coded(np.where(codes < 0, categories.index(category), codes), categories)
        changed = {name: {name: values} for name, values in filled.items()}
        for name in self.indicated:
            changed[name][_indicator(name)] = frame[name].isna().to_numpy(np.float64)
        return with_columns(frame, changed)

    def narrowed(self, names: Collection[str]) -> tuple[Transform, set[str]]:
        """Return what makes these columns, and which it takes: of an indicator, the column that it is about."""
        indicated = tuple(name for name in self.indicated if _indicator(name) in names)
        needed = {*names, *indicated} - {_indicator(name) for name in indicated}
        step = FittedImpute(
            {name: number for name, number in self.numeric.items() if name in needed},
            {name: category for name, category in self.category.items() if name in needed},
            indicated,
        )
        return step.transform, needed

    def columns_out(self, columns: Columns) -> Columns:
        """Return the columns, and behind each that is indicated its indicator.

        Raises:
            DataError: two columns would have one name.
        """
        made: dict[str, list[tuple[str, ColumnKind]]] = {
            name: [(name, columns.kinds[name]), (_indicator(name), "numeric")] for name in self.indicated
        }
        return columns.replaced("Impute", made)

    def to_json(self) -> dict[str, Any]:
        """Return the step as plain data."""
        return {
            "numeric": dict(self.numeric),
            "category": dict(self.category),
            "indicated": list(self.indicated),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FittedImpute:
        """Return the step that `to_json` wrote down."""
        return cls(data["numeric"], data["category"], tuple(data.get("indicated", ())))


def _indicator(name: str) -> str:
    return f"{name} missing"
