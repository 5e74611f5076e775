"""What a column of Python objects or strings holds, told without looking at each where they are all of one type."""

from __future__ import annotations

import numbers
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

_NUMBERS = frozenset({"empty", "integer", "floating", "mixed-integer-float", "boolean", "decimal"})
_MIXED = frozenset({"mixed", "mixed-integer"})


def is_text(values: pd.Series[Any]) -> NDArray[np.bool_]:
    """Return which values are text [n]."""
    from pandas.api import types

    inferred = types.infer_dtype(values, skipna=True)
    if inferred == "string":
        return values.notna().to_numpy(np.bool_)
    if inferred not in _MIXED:
        return np.zeros(len(values), np.bool_)
    return np.array([isinstance(value, str) for value in values], np.bool_)


def are_numbers(values: pd.Series[Any]) -> bool:
    """Return whether all values that are not missing are real numbers or booleans."""
    from pandas.api import types

    inferred = types.infer_dtype(values, skipna=True)
    if inferred not in _MIXED:
        return inferred in _NUMBERS
    present = values[values.notna()]
    return all(isinstance(value, numbers.Real | np.bool_ | Decimal) for value in present)
