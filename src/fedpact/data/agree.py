"""What all clients' rows must have in common: kind, classes and shape of their labels, the shape of their examples.

Messages about a client's rows name the row, counted from 1, and never its label: an error may travel where the
data may not.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fedpact.core.algorithm import ClientState
from fedpact.core.errors import DataError
from fedpact.core.messages import Aggregate, Everyone, Task, Update
from fedpact.core.model import Kind
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.data.chunked import ChunkedRows
from fedpact.data.objects import is_text
from fedpact.data.split import MOST_CLASSES, classes_in
from fedpact.data.wording import at_client

_CLASSES_SHOWN = 10


@dataclass(frozen=True)
class Labels:
    """What is to be predicted.

    Args:
        kind: the kind of label.
        classes: in the order of their indexes; none for regression.
        positions: the shape of one example's labels: () for one label, (80,) for the next character at each of
            80, (64, 64) for a mask of an image.
    """

    kind: Kind
    classes: tuple[Any, ...] = ()
    positions: tuple[int, ...] = ()

    @cached_property
    def _are_indexes(self) -> bool:
        return self.classes == tuple(range(len(self.classes)))

    def encode(self, labels: NDArray[Any]) -> NDArray[Any]:
        """Return class indexes (int64) or numbers (float64), of the same shape.

        Args:
            labels: as `labels_of` gives them [n, *positions].

        Raises:
            DataError: a label is of no class that the model knows, or is no number, or they have other positions.
        """
        if labels.shape[1:] != self.positions:
            raise DataError(
                f"the labels are {_spell_labels(labels.shape[1:])}; the model predicts "
                f"{_spell_labels(self.positions)}."
            )
        if self.kind == "regression":
            if labels.dtype.kind == "U":
                raise DataError("the labels are text, but the model predicts numbers.")
            return labels.astype(np.float64)
        # The commonest labels by far are their own indexes already.
        if self._are_indexes and labels.dtype.kind in "iu" and _within(labels, len(self.classes)):
            return labels.astype(np.int64)
        index = {label: i for i, label in enumerate(self.classes)}
        values, inverse = np.unique(labels, return_inverse=True)
        known = np.array([index.get(_plain(value), -1) for value in values], np.int64)
        places = known[inverse].reshape(labels.shape)
        unknown = _in_row(places < 0)
        if unknown.any():
            shown = ", ".join(str(c) for c in self.classes[:_CLASSES_SHOWN])
            more = ", …" if len(self.classes) > _CLASSES_SHOWN else ""
            raise DataError(
                f"the label in row {np.argmax(unknown) + 1} is of no class that the model knows ({shown}{more})."
            )
        return places


def _within(labels: NDArray[Any], stop: int) -> bool:
    return bool(labels.size and labels.min() >= 0 and labels.max() < stop)


@dataclass(frozen=True)
class Agreement:
    """What all clients' rows have in common.

    Args:
        labels: the kind, classes and positions of their labels.
        shape: the shape of one example; None where the examples are rows of a table.
        trained: client → the classes of its training rows, of clients that were asked; empty for regression.
    """

    labels: Labels
    shape: tuple[int, ...] | None
    trained: Mapping[str, Sequence[Any]] = field(default_factory=dict, compare=False)

    def lacking(self) -> dict[str, str]:
        """Return client → which classes its training rows lack, in a sentence; clients that have all are left out."""
        notes = {}
        for id, trained in self.trained.items():
            known = set(trained)
            lacking = [label for label in self.labels.classes if label not in known]
            if lacking:
                shown = ", ".join(f'"{label}"' for label in lacking[:_CLASSES_SHOWN])
                more = f" and {len(lacking) - _CLASSES_SHOWN} more" if len(lacking) > _CLASSES_SHOWN else ""
                which = "class" if len(lacking) == 1 else "classes"
                notes[id] = (
                    f"no training row is of {which} {shown}{more}, so there is none to resample or to weigh."
                )
        return notes


@dataclass(frozen=True)
class AgreeOnRows:
    """An algorithm of one task: clients name their classes, and the shapes of examples and labels; the server compares.

    A label leaves a client as one of its classes or not at all: none does where numbers are predicted. Of its classes
    a client says which ones only its test rows have.

    Args:
        wanted: the kind of label that the model is made for; None to tell from the labels.
        resized: the height and width that images are brought to before anything else; None where they stay as they are.
    """

    wanted: Kind | None = None
    resized: tuple[int, int] | None = None

    releases: ClassVar[Literal["averaged", "summed"]] = "summed"

    def init(self, model: Any, seed: Seed) -> Agreement | None:
        """Return None: nothing is known yet."""
        return None

    def task(self, state: Agreement | None) -> Task | None:
        """Ask every client, once."""
        return Task("agree", to=Everyone(), answers="collect") if state is None else None

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return the client's classes, None if numbers are to be predicted, and the shapes of examples and labels.

        Raises:
            DataError: there are no labels, or some that can be neither predicted nor told apart.
        """
        return Update(data.id, task.version, "statistics", answer=_describe(data, self.wanted)), kept

    def server(self, model: Any, state: Agreement | None, aggregate: Aggregate) -> Agreement:
        """Agree on the labels and the shapes.

        Raises:
            DataError: clients disagree, or there is nothing to tell apart.
        """
        answers = {id: _resized(answer, self.resized) for id, answer in aggregate.answers.items()}
        shape = _agreed(answers, "shape", "examples", _spell_examples)
        positions = _agreed(aggregate.answers, "positions", "labels", _spell_labels)
        kind, classes = _classes(aggregate.answers, self.wanted)
        trained = {
            id: [label for label in answer["classes"] or () if label not in answer.get("untrained", ())]
            for id, answer in aggregate.answers.items()
            if kind != "regression"
        }
        return Agreement(Labels(kind, classes, tuple(positions or ())), shape, trained)

    def fitted(self, state: Agreement) -> Agreement:
        """Return what was agreed on, once there is no task left."""
        return state


def _classes(answers: Mapping[str, Any], wanted: Kind | None) -> tuple[Kind, tuple[Any, ...]]:
    text = sorted(id for id, answer in answers.items() if not answer["numeric"])
    numbers = sorted(answers.keys() - set(text))
    if text and numbers:
        raise DataError(
            f'the labels of client "{numbers[0]}" are numbers, those of client "{text[0]}" are not; '
            "give all clients labels of one kind."
        )
    continuous = sorted(id for id, answer in answers.items() if answer["classes"] is None)
    if wanted == "regression" or (continuous and wanted is None):
        if text:
            raise DataError(f'the labels of client "{text[0]}" are no numbers, but a number is predicted.')
        return "regression", ()
    if continuous:
        raise DataError(
            f'the labels of client "{continuous[0]}" are continuous numbers, but classes are predicted; '
            "use a regression model."
        )
    classes = sorted({label for answer in answers.values() for label in answer["classes"]})
    if len(classes) > MOST_CLASSES:
        if numbers and wanted is None:
            return "regression", ()
        raise DataError(
            f"all clients together have {len(classes):,} different labels, and classes are {MOST_CLASSES:,} at "
            "most; use a regression model if they are numbers to predict."
        )
    if len(classes) < 2:
        raise DataError(
            f"all rows of all clients have the label {classes[0]!r}; there is nothing to tell apart."
        )
    return "binary" if len(classes) == 2 else "multiclass", tuple(classes)


def _agreed(
    answers: Mapping[str, Any], name: str, what: str, spell: Callable[[Any], str]
) -> tuple[int, ...] | None:
    shapes = {id: answer[name] for id, answer in answers.items()}
    first_id, first = next(iter(shapes.items()))
    for id, shape in shapes.items():
        if shape != first:
            images = name == "shape" and first and shape and len(first) in (2, 3) and first[:-2] == shape[:-2]
            raise DataError(
                f'the {what} of client "{first_id}" are {spell(first)}, those of client "{id}" {spell(shape)}; '
                f"all clients need {what} of one shape."
                + (" If they are images, begin preprocess with Resize." if images else "")
            )
    return None if first is None else tuple(first)


def _resized(answer: Mapping[str, Any], size: tuple[int, int] | None) -> Mapping[str, Any]:
    shape = answer["shape"]
    if size is None or shape is None or len(shape) < 2:
        return answer
    return {**answer, "shape": [*shape[:-2], *size]}


def _spell_examples(shape: Sequence[int] | None) -> str:
    return "rows of a table" if shape is None else f"arrays of shape {tuple(shape)}"


def _spell_labels(positions: Sequence[int]) -> str:
    return f"arrays of shape {tuple(positions)}" if positions else "one for each row"


def _describe(data: ClientData, wanted: Kind | None) -> Mapping[str, Any]:
    with at_client(data.id, "training"):
        labels = _labels_for_all(data.train)
    positions = labels.shape[1:]
    trained = labels
    if data.test is not None:
        with at_client(data.id, "test"):
            held_out = _labels_for_all(data.test)
            if len(held_out):
                _check_alike(labels, held_out)
                labels = np.concatenate([labels, held_out])
    numeric = labels.dtype.kind != "U"
    in_table = isinstance(data.train, ChunkedRows) or hasattr(data.train.x, "columns")
    shape = None if in_table else list(np.shape(data.train.x)[1:])
    values = None if wanted == "regression" else classes_in(labels.reshape(-1))
    if values is None and not numeric and wanted != "regression":
        raise DataError(
            f'client "{data.id}": the labels are text of more than {MOST_CLASSES:,} different values, which '
            "are no classes; is this the right column?"
        )
    classes = None if values is None else [_plain(label) for label in values]
    untrained: list[Any] = []
    if classes is not None and labels is not trained:
        known = set(map(_plain, np.unique(trained)))
        untrained = [label for label in classes if label not in known]
    answer = {"numeric": numeric, "classes": classes, "shape": shape, "positions": list(positions)}
    return {**answer, "untrained": untrained} if untrained else answer


def _check_alike(train: NDArray[Any], test: NDArray[Any]) -> None:
    if (test.dtype.kind == "U") != (train.dtype.kind == "U"):
        kinds = ("text", "numbers") if test.dtype.kind == "U" else ("numbers", "text")
        raise DataError("the labels are {}, those of the training rows are {}.".format(*kinds))
    if test.shape[1:] != train.shape[1:]:
        of_test, of_train = _spell_labels(test.shape[1:]), _spell_labels(train.shape[1:])
        raise DataError(f"the labels are {of_test}, those of the training rows are {of_train}.")


def _labels_for_all(rows: Rows) -> NDArray[Any]:
    """Return the labels; of rows in chunks some that say as much: all that occur, or a few that are no classes."""
    if not isinstance(rows, ChunkedRows):
        return labels_of(rows)
    known: NDArray[Any] = np.empty(0)
    for labels in rows.mapped(labels_of):
        known = np.union1d(known, labels) if known.size else np.unique(labels)
        if known.dtype.kind == "f" and np.any(measured := known != np.floor(known)):
            known = known[measured][:1]
        known = known[: MOST_CLASSES + 1]
    return known


def labels_of(rows: Rows) -> NDArray[Any]:
    """Return labels as plain numbers or as text [n, *positions]; messages count rows from 1.

    Raises:
        DataError: there are none, not one or one array for each row, some are missing or infinite, or they are
            neither numbers nor text.
    """
    if rows.y is None:
        raise DataError("there are no labels.")
    labels = np.asarray(rows.y)
    if labels.dtype.kind == "O" and labels.ndim:
        labels = _from_objects(labels)
    if not labels.ndim or len(labels) != len(rows) or 0 in labels.shape[1:]:
        raise DataError(
            f"there are {len(rows)} rows and labels of shape {list(labels.shape)}; give one label, or one array of "
            "labels, for each row."
        )
    if labels.dtype.kind not in "biufU":
        raise DataError(f"the labels are of dtype {labels.dtype}; give numbers or text.")
    if labels.dtype.kind == "f":
        _refuse_missing(~np.isfinite(labels))
    return labels


def _from_objects(labels: NDArray[Any]) -> NDArray[Any]:
    import pandas as pd

    _refuse_missing(np.asarray(pd.isna(labels)))
    texts = is_text(pd.Series(labels.reshape(-1))).reshape(labels.shape)
    if texts.any() and not texts.all():
        row = int(np.argmax(_in_row(texts))) + 1
        raise DataError(f"the labels mix numbers and text: the first text is in row {row}; give one kind.")
    try:
        return np.array(labels.tolist())
    except ValueError as error:
        raise DataError(
            "the labels of different rows are arrays of different shapes; give all rows as many."
        ) from error


def _refuse_missing(missing: NDArray[np.bool_]) -> None:
    rows = _in_row(missing)
    if rows.any():
        raise DataError(
            f"the label is missing or infinite in {rows.sum()} row(s), first in row {np.argmax(rows) + 1}; "
            "leave these rows out."
        )


def _in_row(found: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return in which rows something is found at any position [n]."""
    return np.asarray(found.any(axis=tuple(range(1, found.ndim))))


def _plain(label: Any) -> Any:
    """Return a label as a plain int or str; True, 1.0 and 1 are the same class."""
    label = label.item() if isinstance(label, np.generic) else label
    if isinstance(label, bool):
        return int(label)
    return int(label) if isinstance(label, float) and label.is_integer() else label


def classes_of(labels: Labels, predicted: NDArray[Any]) -> NDArray[Any]:
    """Return the labels that scores stand for: classes, or the numbers themselves [n, *positions].

    Args:
        labels: what the labels are.
        predicted: P(class 1) or values [n, *positions], or class probabilities [n, *positions, classes].
    """
    if labels.kind == "regression":
        return predicted
    index = (predicted > 0.5).astype(np.int64) if labels.kind == "binary" else predicted.argmax(axis=-1)
    return np.array(labels.classes)[index]
