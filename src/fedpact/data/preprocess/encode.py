"""One-hot encoding: a column of zeros and ones for each category that any client has."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from fedpact.core.errors import ConfigError, suggest
from fedpact.core.settings import check_counts
from fedpact.data.preprocess.categories import Categories, Counts
from fedpact.data.preprocess.columns import Columns, Value, with_columns
from fedpact.data.preprocess.estimate import Estimate
from fedpact.data.preprocess.matrix import Hot
from fedpact.data.preprocess.on_demand import Transform
from fedpact.data.preprocess.steps import as_names
from fedpact.data.preprocess.vocabulary import (
    UNKNOWN,
    declared_categories,
    encoded_names,
    places,
    refuse_missing,
    refuse_unknown,
)

if TYPE_CHECKING:
    import pandas as pd

Unknown = Literal["ignore", "error", "infrequent"]


@dataclass(frozen=True)
class OneHot:
    """Replace a column by one column of zeros and ones for each category, called "column=category".

    The categories are those of all clients' training rows, numbers first and in order, then text by code point: each
    client names its own in one round, and the server sees who has which; under a mask they are found from sums, and it
    does not. Declared categories need no round and keep the order they are given in. With `min_count` there is one
    round more, in which the rows of each category are counted over all clients, and the infrequent ones share the last
    column, "column=(infrequent)", as in scikit-learn's OneHotEncoder(min_frequency=...).

    Args:
        columns: the columns to encode; by default all category columns (text, pandas categoricals) and all
            whose categories are declared. Name numeric columns that hold codes.
        drop_first: leave out the column of the first category, so that the rest are linearly independent.
            A row of an unknown category is then encoded as one of the first.
        categories: column → its categories, where they are known beforehand.
        unknown: what becomes of a category that was not seen or declared: "ignore" encodes it as zeros,
            "error" refuses it, "infrequent" counts it among the infrequent ones, or where a column has none of
            these, encodes it as zeros. With "infrequent" their names are not kept with the model.
        min_count: a category of fewer training rows, over all clients, is infrequent.

    Raises:
        ConfigError: a setting that cannot be; categories are declared for a column that is not encoded,
            for none, or twice.
    """

    columns: tuple[str, ...] | None = None
    drop_first: bool = False
    categories: Mapping[str, Sequence[Value]] | None = None
    unknown: Unknown = "ignore"
    min_count: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", as_names("OneHot", self.columns))
        known = get_args(Unknown)
        if self.unknown not in known:
            raise ConfigError(
                f'OneHot: unknown is "{self.unknown}".{suggest(str(self.unknown), known)} '
                f"It must be one of: {', '.join(known)}."
            )
        check_counts(self, "min_count")
        if self.unknown == "infrequent" and self.min_count == 1:
            raise ConfigError(
                'OneHot: unknown is "infrequent", and no category is: set min_count to 2 or more, or '
                'unknown="ignore".'
            )
        object.__setattr__(self, "categories", declared_categories("OneHot", self.categories, self.columns))

    def estimate(self, columns: Columns) -> Estimate:
        """Return what finds the categories that are not declared, and with `min_count` their numbers of rows."""
        names = encoded_names("OneHot", columns, self.columns, self.categories)
        declared = {name: tuple(each) for name, each in (self.categories or {}).items()}
        if self.min_count > 1:
            return Counts(names, declared)
        return Categories(tuple(name for name in names if name not in declared))

    def fitted(self, columns: Columns, estimates: Mapping[str, Any]) -> FittedOneHot:
        """Return the step with all categories."""
        names = encoded_names("OneHot", columns, self.columns, self.categories)
        found = {**(self.categories or {}), **estimates}
        if self.min_count == 1:
            return FittedOneHot({name: tuple(found[name]) for name in names}, self.drop_first, self.unknown)
        categories, infrequent = {}, {}
        for name in names:
            rows: Mapping[Value, int] = found[name]
            categories[name] = tuple(each for each in rows if rows[each] >= self.min_count)
            rare = tuple(each for each in rows if rows[each] < self.min_count)
            if rare:
                infrequent[name] = () if self.unknown == "infrequent" else rare
        return FittedOneHot(categories, self.drop_first, self.unknown, infrequent)


@dataclass(frozen=True)
class FittedOneHot:
    """The categories of columns.

    Args:
        categories: column → those that have a column of their own, in order.
        drop_first: whether the first has no column.
        unknown: whether other categories are encoded as zeros, refused, or among the infrequent.
        infrequent: column → the categories that share a column; of columns that have such alone. None of them is
            named where unknown ones are among them.
    """

    categories: Mapping[str, tuple[Value, ...]]
    drop_first: bool = False
    unknown: Unknown = "ignore"
    infrequent: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the table with each of these columns replaced by those of its categories, float64.

        Raises:
            DataError: a value is missing, or it is of an unknown category that is not to be ignored.
        """
        changed = {}
        rows = np.arange(len(frame))
        for name, hot in self.hot(frame).items():
            ones = np.zeros((hot.width, len(frame)))
            known = hot.places >= 0
            ones[hot.places[known], rows[known]] = 1.0
            changed[name] = dict(zip(self._names_out(name), ones, strict=True))
        return with_columns(frame, changed)

    def hot(self, frame: pd.DataFrame) -> Mapping[str, Hot]:
        """Return, for each of the columns, where among those that replace it each row has its one.

        Raises:
            DataError: as `transform`.
        """
        hot = {}
        for name, own in self.categories.items():
            rare = self.infrequent.get(name, ())
            place = places(frame, name, (*own, *rare))
            refuse_missing("OneHot", name, place)
            if self.unknown == "error":
                refuse_unknown(name, place, (*own, *rare))
            if name in self.infrequent:
                place = np.minimum(place, len(own))
                if self.unknown == "infrequent":
                    place[place == UNKNOWN] = len(own)
            hot[name] = Hot(place - int(self.drop_first), len(self._names_out(name)))
        return hot

    def narrowed(self, names: Collection[str]) -> tuple[Transform, set[str]]:
        """Return what makes these columns, and which it takes: of those of a category, the one that they replace."""
        needed, categories = set(names), {}
        for name, own in self.categories.items():
            made = self._names_out(name)
            if not needed.isdisjoint(made):
                needed.difference_update(made)
                categories[name] = own
        step = FittedOneHot(categories, self.drop_first, self.unknown, self.infrequent)
        return step.transform, needed | set(categories)

    def columns_out(self, columns: Columns) -> Columns:
        """Return the columns, those of categories in the place of the column that they replace.

        Raises:
            DataError: two columns would have one name.
        """
        return columns.replaced(
            "OneHot",
            {name: [(made, "numeric") for made in self._names_out(name)] for name in self.categories},
        )

    def to_json(self) -> dict[str, Any]:
        """Return the step as plain data."""
        return {
            "categories": {name: list(each) for name, each in self.categories.items()},
            "drop_first": self.drop_first,
            "unknown": self.unknown,
            "infrequent": {name: list(each) for name, each in self.infrequent.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FittedOneHot:
        """Return the step that `to_json` wrote down."""
        categories = {name: tuple(each) for name, each in data["categories"].items()}
        # Models of before there were infrequent categories do not mention them.
        infrequent = {name: tuple(each) for name, each in data.get("infrequent", {}).items()}
        return cls(categories, data["drop_first"], data["unknown"], infrequent)

    def _names_out(self, name: str) -> list[str]:
        made = [f"{name}={category}" for category in self.categories[name]]
        if name in self.infrequent:
            made.append(f"{name}=(infrequent)")
        return made[int(self.drop_first) :]
