"""From a client's raw rows to what a model reads: agreed on and fitted over all clients, applied at each alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.channel.channel import Channel
from fedpact.channel.mask import Mask
from fedpact.core.errors import ConfigError, DataError
from fedpact.core.model import Schema
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.data.agree import AgreeOnRows, Labels, classes_of, labels_of
from fedpact.data.chunked import ChunkedRows
from fedpact.data.preprocess.by_chunk import ByChunk, check_steps
from fedpact.data.preprocess.class_counts import ClassCounts
from fedpact.data.preprocess.fit import FitPipeline
from fedpact.data.preprocess.image_fit import FitImages
from fedpact.data.preprocess.image_pipeline import ImagePipeline
from fedpact.data.preprocess.image_resize import size_first
from fedpact.data.preprocess.image_steps import are_image_steps, check_images
from fedpact.data.preprocess.pipeline import Pipeline
from fedpact.data.preprocess.resample import Resampler, resampling_apart
from fedpact.data.preprocess.steps import CrossFittedStep, RowStep
from fedpact.data.spool import ArrayFile
from fedpact.data.wording import at_client
from fedpact.engine.masked_sums import hide_sums
from fedpact.engine.population import Population, stand_in
from fedpact.engine.rounds import hold_to_end
from fedpact.engine.trained_classes import TrainedClasses
from fedpact.engine.work import Engine, Rules, Setting
from fedpact.learn.class_weight import counts_classes


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
        whole = (RowStep, CrossFittedStep)
        steps = self.pipeline.steps if self.pipeline else ()
        return self.resampler is None and not any(isinstance(step, whole) for step in steps)

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
            if self.resampler is not None:
                train = self._resampled(train, dtype, data.id)
        if data.test is None:
            return ClientData(data.id, train)
        with at_client(data.id, "test"):
            return ClientData(data.id, train, self._rows(data.test, dtype, narrower))

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
        check_steps(self.pipeline.steps if self.pipeline else ())
        x, y = ArrayFile(), ArrayFile()
        for chunk in rows.mapped(lambda chunk: self._rows(chunk, dtype, False, training_of)):
            x.add(chunk.x)
            y.add(np.asarray(chunk.y))
        return Rows(x.mapped(), y.mapped())

    def _resampled(self, rows: Rows, dtype: str, client: str) -> Rows:
        if self.resampler is None or rows.y is None:
            return rows
        # Points between whole numbers are not whole.
        x = rows.x.astype(dtype) if self.resampler.computes and rows.x.dtype.kind != "f" else rows.x
        return Rows(*self.resampler.resample(x, rows.y.astype(np.int64, copy=False), client))


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


def prepare(
    model: Any,
    steps: Sequence[Any],
    population: Population,
    engine: Engine,
    rules: Rules,
    seed: Seed,
    failures: Mapping[str, str] | None = None,
    weighed: bool | None = None,
    mask: Mask | None = None,
) -> Preparation:
    """Agree on labels and columns, and fit each step on what the steps before it make of the training rows.

    A population that describes itself is taken at its word: its clients are asked for what steps are fitted on alone.

    Args:
        model: the model's specification, for the kind of label it is made for.
        steps: the specifications of the steps.
        population: the clients with their raw rows.
        engine: who runs the clients.
        rules: how many must answer.
        seed: the job's.
        failures: client → why it had no part in what came before.
        weighed: whether clients have to count their training rows of each class; None for whether the model needs it.
        mask: what hides each client's part of the sums; None for nothing.

    Raises:
        DataError: a client's rows cannot be used, or clients do not agree; each is named.
        ConfigError: a step does not fit the columns.
    """
    failures = dict(failures or {})
    weighed = counts_classes(model) if weighed is None else weighed
    steps, resampling = resampling_apart(steps)

    one = stand_in(population)

    def ask(algorithm: Any, of_all: bool) -> Any:
        stream = seed.child(type(algorithm).__name__)
        # One client that stands for all is a quorum.
        clients, how = (population, rules) if of_all or one is None else (one, replace(rules, quorum=1))
        setting = Setting(algorithm, None, clients, Channel((), algorithm), how, stream)
        # What stands for all is nobody's, and has nothing to hide.
        hidden = None if mask is None or clients is one else partial(hide_sums, mask)
        return hold_to_end(engine, setting, failures, hidden)

    def completed(preparation: Preparation) -> Preparation:
        counts: tuple[int, ...] = ()
        counted = weighed and preparation.labels.kind != "regression"
        if counted or any(step.counts_classes for step in resampling):
            pipeline = preparation.pipeline
            counting = ClassCounts(preparation.labels, None if pipeline is None else pipeline.to_json())
            counts = counting.fitted(ask(ByChunk(counting), of_all=True))
        stream = seed.child("resampling").key.hex()
        resampler = Resampler(resampling, stream, counts) if resampling else None
        if counted and resampler is not None:
            # A class weighs by the rows that are trained on.
            prepared = replace(preparation, resampler=resampler)
            trained = TrainedClasses(preparation.labels, prepare=partial(prepared.client, dtype="float64"))
            counts = trained.fitted(ask(trained, of_all=True))
        notes = agreement.lacking() if resampling or getattr(model, "class_weight", None) else {}
        return replace(preparation, class_counts=counts, resampler=resampler, notes=notes)

    of_images = are_image_steps(steps)
    agreement = ask(AgreeOnRows(getattr(model, "kind", None), size_first(steps)), of_all=False)
    for step in resampling:
        # The shape of a table's examples is known once it is prepared, and is that of a row.
        step.check(agreement.labels, agreement.shape or (0,))
    if agreement.shape is not None and not steps:
        return completed(Preparation(agreement.labels, agreement.shape, None, failures))
    if of_images:
        fitting_images = FitImages(tuple(steps), check_images(steps, agreement.shape))
        images = fitting_images.fitted(ask(fitting_images, of_all=True))
        return completed(Preparation(agreement.labels, images.shape_out, None, failures, images=images))
    if agreement.shape is not None and len(agreement.shape) != 1:
        raise ConfigError(
            f"preprocess prepares tables, but these examples are arrays of shape {agreement.shape}; "
            "leave preprocess out."
        )
    fitting = FitPipeline(tuple(steps), agreement.labels)
    pipeline = fitting.fitted(ask(fitting, of_all=bool(steps)))
    return completed(Preparation(agreement.labels, (len(pipeline.feature_names_out),), pipeline, failures))
