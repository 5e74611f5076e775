"""The pipeline: what makes a client's raw table into the matrix that a model reads.

It is part of the model: saved in the model's file, and applied to every row that is ever predicted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fedpact.core.errors import DataError, ModelError
from fedpact.data.preprocess.columns import ColumnKind, Columns, as_frame
from fedpact.data.preprocess.matrix import HotStep, write
from fedpact.data.preprocess.on_demand import ColumnStep, PreparedRows, aligned
from fedpact.data.preprocess.steps import CrossFittedStep, FittedStep, RowStep

if TYPE_CHECKING:
    import pandas as pd

# The names that fitted steps go by in a model's file, and where each is.
_FITTED = {
    "ClipRange": "clip:FittedClipRange",
    "Impute": "impute:FittedImpute",
    "Log": "log:FittedLog",
    "MaxAbs": "minmax:FittedMaxAbs",
    "MinMax": "minmax:FittedMinMax",
    "OneHot": "encode:FittedOneHot",
    "Ordinal": "ordinal:FittedOrdinal",
    "MergeRare": "rare:FittedMergeRare",
    "TargetEncode": "target:FittedTargetEncode",
    "DateParts": "dates:FittedDateParts",
    "HashText": "hash_text:FittedHashText",
    "TfIdf": "tf_idf:FittedTfIdf",
    "Bin": "bins:FittedBin",
    "Clean": "clean:FittedClean",
    "Drop": "drop:FittedDrop",
    "DropDuplicates": "duplicates:FittedDropDuplicates",
    "IterativeImpute": "iterative:FittedIterativeImpute",
    "PCA": "pca:FittedPCA",
    "QuantileTransform": "quantile_transform:FittedQuantileTransform",
    "Robust": "robust:FittedRobust",
    "Standardize": "scale:FittedStandardize",
    "YeoJohnson": "power:FittedYeoJohnson",
}
# Tables of so many rows cost little to make, and little memory.
_ROWS_AT_ONCE = 1 << 15
_NOT_NUMERIC: dict[ColumnKind, str] = {
    "category": "encode with OneHot, or leave out",
    "other": "take DateParts of dates, or leave out",
}


@dataclass(frozen=True)
class Pipeline:
    """Fitted steps in order; without steps, a check of columns and kinds.

    Rows are counted from 1 in messages.

    Args:
        columns: the columns of the raw tables that were agreed on.
        steps: the steps.
    """

    columns: Columns
    steps: tuple[FittedStep, ...] = ()

    @cached_property
    def columns_out(self) -> Columns:
        """The columns behind the last step."""
        columns = self.columns
        for step in self.steps:
            columns = step.columns_out(columns)
        return columns

    @property
    def feature_names_out(self) -> tuple[str, ...]:
        """The names of the matrix's columns."""
        return self.columns_out.names

    def transform(self, x: Any, training_of: str | None = None) -> pd.DataFrame:
        """Return the prepared table; columns that were not agreed on are left out.

        Args:
            x: a DataFrame, or an array [n, columns].
            training_of: the client whose training rows these are, all and in order; None for any other rows, and
                where a step leaves rows out: see `selected`.

        Raises:
            DataError: a column is missing, a numeric column holds text or an infinite number, or a step
                cannot prepare a value.
            ConfigError: an array that is no table.
        """
        frame = aligned(as_frame(x), self.columns)
        for step in self.steps:
            frame = _applied(step, frame, training_of)
        return frame

    def selected(
        self, x: Any, training_of: str | None = None
    ) -> tuple[pd.DataFrame | PreparedRows, NDArray[np.int64]]:
        """Return the prepared rows to learn from or to be judged on, and the places of those kept [m].

        Where all steps work column by column, so do the rows: `as_frame` makes the columns that are asked for.

        Args:
            x: a DataFrame, or an array [n, columns].
            training_of: the client whose training rows these are, all and in order; None for test rows.

        Raises:
            DataError: as `transform`.
            ConfigError: an array that is no table.
        """
        raw = as_frame(x)
        places = np.arange(len(raw))
        by_column = self._by_column
        if by_column is not None:
            return PreparedRows(raw, self.columns, by_column), places
        frame = aligned(raw, self.columns)
        for step in self.steps:
            if isinstance(step, RowStep):
                kept = step.rows_kept(frame, training_of)
                frame, places = frame[kept], places[kept]
            frame = _applied(step, frame, training_of)
        return frame, places

    def check_numeric(self) -> None:
        """Make sure that every column behind the last step is numeric.

        Raises:
            DataError: some are not.
        """
        for kind, advice in _NOT_NUMERIC.items():
            names = self.columns_out.of_kind(kind)
            if names:
                raise DataError(f"no model can read what these columns hold; {advice}: {', '.join(names)}.")

    def matrix(self, x: Any, dtype: DTypeLike = np.float64, training_of: str | None = None) -> NDArray[Any]:
        """Return the prepared rows as a matrix [n, features], in the order of `feature_names_out`.

        Args:
            x: a DataFrame, or an array [n, columns].
            dtype: float64 or float32.
            training_of: as in `transform`.

        Raises:
            DataError: as `transform`; and where a column is not numeric, still has missing values, or holds
                a number that does not fit the dtype.
            ConfigError: an array that is no table.
        """
        self.check_numeric()
        if self._by_column is not None:
            return self._in_parts(as_frame(x), dtype)
        return self._matrix(self.transform(x, training_of), dtype)

    def selected_matrix(
        self, x: Any, dtype: DTypeLike = np.float64, training_of: str | None = None
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return a matrix of rows to learn from or to be judged on [m, features], and the places of those kept [m].

        Args:
            x: a DataFrame, or an array [n, columns].
            dtype: float64 or float32.
            training_of: as in `selected`.

        Raises:
            DataError: as `matrix`.
            ConfigError: an array that is no table.
        """
        self.check_numeric()
        if self._by_column is not None:
            matrix = self._in_parts(as_frame(x), dtype)
            return matrix, np.arange(len(matrix))
        frame, places = self.selected(x, training_of)
        return self._matrix(as_frame(frame), dtype), places

    @cached_property
    def _by_column(self) -> tuple[ColumnStep, ...] | None:
        steps = tuple(step for step in self.steps if isinstance(step, ColumnStep))
        return steps if len(steps) == len(self.steps) else None

    def _in_parts(self, raw: pd.DataFrame, dtype: DTypeLike) -> NDArray[Any]:
        """Return the matrix of steps that work row by row, which need no more memory than a part of the rows."""
        matrix = np.empty((len(raw), len(self.feature_names_out)), dtype)
        last = self.steps[-1] if self.steps else None
        steps = self.steps[:-1] if isinstance(last, HotStep) else self.steps
        try:
            for start in range(0, len(raw), _ROWS_AT_ONCE):
                frame = aligned(raw.iloc[start : start + _ROWS_AT_ONCE], self.columns)
                for step in steps:
                    frame = step.transform(frame)
                part = matrix[start : start + _ROWS_AT_ONCE]
                write(frame, last.hot(frame) if isinstance(last, HotStep) else {}, part)
        except DataError:
            if len(raw) <= _ROWS_AT_ONCE:
                raise
            # Of all rows at once, the message counts them right.
            return self._matrix(self.transform(raw), dtype)
        return matrix

    def _matrix(self, frame: pd.DataFrame, dtype: DTypeLike) -> NDArray[Any]:
        matrix = np.empty((len(frame), len(self.feature_names_out)), dtype)
        write(frame, {}, matrix)
        return matrix

    def to_json(self) -> dict[str, Any]:
        """Return the pipeline as plain data."""
        steps = [
            {"name": type(step).__name__.removeprefix("Fitted"), **step.to_json()} for step in self.steps
        ]
        return {"columns": self.columns.to_json(), "steps": steps}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Pipeline:
        """Return the pipeline that `to_json` wrote down.

        Raises:
            ModelError: these are no such data, or a step that this version does not know.
        """
        try:
            for step in data["steps"]:
                if step["name"] not in _FITTED:
                    raise ModelError(
                        f'this version of Fedpact knows no preprocessing step "{step["name"]}"; it knows '
                        f"{', '.join(_FITTED)}."
                    )
            steps = tuple(_kind_of(step["name"]).from_json(step) for step in data["steps"])
            return cls(Columns.from_json(data["columns"]), steps)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ModelError(f"the model's preprocessing cannot be read: {error!r}.") from error


def _applied(step: FittedStep, frame: pd.DataFrame, training_of: str | None) -> pd.DataFrame:
    if training_of is not None and isinstance(step, CrossFittedStep):
        return step.transform_training(frame, training_of)
    return step.transform(frame)


def _kind_of(name: str) -> Any:
    """Return the class of the fitted step of this name."""
    module, _, kind = _FITTED[name].partition(":")
    return getattr(import_module(f"fedpact.data.preprocess.{module}"), kind)
