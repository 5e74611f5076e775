"""Cleaning: values that cannot be are taken for missing, or their rows are left out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError, DataError, suggest
from fedpact.data.preprocess.columns import ColumnKind, Columns, as_category, column, with_columns
from fedpact.data.preprocess.estimate import Estimate
from fedpact.data.preprocess.moments import Means

if TYPE_CHECKING:
    import pandas as pd

Type = Literal["numeric", "integer", "category"]
Bounds = tuple[float | None, float | None]


@dataclass(frozen=True)
class Clean:
    """Take values out of range or of another type for missing, or leave their rows out. It takes no round.

    The columns that it names may hold anything at each client, such as numbers at one, and numbers with "?" among them
    at another. Text that spells a number is one. Cells that are empty or blank are missing, and not invalid.

    With drop=True, training and test rows with an invalid value are left out. Rows that are to be predicted never are:
    there the value is missing, so put Impute behind it.

    Args:
        ranges: column → (least, largest) valid number, both of which are valid; None for no bound.
        types: column → "numeric" for finite numbers, "integer" for whole ones, "category" for text and finite numbers;
            a column of `ranges` is "numeric" if it is not named here.
        drop: whether to leave rows out.
        flag: whether to put a column "<column> invalid" of zeros and ones behind each of the columns.

    Raises:
        ConfigError: no column is named, a range or a type cannot be, or they do not go together.
    """

    ranges: Mapping[str, Sequence[float | None]] | None = None
    types: Mapping[str, Type] | None = None
    drop: bool = False
    flag: bool = False

    def __post_init__(self) -> None:
        ranges = {name: _bounds(name, bounds) for name, bounds in (self.ranges or {}).items()}
        types = dict(self.types or {})
        for name, kind in types.items():
            if kind not in get_args(Type):
                raise ConfigError(
                    f'Clean: the type of column "{name}" is {kind!r}; it must be one of {", ".join(get_args(Type))}.'
                    f"{suggest(str(kind), get_args(Type))}"
                )
            if kind == "category" and name in ranges:
                raise ConfigError(f'Clean: column "{name}" is a category, which has no range.')
        if not ranges and not types:
            raise ConfigError('Clean: name columns, such as ranges={"age": (0, 120)}.')
        object.__setattr__(self, "ranges", ranges)
        object.__setattr__(self, "types", types)

    def raw_columns(self) -> tuple[str, ...]:
        """Return the columns that are checked."""
        return tuple(self._types())

    def estimate(self, columns: Columns) -> Estimate:
        """Return an estimate of no columns.

        Raises:
            ConfigError: there is no such column.
        """
        columns.check("Clean", self.raw_columns())
        return Means(())

    def fitted(self, columns: Columns, estimates: Mapping[str, Any]) -> FittedClean:
        """Return the step."""
        ranges = {name: (low, high) for name, (low, high) in (self.ranges or {}).items()}
        return FittedClean(self._types(), ranges, self.drop, self.flag)

    def _types(self) -> dict[str, Type]:
        return {**dict.fromkeys(self.ranges or {}, "numeric"), **(self.types or {})}


@dataclass(frozen=True)
class FittedClean:
    """What values may be.

    Args:
        types: column → type.
        ranges: column → (least, largest) valid number, None for no bound.
        drop: whether rows with invalid values are left out.
        flag: whether columns say which values were invalid.
    """

    types: Mapping[str, Type]
    ranges: Mapping[str, Bounds]
    drop: bool = False
    flag: bool = False

    def rows_kept(self, frame: pd.DataFrame, training_of: str | None) -> NDArray[np.bool_]:
        """Return which rows have no invalid value [n]; all where rows are not left out.

        Raises:
            DataError: a column is missing.
        """
        kept = np.ones(len(frame), np.bool_)
        if self.drop:
            for name in self.types:
                kept &= ~self._checked(frame, name)[1]
        return kept

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the table with the invalid values of these columns missing.

        Raises:
            DataError: a column is missing.
        """
        changed = {}
        for name in self.types:
            values, invalid = self._checked(frame, name)
            changed[name] = {name: values}
            if self.flag:
                changed[name][self._flag(name)] = invalid.astype(np.float64)
        return with_columns(frame, changed)

    def columns_out(self, columns: Columns) -> Columns:
        """Return the columns, these of their types, and behind each the one that flags it.

        Raises:
            DataError: two columns would have one name.
        """
        made: dict[str, list[tuple[str, ColumnKind]]] = {}
        for name, kind in self.types.items():
            made[name] = [(name, "category" if kind == "category" else "numeric")]
            if self.flag:
                made[name].append((self._flag(name), "numeric"))
        return columns.replaced("Clean", made)

    def to_json(self) -> dict[str, Any]:
        """Return the step as plain data."""
        ranges = {name: list(bounds) for name, bounds in self.ranges.items()}
        return {"types": dict(self.types), "ranges": ranges, "drop": self.drop, "flag": self.flag}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FittedClean:
        """Return the step that `to_json` wrote down."""
        ranges = {name: (low, high) for name, (low, high) in data["ranges"].items()}
        return cls(data["types"], ranges, data["drop"], data["flag"])

    def _checked(self, frame: pd.DataFrame, name: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return a column's valid values [n], NaN or None for others, and which are invalid [n]."""
        series = column(frame, name)
        objects = series.to_numpy(object)
        present = series.notna().to_numpy() & ~np.array([_is_blank(value) for value in objects], np.bool_)
        if self.types[name] == "category":
            categories = np.array([_category(value) for value in objects], object)
            categories[~present] = None
            return categories, present & np.array([value is None for value in categories], np.bool_)
        values = np.full(len(objects), np.nan)
        for row in np.flatnonzero(present).tolist():
            values[row] = _number(objects[row])
        if self.types[name] == "integer":
            values[values != np.rint(values)] = np.nan
        low, high = self.ranges.get(name, (None, None))
        outside = (values < (-math.inf if low is None else low)) | (
            values > (math.inf if high is None else high)
        )
        values[outside] = np.nan
        return values, present & np.isnan(values)

    def _flag(self, name: str) -> str:
        return f"{name} invalid"


def _bounds(name: str, bounds: Any) -> Bounds:
    try:
        # In TOML, which has no word for it, None is "none".
        low, high = (None if bound in (None, "none") else float(bound) for bound in bounds)
    except (TypeError, ValueError):
        raise ConfigError(
            f'Clean: the range of column "{name}" is {bounds!r}; give the least and the largest valid number, such as '
            "(0, 120), or None for no bound."
        ) from None
    least, largest = (-math.inf if low is None else low), (math.inf if high is None else high)
    if not least <= largest or (low, high) == (None, None) or any(map(math.isinf, (low or 0.0, high or 0.0))):
        raise ConfigError(
            f'Clean: the range of column "{name}" is ({low}, {high}); it must be two numbers, the smaller first, or '
            "one and None."
        )
    return low, high


def _is_blank(value: Any) -> bool:
    return isinstance(value, str) and not value.strip()


def _number(value: Any) -> float:
    """Return a value as a finite number, NaN where it is none."""
    if isinstance(value, str):
        # Of what Python reads as a number, tables do not write 1_000.
        if "_" in value:
            return math.nan
        try:
            value = Decimal(value.strip())
        except InvalidOperation:
            return math.nan
    if not isinstance(value, Real | Decimal | np.bool_):
        return math.nan
    try:
        number = float(value)
    except (OverflowError, ValueError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def _category(value: Any) -> Any:
    try:
        return as_category(value, "")
    except DataError:
        return None
