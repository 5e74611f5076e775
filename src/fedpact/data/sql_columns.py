"""The columns of a query's rows: one dtype each, whichever rows are looked at first.

A database says of a column what may be in it, if anything, and SQLite not even that. What is in it decides here, looked
at block by block, so that a column of whole numbers that misses one in its last row is float64 from its first.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from uuid import UUID

import numpy as np

from fedpact.core.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

Block: TypeAlias = Sequence[Sequence[Any]]
"""Some rows, column by column."""

Kind: TypeAlias = Literal["missing", "flag", "flag or missing", "int", "float", "text", "date", "instant"]

_KINDS: dict[type, Kind] = {
    bool: "flag",
    int: "int",
    float: "float",
    Decimal: "float",
    timedelta: "float",
    str: "text",
    UUID: "text",
    time: "text",
    date: "date",
    datetime: "date",
}
_IN_WORDS: dict[Kind, str] = {
    "flag": "booleans",
    "int": "numbers",
    "float": "numbers",
    "text": "text",
    "date": "dates without a time zone",
    "instant": "dates with a time zone",
}


class Column:
    """What the values of a column have shown so far.

    Args:
        whose: in whose name errors speak.
        name: the column's name.
    """

    def __init__(self, whose: str, name: str) -> None:
        self._whose, self._name = whose, name
        self._first: dict[Kind, int] = {}
        self._missing = False
        self._least = self._greatest = 0

    def see(self, values: Sequence[Any], row: int) -> Kind:
        """Look at the values of further rows, the first of which is row `row`, and return their own kind.

        Args:
            values: the values, None where one is missing.
            row: counted from 1.

        Raises:
            DataError: a value is of a type that no column of a table has, or these are of several kinds, with rows.
        """
        own = Column(self._whose, self._name)
        own._look(values, row)
        for kind, first in own._first.items():
            self._first.setdefault(kind, first)
        self._missing |= own._missing
        self._least, self._greatest = min(self._least, own._least), max(self._greatest, own._greatest)
        return own.kind

    @property
    def kind(self) -> Kind:
        """The kind of all values seen so far.

        Raises:
            DataError: they are of several, or numbers that no dtype tells apart.
        """
        kinds = set(self._first)
        if kinds == {"int", "float"} or (kinds == {"int"} and self._missing):
            self._check_range(2**53, "beside fractions or missing values, and float64 cannot tell them apart")
            return "float"
        if len(kinds) > 1:
            one, other = self._two_apart()
            raise DataError(
                f"{self._called} mixes {_IN_WORDS[one]} (row {self._first[one]}) and {_IN_WORDS[other]} "
                f"(row {self._first[other]}); cast it to one of them in the query."
            )
        if kinds == {"int"}:
            self._check_range(2**63 - 1, "and int64 cannot hold them")
        if kinds == {"flag"} and self._missing:
            return "flag or missing"
        return next(iter(kinds), "missing")

    @property
    def _called(self) -> str:
        return f'{self._whose}: column "{self._name}" of the query'

    def _look(self, values: Sequence[Any], row: int) -> None:
        types = set(map(type, values))
        self._missing = type(None) in types
        for each in types - {type(None)}:
            first = next(place for place, value in enumerate(values) if type(value) is each)
            if each not in _KINDS:
                raise DataError(
                    f"{self._called} holds a {each.__name__} in row {row + first}; take from it what is wanted in the "
                    "query, or leave it out."
                )
            if each is datetime:
                for place, value in enumerate(values):
                    if type(value) is datetime:
                        self._first.setdefault("instant" if value.tzinfo else "date", row + place)
            else:
                self._first[_KINDS[each]] = min(row + first, self._first.get(_KINDS[each], row + first))
        if int in types:
            whole = values if len(types) == 1 else [value for value in values if type(value) is int]
            self._least, self._greatest = min(whole), max(whole)

    def _two_apart(self) -> tuple[Kind, Kind]:
        """Return two kinds that are said in different words, the one that came first before."""
        in_order = sorted(self._first, key=lambda kind: self._first[kind])
        return in_order[0], next(kind for kind in in_order if _IN_WORDS[kind] != _IN_WORDS[in_order[0]])

    def _check_range(self, most: int, why: str) -> None:
        if max(-self._least, self._greatest) > most:
            raise DataError(
                f"{self._called} holds whole numbers beyond ±{most}, {why}; cast it to text in the query, or "
                "leave it out."
            )


def as_series(values: Sequence[Any], kind: Kind) -> pd.Series[Any]:
    """Return values as a Series of the dtype of their kind."""
    import pandas as pd

    if kind == "float" and timedelta in map(type, values):
        values = [value.total_seconds() if isinstance(value, timedelta) else value for value in values]
    elif kind == "text":
        values = [value if value is None else str(value) for value in values]
    elif kind == "instant":
        return pd.Series(_instants(values)).dt.tz_localize("UTC")
    dtype = dtype_of(kind)
    # By way of numpy where it can: the longer way of pandas is for text, and for booleans with gaps.
    return pd.Series(values if kind in ("text", "flag or missing") else np.array(values, dtype), dtype=dtype)


def fits(kind: Kind, wanted: Kind) -> bool:
    """Return whether values of one kind can be those of a column of another, from whose other rows it has its kind."""
    if kind == "missing":
        return wanted not in ("int", "flag")
    return kind == wanted or (kind, wanted) in (("int", "float"), ("flag", "flag or missing"))


def widened(series: pd.Series[Any], kind: Kind, wanted: Kind) -> pd.Series[Any]:
    """Return a Series of one kind as one of the kind that further rows have made of it."""
    import pandas as pd

    if kind == wanted:
        return series
    if kind == "missing":
        return pd.Series([None] * len(series), dtype=dtype_of(wanted))
    return series.astype(dtype_of(wanted))


def dtype_of(kind: Kind) -> Any:
    """Return the dtype of a kind; a column without any value is of float64, as in a text file."""
    import pandas as pd

    match kind:
        case "flag":
            return np.dtype(np.bool_)
        case "flag or missing":
            return np.dtype(object)
        case "int":
            return np.dtype(np.int64)
        case "text":
            # What pandas itself takes for text depends on its version.
            return pd.Series([""]).dtype
        case "date":
            return np.dtype("datetime64[us]")
        case "instant":
            return pd.DatetimeTZDtype("us", "UTC")
        case _:
            return np.dtype(np.float64)


def _instants(values: Sequence[Any]) -> Any:
    # Not by way of astimezone, for which the last day of the year 9999, an open end, may be too late.
    local = [value and value.replace(tzinfo=None) for value in values]
    offsets = [value and value.utcoffset() for value in values]
    return np.array(local, "datetime64[us]") - np.array(offsets, "timedelta64[us]")
