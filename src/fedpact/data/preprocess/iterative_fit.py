"""The regressions of columns on each other that fill missing values, from sums of products."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedpact.core.algorithm import ClientState
from fedpact.core.errors import DataError
from fedpact.core.messages import Aggregate, Task, Update
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed
from fedpact.data.preprocess import products
from fedpact.data.preprocess.columns import as_frame, as_numbers
from fedpact.data.preprocess.estimate import Columnwise, Estimating, ask, reply
from fedpact.data.preprocess.gram import check_rows, covariance
from fedpact.data.preprocess.moments import Moments
from fedpact.data.wording import at_client

# So that a penalty in the units of tiny numbers stays a float64.
_MOST_PENALTY = 2.0**500


class Regression(NamedTuple):
    """How one column follows from the others, all measured from their means in powers of two.

    Args:
        of: the place of the column.
        intercept: what it is where all others are 0.
        weights: of all columns, 0 for itself.
    """

    of: int
    intercept: float
    weights: tuple[float, ...]


@dataclass(frozen=True)
class RidgeRounds(Columnwise):
    """Ridge regressions of each column with missing values on all others, in turn, a round of clients for each.

    Each task carries the regressions so far, and clients fill their raw rows by all of them, so they keep nothing.

    Args:
        names: numeric columns.
        times: how often the columns are gone through.
        ridge: the penalty on squared weights, in the columns' own units.
    """

    times: int = 10
    ridge: float = 1e-3

    def task(self, state: Estimating) -> Task | None:
        """Ask for moments, then for the products of each column in turn."""
        if not self.names:
            return None
        if state.round == 0:
            return ask(state)
        found = state.found
        if len(found["regressions"]) == self.times * len(found["targets"]):
            return None
        keys = ("means", "exponents", "regressions")
        return ask(state, of=self._target(found), **{key: found[key] for key in keys})

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return counts, sums and sums of squares, and the number of rows; then `products.gram` of 1 and the columns.

        Raises:
            DataError: the regressions grow without bound.
        """
        if "of" not in task.parameters:
            update, kept = Moments(self.names).client(model, task, data, kept, seed)
            rows_too = {**update.summed, "rows": np.array([len(data.train)])}
            return replace(update, summed=rows_too), kept
        with at_client(data.id):
            frame = as_frame(data.train.x)
            values = np.stack([as_numbers(frame, name) for name in self.names], axis=1)
        regressions = [Regression(of, b, tuple(w)) for of, b, w in task.parameters["regressions"]]
        predicted = filled(values, task.parameters["means"], task.parameters["exponents"], regressions)
        rows = predicted[~np.isnan(values[:, task.parameters["of"]])]
        with at_client(data.id):
            self._check_bounded(rows)
        with_ones = np.concatenate([np.ones((len(rows), 1)), rows], axis=1)
        return reply(task, data, {"products": products.gram(with_ones)}), kept

    def server(self, model: Any, state: Estimating, aggregate: Aggregate) -> Estimating:
        """Find which columns have missing values, then solve one regression.

        Raises:
            DataError: a column has no value at any client.
            QuorumError: other rows answered than in the round before.
        """
        if state.round == 0:
            moments = Moments(self.names)
            known = moments.fitted(moments.server(model, state, aggregate)).values()
            counts, rows = aggregate.sum("count").tolist(), int(aggregate.sum("rows")[0])
            gaps = [i for i, count in enumerate(counts) if count < rows]
            return Estimating(
                1,
                {
                    "means": [each.mean for each in known],
                    "exponents": [products.exponent_of(each.deviation) for each in known],
                    "counts": counts,
                    "targets": sorted(gaps, key=lambda i: -counts[i]),
                    "regressions": [],
                },
            )
        found, of = state.found, self._target(state.found)
        n, means, matrix = covariance(aggregate.sum("products"))
        check_rows(n, found["counts"][of])
        solved = self._solved(of, n, means, matrix, found["exponents"])
        return Estimating(state.round + 1, {**found, "regressions": [*found["regressions"], solved]})

    def fitted(self, state: Estimating) -> Mapping[str, Any]:
        """Return "means", "exponents" and "regressions"."""
        found = state.found or {"means": [], "exponents": [], "regressions": []}
        regressions = [Regression(of, b, tuple(w)) for of, b, w in found["regressions"]]
        return {
            "means": tuple(found["means"]),
            "exponents": tuple(found["exponents"]),
            "regressions": regressions,
        }

    def _check_bounded(self, rows: NDArray[np.float64]) -> None:
        for name, column in zip(self.names, rows.T, strict=True):
            if not (np.abs(column) < products.LIMIT).all():
                raise DataError(
                    f'IterativeImpute: what is predicted for column "{name}" grows without bound; give a larger ridge, '
                    "or fewer rounds."
                )

    def _target(self, found: Mapping[str, Any]) -> int:
        targets: list[int] = found["targets"]
        return targets[len(found["regressions"]) % len(targets)]

    def _solved(
        self, of: int, n: int, means: list[float], matrix: NDArray[np.float64], exponents: Sequence[int]
    ) -> list[Any]:
        others = [i for i in range(len(means)) if i != of]
        # A column divided by 2^e has a weight 2^e times as large, so its square is penalised by 4^-e.
        with np.errstate(over="ignore"):
            penalty = np.ldexp(self.ridge, -2 * np.array(exponents)[others])
        squares = n * matrix[np.ix_(others, others)] + np.diag(np.minimum(penalty, _MOST_PENALTY))
        weights = np.zeros(len(means))
        if others:
            # Penalties of columns in different units differ by many digits; so scaled, all diagonals are 1.
            size = np.sqrt(np.diag(squares))
            solved, *_ = np.linalg.lstsq(squares / np.outer(size, size), n * matrix[others, of] / size)
            weights[others] = solved / size
        intercept = means[of] - float(weights @ np.array(means))
        return [of, intercept, weights.tolist()]


def filled(
    values: NDArray[np.float64],
    means: Sequence[float],
    exponents: Sequence[int],
    regressions: Sequence[Regression],
) -> NDArray[np.float64]:
    """Return values [n, columns] as (value − mean)/2^exponent, missing ones predicted by the regressions in order.

    Of each row the same bits, whichever rows it is among.
    """
    missing = np.isnan(values)
    measured = np.stack(
        [
            products.scaled(values[:, i], mean, exponent)
            for i, (mean, exponent) in enumerate(zip(means, exponents, strict=True))
        ],
        axis=1,
    )
    measured[missing] = 0.0
    for of, intercept, weights in regressions:
        rows = missing[:, of]
        known = measured[rows]
        predicted = np.full(len(known), intercept)
        # Column by column: how a matrix product adds up depends on the number of rows.
        for i, weight in enumerate(weights):
            if weight:
                predicted += weight * known[:, i]
        measured[rows, of] = predicted
    return measured
