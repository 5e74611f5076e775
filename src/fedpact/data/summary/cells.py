"""Cells of a table read one by one, whatever the rest of their column holds.

Under differential privacy one row must not change how another is read. A reader decides the type of a column by all of
its rows: one "abc" among numbers makes text of them all. Here "7", 7 and 7.0 are the same number and category, and what
is not of the column's kind counts as missing, or as another category, in its own row alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError
from fedpact.data.preprocess.columns import Value

if TYPE_CHECKING:
    import pandas as pd

_EPOCH = datetime(1970, 1, 1)
_TRUTHS = {"true": 1.0, "false": 0.0}


def numbers_in(series: pd.Series[Any]) -> NDArray[np.float64]:
    """Return cells as numbers [n], NaN where there is none; booleans are 0 and 1."""
    from pandas.api import types

    if types.is_numeric_dtype(series.dtype) and not types.is_complex_dtype(series.dtype):
        return series.to_numpy(np.float64, na_value=np.nan)
    return _each(series, _number, math.nan)


def days_in(series: pd.Series[Any]) -> NDArray[np.float64]:
    """Return cells as days since the start of 1970 [n], NaN where there is no date; time zones are left out."""
    return _each(series, _days, math.nan)


def places_in(series: pd.Series[Any], places: Mapping[Value, int], other: int) -> NDArray[np.int64]:
    """Return the place of each cell's category [n], `other` where it has none, −1 where the cell is empty.

    Args:
        series: cells.
        places: category as `spelling` returns it → its place.
        other: a place.
    """
    found = _each(series, lambda cell: float(places.get(spelling(cell), other)), -1.0)
    return found.astype(np.int64)


def places_of(name: str, categories: Sequence[Value]) -> dict[Value, int]:
    """Return category as `spelling` returns it → its place among those declared.

    Raises:
        ConfigError: two are spelt alike.
    """
    places: dict[Value, int] = {}
    for category in categories:
        if spelling(category) in places:
            raise ConfigError(
                f'column "{name}" of the schema: two of its categories are the same number as {category!r}, and with '
                "epsilon numbers and text that spells them are one category; declare one of them."
            )
        places[spelling(category)] = len(places)
    return places


def spelling(cell: Any) -> Value:
    """Return a category in the one way it is written here: a number where it spells one, else text."""
    number = _number(cell)
    return str(cell) if math.isnan(number) else number


def _number(cell: Any) -> float:
    if isinstance(cell, str):
        cell = _TRUTHS.get(cell.strip().lower(), cell)
    if isinstance(cell, complex | np.complexfloating):
        # Beside one that is complex, pandas makes real numbers complex too.
        cell = cell.real if cell.imag == 0 else math.nan
    if isinstance(cell, np.datetime64 | np.timedelta64):
        # numpy counts some of them in units of their own.
        return math.nan
    try:
        return float(cell)
    except OverflowError:
        return math.inf if cell > 0 else -math.inf
    except (TypeError, ValueError):
        return math.nan


def _days(cell: Any) -> float:
    import pandas as pd

    # Digits alone, such as "20240229", are a number to a reader, unless another row of their column has text.
    if isinstance(cell, str) and not math.isnan(_number(cell)):
        return math.nan
    try:
        if isinstance(cell, np.datetime64):
            cell = pd.Timestamp(cell)
        if isinstance(cell, str):
            cell = datetime.fromisoformat(cell.strip())
        if isinstance(cell, date) and not isinstance(cell, datetime):
            cell = datetime.combine(cell, time())
        if not isinstance(cell, datetime):
            return math.nan
        return (cell.replace(tzinfo=None) - _EPOCH) / timedelta(days=1)
    except (OverflowError, ValueError):
        # pandas knows of years that cannot be counted from here.
        return math.nan


def _each(series: pd.Series[Any], read: Callable[[Any], float], missing: float) -> NDArray[np.float64]:
    import pandas as pd

    if series.dtype == object:
        # Of two that are equal one may still be read otherwise, as times of two time zones are.
        cells = zip(series.to_numpy(object), series.isna().to_numpy(), strict=True)
        return np.array([missing if empty else read(cell) for cell, empty in cells], np.float64)
    codes, distinct = pd.factorize(series)
    found: Iterable[Any] = distinct
    return np.array([*(read(cell) for cell in found), missing])[codes]
