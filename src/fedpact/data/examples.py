"""Examples that are no table: arrays, and what a torch Dataset gives one after the other."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import DataError


class Examples(Protocol):
    """Examples by position, as a torch Dataset has them: each an (x, y) pair, or x alone."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


def pair_of(whose: str, source: Any) -> tuple[Any, NDArray[Any] | None]:
    """Return features and labels, as arrays with an entry for each row; a table of features stays one.

    Args:
        whose: in whose name errors speak.
        source: a pair (x, y), x alone, or a torch Dataset, whose examples are stacked.

    Raises:
        DataError: it is none of these, or has no row.
    """
    if isinstance(source, tuple) and len(source) == 2:
        x, y = source
    elif isinstance(source, np.ndarray):
        x, y = source, None
    elif hasattr(source, "__len__") and hasattr(source, "__getitem__"):
        x, y = _stacked(whose, source)
    else:
        raise DataError(
            f"{whose}: a {type(source).__name__} is no source of rows. "
            "Give a path, a DataFrame, a pair (x, y) of arrays, or a torch Dataset."
        )
    features = x if hasattr(x, "iloc") else _array(whose, "x", x)
    return features, None if y is None else _array(whose, "y", y)


def _stacked(whose: str, examples: Examples) -> tuple[Any, Any]:
    # By position, since a torch Dataset need not end with the IndexError that a for loop waits for.
    items = [examples[position] for position in range(len(examples))]
    if not items:
        raise DataError(f"{whose} has no rows: give it at least one, or leave it out.")
    paired = isinstance(items[0], (tuple, list)) and len(items[0]) == 2
    try:
        x = np.stack([np.asarray(item[0] if paired else item) for item in items])
        y = np.stack([np.asarray(item[1]) for item in items]) if paired else None
    except (ValueError, TypeError, IndexError) as error:
        raise DataError(f"{whose}: the examples cannot be stacked into one array: {error}") from error
    return x, y


def _array(whose: str, name: str, values: Any) -> NDArray[Any]:
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:
        raise DataError(f"{whose}: {name} cannot be made an array: {error}") from error
    if array.ndim == 0:
        raise DataError(
            f"{whose}: {name} must be an array with one entry per row, not a {type(values).__name__}."
        )
    if name == "x" and array.dtype == object:
        raise DataError(f"{whose}: x is an array of objects: give an array of one dtype, or a DataFrame.")
    # A torch Dataset often gives its label as an array of one.
    return array[:, 0] if name == "y" and array.shape[1:] == (1,) else array
