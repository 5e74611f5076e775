"""From a client's raw rows to what a model reads: the same at every client, at the server and in a saved model."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import DataError
from fedpact.core.model import Schema
from fedpact.core.rows import ClientData, Rows
from fedpact.data.agree import Labels, classes_of, labels_of
from fedpact.data.chunked import ChunkedRows
from fedpact.data.preprocess.by_chunk import check_steps
from fedpact.data.preprocess.image_pipeline import ImagePipeline
from fedpact.data.preprocess.pipeline import Pipeline
from fedpact.data.preprocess.resample import Resampler
from fedpact.data.preprocess.steps import CrossFittedStep, RowStep
from fedpact.data.spool import ArrayFile
from fedpact.data.wording import at_client


@dataclass(frozen=True)
class Preparation:
    """How raw rows become examples and labels.

    Args:
        labels: the kind, classes and positions of the labels.
        shape: the shape of one example.
        pipeline: what prepares the rows of a table; None for arrays that are read as they are.
        failures: client → why its rows had no part in the preparation.
        class_counts: how many training rows of each class all clients have; () where nobody asked.
        resampler: what chooses anew which training rows a client learns from; None for its own as they are.
        notes: client → what is to be known of its rows.
        images: what prepares images; None for tables, and for images that are read as they are.
    """

    labels: Labels
    shape: tuple[int, ...]
    pipeline: Pipeline | None
    failures: Mapping[str, str] = field(default_factory=dict)
    class_counts: tuple[int, ...] = ()
    resampler: Resampler | None = None
    notes: Mapping[str, str] = field(default_factory=dict)
    images: ImagePipeline | None = None

    @property
    def schema(self) -> Schema:
        """What a model is built for."""
        features = self.pipeline.feature_names_out if self.pipeline else ()
        labels = self.labels
        return Schema(
            labels.kind, self.shape, labels.classes, tuple(features), labels.positions, self.class_counts
        )

    @property
    def row_by_row(self) -> bool:
        """Whether what becomes of a training row depends neither on the client nor on its other rows."""
        return not self.resizes and not any(isinstance(step, CrossFittedStep) for step in self._steps)

    @property
    def resizes(self) -> bool:
        """Whether a client may train on more rows than it has, or on fewer."""
        return self.resampler is not None or self._leaves_rows_out

    @property
    def _steps(self) -> tuple[Any, ...]:
        return self.pipeline.steps if self.pipeline else ()

    @property
    def _leaves_rows_out(self) -> bool:
        return any(isinstance(step, RowStep) for step in self._steps)

    @property
    def for_others(self) -> "Preparation":
        """What prepares rows of any clients, without what is said and done about those it was made with."""
        return replace(self, failures={}, resampler=None, notes={})

    def client(self, data: ClientData, dtype: str, narrower: bool = False) -> ClientData:
        """Return a client with prepared rows.

        Args:
            data: the client with its raw rows.
            dtype: of the examples, where they are floats.
            narrower: leave arrays of narrower floats as they are.

        Raises:
            DataError: its rows do not fit; the client, the column and the row are named.
        """
        with at_client(data.id, "training"):
            train = self._rows(data.train, dtype, narrower, training_of=data.id)
            if len(data.train) and not len(train):
                raise DataError(
                    f"preprocess leaves out all {len(data.train)} rows; mend them, or leave the client out."
                )
            train = self._resampled(train, dtype, data.id)
        if data.test is None:
            return ClientData(data.id, train)
        with at_client(data.id, "test"):
            return ClientData(data.id, train, self._rows(data.test, dtype, narrower))

    def training_classes(self, data: ClientData) -> NDArray[np.int64]:
        """Return the class indexes of the rows that a client with raw rows trains on [n] or [n, *positions].

        Raises:
            DataError: its rows cannot be used; the client is named.
        """
        if self.resampler is not None:
            return np.asarray(self.client(ClientData(data.id, data.train), "float64", narrower=True).train.y)
        with at_client(data.id, "training"):
            labels = self.labels.encode(labels_of(data.train))
            if self.pipeline is None or not self._leaves_rows_out:
                return labels
            return labels[self.pipeline.selected(data.train.x, training_of=data.id)[1]]

    def examples(self, x: Any, dtype: str, narrower: bool = False) -> NDArray[Any]:
        """Return features as the model reads them [n, ...]: all of them, as they are predicted.

        Args:
            x: the features.
            dtype: of the examples, where they are floats.
            narrower: leave arrays of narrower floats as they are.

        Raises:
            DataError: a column is missing, they have another shape, or a value is missing, infinite or no number.
        """
        if self.pipeline is not None:
            return self.pipeline.matrix(x, dtype)
        x = np.asarray(x) if self.images is None else self.images.transform(x)
        if x.shape[1:] != self.shape:
            raise DataError(
                f"the examples have shape {list(x.shape[1:])}; the model is made for {list(self.shape)}."
            )
        if x.dtype.kind not in "biuf":
            raise DataError(
                f"the examples are an array of dtype {x.dtype}; give numbers, or text to be encoded by preprocess."
            )
        return _finite(x, dtype, narrower) if x.dtype.kind == "f" else x

    def answers(self, predicted: NDArray[Any]) -> NDArray[Any]:
        """Return the labels that a model's predictions stand for."""
        return classes_of(self.labels, predicted)

    def to_json(self) -> dict[str, Any]:
        """Return the preparation as plain data."""
        return {
            "kind": self.labels.kind,
            "classes": list(self.labels.classes),
            "positions": list(self.labels.positions),
            "shape": list(self.shape),
            "pipeline": None if self.pipeline is None else self.pipeline.to_json(),
            "failures": dict(self.failures),
            "class_counts": list(self.class_counts),
            "resampler": None if self.resampler is None else self.resampler.to_json(),
            "notes": dict(self.notes),
            "images": None if self.images is None else self.images.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Preparation":
        """Return the preparation that `to_json` wrote down."""
        pipeline = None if data["pipeline"] is None else Pipeline.from_json(data["pipeline"])
        labels = Labels(data["kind"], tuple(data["classes"]), tuple(data["positions"]))
        # What came later is not in files of earlier versions.
        resampler = Resampler.from_json(data["resampler"]) if data.get("resampler") else None
        images = ImagePipeline.from_json(data["images"]) if data.get("images") else None
        return cls(
            labels,
            tuple(data["shape"]),
            pipeline,
            dict(data["failures"]),
            tuple(data.get("class_counts", ())),
            resampler,
            dict(data.get("notes", {})),
            images,
        )

    def _rows(self, rows: Rows, dtype: str, narrower: bool, training_of: str | None = None) -> Rows:
        if isinstance(rows, ChunkedRows):
            return self._mapped(rows, dtype, training_of)
        labels = self.labels.encode(labels_of(rows))
        if self.pipeline is None:
            return Rows(self.examples(rows.x, dtype, narrower), labels)
        matrix, places = self.pipeline.selected_matrix(rows.x, dtype, training_of)
        return Rows(matrix, labels if len(places) == len(labels) else labels[places])

    def _mapped(self, rows: ChunkedRows, dtype: str, training_of: str | None) -> Rows:
        """Return prepared rows that are in a file, of which memory holds what is being read."""
        check_steps(self._steps)
        x, y = ArrayFile(), ArrayFile()
        for chunk in rows.mapped(lambda chunk: self._rows(chunk, dtype, False, training_of)):
            x.add(chunk.x)
            y.add(np.asarray(chunk.y))
        return Rows(x.mapped(), y.mapped())

    def _resampled(self, rows: Rows, dtype: str, client: str) -> Rows:
        if self.resampler is None:
            return rows
        # Points between whole numbers are not whole.
        x = rows.x.astype(dtype) if self.resampler.computes and rows.x.dtype.kind != "f" else rows.x
        return Rows(*self.resampler.resample(x, np.asarray(rows.y), client))


def _finite(x: NDArray[Any], dtype: str, narrower: bool) -> NDArray[Any]:
    kept = narrower and x.dtype.itemsize < np.dtype(dtype).itemsize
    with np.errstate(over="ignore"):
        examples = x if kept else x.astype(dtype, copy=False)
    # A sum is finite only if all its terms are, and one pass over them; where it is not, one looks closer.
    with np.errstate(over="ignore", invalid="ignore"):
        total = examples.sum(dtype=examples.dtype)
    if np.isfinite(total):
        return examples
    bad = ~np.isfinite(examples).reshape(len(x), -1).all(axis=1)
    if bad.any():
        advice = "leave these rows out" + (", or preprocess with Impute" if x.ndim == 2 else "")
        raise DataError(
            f"a value is missing, infinite or too large for {dtype} in {bad.sum()} row(s), first in row "
            f"{np.argmax(bad) + 1}; {advice}."
        )
    return examples
