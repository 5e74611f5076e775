"""One-hot encoding: a column of zeros and ones for each category that any client has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError, DataError, suggest
from fedpact.data.preprocess.categories import Categories
from fedpact.data.preprocess.columns import Columns, Value, as_categories, as_category, with_columns
from fedpact.data.preprocess.estimate import Estimate
from fedpact.data.preprocess.steps import as_names

if TYPE_CHECKING:
    import pandas as pd

Unknown = Literal["ignore", "error"]


@dataclass(frozen=True)
class OneHot:
    """Replace a column by one column of zeros and ones for each category, called "column=category".

    The categories are those of all clients' training rows, numbers first and in order, then text by code
    point: each client names its own in one round, and the server sees who has which. Declared categories
    need no round and keep the order they are given in.

    Args:
        columns: the columns to encode; by default all category columns (text, pandas categoricals) and all
            whose categories are declared. Name numeric columns that hold codes.
        drop_first: leave out the column of the first category, so that the rest are linearly independent.
            A row of an unknown category is then encoded as one of the first.
        categories: column → its categories, where they are known beforehand.
        unknown: what becomes of a category that was not seen or declared: "ignore" encodes it as zeros.

    Raises:
        ConfigError: a setting that cannot be; categories are declared for a column that is not encoded,
            for none, or twice.
    """

    columns: tuple[str, ...] | None = None
    drop_first: bool = False
    categories: Mapping[str, Sequence[Value]] | None = None
    unknown: Unknown = "ignore"

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", as_names("OneHot", self.columns))
        known = get_args(Unknown)
        if self.unknown not in known:
            raise ConfigError(
                f'OneHot: unknown is "{self.unknown}".{suggest(str(self.unknown), known)} '
                f"It must be one of: {', '.join(known)}."
            )
        if self.categories is not None:
            object.__setattr__(
                self, "categories", {name: self._as_declared(name) for name in self.categories}
            )

    def _as_declared(self, name: str) -> tuple[Value, ...]:
        declared = (self.categories or {})[name]
        if self.columns is not None and name not in self.columns:
            raise ConfigError(
                f'OneHot: categories are declared for column "{name}", which is not among columns.'
                f"{suggest(name, self.columns)}"
            )
        if isinstance(declared, str) or not declared:
            raise ConfigError(f'OneHot: the categories of column "{name}" must be a list of at least one.')
        try:
            categories = tuple(as_category(value, name) for value in declared)
        except DataError as error:
            raise ConfigError(f"OneHot: {error}") from None
        if len(set(categories)) < len(categories):
            raise ConfigError(f'OneHot: a category of column "{name}" is declared twice.')
        return categories

    def estimate(self, columns: Columns) -> Estimate:
        """Return what finds the categories that are not declared."""
        declared = self.categories or {}
        return Categories(tuple(name for name in self._names(columns) if name not in declared))

    def fitted(self, columns: Columns, estimates: Mapping[str, Any]) -> FittedOneHot:
        """Return the step with all categories."""
        found = {**estimates, **(self.categories or {})}
        return FittedOneHot(
            {name: found[name] for name in self._names(columns)}, self.drop_first, self.unknown
        )

    def _names(self, columns: Columns) -> tuple[str, ...]:
        names = self.columns
        if names is None:
            names = (*columns.of_kind("category"), *(self.categories or {}))
        return columns.check("OneHot", names)


@dataclass(frozen=True)
class FittedOneHot:
    """The categories of columns.

    Args:
        categories: column → its categories, in order.
        drop_first: whether the first has no column.
        unknown: whether other categories are encoded as zeros or refused.
    """

    categories: Mapping[str, tuple[Value, ...]]
    drop_first: bool = False
    unknown: Unknown = "ignore"

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the table with each of these columns replaced by those of its categories, float64.

        Raises:
            DataError: a value is missing, or it is of an unknown category that is not to be ignored.
        """
        changed = {}
        for name, categories in self.categories.items():
            place = self._places(frame, name)
            changed[name] = {
                made: (place == i).astype(np.float64)
                for i, made in enumerate(_names_out(name, categories))
                if i >= self.drop_first
            }
        return with_columns(frame, changed)

    def columns_out(self, columns: Columns) -> Columns:
        """Return the columns, those of categories in the place of the column that they replace.

        Raises:
            DataError: two columns would have one name.
        """
        items: list[tuple[str, Any]] = []
        for name, kind in columns.items:
            if name in self.categories:
                made = _names_out(name, self.categories[name])[int(self.drop_first) :]
                items += [(each, "numeric") for each in made]
            else:
                items.append((name, kind))
        for name, count in Counter(name for name, _ in items).items():
            if count > 1:
                raise DataError(f'OneHot makes two columns called "{name}"; rename a column or a category.')
        return Columns(tuple(items))

    def to_json(self) -> dict[str, Any]:
        """Return the step as plain data."""
        return {
            "categories": {name: list(each) for name, each in self.categories.items()},
            "drop_first": self.drop_first,
            "unknown": self.unknown,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FittedOneHot:
        """Return the step that `to_json` wrote down."""
        categories = {name: tuple(each) for name, each in data["categories"].items()}
        return cls(categories, data["drop_first"], data["unknown"])

    def _places(self, frame: pd.DataFrame, name: str) -> NDArray[np.int64]:
        """Return where among its column's categories each row's is, −1 where it is none of them."""
        codes, own = as_categories(frame, name)
        missing = int((codes < 0).sum())
        if missing:
            raise DataError(
                f'column "{name}" has {missing} missing value(s), and OneHot cannot encode them; put '
                'Impute("most_frequent"), or Impute("constant", fill_value="missing"), before it.'
            )
        place = {category: i for i, category in enumerate(self.categories[name])}
        places = np.array([place.get(category, -1) for category in own], np.int64)[codes]
        if self.unknown == "error" and (places < 0).any():
            row = int(np.argmax(places < 0))
            known = [str(category) for category in place]
            raise DataError(
                f'column "{name}" has an unknown category in row {row + 1}. '
                f"Known: {', '.join(known[:10])}{' and more' if len(known) > 10 else ''}."
            )
        return places


def _names_out(name: str, categories: Sequence[Value]) -> list[str]:
    return [f"{name}={category}" for category in categories]
