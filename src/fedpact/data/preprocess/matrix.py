"""The matrix that a model reads, written row by row from columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fedpact.core.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

# A column's next number lies a whole row further on: of so many rows all stay in the cache of one core.
_BLOCK_BYTES = 1 << 19


class Hot(NamedTuple):
    """Columns of which each row has a one in a single one, or in none.

    Args:
        places: the column of each row's one [n]; below 0 where it has none.
        width: the number of columns.
    """

    places: NDArray[np.int64]
    width: int


@runtime_checkable
class HotStep(Protocol):
    """A fitted step that replaces columns by columns of zeros and ones; it is a `FittedStep` as well."""

    def hot(self, frame: pd.DataFrame) -> Mapping[str, Hot]:
        """Return column → what it is replaced by.

        Raises:
            DataError: the step cannot prepare a value.
        """
        ...


def write(frame: pd.DataFrame, hot: Mapping[str, Hot], matrix: NDArray[Any]) -> None:
    """Write all columns of a table into a matrix.

    Args:
        frame: the table.
        hot: those of its columns that are replaced by others.
        matrix: where to write [n, columns].

    Raises:
        DataError: a column is not numeric, has missing values, or holds a number that does not fit the matrix.
    """
    numbers: list[tuple[int, NDArray[Any]]] = []
    ones: list[tuple[int, NDArray[np.int64]]] = []
    end = 0
    for name in frame.columns:
        if name in hot:
            ones.append((end, hot[name].places))
            end += hot[name].width
        else:
            numbers.append((end, _fitting(name, frame[name].to_numpy(np.float64), matrix.dtype)))
            end += 1
    rows = max(1, _BLOCK_BYTES // max(1, matrix.shape[1] * matrix.itemsize))
    for start in range(0, len(matrix), rows):
        block = matrix[start : start + rows]
        if ones:
            block[...] = 0
        for place, values in numbers:
            block[:, place] = values[start : start + rows]
        for first, places in ones:
            place_of = places[start : start + rows]
            known = np.flatnonzero(place_of >= 0)
            block[known, first + place_of[known]] = 1


def _fitting(name: str, values: NDArray[np.float64], dtype: DTypeLike) -> NDArray[Any]:
    with np.errstate(over="ignore", invalid="ignore"):
        numbers: NDArray[Any] = values.astype(dtype, copy=False)
        # A sum is finite only if all its terms are; where it is not, one looks closer.
        total = numbers.sum()
    if np.isfinite(total):
        return numbers
    missing = int(np.isnan(values).sum())
    if missing:
        raise DataError(f'column "{name}" still has {missing} missing value(s); add Impute.')
    if not np.isfinite(numbers).all():
        raise DataError(f'column "{name}" holds numbers too large for {np.dtype(dtype)}; add Standardize.')
    return numbers
