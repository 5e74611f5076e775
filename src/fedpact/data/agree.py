"""What all clients' rows must have in common: the kind and classes of their labels, the shape of their examples.

Messages about a client's rows name the row, counted from 1, and never its label: an error may travel where the
data may not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fedpact.core.algorithm import ClientState
from fedpact.core.errors import DataError
from fedpact.core.messages import Aggregate, Everyone, Task, Update
from fedpact.core.model import Kind
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.data.objects import is_text
from fedpact.data.split import MOST_CLASSES, classes_in
from fedpact.data.wording import at_client

_CLASSES_SHOWN = 10


@dataclass(frozen=True)
class Labels:
    """The kind of label, and the classes in the order of their indexes (none for regression)."""

    kind: Kind
    classes: tuple[Any, ...] = ()

    def encode(self, labels: NDArray[Any]) -> NDArray[Any]:
        """Return class indexes (int64) or numbers (float64).

        Args:
            labels: as `labels_of` gives them [n].

        Raises:
            DataError: a label is of no class that the model knows, or is no number.
        """
        if self.kind == "regression":
            if labels.dtype.kind == "U":
                raise DataError("the labels are text, but the model predicts numbers.")
            return labels.astype(np.float64)
        index = {label: i for i, label in enumerate(self.classes)}
        values, inverse = np.unique(labels, return_inverse=True)
        places = np.array([index.get(_plain(value), -1) for value in values], np.int64)[inverse]
        if (places < 0).any():
            known = ", ".join(str(c) for c in self.classes[:_CLASSES_SHOWN])
            more = ", …" if len(self.classes) > _CLASSES_SHOWN else ""
            raise DataError(
                f"the label in row {np.argmax(places < 0) + 1} is of no class that the model knows ({known}{more})."
            )
        return places


@dataclass(frozen=True)
class Agreement:
    """What all clients' rows have in common.

    Args:
        labels: the kind and classes of their labels.
        shape: the shape of one example; None where the examples are rows of a table.
    """

    labels: Labels
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class AgreeOnRows:
    """An algorithm of one task: clients name their classes and shapes, the server compares them.

    A label leaves a client as one of its classes or not at all: none does where numbers are predicted.

    Args:
        wanted: the kind of label that the model is made for; None to tell from the labels.
    """

    wanted: Kind | None = None

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
        """Return the client's classes, None if numbers are to be predicted, and the shape of its examples.

        Raises:
            DataError: there are no labels, or some that can be neither predicted nor told apart.
        """
        return Update(data.id, task.version, "statistics", answer=_describe(data, self.wanted)), kept

    def server(self, model: Any, state: Agreement | None, aggregate: Aggregate) -> Agreement:
        """Agree on the labels and the shape.

        Raises:
            DataError: clients disagree, or there is nothing to tell apart.
        """
        return Agreement(_labels(aggregate.answers, self.wanted), _shape(aggregate.answers))


def _labels(answers: Mapping[str, Any], wanted: Kind | None) -> Labels:
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
        return Labels("regression")
    if continuous:
        raise DataError(
            f'the labels of client "{continuous[0]}" are continuous numbers, but classes are predicted; '
            "use a regression model."
        )
    classes = sorted({label for answer in answers.values() for label in answer["classes"]})
    if len(classes) > MOST_CLASSES:
        if numbers and wanted is None:
            return Labels("regression")
        raise DataError(
            f"all clients together have {len(classes):,} different labels, and classes are {MOST_CLASSES:,} at "
            "most; use a regression model if they are numbers to predict."
        )
    if len(classes) < 2:
        raise DataError(
            f"all rows of all clients have the label {classes[0]!r}; there is nothing to tell apart."
        )
    return Labels("binary" if len(classes) == 2 else "multiclass", tuple(classes))


def _shape(answers: Mapping[str, Any]) -> tuple[int, ...] | None:
    shapes = {id: answer["shape"] for id, answer in answers.items()}
    first_id, first = next(iter(shapes.items()))
    for id, shape in shapes.items():
        if shape != first:
            raise DataError(
                f'the examples of client "{first_id}" are {_spell(first)}, those of client "{id}" {_spell(shape)}; '
                "all clients need examples of one shape."
            )
    return None if first is None else tuple(first)


def _spell(shape: Any) -> str:
    return "rows of a table" if shape is None else f"arrays of shape {tuple(shape)}"


def _describe(data: ClientData, wanted: Kind | None) -> Mapping[str, Any]:
    with at_client(data.id, "training"):
        labels = labels_of(data.train)
    if data.test is not None:
        with at_client(data.id, "test"):
            held_out = labels_of(data.test)
            if len(held_out) and (held_out.dtype.kind == "U") != (labels.dtype.kind == "U"):
                kinds = ("text", "numbers") if held_out.dtype.kind == "U" else ("numbers", "text")
                raise DataError("the labels are {}, those of the training rows are {}.".format(*kinds))
            labels = np.concatenate([labels, held_out]) if len(held_out) else labels
    numeric = labels.dtype.kind != "U"
    shape = None if hasattr(data.train.x, "columns") else list(np.shape(data.train.x)[1:])
    values = None if wanted == "regression" else classes_in(labels)
    if values is None and not numeric and wanted != "regression":
        raise DataError(
            f'client "{data.id}": the labels are text of more than {MOST_CLASSES:,} different values, which '
            "are no classes; is this the right column?"
        )
    classes = None if values is None else [_plain(label) for label in values]
    return {"numeric": numeric, "classes": classes, "shape": shape}


def labels_of(rows: Rows) -> NDArray[Any]:
    """Return labels as plain numbers or as text [n]; messages count rows from 1.

    Raises:
        DataError: there are none, not one for each row, some are missing or infinite, or they are neither
            numbers nor text.
    """
    if rows.y is None:
        raise DataError("there are no labels.")
    labels = np.asarray(rows.y)
    if labels.ndim != 1 or len(labels) != len(rows):
        raise DataError(
            f"there are {len(rows)} rows and labels of shape {list(labels.shape)}; give one label for each row."
        )
    if labels.dtype.kind == "O":
        labels = _from_objects(labels)
    if labels.dtype.kind not in "biufU":
        raise DataError(f"the labels are of dtype {labels.dtype}; give numbers or text.")
    if labels.dtype.kind == "f":
        _refuse_missing(~np.isfinite(labels))
    return labels


def _from_objects(labels: NDArray[Any]) -> NDArray[Any]:
    import pandas as pd

    _refuse_missing(np.asarray(pd.isna(labels)))
    texts = is_text(pd.Series(labels))
    if texts.any() and not texts.all():
        row = int(np.argmax(texts)) + 1
        raise DataError(f"the labels mix numbers and text: the first text is in row {row}; give one kind.")
    return np.array(labels.tolist())


def _refuse_missing(missing: NDArray[np.bool_]) -> None:
    if missing.any():
        raise DataError(
            f"the label is missing or infinite in {missing.sum()} row(s), first in row {np.argmax(missing) + 1}; "
            "leave these rows out."
        )


def _plain(label: Any) -> Any:
    """Return a label as a plain int or str; True, 1.0 and 1 are the same class."""
    label = label.item() if isinstance(label, np.generic) else label
    if isinstance(label, bool):
        return int(label)
    return int(label) if isinstance(label, float) and label.is_integer() else label


def classes_of(labels: Labels, predicted: NDArray[Any]) -> NDArray[Any]:
    """Return the labels that scores stand for: classes, or the numbers themselves.

    Args:
        labels: what the labels are.
        predicted: P(class 1) [n], class probabilities [n, classes], or values [n].
    """
    if labels.kind == "regression":
        return predicted
    index = (predicted > 0.5).astype(np.int64) if labels.kind == "binary" else predicted.argmax(axis=1)
    return np.array(labels.classes)[index]
