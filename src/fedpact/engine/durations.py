"""How long clients take, as far as it was measured, and how a cohort is cut up by it: the longest first.

Graham, "Bounds on multiprocessing timing anomalies", SIAM J. Appl. Math. 1969: whoever takes the next longest piece
of work whenever they are idle are done at most a third later than with the best plan there is.
"""

from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from fedpact.engine.work import Work

# So many clients are remembered one by one; what is known of others is how long a row takes.
_REMEMBERED = 4096
# What was measured before counts for half: a machine's mood passes, a client's new rows stay.
_OLD = 0.5


class Durations:
    """Running means of clients' seconds, for each verb that they were asked."""

    def __init__(self) -> None:
        self._seconds: dict[str, dict[str, float]] = {}
        self._per_row: dict[str, float] = {}

    def expected(self, work: Work, ids: Sequence[str]) -> NDArray[np.float64] | None:
        """Return how many seconds each client will take; None where nothing is known of what they are asked."""
        known, rate = self._seconds.get(work.task.verb), self._per_row.get(work.task.verb)
        if known is None or rate is None:
            return None
        return np.array([known[id] if id in known else rate * size(work, id) for id in ids], np.float64)

    def note(self, work: Work, seconds: Mapping[str, float]) -> None:
        """Take account of how long clients took."""
        known = self._seconds.setdefault(work.task.verb, {})
        new = [id for id in seconds if id not in known]
        rows = sum(size(work, id) for id in new)
        if rows > 0:
            self._per_row[work.task.verb] = sum(seconds[id] for id in new) / rows
        for id, measured in seconds.items():
            before = known.get(id, measured)
            known[id] = measured + _OLD * (before - measured)
        for id in list(islice(known, max(0, len(known) - _REMEMBERED))):
            del known[id]


def size(work: Work, id: str) -> float:
    """Return how much a client has to do: its number of rows, which is its weight or else asked of the population."""
    if work.task.weighting == "examples":
        return work.weights[id]
    try:
        return work.setting.population.size(id)
    except Exception:
        # Whoever runs the client will say what is wrong with it.
        return 1


def longest_first(efforts: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the order of the largest efforts first; of equal ones, that in which they are given."""
    return np.argsort(-efforts, kind="stable")


def ranges(efforts: NDArray[np.float64], least: float, most: int) -> list[tuple[int, int]]:
    """Cut a list into ranges of about equal effort, and of one each where a single one is more than that.

    Args:
        efforts: of each place of the list.
        least: the effort that a range is to have.
        most: how many ranges there may be.
    """
    total = float(efforts.sum())
    if total <= 0:
        efforts, total = np.ones(len(efforts)), float(len(efforts))
    step = max(least, 2 * total / most)
    before = np.cumsum(efforts) - efforts
    # A range ends where the effort so far passes a multiple of the step.
    starts = np.flatnonzero(np.diff(np.floor(before / step), prepend=-1.0)).tolist()
    return list(zip(starts, [*starts[1:], len(efforts)], strict=True))
