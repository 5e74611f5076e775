"""Medians over all clients' rows, found byte by byte from counts."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
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


@dataclass(frozen=True)
class Medians(Columnwise):
    """The median of each column over all rows, exact, in eight rounds.

    The bits of float64 numbers can be arranged into integers in the order of the numbers. Each round counts
    how many values have each next byte, and so finds the byte of the middle value; of an even number of
    values, the bytes of both middle ones, whose mean is the median. A median is a value of some row: counts
    hide whose, not what.

    Args:
        names: numeric columns.
    """

    rounds: ClassVar[int] = 8

    def task(self, state: Estimating) -> Task | None:
        """Ask for counts among the values that begin with the bytes found so far."""
        if not self.names or state.round == self.rounds:
            return None
        found = state.found or [[(0,), (0,)] for _ in self.names]
        return ask(state, byte=state.round, prefixes=[[middle[0] for middle in pair] for pair in found])

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return how many values have each next byte: counts [columns, 2, 256]."""
        counts = np.zeros((len(self.names), 2, 256), np.int64)
        rest = np.uint64(8 * (self.rounds - 1 - task.parameters["byte"]))
        asked = zip(present_numbers(data, self.names), task.parameters["prefixes"], counts, strict=True)
        for values, prefixes, out in asked:
            leading = _ordered(values) >> rest
            for middle, prefix in enumerate(prefixes):
                inside = leading[leading >> np.uint64(8) == np.uint64(prefix)]
                out[middle] = np.bincount(inside.astype(np.uint8), minlength=256)
        return reply(task, data, {"counts": counts}), kept

    def server(self, model: Any, state: Estimating, aggregate: Aggregate) -> Estimating:
        """Find the next byte of each middle value.

        Raises:
            DataError: a column has no value at any client.
            QuorumError: other rows answered than in the round before.
        """
        counts = aggregate.sum("counts")
        totals = counts.sum(axis=2)
        if state.found is None:
            check_counts(self.names, totals[:, 0])
        # Of each middle value: its bytes so far, its rank among the values that begin so, their number.
        found = state.found or [[[0, (n - 1) // 2, n], [0, n // 2, n]] for n in totals[:, 0].tolist()]
        if totals.tolist() != [[middle[2] for middle in pair] for pair in found]:
            raise QuorumError(
                "other rows answered than in the round before, so their median cannot be found: a client "
                "joined, left or failed while the preprocessing was fitted. Start again."
            )
        found = [
            [_descend(histogram, *middle) for histogram, middle in zip(histograms, pair, strict=True)]
            for histograms, pair in zip(counts, found, strict=True)
        ]
        return Estimating(state.round + 1, found)

    def fitted(self, state: Estimating) -> Mapping[str, float]:
        """Return column → median."""
        pairs = [[Fraction(_number_of(middle[0])) for middle in pair] for pair in state.found or ()]
        return {name: float((low + high) / 2) for name, (low, high) in zip(self.names, pairs, strict=True)}


def _ordered(values: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Return integers that are ordered as the numbers are."""
    # Adding 0 makes −0 and 0 the same number to the bit.
    bits = (values + 0.0).view(np.uint64)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def _number_of(ordered: int) -> float:
    bits = np.array(ordered, np.uint64)
    return float(np.where(bits & _SIGN, bits ^ _SIGN, ~bits).view(np.float64))


def _descend(histogram: NDArray[np.int64], prefix: int, rank: int, within: int) -> list[int]:
    up_to = np.cumsum(histogram)
    byte = int(np.searchsorted(up_to, rank, side="right"))
    own = int(histogram[byte])
    return [256 * prefix + byte, rank - (int(up_to[byte]) - own), own]
