"""Columns that a selection leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedpact.core.errors import DataError
from fedpact.data.preprocess.columns import Columns, column, with_columns

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class FittedDrop:
    """What LowVariance, DropCorrelated and SelectBest become: the columns that are left out.

    Args:
        dropped: the columns.
    """

    dropped: tuple[str, ...]

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the table without these columns.

        Raises:
            DataError: a column is missing.
        """
        for name in self.dropped:
            column(frame, name)
        return with_columns(frame, {name: {} for name in self.dropped})

    def columns_out(self, columns: Columns) -> Columns:
        """Return the columns without these."""
        return columns.replaced("a selection", {name: [] for name in self.dropped})

    def to_json(self) -> dict[str, Any]:
        """Return the step as plain data."""
        return {"dropped": list(self.dropped)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FittedDrop:
        """Return the step that `to_json` wrote down."""
        return cls(tuple(data["dropped"]))


def dropping(step: str, columns: Columns, dropped: tuple[str, ...]) -> FittedDrop:
    """Return the step that leaves these columns out.

    Raises:
        DataError: no column would be left.
    """
    if columns.names and set(columns.names) <= set(dropped):
        raise DataError(f"{step} leaves no column; give it a lower threshold, or leave it out.")
    return FittedDrop(dropped)
