"""Labels counted and summed by category, over all clients' rows and without each of some random parts of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedpact.core import sums
from fedpact.core.algorithm import ClientState
from fedpact.core.errors import DataError
from fedpact.core.messages import Aggregate, Task, Update
from fedpact.core.model import Kind
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed, shuffle
from fedpact.data.preprocess.categories import Declarable
from fedpact.data.preprocess.columns import Value, as_frame
from fedpact.data.preprocess.estimate import Estimating, ask, reply
from fedpact.data.preprocess.vocabulary import MISSING, places
from fedpact.data.wording import at_client

Smooth = Literal["auto"] | float


class Labelled(NamedTuple):
    """The number of some rows, the sum of their labels, and the sum of the labels' squares."""

    n: int
    total: Fraction
    squares: Fraction

    def without(self, others: Labelled) -> Labelled:
        """Return the same of the rows that are left without these others."""
        return Labelled(self.n - others.n, self.total - others.total, self.squares - others.squares)

    def encoding(self, everything: Labelled, smooth: Smooth) -> float:
        """Return the mean label of these rows, drawn to that of all rows (`TargetEncode`)."""
        overall = everything.total / everything.n
        if not self.n:
            return float(overall)
        if smooth != "auto":
            weight = Fraction(smooth)
            return float((self.total + weight * overall) / (self.n + weight))
        variance = everything.squares / everything.n - overall**2
        within = self.squares / self.n - (self.total / self.n) ** 2
        if not variance * self.n + within:
            return float(overall)
        trust = variance * self.n / (variance * self.n + within)
        return float(trust * self.total / self.n + (1 - trust) * overall)


class Encodings(NamedTuple):
    """What stands for the categories of a column.

    Args:
        categories: those with an encoding of their own; None is missing values.
        numbers: lists [1 + folds, categories + 1, outputs]: first by all rows, then by those without each fold; of
            the categories, and at last of all others.
    """

    categories: tuple[Value | None, ...]
    numbers: list[list[list[float]]]


@dataclass(frozen=True)
class TargetSums(Declarable):
    """The encodings of each column's categories by labels: categories in one round, counts and sums in another.

    Args:
        names: columns of at most 10,000 categories.
        declared: column → its categories, where they are known beforehand.
        kind: of the labels.
        classes: the names of the classes; none for regression.
        smooth: how far encodings are drawn to the mean of all rows.
        folds: how many parts each client's rows are dealt to.
        min_count: categories of fewer rows have no encoding of their own.
    """

    kind: Kind = "binary"
    classes: tuple[str, ...] = ()
    smooth: Smooth = "auto"
    folds: int = 5
    min_count: int = 1

    def init(self, model: Any, seed: Seed) -> Estimating:
        """Return the state before the first round: the stream that folds are drawn from, and what is declared."""
        categories = [list(self.declared.get(name, ())) for name in self.names]
        return Estimating(0 if self.named else 1, {"stream": seed.key.hex(), "categories": categories})

    def task(self, state: Estimating) -> Task | None:
        """Ask for the categories, then for counts and sums."""
        if not self.names or state.round >= 2:
            return None
        return self._collecting.task(state) if state.round == 0 else ask(state, **state.found)

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return each column's categories; then for each of these, and for missing values, what its labels say.

        Of classes that is the number of rows of each, "classes" [groups, classes]. Of numbers it is "rows" [groups],
        and the digits of "sums" and, where smoothing needs them, of "squares" [groups, digits]. The groups are those
        of `_sizes`, one column after the other.
        """
        if task.answers == "collect":
            return self._collecting.client(model, task, data, kept, seed)
        labels = np.asarray(data.train.y)
        summed: dict[str, list[NDArray[np.int64]]] = {}
        for groups, size in self._grouped(data, task.parameters):
            for name, each in self._sums(groups, size, labels).items():
                summed.setdefault(name, []).append(each)
        return reply(task, data, {name: np.concatenate(each) for name, each in summed.items()}), kept

    def server(self, model: Any, state: Estimating, aggregate: Aggregate) -> Estimating:
        """Unite the clients' categories, then compute the encodings.

        Raises:
            DataError: a column has no value at any client, or all rows are in one fold.
        """
        if state.round == 0:
            collecting = self._collecting
            united = {**collecting.fitted(collecting.server(model, state, aggregate)), **self.declared}
            return Estimating(1, {**state.found, "categories": [list(united[name]) for name in self.names]})
        found, start = {}, 0
        for name, categories, size in zip(
            self.names, state.found["categories"], self._sizes(state.found["categories"]), strict=True
        ):
            outputs = self._outputs({k: aggregate.sum(k)[start : start + size] for k in aggregate.sums})
            kept, encodings = self._encodings([*categories, None], outputs)
            found[name] = Encodings(tuple(kept), encodings)
            start += size
        return Estimating(2, {"stream": state.found["stream"], "encodings": found})

    def fitted(self, state: Estimating) -> Mapping[str, Any]:
        """Return what makes the fitted step.

        "stream" → the stream that folds are drawn from, "outputs" → the classes that have a column each, and
        "encodings" → column → its `Encodings`.
        """
        return {**state.found, "outputs": self.classes if self.kind == "multiclass" else ()}

    def _sizes(self, categories: Sequence[Sequence[Value]]) -> list[int]:
        """Return each column's number of groups: of every category and of missing and other values, every fold."""
        return [(len(each) + 2) * self.folds for each in categories]

    def _grouped(
        self, data: ClientData, parameters: Mapping[str, Any]
    ) -> Iterator[tuple[NDArray[np.int64], int]]:
        """Yield each column's groups of rows [n], and how many groups there are."""
        fold = fold_of(parameters["stream"], data.id, len(data.train), self.folds)
        for name, categories, size in zip(
            self.names, parameters["categories"], self._sizes(parameters["categories"]), strict=True
        ):
            with at_client(data.id):
                place = with_missing(places(as_frame(data.train.x), name, categories), len(categories))
            yield place * self.folds + fold, size

    def _sums(
        self, groups: NDArray[np.int64], size: int, labels: NDArray[Any]
    ) -> dict[str, NDArray[np.int64]]:
        if self.kind != "regression":
            of = len(self.classes)
            return {"classes": np.bincount(groups * of + labels, minlength=size * of).reshape(size, of)}
        rows = np.bincount(groups, minlength=size)
        total = np.zeros((size, sums.SUM_DIGITS), np.int64)
        squares = np.zeros((size, sums.SQUARES_DIGITS if self.smooth == "auto" else 0), np.int64)
        by_group = np.split(labels[np.argsort(groups, kind="stable")], np.cumsum(rows)[:-1])
        for group in np.flatnonzero(rows).tolist():
            total[group] = sums.sum_of(by_group[group])
            if self.smooth == "auto":
                squares[group] = sums.sum_of_squares(by_group[group])
        return {"rows": rows, "sums": total, "squares": squares}

    def _outputs(self, summed: Mapping[str, NDArray[np.int64]]) -> list[list[Labelled]]:
        """Return what each group of a column has of each output: numbers, the second class, or every class."""
        if self.kind == "regression":
            columns = zip(summed["rows"].tolist(), summed["sums"], summed["squares"], strict=True)
            return [[Labelled(n, sums.sum_in(s), sums.sum_of_squares_in(q)) for n, s, q in columns]]
        counts = summed["classes"].tolist()
        of = [1] if self.kind == "binary" else range(len(self.classes))
        return [[Labelled(sum(each), Fraction(each[c]), Fraction(each[c])) for each in counts] for c in of]

    def _encodings(
        self, categories: Sequence[Value | None], outputs: Sequence[Sequence[Labelled]]
    ) -> tuple[list[Value | None], list[list[list[float]]]]:
        """Return a column's categories that are encoded, and the numbers of `Encodings`."""
        by_output = []
        for groups in outputs:
            # [categories + 1][folds], the last of values that are none of the categories.
            grid = [groups[i : i + self.folds] for i in range(0, len(groups), self.folds)]
            whole = [_added(row) for row in grid]
            parts = [
                [each.without(row[fold]) for row, each in zip(grid, whole, strict=True)]
                for fold in range(self.folds)
            ]
            # The same for every output: all have the same rows.
            enough = [place for place in range(len(categories)) if whole[place].n >= self.min_count]
            by_output.append([self._of_part(part, enough) for part in (whole, *parts)])
        numbers = np.moveaxis(np.array(by_output), 0, -1).tolist()
        return [categories[place] for place in enough], numbers

    def _of_part(self, part: Sequence[Labelled], enough: Sequence[int]) -> list[float]:
        everything = _added(part)
        if not everything.n:
            raise DataError(
                f"TargetEncode: all rows are in one of {self.folds} folds, so none are left to encode them by; there "
                "are too few."
            )
        nobody = Labelled(0, Fraction(0), Fraction(0))
        return [each.encoding(everything, self.smooth) for each in (*(part[i] for i in enough), nobody)]


def fold_of(stream: str, client: str, rows: int, folds: int) -> NDArray[np.int64]:
    """Return the fold of each of a client's training rows [rows], as even in size as can be.

    Args:
        stream: the key of the stream that all clients' folds are drawn from, in hexadecimal.
        client: the client.
        rows: how many rows it has.
        folds: how many folds there are.
    """
    own = Seed(bytes.fromhex(stream)).child("folds", client)
    # Clients of few rows do not all begin at the same fold.
    first = own.child("first").integer() % folds
    return (shuffle(own, 0, rows) + first) % folds


def with_missing(place: NDArray[np.int64], categories: int) -> NDArray[np.int64]:
    """Return places in which missing values come behind the categories, and values that are none of them last."""
    return np.where(place >= 0, place, np.where(place == MISSING, categories, categories + 1))


def _added(parts: Sequence[Labelled]) -> Labelled:
    return Labelled(
        sum(part.n for part in parts),
        sum((part.total for part in parts), Fraction(0)),
        sum((part.squares for part in parts), Fraction(0)),
    )
