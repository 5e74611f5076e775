"""Vocabularies: the categories that a step declares for its columns, and where among them each row's is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError, DataError, suggest
from fedpact.data.preprocess.columns import Columns, Value, as_categories, as_category

if TYPE_CHECKING:
    import pandas as pd

# What `places` gives rows that have none.
UNKNOWN = -1
MISSING = -2

_NAMED = 10


def declared_categories(
    step: str, categories: Mapping[str, Sequence[Value]] | None, columns: Sequence[str] | None
) -> dict[str, tuple[Value, ...]] | None:
    """Return a step's setting `categories` as tuples.

    Args:
        step: the step, for messages.
        categories: column → its categories; None where none are declared.
        columns: the step's columns; None where it does not name them.

    Raises:
        ConfigError: categories are declared for a column that the step leaves alone, for none, or twice.
    """
    if categories is None:
        return None
    for name in categories:
        if columns is not None and name not in columns:
            raise ConfigError(
                f'{step}: categories are declared for column "{name}", which is not among columns.'
                f"{suggest(name, columns)}"
            )
    return {name: _declared(step, name, each) for name, each in categories.items()}


def _declared(step: str, name: str, declared: Sequence[Value]) -> tuple[Value, ...]:
    if isinstance(declared, str) or not declared:
        raise ConfigError(f'{step}: the categories of column "{name}" must be a list of at least one.')
    try:
        categories = tuple(as_category(value, name) for value in declared)
    except DataError as error:
        raise ConfigError(f"{step}: {error}") from None
    if len(set(categories)) < len(categories):
        raise ConfigError(f'{step}: a category of column "{name}" is declared twice.')
    return categories


def encoded_names(
    step: str,
    columns: Columns,
    names: Sequence[str] | None,
    categories: Mapping[str, Sequence[Value]] | None = None,
) -> tuple[str, ...]:
    """Return the columns that a step encodes: those it names, else those of kind "category" and the declared ones.

    Raises:
        ConfigError: there is no such column.
    """
    if names is None:
        names = (*columns.of_kind("category"), *(categories or {}))
    return columns.check(step, names)


def places(frame: pd.DataFrame, name: str, categories: Iterable[Value]) -> NDArray[np.int64]:
    """Return where among these categories each row's is [n]: `UNKNOWN` where it is none of them, or `MISSING`.

    Raises:
        DataError: there is no such column, or a value is neither text nor a finite number; its row is named.
    """
    codes, own = as_categories(frame, name)
    place = {category: i for i, category in enumerate(categories)}
    return np.array([*(place.get(category, UNKNOWN) for category in own), MISSING], np.int64)[codes]


def refuse_missing(step: str, name: str, places: NDArray[np.int64]) -> None:
    """Raise DataError if a row has no category."""
    missing = int((places == MISSING).sum())
    if missing:
        raise DataError(
            f'column "{name}" has {missing} missing value(s), and {step} cannot encode them; put '
            'Impute("most_frequent"), or Impute("constant", fill_value="missing"), before it.'
        )


def refuse_unknown(name: str, places: NDArray[np.int64], categories: Iterable[Value]) -> None:
    """Raise DataError if a row is of none of the categories; the row is named."""
    unknown = places == UNKNOWN
    if unknown.any():
        known = [str(category) for category in categories]
        raise DataError(
            f'column "{name}" has an unknown category in row {int(np.argmax(unknown)) + 1}. '
            f"Known: {', '.join(known[:_NAMED])}{' and more' if len(known) > _NAMED else ''}."
        )
