"""Ordinal encoding: a category becomes its place among all clients' categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fedpact.core.errors import ConfigError
from fedpact.core.settings import check_choice
from fedpact.data.preprocess.categories import Categories
from fedpact.data.preprocess.columns import Columns, Value, with_columns
from fedpact.data.preprocess.estimate import Estimate
from fedpact.data.preprocess.steps import as_names
from fedpact.data.preprocess.vocabulary import (
    UNKNOWN,
    declared_categories,
    encoded_names,
    places,
    refuse_unknown,
)

if TYPE_CHECKING:
    import pandas as pd

Unknown = Literal["error", "missing"] | float


@dataclass(frozen=True)
class Ordinal:
    """Replace each category by its place among its column's categories: 0, 1, 2 and so on, in one round.

    As scikit-learn's OrdinalEncoder on the pooled training rows; missing values stay missing. The categories are
    those of all clients' training rows, numbers first and in order, then text by code point: each client names
    its own, and the server sees who has which. Where their order means something, such as "low" < "high", declare
    it: declared categories need no round.

    Args:
        columns: the columns to encode; by default all category columns (text, pandas categoricals) and all
            whose categories are declared.
        categories: column → its categories in order, where they are known beforehand.
        unknown: what becomes of a category that was not seen or declared: "error" refuses it, "missing" makes it
            a missing value, and a number stands for it.

    Raises:
        ConfigError: a setting that cannot be; categories are declared for a column that is not encoded,
            for none, or twice.
    """

    columns: tuple[str, ...] | None = None
    categories: Mapping[str, Sequence[Value]] | None = None
    unknown: Unknown = "error"

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", as_names("Ordinal", self.columns))
        if isinstance(self.unknown, bool) or not isinstance(self.unknown, int | float):
            check_choice(self, "unknown", ("error", "missing"))
        elif np.isfinite(self.unknown):
            object.__setattr__(self, "unknown", float(self.unknown))
        else:
            raise ConfigError(f'Ordinal: unknown is {self.unknown}; give a finite number, or "missing".')
        object.__setattr__(self, "categories", declared_categories("Ordinal", self.categories, self.columns))

    def estimate(self, columns: Columns) -> Estimate:
        """Return what finds the categories that are not declared."""
        declared = self.categories or {}
        names = encoded_names("Ordinal", columns, self.columns, declared)
        return Categories(tuple(name for name in names if name not in declared))

    def fitted(self, columns: Columns, estimates: Mapping[str, Any]) -> FittedOrdinal:
        """Return the step with all categories.

        Raises:
            ConfigError: the number for unknown categories is the place of a known one.
        """
        found = {**estimates, **(self.categories or {})}
        names = encoded_names("Ordinal", columns, self.columns, self.categories)
        for name in names:
            if self.unknown in range(len(found[name])):
                raise ConfigError(
                    f'Ordinal: unknown is {self.unknown:g}, which stands for a category of column "{name}"; '
                    "give a number below 0."
                )
        return FittedOrdinal({name: tuple(found[name]) for name in names}, self.unknown)


@dataclass(frozen=True)
class FittedOrdinal:
    """The categories of columns.

    Args:
        categories: column → its categories, in order.
        unknown: whether other categories are refused, missing, or a number.
    """

    categories: Mapping[str, tuple[Value, ...]]
    unknown: Unknown = "error"

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the table with the places of the categories in these columns, float64, NaN where they are missing.

        Raises:
            DataError: a category is unknown, and not to be missing or a number.
        """
        changed = {}
        for name, categories in self.categories.items():
            place = places(frame, name, categories)
            if self.unknown == "error":
                refuse_unknown(name, place, categories)
            values = np.where(place < 0, np.nan, place)
            if not isinstance(self.unknown, str):
                values[place == UNKNOWN] = self.unknown
            changed[name] = {name: values}
        return with_columns(frame, changed)

    def columns_out(self, columns: Columns) -> Columns:
        """Return the columns, these as numbers."""
        return columns.replaced("Ordinal", {name: [(name, "numeric")] for name in self.categories})

    def to_json(self) -> dict[str, Any]:
        """Return the step as plain data."""
        return {
            "categories": {name: list(each) for name, each in self.categories.items()},
            "unknown": self.unknown,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FittedOrdinal:
        """Return the step that `to_json` wrote down."""
        return cls({name: tuple(each) for name, each in data["categories"].items()}, data["unknown"])
