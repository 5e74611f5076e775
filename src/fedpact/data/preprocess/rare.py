"""Merging of rare categories into one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from fedpact.core.errors import ConfigError, DataError
from fedpact.core.settings import check_counts, check_numbers
from fedpact.data.preprocess.categories import Counts
from fedpact.data.preprocess.columns import ColumnKind, Columns, Value, as_category, with_columns
from fedpact.data.preprocess.estimate import Estimate
from fedpact.data.preprocess.steps import as_names
from fedpact.data.preprocess.vocabulary import MISSING, encoded_names, places

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class MergeRare:
    """Replace the categories of few training rows over all clients, and unknown ones, by one, in two rounds.

    Each client names its categories, and the server sees who has which; their rows are counted as sums. The names
    of the rare ones are not kept with the model. Missing values stay missing.

    Args:
        columns: the columns; by default all category columns (text, pandas categoricals).
        min_count: a category of fewer rows is rare.
        min_share: a category of a smaller share of the rows in which the column is not missing is rare.
        into: the category that they become; it may be one that there is.

    Raises:
        ConfigError: not exactly one of `min_count` and `min_share` is given, or one that cannot be.
    """

    columns: tuple[str, ...] | None = None
    min_count: int | None = None
    min_share: float | None = None
    into: str | int | float = "other"

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", as_names("MergeRare", self.columns))
        if (self.min_count is None) == (self.min_share is None):
            raise ConfigError("MergeRare: give min_count, a number of rows, or min_share, a share of them.")
        check_counts(self, "min_count", optional=True)
        check_numbers(self, "min_share", positive=True, at_most=1, optional=True)
        try:
            object.__setattr__(self, "into", as_category(self.into, "into"))
        except DataError:
            raise ConfigError(
                f"MergeRare: into is {self.into!r}; it must be text or a finite number."
            ) from None

    def estimate(self, columns: Columns) -> Estimate:
        """Return what counts the rows of each category."""
        return Counts(encoded_names("MergeRare", columns, self.columns))

    def fitted(self, columns: Columns, estimates: Mapping[str, Any]) -> FittedMergeRare:
        """Return the step with the categories that are not rare."""
        kept = {}
        for name, rows in estimates.items():
            least: Fraction | int = self.min_count or 0
            if self.min_share is not None:
                # The share as it is written: the float64 nearest to 0.1 is above it.
                least = Fraction(str(self.min_share)) * sum(rows.values())
            kept[name] = tuple(category for category, n in rows.items() if n >= least)
        return FittedMergeRare(kept, self.into)


@dataclass(frozen=True)
class FittedMergeRare:
    """The categories that are kept, and the one that all others become.

    Args:
        kept: column → the categories that are not rare.
        into: what others become.
    """

    kept: Mapping[str, tuple[Value, ...]]
    into: Value = "other"

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the table with the other categories of these columns replaced.

        Raises:
            DataError: a column is missing, or a value is neither text nor a finite number.
        """
        changed = {}
        for name, kept in self.kept.items():
            place = places(frame, name, kept)
            values = np.array([*kept, self.into], object)[np.where(place < 0, len(kept), place)]
            values[place == MISSING] = None
            changed[name] = {name: values}
        return with_columns(frame, changed)

    def columns_out(self, columns: Columns) -> Columns:
        """Return the same columns; a numeric one that gets text is one of categories."""
        kind: dict[str, ColumnKind] = dict(columns.kinds)
        if isinstance(self.into, str):
            kind.update(dict.fromkeys(self.kept, "category"))
        return columns.replaced("MergeRare", {name: [(name, kind[name])] for name in self.kept})

    def to_json(self) -> dict[str, Any]:
        """Return the step as plain data."""
        return {"kept": {name: list(each) for name, each in self.kept.items()}, "into": self.into}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FittedMergeRare:
        """Return the step that `to_json` wrote down."""
        return cls({name: tuple(each) for name, each in data["kept"].items()}, data["into"])
