"""What all clients' rows must have in common: the kind and classes of their labels, the shape of their examples."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fedpact.core.algorithm import ClientState
from fedpact.core.errors import DataError, suggest
from fedpact.core.messages import Aggregate, Everyone, Task, Update
from fedpact.core.model import Kind
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed

# More distinct values than this are no classes.
MOST_CLASSES = 1000


@dataclass(frozen=True)
class Labels:
    """The kind of label, and the classes in the order of their indexes (none for regression)."""

    kind: Kind
    classes: tuple[Any, ...] = ()

    def encode(self, labels: NDArray[Any], client: str) -> NDArray[Any]:
        """Return class indexes (int64) or numbers (float64).

        Raises:
            DataError: a label is of no class that the model knows, or is no number.
        """
        if self.kind == "regression":
            return _as_numbers(labels, client)
        index = {label: i for i, label in enumerate(self.classes)}
        values, inverse = np.unique(labels, return_inverse=True)
        plain = [_plain(value) for value in values]
        for place, label in enumerate(plain):
            if label not in index:
                known = ", ".join(str(c) for c in self.classes[:10])
                raise DataError(
                    f'client "{client}", row {np.argmax(inverse == place)}: the label {label!r} is a class that the '
                    f"model does not know ({known}).{suggest(str(label), map(str, self.classes))}"
                )
        return np.array([index[label] for label in plain], np.int64)[inverse]


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
        """Return the client's classes, None if its labels are continuous, and the shape of its examples."""
        return Update(data.id, task.version, "statistics", answer=_describe(data)), kept

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


def _describe(data: ClientData) -> Mapping[str, Any]:
    parts = [rows.y for rows in (data.train, data.test) if rows is not None]
    if any(labels is None for labels in parts):
        raise DataError(f'client "{data.id}" has rows without labels.')
    labels = np.concatenate([np.asarray(part) for part in parts])
    numeric = labels.dtype.kind in "iufb"
    if numeric and labels.dtype.kind == "f":
        missing = np.flatnonzero(~np.isfinite(labels))
        if missing.size:
            raise DataError(
                f'client "{data.id}": {missing.size} labels are NaN or infinite, the first in row {missing[0]}; '
                "remove these rows."
            )
    values = np.unique(labels if numeric else labels.astype(str))
    whole = labels.dtype.kind in "iub" or (numeric and bool(np.all(values == np.rint(values))))
    shape = None if hasattr(data.train.x, "columns") else list(data.train.x.shape[1:])
    if numeric and (not whole or len(values) > MOST_CLASSES):
        return {"numeric": True, "classes": None, "shape": shape}
    return {"numeric": numeric, "classes": [_plain(label) for label in values], "shape": shape}


def _plain(label: Any) -> Any:
    """Return a label as a plain bool, int or str; 1.0 and 1 are the same class."""
    label = label.item() if isinstance(label, np.generic) else label
    if isinstance(label, bool):
        return int(label)
    return int(label) if isinstance(label, float) and label.is_integer() else label


def _as_numbers(labels: NDArray[Any], client: str) -> NDArray[np.float64]:
    try:
        return np.asarray(labels).astype(np.float64)
    except ValueError:
        raise DataError(f'client "{client}": the labels are no numbers, but a number is predicted.') from None


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
