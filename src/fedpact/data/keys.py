"""Columns that say where a row belongs rather than what it is like: its group, its time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import DataError
from fedpact.core.rows import Rows
from fedpact.data.wording import what_else

if TYPE_CHECKING:
    import pandas as pd


def key_column(rows: Rows, column: str) -> pd.Series[Any]:
    """Return a column that has a value in every row [n].

    Raises:
        DataError: features that are no table, no such column, or rows without a value in it.
    """
    if not hasattr(rows.x, "iloc"):
        raise DataError(f'Only a table has a column "{column}"; these features are an array.')
    if column not in rows.x.columns:
        raise DataError(f'The table has no column "{column}".{what_else(column, rows.x.columns)}')
    return complete(rows.x[column], f'Column "{column}"')


def complete(values: pd.Series[Any], called: str) -> pd.Series[Any]:
    """Return values of which none is missing.

    Raises:
        DataError: some are; the first row is named.
    """
    missing = np.flatnonzero(values.isna())
    if len(missing):
        raise DataError(
            f"{called} says where a row belongs, and is missing in {len(missing)} row(s), first in row "
            f"{missing[0] + 1}: fill them in or leave these rows out."
        )
    return values


def time_column(rows: Rows, column: str) -> NDArray[Any]:
    """Return a column of dates or of numbers as values that can be ordered [n].

    Raises:
        DataError: as `key_column` and `as_times`.
    """
    return as_times(key_column(rows, column), f'Column "{column}"')


def as_times(values: pd.Series[Any], called: str) -> NDArray[Any]:
    """Return dates or numbers as values that can be ordered [n].

    Text is read as ISO 8601 (2024-03-31), since 01/02/2024 is one day here and another there.

    Raises:
        DataError: text that is no such date.
    """
    import pandas as pd
    from pandas.api import types

    if types.is_numeric_dtype(values.dtype):
        return values.to_numpy(np.float64)
    try:
        moments = pd.to_datetime(values, format="ISO8601", utc=True)
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{called} cannot be ordered by time: {error}. Write dates as 2024-03-31, or turn them into dates "
            "first."
        ) from None
    return moments.dt.tz_localize(None).to_numpy("datetime64[ns]")


def without_columns(rows: Rows, *columns: str) -> Rows:
    """Return the rows of a table without these columns.

    Raises:
        DataError: no feature is left.
    """
    if not columns:
        return rows
    x = rows.x.drop(columns=list(columns))
    if not len(x.columns):
        raise DataError(f'The table has no feature column beside "{columns[0]}".')
    return Rows(x, rows.y)
