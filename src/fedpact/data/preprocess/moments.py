"""Means and standard deviations over all clients' rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fedpact.core import sums
from fedpact.core.algorithm import ClientState
from fedpact.core.messages import Aggregate, Task, Update
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed
from fedpact.data.preprocess.estimate import Columnwise, Estimating, check_counts, present_numbers, reply


class Moment(NamedTuple):
    """A column's mean and standard deviation (of the population, as numpy's and StandardScaler's)."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class Means(Columnwise):
    """The mean of each column over all rows, right to the last bit, in one round.

    Args:
        names: numeric columns.
    """

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return each column's number of values and their sum."""
        count, total = [], []
        for values in present_numbers(data, self.names):
            count.append(values.size)
            total.append(sums.sum_of(values))
        return reply(task, data, {"count": np.array(count), "sum": np.stack(total)}), kept

    def server(self, model: Any, state: Estimating, aggregate: Aggregate) -> Estimating:
        """Divide.

        Raises:
            DataError: a column has no value at any client.
        """
        counts, totals = aggregate.sum("count"), aggregate.sum("sum")
        check_counts(self.names, counts)
        means = [float(sums.sum_in(total) / int(n)) for n, total in zip(counts, totals, strict=True)]
        return Estimating(state.round + 1, means)

    def fitted(self, state: Estimating) -> Mapping[str, float]:
        """Return column → mean."""
        return dict(zip(self.names, state.found or (), strict=True))


@dataclass(frozen=True)
class Moments(Columnwise):
    """The mean and the standard deviation of each column over all rows, in one round.

    The squares enter their sum unrounded, and the variance (Σx² − (Σx)²/n)/n is computed in fractions, so
    nothing cancels, whatever the columns' sizes.

    Args:
        names: numeric columns.
    """

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return each column's number of values, their sum and the sum of their squares."""
        count, total, squares = [], [], []
        for values in present_numbers(data, self.names):
            count.append(values.size)
            one, two = sums.sums_of(values)
            total.append(one)
            squares.append(two)
        summed = {"count": np.array(count), "sum": np.stack(total), "squares": np.stack(squares)}
        return reply(task, data, summed), kept

    def server(self, model: Any, state: Estimating, aggregate: Aggregate) -> Estimating:
        """Compute means and deviations from the sums.

        Raises:
            DataError: a column has no value at any client.
        """
        counts = aggregate.sum("count")
        check_counts(self.names, counts)
        found = []
        for n, s1, s2 in zip(counts.tolist(), aggregate.sum("sum"), aggregate.sum("squares"), strict=True):
            mean = sums.sum_in(s1) / n
            found.append([float(mean), sums.square_root(sums.sum_of_squares_in(s2) / n - mean * mean)])
        return Estimating(state.round + 1, found)

    def fitted(self, state: Estimating) -> Mapping[str, Moment]:
        """Return column → its moments."""
        return {name: Moment(*pair) for name, pair in zip(self.names, state.found or (), strict=True)}
