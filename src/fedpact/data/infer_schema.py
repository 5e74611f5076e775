"""What rows show of their own schema.

Every kind is told by what is true of all values of a column, or of any one, so that clients that each look at some of
the rows come to what one would that has them all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import DataError
from fedpact.core.rows import Rows
from fedpact.data.agree import labels_of
from fedpact.data.chunked import ChunkedRows
from fedpact.data.objects import are_numbers, is_text
from fedpact.data.preprocess.columns import as_frame
from fedpact.data.preprocess.dates import FittedDateParts
from fedpact.data.table_schema import ColumnSchema, Kind

if TYPE_CHECKING:
    import pandas as pd

# Of categories hardly any is longer, of free text hardly any is not.
_LONGEST_CATEGORY = 60
_ID = re.compile(r"(.*[ _.\-])?(id|uuid|guid|mrn|ssn)|.*[a-z](Id|ID)|(ID|UUID|MRN)")
_IMAGE_DIMENSIONS = (2, 3)


def columns_of(rows: Rows, label: str) -> tuple[ColumnSchema, ...]:
    """Return the columns of rows, the label last. See `TableSchema.infer`."""
    if isinstance(rows, ChunkedRows):
        return _united(rows.mapped(partial(_counted_columns, label)))
    x = rows.x
    if not hasattr(x, "columns") and np.ndim(x) > 2:
        columns = [ColumnSchema("x", "image", shape=tuple(np.shape(x)[1:]))]
    else:
        frame = as_frame(x)
        columns = [_column(name, frame[name]) for name in frame.columns]
    if rows.y is not None:
        if label in {column.name for column in columns}:
            raise DataError(
                f'a column is called "{label}" as the labels are; rename it, or call the labels otherwise with label=.'
            )
        labels_of(rows)
        columns.append(ColumnSchema(label, "label", missing=0.0))
    return tuple(columns)


def _counted_columns(label: str, rows: Rows) -> tuple[int, tuple[ColumnSchema, ...]]:
    return len(rows), columns_of(rows, label)


def _united(chunks: Iterator[tuple[int, tuple[ColumnSchema, ...]]]) -> tuple[ColumnSchema, ...]:
    """Return the columns of all chunks together, of which each comes with its number of rows."""
    rows, united = next(chunks)
    for more, columns in chunks:
        pairs = zip(united, columns, strict=True)
        united = tuple(_both(known, rows, found, more) for known, found in pairs)
        rows += more
    return united


def _both(one: ColumnSchema, rows: int, other: ColumnSchema, more: int) -> ColumnSchema:
    # Of so many rows the share that is missing tells their number, and the sum is a share of all rows again.
    missing = round((one.missing or 0.0) * rows) + round((other.missing or 0.0) * more)
    if one.empty or other.empty:
        return replace(other if one.empty else one, missing=missing / (rows + more))
    kind = one.kind if one.kind == other.kind else _kind_of_both(one.name, {one.kind, other.kind})
    if one.shape != other.shape:
        raise DataError(f'column "{one.name}" holds neither numbers, text, dates nor images; leave it out.')
    return replace(one, kind=kind, missing=missing / (rows + more))


def _kind_of_both(name: str, kinds: set[Kind]) -> Kind:
    """Return the kind of a column whose parts look like different ones."""
    if "numeric" in kinds:
        # Whole numbers in one part and others in the next.
        return "numeric"
    if _ID.fullmatch(name):
        return "id"
    return "text" if "text" in kinds else "category"


def _column(name: str, values: pd.Series[Any]) -> ColumnSchema:
    import pandas as pd

    missing = float(values.isna().mean()) if len(values) else 1.0
    present = values[values.notna()]
    if present.empty:
        return ColumnSchema(name, "numeric", missing=1.0)
    if isinstance(values.dtype, pd.CategoricalDtype) and values.dtype.ordered:
        ordered = values.dtype.categories.tolist()
        if all(isinstance(each, str | int | float) for each in ordered):
            return ColumnSchema(name, "ordinal", missing=missing, categories=tuple(ordered))
    return ColumnSchema(name, _kind(name, present), missing=missing, shape=_image_shape(present))


def _kind(name: str, present: pd.Series[Any]) -> Kind:
    import pandas as pd
    from pandas.api import types

    if isinstance(present.dtype, pd.CategoricalDtype):
        return "category"
    if types.is_numeric_dtype(present.dtype) and not types.is_complex_dtype(present.dtype):
        if types.is_bool_dtype(present.dtype) or not _ID.fullmatch(name):
            return "numeric"
        values = present.to_numpy(float)
        return "id" if bool(np.all(values == np.floor(values))) else "numeric"
    distinct = _distinct(present)
    if distinct is None:
        if _image_shape(present) is not None:
            return "image"
        raise DataError(f'column "{name}" holds neither numbers, text, dates nor images; leave it out.')
    texts = is_text(distinct)
    if not texts.any() and are_numbers(distinct):
        return "numeric"
    if _are_dates(distinct):
        return "date"
    if not texts.all() and not are_numbers(distinct[~texts]):
        raise DataError(f'column "{name}" holds values of dtype {present.dtype}; leave it out.')
    if _ID.fullmatch(name):
        return "id"
    long = any(len(each) > _LONGEST_CATEGORY or "\n" in each for each in distinct[texts])
    return "text" if long else "category"


def _distinct(present: pd.Series[Any]) -> pd.Series[Any] | None:
    """Return the distinct values; None where they have no hash, as arrays have none."""
    import pandas as pd

    try:
        return pd.Series(present.unique())
    except TypeError:
        return None


def _are_dates(values: pd.Series[Any]) -> bool:
    try:
        FittedDateParts(("x",), ("days",)).transform(values.to_frame("x"))
    except DataError:
        return False
    return True


def _image_shape(present: pd.Series[Any]) -> tuple[int, ...] | None:
    """Return the shape that all values have as arrays of pixels; None where they are none."""
    if present.dtype != object:
        return None
    first: NDArray[Any] | Any = present.iloc[0]
    if not isinstance(first, np.ndarray) or first.ndim not in _IMAGE_DIMENSIONS:
        return None
    alike = all(isinstance(each, np.ndarray) and each.shape == first.shape for each in present)
    return first.shape if alike else None
