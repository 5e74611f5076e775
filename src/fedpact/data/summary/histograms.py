"""How many values of a column lie in each bin."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedpact.core.algorithm import ClientState
from fedpact.core.messages import Aggregate, Task, Update
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed
from fedpact.data.preprocess.estimate import Columnwise, Estimating, present_numbers, reply


@dataclass(frozen=True)
class Histogram:
    """How many values lie in each bin: in [edge, next edge), and in the last also on its end, as numpy's.

    Args:
        edges: of the bins, one more than there are bins.
        counts: of each bin.
        below: how many values are smaller than the first edge;
        above: and larger than the last.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    below: int = 0
    above: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the histogram as plain data."""
        return {
            "edges": list(self.edges),
            "counts": list(self.counts),
            "below": self.below,
            "above": self.above,
        }


@dataclass(frozen=True)
class Histograms(Columnwise):
    """How many values of each column lie in each bin, in one round; the edges are the same for all clients.

    Args:
        names: numeric columns.
        edges: of the bins of each column, ascending.
    """

    edges: tuple[tuple[float, ...], ...]

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return for each column how many values lie below the bins, in each, and above; one behind the other."""
        counts = []
        for values, edges in zip(present_numbers(data, self.names), self.edges, strict=True):
            place = np.searchsorted(edges, values, side="right")
            place[values == edges[-1]] = len(edges) - 1
            counts.append(np.bincount(place, minlength=len(edges) + 1))
        return reply(task, data, {"counts": np.concatenate(counts)}), kept

    def server(self, model: Any, state: Estimating, aggregate: Aggregate) -> Estimating:
        """Part the sums."""
        ends = np.cumsum([len(edges) + 1 for edges in self.edges])
        parts = np.split(aggregate.sum("counts"), ends[:-1])
        return Estimating(state.round + 1, [counts.tolist() for counts in parts])

    def fitted(self, state: Estimating) -> Mapping[str, Histogram]:
        """Return column → its histogram."""
        return {
            name: Histogram(edges, tuple(counts[1:-1]), counts[0], counts[-1])
            for name, edges, counts in zip(self.names, self.edges, state.found or (), strict=True)
        }


def edges_between(low: float, high: float, bins: int) -> tuple[float, ...]:
    """Return the edges of bins of equal width, as `numpy.histogram_bin_edges` has them; any finite ends will do."""
    if low == high:
        width = max(0.5, abs(low) * 2.0**-40)
        low, high = low - width, high + width
    edges: Sequence[float] = np.linspace(low / 2, high / 2, bins + 1).tolist()
    if np.isinf(high - low):
        return tuple(2 * edge for edge in edges)
    return tuple(np.linspace(low, high, bins + 1).tolist())
