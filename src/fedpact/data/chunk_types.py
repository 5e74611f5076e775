"""The types of a table's columns, told from its chunks: those that the whole table would have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from fedpact.core.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

Spelt = Literal["empty", "integer", "large integer", "float", "boolean", "text", "other"]

# Up to here a float64 is the integer that is written, whichever way it is read.
_EXACT = 2**53


@dataclass
class SpeltColumn:
    """What the chunks of a column of a text file spell.

    Args:
        name: the column.
        kinds: what they were read as.
        gaps: whether a value is missing.
        negative: whether an integer is below 0.
        inexact: whether an integer is beyond what float64 holds exactly.
    """

    name: str
    kinds: set[Spelt] = field(default_factory=set)
    gaps: bool = False
    negative: bool = False
    inexact: bool = False

    def note(self, values: pd.Series[Any]) -> None:
        """Look at a chunk."""
        kind = _spelt(values)
        self.kinds.add(kind)
        self.gaps = self.gaps or kind == "empty" or bool(values.isna().any())
        if kind == "integer":
            least, largest = int(values.min()), int(values.max())
            self.negative = self.negative or least < 0
            self.inexact = self.inexact or max(-least, largest) > _EXACT

    def dtype(self, whose: str) -> Any:
        """Return the type of the whole column: str, or that of numbers or objects.

        Raises:
            DataError: it holds integers that have no type in common.
        """
        kinds = self.kinds - {"empty"}
        if "text" in kinds or ("boolean" in kinds and len(kinds) > 1):
            return str
        if kinds == {"boolean"}:
            return np.dtype(object) if self.gaps else np.dtype(bool)
        if kinds <= {"integer"} and kinds and not self.gaps:
            return np.dtype(np.int64)
        if kinds <= {"integer", "float"}:
            return np.dtype(np.float64)
        if "other" not in kinds and "float" not in kinds and not self.gaps and not self.negative:
            return np.dtype(np.uint64)
        raise DataError(
            f'{whose}: column "{self.name}" holds whole numbers of more digits than a number has; name it in '
            "text=[...]."
        )

    def must_be_read_as(self, whose: str) -> Any:
        """Return the type to read all chunks as where a chunk alone loses what the whole column has; else None."""
        dtype = self.dtype(whose)
        if dtype is str and self.kinds - {"text", "empty"}:
            return str
        if dtype == np.float64 and self.inexact:
            return np.dtype(np.float64)
        return None


def _spelt(values: pd.Series[Any]) -> Spelt:
    from pandas.api import types

    if values.isna().all():
        return "empty"
    kind = values.dtype.kind
    if kind in "iufb":
        of_kind: dict[str, Spelt] = {"i": "integer", "u": "large integer", "f": "float", "b": "boolean"}
        return of_kind[kind]
    inferred = types.infer_dtype(values, skipna=True)
    return "boolean" if inferred == "boolean" else "text" if inferred == "string" else "other"


@dataclass
class TypedColumn:
    """The types that the chunks of a column have, where they come with types.

    Args:
        samples: type → a value of it, of chunks that have values.
        empty: the type of chunks without any.
        gaps: whether a value is missing.
    """

    samples: dict[Any, pd.Series[Any]] = field(default_factory=dict)
    empty: Any = None
    gaps: bool = False

    def note(self, values: pd.Series[Any]) -> None:
        """Look at a chunk."""
        present = values.notna()
        self.gaps = self.gaps or not bool(present.all())
        if present.any():
            self._keep(values[present].iloc[:1])
        elif self.empty is None:
            self.empty = values.dtype

    def _keep(self, sample: pd.Series[Any]) -> None:
        import pandas as pd

        known = self.samples.get(
            sample.dtype.name if isinstance(sample.dtype, pd.CategoricalDtype) else sample.dtype
        )
        if isinstance(sample.dtype, pd.CategoricalDtype):
            # Dictionaries of chunks are united in the order in which their categories come.
            listed = {} if known is None else dict.fromkeys(known.cat.categories)
            listed |= dict.fromkeys(sample.cat.categories)
            united = pd.CategoricalDtype(list(listed), sample.dtype.ordered)
            self.samples["category"] = sample.astype(united)
        elif known is None:
            self.samples[sample.dtype] = sample

    def dtype(self) -> Any:
        """Return the type of the whole column."""
        import pandas as pd

        if not self.samples:
            return self.empty
        samples = list(self.samples.values())
        dtype = samples[0].dtype if len(samples) == 1 else pd.concat(samples).dtype
        if self.gaps and isinstance(dtype, np.dtype):
            return (
                np.dtype(np.float64)
                if dtype.kind in "iu"
                else np.dtype(object)
                if dtype.kind == "b"
                else dtype
            )
        return dtype


def as_types(frame: pd.DataFrame, dtypes: Mapping[str, Any]) -> pd.DataFrame:
    """Return a chunk with its columns of these types."""
    import pandas as pd

    columns: dict[str, Any] = {}
    for name in frame.columns:
        values = frame[name]
        dtype = "str" if dtypes[name] is str else dtypes[name]
        if values.dtype == dtype or (dtypes[name] is str and not values.isna().all()):
            columns[name] = values
        elif values.isna().all():
            columns[name] = pd.Series([None] * len(values), index=values.index, dtype=dtype)
        else:
            columns[name] = values.astype(cast(Any, dtype))
    return pd.DataFrame(columns, index=frame.index, copy=False)
