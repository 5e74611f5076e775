"""How columns vary together: means and covariances over all clients' rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedpact.core.algorithm import ClientState
from fedpact.core.errors import DataError, QuorumError
from fedpact.core.messages import Aggregate, Task, Update
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.data.preprocess import products
from fedpact.data.preprocess.columns import as_frame, as_numbers
from fedpact.data.preprocess.estimate import Columnwise, Estimating, ask, reply
from fedpact.data.preprocess.moments import Moments
from fedpact.data.wording import at_client


class Covariances(NamedTuple):
    """The covariances of some columns over n rows, divided by n.

    Args:
        n: the number of rows.
        means: of the columns [d].
        exponents: column i was divided by 2^exponents[i] [d].
        matrix: the covariances of the columns so divided [d, d].
    """

    n: int
    means: list[float]
    exponents: list[int]
    matrix: NDArray[np.float64]


@dataclass(frozen=True)
class Gram(Columnwise):
    """The covariances of columns over all rows, in two rounds: means and deviations, then sums of products.

    Values are centred by the mean, in float64, and rounded to 2^-60 of about a standard deviation; their products
    are then added exactly (`products`), and each covariance is rounded once.

    Args:
        names: numeric columns without missing values.
        step: the step that they are for, for messages.
        label: what the labels, numbers, are called as one more column behind these; None to leave them out.
    """

    step: str = "Gram"
    label: str | None = None

    rounds: ClassVar[int] = 2

    def task(self, state: Estimating) -> Task | None:
        """Ask for moments, then for products of values that these centre."""
        if not self.names or state.round >= self.rounds:
            return None
        if state.round == 0:
            return ask(state)
        return ask(state, means=state.found["means"], exponents=state.found["exponents"])

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return counts, sums and sums of squares, then "products" [(d + 1)·(d + 2)/2, digits] of 1 and the columns.

        Raises:
            DataError: a value is missing.
        """
        if self.label is not None:
            data = with_label(data, self.names, self.label)
        values = complete(data, self._all, self.step)
        if "means" not in task.parameters:
            return self._moments.client(model, task, data, kept, seed)
        columns = [
            products.scaled(values[:, i], mean, exponent)
            for i, (mean, exponent) in enumerate(
                zip(task.parameters["means"], task.parameters["exponents"], strict=True)
            )
        ]
        with_ones = np.stack([np.ones(len(values)), *columns], axis=1)
        return reply(task, data, {"products": products.gram(with_ones)}), kept

    def server(self, model: Any, state: Estimating, aggregate: Aggregate) -> Estimating:
        """Compute means and exponents, then covariances.

        Raises:
            DataError: there are no rows at any client.
            QuorumError: other rows answered than in the round before.
        """
        if state.round == 0:
            moments = self._moments.fitted(self._moments.server(model, state, aggregate)).values()
            found = {
                "n": int(aggregate.sum("count")[0]),
                "means": [each.mean for each in moments],
                "exponents": [products.exponent_of(each.deviation) for each in moments],
            }
            return Estimating(1, found)
        n, _, matrix = covariance(aggregate.sum("products"))
        check_rows(n, state.found["n"])
        return Estimating(2, {**state.found, "matrix": matrix.tolist()})

    def fitted(self, state: Estimating) -> Mapping[str, Any]:
        """Return "covariances" → the covariances of the columns and, as the last one, of the labels."""
        if state.found is None:
            return {"covariances": Covariances(0, [], [], np.zeros((0, 0)))}
        found = state.found
        matrix = np.array(found["matrix"])
        return {"covariances": Covariances(found["n"], found["means"], found["exponents"], matrix)}

    @property
    def _all(self) -> tuple[str, ...]:
        return self.names if self.label is None else (*self.names, self.label)

    @property
    def _moments(self) -> Moments:
        return Moments(self._all)


def covariance(digits: NDArray[np.int64]) -> tuple[int, list[float], NDArray[np.float64]]:
    """Return the number of rows, and means [d] and covariances [d, d] in added `products.gram` of 1 and d columns."""
    units = products.units_in(digits)
    size = round((2 * len(units)) ** 0.5)
    square = np.zeros((size, size), object)
    square[np.triu_indices(size)] = units
    square = np.triu(square) + np.triu(square, 1).T
    # Of no row the sums are 0, and so is all that is made of them.
    n = int(square[0, 0]) >> products.UNIT_BITS
    divisor = max(n, 1)
    sums = square[0, 1:].tolist()
    means = [total / (divisor << products.UNIT_BITS) for total in sums]
    return n, means, products.covariance_in(square[1:, 1:], divisor, sums, sums)


def check_rows(n: int, before: int) -> None:
    """Raise QuorumError if there are other rows than before."""
    if n != before:
        raise QuorumError(
            "other rows answered than in the round before, so their products say nothing: a client joined, left or "
            "failed while the preprocessing was fitted. Start again."
        )


def complete(data: ClientData, names: Sequence[str], step: str) -> NDArray[np.float64]:
    """Return columns of the training rows [n, columns].

    Raises:
        DataError: a value is missing, no number or infinite; the client and the column are named.
    """
    with at_client(data.id):
        frame = as_frame(data.train.x)
        columns = [without_gaps(as_numbers(frame, name), name, step) for name in names]
    return np.stack(columns, axis=1)


def without_gaps(values: NDArray[np.float64], name: str, step: str) -> NDArray[np.float64]:
    """Return the values of a column.

    Raises:
        DataError: some are missing.
    """
    missing = int(np.isnan(values).sum())
    if missing:
        raise DataError(
            f'column "{name}" has {missing} missing value(s), and {step} cannot use them; put Impute before it.'
        )
    return values


def with_label(data: ClientData, names: Sequence[str], label: str) -> ClientData:
    """Return a client whose table is these columns and, behind them, its labels as a column of this name."""
    with at_client(data.id):
        frame = as_frame(data.train.x)
    table = frame[list(names)].assign(**{label: np.asarray(data.train.y, np.float64)})
    return ClientData(data.id, Rows(table))


def label_beside(names: Sequence[str]) -> str:
    """Return a name for the labels that is none of these columns'."""
    label = "label"
    while label in names:
        label += "'"
    return label
