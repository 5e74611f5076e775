"""Quantiles over all clients' rows, the smallest and the largest value included, found byte by byte from counts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpact.core.algorithm import ClientState
from fedpact.core.errors import QuorumError
from fedpact.core.messages import Aggregate, Task, Update
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed
from fedpact.data.preprocess.estimate import (
    Columnwise,
    Estimating,
    ask,
    check_counts,
    present_numbers,
    reply,
)

_SIGN = np.uint64(1 << 63)
_BYTE = np.uint64(8)


@dataclass(frozen=True)
class Quantiles(Columnwise):
    """Quantiles of each column over all rows, exact, in eight rounds: `numpy.quantile` of the pooled values.

    The bits of float64 numbers can be arranged into integers in the order of the numbers. Each round counts
    how many values have each next byte, among those that begin with bytes found before, and so finds the next
    byte of the two values that each quantile lies between (Hyndman and Fan, "Sample Quantiles in Statistical
    Packages", The American Statistician 50(4), 1996, definition 7).

    Counts are all that leaves a client, but a quantile is a value of some row, or lies between those of two: the
    quantiles 0 and 1 are the least and the largest value of all rows. Counts hide whose they are, not what.

    Args:
        names: numeric columns.
        at: which quantiles, from 0 to 1.
        absolute: whether to take those of the absolute values.
    """

    at: tuple[float, ...]
    absolute: bool = False

    rounds: ClassVar[int] = 8

    def task(self, state: Estimating) -> Task | None:
        """Ask for counts among the values that begin with the bytes found so far."""
        if not self.names or state.round == self.rounds:
            return None
        found = state.found["ranked"] if state.found else [[(0,)] for _ in self.names]
        return ask(state, byte=state.round, prefixes=[_distinct(ranked) for ranked in found])

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return how many values have each next byte, counts [prefixes of all columns, 256], and how many rows."""
        rest = np.uint64(8 * (self.rounds - 1 - task.parameters["byte"]))
        counts = []
        for values, asked in zip(present_numbers(data, self.names), task.parameters["prefixes"], strict=True):
            prefixes = np.array(asked, np.uint64)
            leading = _ordered(np.abs(values) if self.absolute else values) >> rest
            place = np.searchsorted(prefixes, leading >> _BYTE)
            # One place more than there are prefixes takes what begins with none of them.
            begins = prefixes[np.minimum(place, prefixes.size - 1)] == leading >> _BYTE
            place[~begins] = prefixes.size
            cells = 256 * place + leading.astype(np.uint8)
            counts.append(np.bincount(cells, minlength=256 * (prefixes.size + 1)).reshape(-1, 256)[:-1])
        return reply(
            task, data, {"counts": np.concatenate(counts), "rows": np.array([len(data.train)])}
        ), kept

    def server(self, model: Any, state: Estimating, aggregate: Aggregate) -> Estimating:
        """Find the next byte of each value.

        Raises:
            DataError: a column has no value at any client.
            QuorumError: other rows answered than in the round before.
        """
        counts, rows = aggregate.sum("counts"), int(aggregate.sum("rows")[0])
        found = state.found
        if found is None:
            totals = counts.sum(axis=1).tolist()
            check_counts(self.names, totals)
            at = self.wanted(rows)
            # Of each value that is sought: its bytes so far, its rank among the values that begin so, their number.
            ranked = [[[0, rank, n] for rank in _ranks(at, n)] for n in totals]
            found = {"rows": rows, "at": at, "totals": totals, "ranked": ranked}
        begun = [(prefix, within) for ranked in found["ranked"] for prefix, within in _groups(ranked)]
        if rows != found["rows"] or counts.sum(axis=1).tolist() != [within for _, within in begun]:
            raise QuorumError(
                "other rows answered than in the round before, so their quantiles cannot be found: a client "
                "joined, left or failed while the preprocessing was fitted. Start again."
            )
        ranked, start = [], 0
        for column in found["ranked"]:
            prefixes = _distinct(column)
            ranked.append(_descended(column, prefixes, counts[start : start + len(prefixes)]))
            start += len(prefixes)
        return Estimating(state.round + 1, {**found, "ranked": ranked})

    def fitted(self, state: Estimating) -> Mapping[str, Any]:
        """Return column → its quantiles, a list of numbers."""
        if state.found is None:
            return {}
        quantiles = {}
        for name, n, ranked in zip(self.names, state.found["totals"], state.found["ranked"], strict=True):
            values = {
                rank: _number_of(each[0])
                for rank, each in zip(_ranks(state.found["at"], n), ranked, strict=True)
            }
            quantiles[name] = [self.between(values, (n - 1) * q) for q in state.found["at"]]
        return quantiles

    def wanted(self, rows: int) -> list[float]:
        """Return which quantiles to find.

        Args:
            rows: how many rows the clients have, those with missing values included.
        """
        return list(self.at)

    def between(self, values: Mapping[int, float], position: float) -> float:
        """Return what lies at a position, counted from 0, among the ordered values, to numpy's bits.

        Args:
            values: place → value.
            position: a place, or one between two.
        """
        low, high = values[math.floor(position)], values[math.ceil(position)]
        share = position - math.floor(position)
        if math.isinf(high - low):
            return 2 * _interpolated(low / 2, high / 2, share)
        return _interpolated(low, high, share)


@dataclass(frozen=True)
class QuantileGrid(Quantiles):
    """Quantiles at equal distances from 0 to 1; of fewer rows than that, as many as there are rows.

    Args:
        names: numeric columns.
        number: how many.
    """

    at: tuple[float, ...] = ()
    number: int = 100

    def wanted(self, rows: int) -> list[float]:
        """Return which quantiles to find."""
        grid: list[float] = np.linspace(0, 1, min(self.number, rows)).tolist()
        return grid


def _ranks(at: Sequence[float], n: int) -> list[int]:
    """Return the places, of n ordered values, of all that are needed for these quantiles."""
    positions = [(n - 1) * q for q in at]
    return sorted({whole(position) for position in positions for whole in (math.floor, math.ceil)})


def _groups(ranked: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Return each beginning of the values that are sought, once, and how many values begin so."""
    return sorted({(prefix, within) for prefix, _, within in ranked})


def _distinct(ranked: Sequence[Sequence[int]]) -> list[int]:
    return sorted({each[0] for each in ranked})


def _descended(
    ranked: Sequence[Sequence[int]], prefixes: Sequence[int], counts: NDArray[np.int64]
) -> list[list[int]]:
    histogram_of = dict(zip(prefixes, counts, strict=True))
    return [_descend(histogram_of[prefix], prefix, rank) for prefix, rank, _ in ranked]


def _descend(histogram: NDArray[np.int64], prefix: int, rank: int) -> list[int]:
    up_to = np.cumsum(histogram)
    byte = int(np.searchsorted(up_to, rank, side="right"))
    own = int(histogram[byte])
    return [256 * prefix + byte, rank - (int(up_to[byte]) - own), own]


def _ordered(values: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Return integers that are ordered as the numbers are."""
    # Adding 0 makes −0 and 0 the same number to the bit.
    bits = (values + 0.0).view(np.uint64)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def _number_of(ordered: int) -> float:
    bits = np.array(ordered, np.uint64)
    return float(np.where(bits & _SIGN, bits ^ _SIGN, ~bits).view(np.float64))


def _interpolated(low: float, high: float, share: float) -> float:
    # From the nearer end, as numpy does: the result never leaves the two values, and equal ones stay as they are.
    return low + (high - low) * share if share < 0.5 else high - (high - low) * (1 - share)
