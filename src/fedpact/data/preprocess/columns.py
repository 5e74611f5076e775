"""The columns of a table: their names and kinds, and their values as numbers or as categories.

Messages about a client's rows name the row, counted from 1, and never its value: an error may travel where the
data may not.
"""

from __future__ import annotations

import math
import numbers
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError, DataError
from fedpact.data.objects import are_numbers
from fedpact.data.wording import what_else

if TYPE_CHECKING:
    import pandas as pd

ColumnKind = Literal["numeric", "category", "other"]
Value: TypeAlias = "str | int | float"
"""A category: text, or a number, which is an int where it is whole."""


@dataclass(frozen=True)
class Columns:
    """The names and kinds of a table's columns, in order.

    A column is "numeric" (numbers, and booleans as 0 and 1), "category" (text, or a pandas categorical), or
    "other" (dates and the rest), which no model can read.

    Args:
        items: (name, kind) of each column.
    """

    items: tuple[tuple[str, ColumnKind], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(name for name, _ in self.items)

    @property
    def kinds(self) -> dict[str, ColumnKind]:
        """Name → kind."""
        return dict(self.items)

    def of_kind(self, kind: ColumnKind) -> tuple[str, ...]:
        """Return the names of the columns of a kind."""
        return tuple(name for name, each in self.items if each == kind)

    def check(self, step: str, names: Sequence[str], kind: ColumnKind | None = None) -> tuple[str, ...]:
        """Return the names in the order of the columns.

        Args:
            step: the step that asks for them, for messages.
            names: the names.
            kind: what they all must be, if anything.

        Raises:
            ConfigError: there is no such column, or it is of another kind.
        """
        for name in names:
            if name not in self.kinds:
                raise ConfigError(f'{step}: there is no column "{name}".{what_else(name, self.names)}')
            if kind is not None and self.kinds[name] != kind:
                raise ConfigError(
                    f'{step} is for {kind} columns, and column "{name}" is of kind "{self.kinds[name]}"; '
                    "leave it out of columns."
                )
        return tuple(name for name in self.names if name in names)

    def replaced(self, step: str, made: Mapping[str, Sequence[tuple[str, ColumnKind]]]) -> Columns:
        """Return the columns, some of them replaced in their place by those that a step makes of them.

        Args:
            step: the step, for messages.
            made: column → (name, kind) of each that replaces it.

        Raises:
            DataError: two columns would have one name.
        """
        items: list[tuple[str, ColumnKind]] = []
        for name, kind in self.items:
            items += made.get(name, [(name, kind)])
        for name, count in Counter(name for name, _ in items).items():
            if count > 1:
                raise DataError(f'{step} makes two columns called "{name}"; rename a column or a category.')
        return Columns(tuple(items))

    def to_json(self) -> list[list[str]]:
        """Return the columns as plain data."""
        return [list(item) for item in self.items]

    @classmethod
    def from_json(cls, items: Sequence[Sequence[Any]]) -> Columns:
        """Return the columns that `to_json` wrote down."""
        return cls(tuple((name, kind) for name, kind in items))


@runtime_checkable
class OnDemand(Protocol):
    """Rows of a table whose columns are made when they are asked for."""

    def frame(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """Return a table of the rows.

        Args:
            names: the columns that it has to have, of which it may have more; None for all.

        Raises:
            DataError: a column cannot be made.
        """
        ...


def as_frame(x: Any, names: Sequence[str] | None = None) -> pd.DataFrame:
    """Return a client's features as a table, without copying them.

    Args:
        x: a DataFrame, whose column names become text, or an array [n, columns], whose columns are called
            "x0", "x1" and so on; or rows that are prepared on demand.
        names: the columns that are needed; None for all.

    Raises:
        ConfigError: an array that is no table, such as images.
        DataError: two columns of the same name, or one that cannot be prepared.
    """
    import pandas as pd

    if isinstance(x, OnDemand):
        return x.frame(names)
    if not isinstance(x, pd.DataFrame):
        x = np.asarray(x)
        if x.ndim != 2:
            raise ConfigError(
                f"preprocess prepares tables, and these rows are arrays of shape {list(x.shape[1:])}; leave "
                "preprocess out and let the model scale its input."
            )
        return pd.DataFrame(x, columns=[f"x{i}" for i in range(x.shape[1])], copy=False)
    own = x.columns.map(str)
    twice = own[own.duplicated()]
    if len(twice):
        raise DataError(f'two columns are called "{twice[0]}": rename one of them.')
    return x.set_axis(own, axis="columns")


def column(frame: pd.DataFrame, name: str) -> pd.Series[Any]:
    """Return a column.

    Raises:
        DataError: there is none of this name.
    """
    if name not in frame.columns:
        raise DataError(f'there is no column "{name}".{what_else(name, frame.columns)}')
    return frame[name]


def as_numbers(frame: pd.DataFrame, name: str) -> NDArray[np.float64]:
    """Return a column as float64 [n], NaN where a value is missing; booleans are 0 and 1.

    Raises:
        DataError: there is no such column, or a value is no number or infinite; its row is named.
    """
    from pandas.api import types

    series = column(frame, name)
    is_numeric = types.is_numeric_dtype(series.dtype) and not types.is_complex_dtype(series.dtype)
    if is_numeric or are_numbers(series):
        values = series.to_numpy(np.float64, na_value=np.nan)
    else:
        objects = series.to_numpy(object)
        values = np.full(len(series), np.nan)
        for row in np.flatnonzero(series.notna()).tolist():
            values[row] = _number(objects[row], name, row)
    infinite = np.flatnonzero(np.isinf(values))
    if infinite.size:
        raise DataError(
            f'column "{name}" is infinite in {infinite.size} row(s), first in row {infinite[0] + 1}; '
            "leave such values empty, or leave these rows out."
        )
    return values


def as_categories(frame: pd.DataFrame, name: str) -> tuple[NDArray[np.int64], list[Value]]:
    """Return the index of each row's category [n], −1 where it is missing, and the column's categories.

    Whole numbers and booleans become int, so that 1, 1.0 and True are one category.

    Raises:
        DataError: there is no such column, or a value is neither text nor a finite number; its row is named.
    """
    import pandas as pd

    series = column(frame, name)
    codes: NDArray[np.integer[Any]]
    found: Sequence[Any] | pd.Index[Any]
    if isinstance(series.dtype, pd.CategoricalDtype):
        codes, found = _occurring(series.cat.codes.to_numpy(), series.cat.categories)
    else:
        try:
            codes, found = pd.factorize(series)
        except TypeError:
            raise DataError(f'column "{name}" holds neither text nor numbers; leave it out.') from None
    place: dict[Value, int] = {}
    moved = []
    for code, value in enumerate(found):
        category = _category(value)
        if category is None:
            raise DataError(
                f'column "{name}" holds neither text nor a finite number in row {np.argmax(codes == code) + 1}; '
                "change it, or leave the column out."
            )
        # Two values that pandas tells apart, such as "1" of two types, may be one category.
        moved.append(place.setdefault(category, len(place)))
    if len(place) == len(moved):
        return codes.astype(np.int64, copy=False), list(place)
    return np.array([*moved, -1], np.int64)[codes], list(place)


def _occurring(
    codes: NDArray[np.integer[Any]], categories: pd.Index[Any]
) -> tuple[NDArray[np.integer[Any]], list[Any]]:
    """Return the codes among those categories that some row is of, and these."""
    rows = np.bincount(codes.astype(np.int64) + 1, minlength=len(categories) + 1)[1:]
    if rows.all():
        return codes, list(categories)
    kept = np.flatnonzero(rows)
    place = np.full(len(categories) + 1, -1)
    place[kept] = np.arange(len(kept))
    return place[codes], [categories[i] for i in kept.tolist()]


def coded(codes: NDArray[np.integer[Any]], categories: Sequence[Value]) -> pd.Categorical[Any]:
    """Return a column of categories [n], which `as_categories` reads without looking at each row's.

    Args:
        codes: the index of each row's category, −1 where it is missing.
        categories: the categories.
    """
    import pandas as pd

    return pd.Categorical.from_codes(codes, pd.Index(np.array(categories, object), dtype=object))


def as_category(value: Any, name: str) -> Value:
    """Return a value that a job declares for a column as a category.

    Raises:
        DataError: it is neither text nor a finite number.
    """
    category = _category(value)
    if category is None:
        raise DataError(f'{value!r}, declared for column "{name}", is neither text nor a finite number.')
    return category


def _category(value: Any) -> Value | None:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, numbers.Integral | np.bool_):
        return int(value)
    if isinstance(value, numbers.Real | Decimal) and math.isfinite(value):
        number = float(value)
        return int(number) if number.is_integer() else number
    return None


def in_order(categories: set[Value]) -> list[Value]:
    """Return categories in an order that no client decides: numbers first, then text by code point."""
    return sorted(categories, key=lambda value: (1, value) if isinstance(value, str) else (0, value))


def with_columns(frame: pd.DataFrame, changed: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return the table with each of these columns replaced, in its place, by columns of these names."""
    import pandas as pd

    columns: dict[str, Any] = {}
    for name in frame.columns:
        columns.update(changed[name] if name in changed else {name: frame[name]})
    return pd.DataFrame(columns, index=frame.index, copy=False)


def _number(value: Any, name: str, row: int) -> float:
    if isinstance(value, numbers.Real | np.bool_ | Decimal):
        return float(value)
    what = "text" if isinstance(value, str) else f"a {type(value).__name__}"
    raise DataError(
        f'column "{name}" is numeric, and row {row + 1} holds {what}; leave missing values empty, and write '
        "numbers as numbers."
    )
