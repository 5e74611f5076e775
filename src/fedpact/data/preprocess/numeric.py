"""What steps that change numbers column by column have in common."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError, DataError
from fedpact.data.preprocess.columns import Columns, as_numbers, with_columns
from fedpact.data.preprocess.on_demand import Transform

if TYPE_CHECKING:
    from typing import Self

    import pandas as pd


def numeric_names(step: str, chosen: Sequence[str] | None, columns: Columns) -> tuple[str, ...]:
    """Return the chosen columns, or all numeric ones, in the order of the columns.

    Raises:
        ConfigError: there is no such column, or it is not numeric.
    """
    return columns.of_kind("numeric") if chosen is None else columns.check(step, chosen, "numeric")


def as_pair(step: str, setting: str, pair: Any, least: float = -math.inf, most: float = math.inf) -> Any:
    """Return a setting of two numbers, the smaller first, as a tuple.

    Raises:
        ConfigError: it is none, or leaves the bounds that it has.
    """
    try:
        low, high = (float(number) for number in pair)
    except (TypeError, ValueError):
        raise ConfigError(f"{step}: {setting} is {pair!r}; it must be two numbers.") from None
    if not (least <= low < high <= most and math.isfinite(high - low)):
        within = "" if math.isinf(least) else f" between {least:g} and {most:g}"
        raise ConfigError(
            f"{step}: {setting} is ({low:g}, {high:g}); it must be two finite numbers{within}, the smaller first."
        )
    return low, high


def distance(name: str, low: float, high: float) -> float:
    """Return high − low, 1 where they are equal.

    Raises:
        DataError: it is more than a float64 holds.
    """
    apart = high - low
    if math.isinf(apart):
        raise DataError(
            f'the values of column "{name}" lie further apart than a float64 can say; leave it out, or clip it '
            "to a range with ClipRange first."
        )
    return apart or 1.0


@dataclass(frozen=True)
class FittedNumeric(ABC):
    """A fitted step that replaces the values of numeric columns; missing ones stay missing."""

    @abstractmethod
    def names(self) -> Iterable[str]:
        """Return the columns that the step changes."""

    @abstractmethod
    def prepared(self, name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the new values of a column [n], NaN where they are NaN.

        Raises:
            DataError: the step cannot prepare a value.
        """

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the table with the step's columns replaced, as float64.

        Raises:
            DataError: a column is missing, or holds what the step cannot prepare.
        """
        return self._transform(self.names(), frame)

    def narrowed(self, names: Collection[str]) -> tuple[Transform, set[str]]:
        """Return what makes these columns, and that it takes the same."""
        return partial(self._transform, [name for name in self.names() if name in names]), set(names)

    def _transform(self, names: Iterable[str], frame: pd.DataFrame) -> pd.DataFrame:
        # What leaves float64's range becomes infinite, and the pipeline refuses that by the column's name.
        with np.errstate(over="ignore"):
            made = {name: {name: self.prepared(name, as_numbers(frame, name))} for name in names}
        return with_columns(frame, made)

    def columns_out(self, columns: Columns) -> Columns:
        """Return the same columns."""
        return columns

    def to_json(self) -> dict[str, Any]:
        """Return the step as plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Return the step that `to_json` wrote down."""
        return cls(**{field.name: data[field.name] for field in dataclasses.fields(cls)})
