"""Rows behind fitted steps, of which only the columns that are asked for are prepared."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from fedpact.data.preprocess.columns import ColumnKind, Columns, as_categories, as_numbers, coded, column
from fedpact.data.preprocess.steps import FittedStep

if TYPE_CHECKING:
    import pandas as pd

Transform: TypeAlias = "Callable[[pd.DataFrame], pd.DataFrame]"


@runtime_checkable
class ColumnStep(FittedStep, Protocol):
    """A fitted step that makes each of its columns of a single one, and each row of it of that row alone."""

    def narrowed(self, names: Collection[str]) -> tuple[Transform, set[str]]:
        """Return what makes these of the columns behind the step, and which columns in front of it that takes.

        Args:
            names: columns behind the step.
        """
        ...


class PreparedRows:
    """A client's rows behind steps that work column by column.

    What does not fit the agreed columns is found at once, whether it is asked for or not.

    Args:
        frame: the raw table.
        columns: the columns that were agreed on.
        steps: the steps.

    Raises:
        DataError: a column is missing, or holds what its kind does not allow.
    """

    def __init__(self, frame: pd.DataFrame, columns: Columns, steps: Sequence[ColumnStep]) -> None:
        self._frame = _checked(frame, columns)
        self._columns = columns
        self._steps = steps

    def __len__(self) -> int:
        return len(self._frame)

    def frame(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """Return a table of the rows.

        Args:
            names: the columns that it has to have, of which it may have more; None for all.

        Raises:
            DataError: a step cannot prepare a value.
        """
        transforms: list[Transform] = []
        if names is None:
            transforms = [step.transform for step in reversed(self._steps)]
            needed = set(self._columns.names)
        else:
            needed = set(names)
            for step in reversed(self._steps):
                transform, needed = step.narrowed(needed)
                transforms.append(transform)
        frame = aligned(
            self._frame, Columns(tuple(item for item in self._columns.items if item[0] in needed))
        )
        for transform in reversed(transforms):
            frame = transform(frame)
        return frame


def aligned(frame: pd.DataFrame, columns: Columns) -> pd.DataFrame:
    """Return a table of these columns, numbers as float64 and categories as pandas categoricals.

    Raises:
        DataError: a column is missing, or holds what its kind does not allow.
    """
    import pandas as pd

    made = {name: _aligned(frame, name, kind) for name, kind in columns.items}
    return pd.DataFrame(made, index=frame.index, copy=False)


def _aligned(frame: pd.DataFrame, name: str, kind: ColumnKind) -> Any:
    if kind == "numeric":
        return as_numbers(frame, name)
    if kind == "category":
        return coded(*as_categories(frame, name))
    return column(frame, name)


def _checked(frame: pd.DataFrame, columns: Columns) -> pd.DataFrame:
    """Return the table of these columns: aligned, but for those that are as quickly aligned later, without a copy."""
    import pandas as pd

    made: dict[str, Any] = {}
    for name, kind in columns.items:
        dtype = column(frame, name).dtype
        if kind == "numeric" and isinstance(dtype, np.dtype) and dtype.kind in "biuf":
            if dtype.kind == "f":
                as_numbers(frame, name)
            made[name] = frame[name]
        elif kind == "category" and isinstance(dtype, pd.StringDtype):
            made[name] = frame[name]
        else:
            made[name] = _aligned(frame, name, kind)
    return pd.DataFrame(made, index=frame.index, copy=False)
