"""Parts of dates: years, months, weekdays and the like as numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError, DataError, suggest
from fedpact.data.preprocess.columns import Columns, column, with_columns
from fedpact.data.preprocess.estimate import Estimate
from fedpact.data.preprocess.moments import Means
from fedpact.data.preprocess.steps import as_names

if TYPE_CHECKING:
    import pandas as pd

_PARTS: dict[str, Callable[[Any], Any]] = {
    "year": lambda dates: dates.dt.year,
    "quarter": lambda dates: dates.dt.quarter,
    "month": lambda dates: dates.dt.month,
    "week": lambda dates: dates.dt.isocalendar().week,
    "day": lambda dates: dates.dt.day,
    "day_of_year": lambda dates: dates.dt.day_of_year,
    "weekday": lambda dates: dates.dt.day_of_week,
    "hour": lambda dates: dates.dt.hour,
    "minute": lambda dates: dates.dt.minute,
    "second": lambda dates: dates.dt.second,
    "days": lambda dates: (dates - np.datetime64(0, "us")) / np.timedelta64(1, "D"),
}


@dataclass(frozen=True)
class DateParts:
    """Replace a column of dates by numbers, called "column:part"; nothing is asked of anyone.

    Dates are those of pandas and of Python's datetime, and text in the forms of ISO 8601 that Python reads, such as
    "2024-02-29" and "2024-02-29T13:45:00+01:00". A time of day is the one written, in its own time zone. Missing
    dates have missing parts.

    Args:
        columns: the columns; by default all of kind "other", which dates are. Name columns of dates written as text.
        parts: what to take, in order: "year", "quarter", "month", "week" (of ISO 8601), "day", "day_of_year",
            "weekday" (0 is Monday), "hour", "minute", "second", or "days" (since the start of 1970, with the time
            of day as a fraction).

    Raises:
        ConfigError: there is no such part, none is given, or one twice.
    """

    columns: tuple[str, ...] | None = None
    parts: tuple[str, ...] = ("year", "month", "day", "weekday")

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", as_names("DateParts", self.columns))
        if isinstance(self.parts, str) or not self.parts or len(set(self.parts)) < len(self.parts):
            raise ConfigError(
                f"DateParts: parts is {self.parts!r}; give a list of one part or more, each once."
            )
        for part in self.parts:
            if part not in _PARTS:
                raise ConfigError(
                    f'DateParts: there is no part "{part}".{suggest(str(part), _PARTS)} There are: {", ".join(_PARTS)}.'
                )
        object.__setattr__(self, "parts", tuple(self.parts))

    def estimate(self, columns: Columns) -> Estimate:
        """Return an estimate of no columns."""
        self._names(columns)
        return Means(())

    def fitted(self, columns: Columns, estimates: Mapping[str, Any]) -> FittedDateParts:
        """Return the step with its columns."""
        return FittedDateParts(self._names(columns), self.parts)

    def _names(self, columns: Columns) -> tuple[str, ...]:
        names = columns.check("DateParts", columns.of_kind("other") if self.columns is None else self.columns)
        for name in names:
            if columns.kinds[name] == "numeric":
                raise ConfigError(
                    f'DateParts is for dates, and column "{name}" holds numbers; leave it out of columns.'
                )
        return names


@dataclass(frozen=True)
class FittedDateParts:
    """Which parts are taken of which columns.

    Args:
        columns: the columns.
        parts: the parts.
    """

    columns: tuple[str, ...]
    parts: tuple[str, ...]

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the table with each of these columns replaced by its parts, float64, NaN where it is missing.

        Raises:
            DataError: a column is missing, or a value is no date; its row is named.
        """
        changed = {}
        for name in self.columns:
            dates = _as_dates(frame, name)
            changed[name] = {
                f"{name}:{part}": _PARTS[part](dates).to_numpy(np.float64, na_value=np.nan)
                for part in self.parts
            }
        return with_columns(frame, changed)

    def columns_out(self, columns: Columns) -> Columns:
        """Return the columns, the parts in the place of their date.

        Raises:
            DataError: two columns would have one name.
        """
        return columns.replaced(
            "DateParts",
            {name: [(f"{name}:{part}", "numeric") for part in self.parts] for name in self.columns},
        )

    def to_json(self) -> dict[str, Any]:
        """Return the step as plain data."""
        return {"columns": list(self.columns), "parts": list(self.parts)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FittedDateParts:
        """Return the step that `to_json` wrote down."""
        return cls(tuple(data["columns"]), tuple(data["parts"]))


def _as_dates(frame: pd.DataFrame, name: str) -> pd.Series[Any]:
    """Return a column as a Series of microseconds without time zone, NaT where it is missing."""
    import pandas as pd
    from pandas.api import types

    series = column(frame, name)
    if types.is_datetime64_any_dtype(series.dtype) and not isinstance(series.dtype, pd.ArrowDtype):
        return series.dt.tz_localize(None).astype("datetime64[us]")
    try:
        codes, found = pd.factorize(series)
    except TypeError:
        raise DataError(f'column "{name}" holds no dates; leave it out of DateParts.') from None
    read: list[datetime | None] = []
    for code, value in enumerate(found):
        read.append(_read(value))
        if read[-1] is None:
            raise DataError(
                f'column "{name}" holds no date in row {int(np.argmax(codes == code)) + 1}; leave missing dates empty, '
                'and write others as "2024-02-29" or "2024-02-29T13:45:00".'
            )
    values: NDArray[np.datetime64] = np.array([*read, None], "datetime64[us]")[codes]
    return pd.Series(values, index=series.index)


def _read(value: Any) -> datetime | None:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            return None
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").item()
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    return value.replace(tzinfo=None) if isinstance(value, datetime) else None
