"""Duplicates: of rows that are the same, a client keeps one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError, DataError
from fedpact.data.preprocess.columns import Columns, column, with_columns
from fedpact.data.preprocess.estimate import Estimate
from fedpact.data.preprocess.moments import Means
from fedpact.data.preprocess.steps import as_names

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class DropDuplicates:
    """Leave out rows whose key another row of the same client has before them; nothing leaves a client for it.

    Training rows are compared with training rows and test rows with test rows, as pandas' `drop_duplicates`: missing
    values are equal to each other, and labels are not looked at. Rows that are to be predicted are never left out.
    Rows that two clients both have are not found.

    Args:
        by: the columns of the key; by default all that are there at this place in the preprocessing.
        leave_out: whether to leave the columns of the key out behind it, such as a patient's number.

    Raises:
        ConfigError: a setting that cannot be.
    """

    by: tuple[str, ...] | None = None
    leave_out: bool = False

    def __post_init__(self) -> None:
        names = as_names("DropDuplicates", self.by)
        if names == () or (self.leave_out and names is None):
            raise ConfigError('DropDuplicates: name the columns of the key, such as by=["patient"].')
        object.__setattr__(self, "by", names)

    def estimate(self, columns: Columns) -> Estimate:
        """Return an estimate of no columns.

        Raises:
            ConfigError: there is no such column.
        """
        columns.check("DropDuplicates", self.by or ())
        return Means(())

    def fitted(self, columns: Columns, estimates: Mapping[str, Any]) -> FittedDropDuplicates:
        """Return the step."""
        names = columns.names if self.by is None else columns.check("DropDuplicates", self.by)
        return FittedDropDuplicates(names, self.leave_out)


@dataclass(frozen=True)
class FittedDropDuplicates:
    """What tells rows apart.

    Args:
        by: the columns of the key.
        leave_out: whether to leave these columns out.
    """

    by: tuple[str, ...]
    leave_out: bool = False

    def kept(self, frame: pd.DataFrame, training_of: str | None) -> NDArray[np.bool_]:
        """Return which rows are the first of their key [n].

        Raises:
            DataError: a column is missing, or holds what cannot be compared.
        """
        for name in self.by:
            column(frame, name)
        try:
            return np.asarray(~frame.duplicated(list(self.by)), np.bool_)
        except TypeError as error:
            raise DataError(
                f"DropDuplicates: a column of {', '.join(self.by)} holds what cannot be compared ({error}); leave it "
                "out of the key."
            ) from None

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the table, without the columns of the key where they are left out.

        Raises:
            DataError: a column is missing.
        """
        for name in self.by:
            column(frame, name)
        return with_columns(frame, {name: {} for name in self.by}) if self.leave_out else frame

    def columns_out(self, columns: Columns) -> Columns:
        """Return the columns that stay."""
        return columns.replaced("DropDuplicates", {name: [] for name in self.by} if self.leave_out else {})

    def to_json(self) -> dict[str, Any]:
        """Return the step as plain data."""
        return {"by": list(self.by), "leave_out": self.leave_out}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FittedDropDuplicates:
        """Return the step that `to_json` wrote down."""
        return cls(tuple(data["by"]), data["leave_out"])
