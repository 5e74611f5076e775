"""The lambda of the Yeo-Johnson transformation that is most likely for all clients' rows, from sums."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedpact.core import sums
from fedpact.core.algorithm import ClientState
from fedpact.core.errors import QuorumError
from fedpact.core.messages import Aggregate, Task, Update
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed
from fedpact.data.preprocess import power_search
from fedpact.data.preprocess.estimate import Columnwise, Estimating, ask, present_numbers, reply
from fedpact.data.preprocess.quantiles import Quantiles
from fedpact.data.preprocess.yeo_johnson import Power, signed_logs, transformed, with_derivative


class Powered(NamedTuple):
    """What a column's power is, and the mean and standard deviation of its values' powers."""

    power: Power
    mean: float
    deviation: float


@dataclass(frozen=True)
class PowerFit(Columnwise):
    """The most likely Yeo-Johnson transformation of each column over all rows.

    Eight rounds find the least and the largest value (see `Quantiles`), and with them the interval of lambda that
    scikit-learn searches and the column's scale. Each round after asks for the derivative of the log-likelihood at
    nine, then six lambdas a column, until its change of sign is pinned down, most often after four rounds in all;
    one more finds mean and deviation. All depends on exact sums of each value's terms: for the same arithmetic
    at every client, the same bits for any partition of the rows.

    Args:
        names: numeric columns.
        with_moments: whether to find the powers' mean and deviation.
    """

    with_moments: bool = True

    def task(self, state: Estimating) -> Task | None:
        """Ask for the ends of each column, then for derivatives, then for moments."""
        if not self.names or (state.found or {}).get("moments") is not None:
            return None
        if state.round < Quantiles.rounds:
            return self._ends().task(state)
        candidates = [power_search.candidates(search) for search in state.found["searches"]]
        if any(candidates):
            pivots = [search["pivot"] for search in state.found["searches"]]
            return ask(state, candidates=candidates, pivots=pivots)
        return ask(state, powers=self._powers(state.found["searches"])) if self.with_moments else None

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return counts, then sums over the column's values."""
        if "prefixes" in task.parameters:
            return self._ends().client(model, task, data, kept, seed)
        columns = list(present_numbers(data, self.names))
        count = np.array([values.size for values in columns])
        if "powers" in task.parameters:
            powers = [
                transformed(values, Power(*power))
                for values, power in zip(columns, task.parameters["powers"], strict=True)
            ]
            return reply(
                task,
                data,
                {
                    "count": count,
                    "sum": np.stack([sums.sum_of(each) for each in powers]),
                    "squares": np.stack([sums.sum_of_squares(each) for each in powers]),
                },
            ), kept
        terms, logs = [], []
        asked = zip(columns, task.parameters["candidates"], task.parameters["pivots"], strict=True)
        for values, candidates, pivot in asked:
            logs.append(sums.sum_of(signed_logs(values, pivot)))
            terms += [_terms(values, Power(lam, pivot)) for lam in candidates]
        return reply(task, data, {"count": count, "logs": np.stack(logs), "terms": np.stack(terms)}), kept

    def server(self, model: Any, state: Estimating, aggregate: Aggregate) -> Estimating:
        """Narrow each column's interval.

        Raises:
            DataError: a column has no value at any client, or such large ones that no power of them is a float64.
            QuorumError: other rows answered than in the round before.
        """
        after = state.round + 1
        if state.round < Quantiles.rounds:
            ended = self._ends().server(model, state, aggregate)
            if after < Quantiles.rounds:
                return ended
            found = self._ends().fitted(ended)
            searches = [power_search.begin(name, *found[name]) for name in self.names]
            return Estimating(after, {"searches": searches, "totals": ended.found["totals"]})
        counts = aggregate.sum("count").tolist()
        if counts != state.found["totals"]:
            raise QuorumError(
                "other rows answered than in the round before, so their powers cannot be found: a client joined, "
                "left or failed while the preprocessing was fitted. Start again."
            )
        if not any(power_search.candidates(search) for search in state.found["searches"]):
            totals = zip(counts, aggregate.sum("sum"), aggregate.sum("squares"), strict=True)
            return Estimating(after, {**state.found, "moments": [_moments(*each) for each in totals]})
        terms, narrowed = iter(aggregate.sum("terms")), []
        for search, n, logs in zip(state.found["searches"], counts, aggregate.sum("logs"), strict=True):
            slopes = [_slope(n, sums.sum_in(logs), next(terms)) for _ in power_search.candidates(search)]
            narrowed.append(power_search.narrowed(search, slopes))
        return Estimating(after, {**state.found, "searches": narrowed})

    def fitted(self, state: Estimating) -> Mapping[str, Powered]:
        """Return column → its power, and the mean and deviation of that; 0 and 1 where they were not asked for."""
        if state.found is None:
            return {}
        moments = state.found.get("moments") or [[0.0, 1.0] for _ in self.names]
        return {
            name: Powered(Power(*power), *pair)
            for name, power, pair in zip(
                self.names, self._powers(state.found["searches"]), moments, strict=True
            )
        }

    def _ends(self) -> Quantiles:
        return Quantiles(self.names, (0.0, 1.0))

    def _powers(self, searches: list[dict[str, Any]]) -> list[list[float]]:
        return [
            [power_search.result(search), search["pivot"] if self.with_moments else 0.0]
            for search in searches
        ]


def _terms(values: NDArray[np.float64], power: Power) -> NDArray[np.int64]:
    """Return the digits [4, digits] of the sums of z, z², z′ and z·z′."""
    powers, derivatives = with_derivative(values, power)
    each = (powers, powers * powers, derivatives, powers * derivatives)
    return np.stack([sums.sum_of(term) for term in each])


def _slope(n: int, logs: Fraction, terms: NDArray[np.int64]) -> float:
    """Return the derivative by lambda of the log-likelihood a value: Σ(±d)/n − cov(z, z′)/var(z)."""
    z, squares, derivative, product = (sums.sum_in(digits) for digits in terms)
    spread = n * squares - z * z
    return float(logs / n - (n * product - z * derivative) / spread) if spread > 0 else math.nan


def _moments(n: int, total: NDArray[np.int64], squares: NDArray[np.int64]) -> list[float]:
    mean = sums.sum_in(total) / n
    return [float(mean), sums.square_root(sums.sum_of_squares_in(squares) / n - mean * mean)]
