"""How much columns say about labels: F statistics and mutual information over all clients' rows."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpact.core import sums
from fedpact.core.algorithm import ClientState
from fedpact.core.errors import DataError
from fedpact.core.messages import Aggregate, Task, Update
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed
from fedpact.data.preprocess.estimate import Columnwise, Estimating, ask, reply
from fedpact.data.preprocess.gram import Covariances, Gram, check_rows, complete, label_beside, with_label
from fedpact.data.preprocess.quantiles import Quantiles


@dataclass(frozen=True)
class AnovaF(Columnwise):
    """The F statistic of a one-way analysis of variance of each column by class, in one round.

    As scikit-learn's `f_classif` on the pooled rows; computed in fractions of exact sums of values by class, and of
    squares. It is 0 for a constant column, and infinite where the values of a class are all alike.

    Args:
        names: numeric columns without missing values.
        classes: how many classes there are.
    """

    classes: int = 2

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return the number of rows of each class, "sums" [columns, classes, digits] and "squares" [columns, digits].

        Raises:
            DataError: a value is missing.
        """
        values = complete(data, self.names, "SelectBest")
        labels = np.asarray(data.train.y)
        of_class = [values[labels == each] for each in range(self.classes)]
        return reply(
            task,
            data,
            {
                "rows": np.array([len(each) for each in of_class], np.int64),
                "sums": np.stack(
                    [[sums.sum_of(each[:, i]) for each in of_class] for i in range(len(self.names))]
                ),
                "squares": np.stack([sums.sum_of_squares(column) for column in values.T]),
            },
        ), kept

    def server(self, model: Any, state: Estimating, aggregate: Aggregate) -> Estimating:
        """Compute F.

        Raises:
            DataError: fewer than two classes have rows, or no class has more than one.
        """
        rows = aggregate.sum("rows").tolist()
        present = sum(1 for n in rows if n)
        between, within = present - 1, sum(rows) - present
        if between < 1 or within < 1:
            raise DataError(
                f"SelectBest: {sum(rows)} training row(s) of {present} class(es) say nothing about how columns vary "
                "within classes and between them."
            )
        found = []
        for totals, squares in zip(aggregate.sum("sums"), aggregate.sum("squares"), strict=True):
            by_class = [(n, sums.sum_in(total)) for n, total in zip(rows, totals, strict=True) if n]
            explained = sum((total * total / n for n, total in by_class), Fraction(0))
            overall = sum((total for _, total in by_class), Fraction(0)) ** 2 / sum(rows)
            found.append(
                _ratio(
                    (explained - overall) / between, (sums.sum_of_squares_in(squares) - explained) / within
                )
            )
        return Estimating(state.round + 1, found)

    def fitted(self, state: Estimating) -> Mapping[str, float]:
        """Return column → F."""
        return dict(zip(self.names, state.found or (), strict=True))


@dataclass(frozen=True)
class RegressionF(Columnwise):
    """The F statistic of the linear regression of the labels on each column, in two rounds.

    As scikit-learn's `f_regression` on the pooled rows: r²/(1 − r²)·(n − 2), from the sums of `Gram`. It is 0 where
    a column or the labels are constant, and huge or infinite where one is a multiple of the other.

    Args:
        names: numeric columns without missing values.
    """

    def task(self, state: Estimating) -> Task | None:
        """Ask for moments, then for products."""
        return self._gram.task(state)

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return the sums that `Gram` needs."""
        return self._gram.client(model, task, data, kept, seed)

    def server(self, model: Any, state: Estimating, aggregate: Aggregate) -> Estimating:
        """Compute means, then covariances."""
        return self._gram.server(model, state, aggregate)

    def fitted(self, state: Estimating) -> Mapping[str, float]:
        """Return column → F."""
        found: Covariances = self._gram.fitted(state)["covariances"]
        scores = {}
        for i, name in enumerate(self.names):
            with_label, own, labels = (
                Fraction(float(found.matrix[place])) for place in ((i, -1), (i, i), (-1, -1))
            )
            scores[name] = _ratio(with_label**2 * (found.n - 2), own * labels - with_label**2)
        return scores

    @property
    def _gram(self) -> Gram:
        return Gram(self.names, "SelectBest", label_beside(self.names))


@dataclass(frozen=True)
class MutualInformation(Columnwise):
    """The mutual information of the bins of each column and the labels, in nats, in nine rounds.

    Eight rounds find the cuts: the quantiles 1/bins, 2/bins and so on of all rows; of equal cuts one is left, and a
    value at a cut belongs to the bin above it, as in `Bin`. So a column of few different values has a bin for each
    value that is frequent enough. Labels that are numbers are cut in the same way. One more round counts the rows of
    each bin and class; Σ n_bc/n·log(n·n_bc/(n_b·n_c)) of the counts is what scikit-learn's `mutual_info_score` gives
    for the pooled rows. It never says nothing: of independent ones it is about (bins − 1)·(classes − 1)/(2n).

    Args:
        names: numeric columns without missing values.
        classes: how many classes there are; 0 for labels that are numbers.
        bins: how many bins to cut a column to.
    """

    classes: int = 2
    bins: int = 10

    rounds: ClassVar[int] = Quantiles.rounds + 1

    def task(self, state: Estimating) -> Task | None:
        """Ask for the quantiles, then for counts."""
        if not self.names or state.round >= self.rounds:
            return None
        if state.round < Quantiles.rounds:
            return self._quantiles.task(state)
        return ask(state, cuts=state.found["cuts"])

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return counts for the quantiles; then "counts" of the bins [bins of all columns, classes].

        Raises:
            DataError: a value is missing.
        """
        labels = np.asarray(data.train.y)
        if not self.classes:
            data = with_label(data, self.names, self._label)
        values = complete(data, self.names, "SelectBest")
        if "cuts" not in task.parameters:
            return self._quantiles.client(model, task, data, kept, seed)
        cuts = task.parameters["cuts"]
        if not self.classes:
            labels = np.searchsorted(cuts[-1], labels, side="right")
        classes = self._classes(cuts)
        counts = []
        for column, own in zip(values.T, cuts, strict=False):
            bins = np.searchsorted(own, column, side="right")
            cells = np.bincount(bins * classes + labels, minlength=(len(own) + 1) * classes)
            counts.append(cells.reshape(-1, classes))
        return reply(task, data, {"counts": np.concatenate(counts)}), kept

    def server(self, model: Any, state: Estimating, aggregate: Aggregate) -> Estimating:
        """Find the cuts, then compute the mutual information.

        Raises:
            DataError: there are no rows at any client.
            QuorumError: other rows answered than in the round before.
        """
        if state.round < Quantiles.rounds:
            after = self._quantiles.server(model, state, aggregate)
            if after.round < Quantiles.rounds:
                return after
            quantiles = self._quantiles.fitted(after).values()
            return Estimating(
                after.round,
                {"rows": after.found["rows"], "cuts": [sorted(set(each)) for each in quantiles]},
            )
        counts, start, found = aggregate.sum("counts"), 0, []
        for _, cuts in zip(self.names, state.found["cuts"], strict=False):
            own = counts[start : start + len(cuts) + 1]
            check_rows(int(own.sum()), state.found["rows"])
            found.append(mutual_information(own))
            start += len(cuts) + 1
        return Estimating(state.round + 1, found)

    def fitted(self, state: Estimating) -> Mapping[str, float]:
        """Return column → mutual information."""
        return dict(zip(self.names, state.found or (), strict=True))

    def _classes(self, cuts: Any) -> int:
        return self.classes or len(cuts[-1]) + 1

    @property
    def _label(self) -> str:
        return label_beside(self.names)

    @property
    def _quantiles(self) -> Quantiles:
        at = tuple(np.linspace(0, 1, self.bins + 1)[1:-1].tolist())
        return Quantiles(self.names if self.classes else (*self.names, self._label), at)


def mutual_information(counts: NDArray[np.int64]) -> float:
    """Return the mutual information, in nats, of the rows and columns of a table of counts."""
    n = int(counts.sum())
    of_row, of_column = counts.sum(axis=1).tolist(), counts.sum(axis=0).tolist()
    terms = [
        own / n * math.log(n * own / (of_row[i] * of_column[j]))
        for i, row in enumerate(counts.tolist())
        for j, own in enumerate(row)
        if own
    ]
    return max(0.0, math.fsum(terms))


def _ratio(above: Fraction, below: Fraction) -> float:
    """Return above/below, infinite where only below is 0 (or lost to rounding) and 0 where both are."""
    if above <= 0:
        return 0.0
    if below <= 0:
        return math.inf
    try:
        return float(above / below)
    except OverflowError:
        return math.inf
