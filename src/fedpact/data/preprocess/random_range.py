"""The directions in which the rows of a wide table vary most, found from sums of projections."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.algorithm import ClientState
from fedpact.core.messages import Aggregate, Task, Update
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed
from fedpact.data.preprocess import products
from fedpact.data.preprocess.estimate import Columnwise, Estimating, ask, reply
from fedpact.data.preprocess.gram import check_rows, complete
from fedpact.data.preprocess.moments import Moments
from fedpact.data.preprocess.spectrum import Spectrum, signed


@dataclass(frozen=True)
class RandomRange(Columnwise):
    """Approximate principal directions of columns over all rows: a round for means, and one for each pass.

    With C the covariances of the columns and Q orthogonal directions, random ones at first, a pass finds C·Q, as the
    sum over rows of x·(xᵀ·Q). Its range is the next Q; of the last pass Qᵀ·C·Q has the variances, and the directions
    within Q, that come out (Halko, Martinsson and Tropp, SIAM Review 53(2), 2011, algorithms 4.4 and 5.3). All sums
    are exact, so that these are the same bits for any partition of the rows.

    Args:
        names: numeric columns without missing values.
        directions: how many directions are gone along.
        passes: how many passes over the rows.
    """

    directions: int = 1
    passes: int = 2

    def init(self, model: Any, seed: Seed) -> Estimating:
        """Return the state before the first round, with the random directions."""
        gauss = seed.generator().normal(size=(len(self.names), self.directions))
        return Estimating(0, {"directions": np.linalg.qr(gauss)[0].tolist()})

    def task(self, state: Estimating) -> Task | None:
        """Ask for moments, then for products with the directions found so far."""
        if not self.names or state.round > self.passes:
            return None
        if state.round == 0:
            return ask(state)
        return ask(state, **{key: state.found[key] for key in ("means", "exponent", "directions")})

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return counts, sums and sums of squares; then "products" [1 + d, 1 + directions, digits] of 1 and both.

        Raises:
            DataError: a value is missing.
        """
        values = complete(data, self.names, "PCA")
        if "means" not in task.parameters:
            return Moments(self.names).client(model, task, data, kept, seed)
        for i, mean in enumerate(task.parameters["means"]):
            values[:, i] = products.scaled(values[:, i], mean, task.parameters["exponent"])
        along = products.projected(values, np.array(task.parameters["directions"]))
        return reply(task, data, {"products": products.products(_with_ones(values), _with_ones(along))}), kept

    def server(self, model: Any, state: Estimating, aggregate: Aggregate) -> Estimating:
        """Find the next directions.

        Raises:
            DataError: there are no rows at any client.
            QuorumError: other rows answered than in the round before.
        """
        found = state.found
        if state.round == 0:
            moments = Moments(self.names)
            known = moments.fitted(moments.server(model, state, aggregate)).values()
            total = math.hypot(*(each.deviation for each in known))
            return Estimating(
                1,
                {
                    **found,
                    "n": int(aggregate.sum("count")[0]),
                    "means": [each.mean for each in known],
                    "exponent": products.exponent_of(total),
                    "deviation": total,
                },
            )
        units = products.units_in(aggregate.sum("products"))
        n = int(units[0, 0]) >> products.UNIT_BITS
        check_rows(n, found["n"])
        varied = products.covariance_in(units[1:, 1:], n, units[1:, 0].tolist(), units[0, 1:].tolist())
        if state.round < self.passes:
            return Estimating(state.round + 1, {**found, "directions": np.linalg.qr(varied)[0].tolist()})
        directions = np.array(found["directions"])
        within = directions.T @ varied
        variances, turned = np.linalg.eigh((within + within.T) / 2)
        found = {**found, "components": signed((directions @ turned[:, ::-1]).T).tolist()}
        return Estimating(state.round + 1, {**found, "variances": np.maximum(variances[::-1], 0.0).tolist()})

    def fitted(self, state: Estimating) -> Mapping[str, Any]:
        """Return "spectrum" → the directions and what they explain."""
        found = state.found
        variances = np.array(found["variances"])
        n, exponent = found["n"], found["exponent"]
        total = float(np.ldexp(found["deviation"], -exponent)) ** 2
        deviations = np.ldexp(np.sqrt(variances * n / max(n - 1, 1)), exponent).tolist()
        shares = (variances / (total or 1.0)).tolist()
        return {"spectrum": Spectrum(n, found["means"], np.array(found["components"]), deviations, shares)}


def _with_ones(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([np.ones((len(columns), 1)), columns], axis=1)
