"""Synthetic rows of a schema: to write and try a job on, where the real rows are out of reach."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError
from fedpact.core.rows import Rows
from fedpact.core.seeds import Seed
from fedpact.data.table_schema import ColumnSchema, TableSchema

_WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "island", "meadow", "river")
# A value of free text is longer than any category is taken to be.
_WORDS_IN_TEXT = 16
_ROWS_IN_GROUP = 5
_CATEGORIES = ("a", "b", "c")
_FROM, _TO = "2000-01-01", "2024-12-31"


def mock(schema: TableSchema, rows: int = 100, seed: int = 0) -> Rows:
    """Return synthetic rows of a schema, made of the schema alone: no value of anybody's is in them.

    Columns are independent of one another. Numbers are uniform over a finite range, else normal, and kept within it;
    dates uniform over theirs, else over 2000 to 2024; categories equally frequent, those of the schema, else "a", "b"
    and "c"; labels its categories, numbers of its range, else 0 and 1; ids count the rows; about five rows share a
    group; text is words; pixels are uniform over 0 to 255. Each value is missing with the schema's share.

    Args:
        schema: what the rows are to be like.
        rows: how many.
        seed: the root of every choice; the same seed makes the same rows.

    Raises:
        ConfigError: rows is no whole number above 0, or a schema has an image and other columns but its label.
    """
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
        raise ConfigError(f"rows is {rows!r}; it must be a whole number, 1 or more.")
    root = Seed.of(seed).child("mock")
    label = schema.label
    y = None if label is None else _labels(label, rows, _generator(root, label))
    features = [column for column in schema.columns if column.kind != "label"]
    images = [column for column in features if column.kind == "image"]
    if images:
        if len(features) > 1 or images[0].shape is None:
            raise ConfigError(
                "mock makes images of one column with a shape, and no other column beside it but the label; this "
                "schema has others, or no shape."
            )
        return Rows(_pixels(images[0].shape, rows, _generator(root, images[0])), y)
    return Rows(_table(features, rows, root), y)


def _table(columns: list[ColumnSchema], rows: int, root: Seed) -> Any:
    import pandas as pd

    table = {}
    for column in columns:
        generator = _generator(root, column)
        values = pd.Series(_MAKERS[column.kind](column, rows, generator))
        if column.kind == "ordinal" and column.categories is not None:
            values = values.astype(pd.CategoricalDtype(list(column.categories), ordered=True))
        gone = generator.random(rows) < (column.missing or 0.0)
        table[column.name] = values.mask(gone) if gone.any() else values
    return pd.DataFrame(table, index=range(rows))


def _generator(root: Seed, column: ColumnSchema) -> np.random.Generator:
    return root.child("column", column.name).generator()


def _numbers(column: ColumnSchema, rows: int, generator: np.random.Generator) -> NDArray[np.float64]:
    low, high = column.range or (-math.inf, math.inf)
    if math.isfinite(low) and math.isfinite(high):
        # Halves, as the distance of two floats may be infinite.
        return np.clip(2 * generator.uniform(low / 2, high / 2, rows), low, high)
    middle = low + 3 if math.isfinite(low) else high - 3 if math.isfinite(high) else 0.0
    return np.clip(generator.normal(middle, 1.0, rows), low, high)


def _dates(column: ColumnSchema, rows: int, generator: np.random.Generator) -> list[datetime]:
    start, end = (datetime.fromisoformat(each).replace(tzinfo=None) for each in column.range or (_FROM, _TO))
    days = (end - start) // timedelta(days=1)
    return [start + timedelta(days=int(day)) for day in generator.integers(days + 1, size=rows)]


def _categories(column: ColumnSchema, rows: int, generator: np.random.Generator) -> list[Any]:
    listed = column.categories or _CATEGORIES
    return [listed[i] for i in generator.integers(len(listed), size=rows)]


def _texts(column: ColumnSchema, rows: int, generator: np.random.Generator) -> list[str]:
    chosen = generator.integers(len(_WORDS), size=(rows, _WORDS_IN_TEXT))
    return [" ".join(_WORDS[i] for i in each) for each in chosen]


def _ids(column: ColumnSchema, rows: int, generator: np.random.Generator) -> list[str]:
    return [f"{column.name}-{number:06d}" for number in generator.permutation(rows) + 1]


def _groups(column: ColumnSchema, rows: int, generator: np.random.Generator) -> list[str]:
    groups = max(1, rows // _ROWS_IN_GROUP)
    return [f"{column.name}-{number:06d}" for number in generator.integers(groups, size=rows) + 1]


def _labels(column: ColumnSchema, rows: int, generator: np.random.Generator) -> NDArray[Any]:
    if column.categories is not None:
        return np.array(_categories(column, rows, generator))
    if column.range is not None:
        return _numbers(column, rows, generator)
    return generator.integers(2, size=rows)


def _pixels(shape: tuple[int, ...], rows: int, generator: np.random.Generator) -> NDArray[np.uint8]:
    return generator.integers(256, size=(rows, *shape), dtype=np.uint8)


_MAKERS: dict[str, Callable[[ColumnSchema, int, np.random.Generator], Any]] = {
    "numeric": _numbers,
    "category": _categories,
    "ordinal": _categories,
    "date": _dates,
    "text": _texts,
    "id": _ids,
    "group": _groups,
}
