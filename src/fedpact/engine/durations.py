"""How long clients take, as far as it was measured, and how a cohort is cut up by it: the longest first.

Graham, "Bounds on multiprocessing timing anomalies", SIAM J. Appl. Math. 1969: whoever takes the next longest piece
of work whenever they are idle are done at most a third later than with the best plan there is.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fedpact.engine.work import Work
from fedpact.store.table import ClientTable

# The first so many clients are remembered one by one; what is known of others is how long a row takes.
_REMEMBERED = 4096
# What was measured before counts for half: a machine's mood passes, a client's new rows stay.
_OLD = 0.5


class Durations:
    """Running means of clients' seconds, for each verb that they were asked."""

    def __init__(self) -> None:
        self._known: dict[str, ClientTable] = {}
        self._per_row: dict[str, float] = {}

    def expected(self, work: Work, ids: Sequence[str]) -> NDArray[np.float64] | None:
        """Return how many seconds each client will take; None where nothing is known of what they are asked."""
        known, rate = self._known.get(work.task.verb), self._per_row.get(work.task.verb)
        if known is None or rate is None:
            return None
        rows = known.find(ids)
        seconds = np.where(rows >= 0, known["seconds"][rows], 0.0) if len(known) else np.zeros(len(ids))
        for place in np.flatnonzero(rows < 0).tolist():
            seconds[place] = rate * size(work, ids[place])
        return seconds

    def note(self, work: Work, seconds: Mapping[str, float]) -> None:
        """Take account of how long clients took."""
        known = self._known.get(work.task.verb)
        if known is None:
            known = self._known[work.task.verb] = ClientTable({"seconds": np.float64}, _REMEMBERED)
        ids, measured = list(seconds), np.fromiter(seconds.values(), np.float64, len(seconds))
        rows = known.find(ids)
        met = rows >= 0
        before = known["seconds"]
        before[rows[met]] = measured[met] + _OLD * (before[rows[met]] - measured[met])
        new = np.flatnonzero(~met)
        size_of_new = sum(size(work, ids[place]) for place in new.tolist())
        if size_of_new > 0:
            self._per_row[work.task.verb] = measured[new].sum() / size_of_new
        new = new[: _REMEMBERED - len(known)]
        rows = known.rows(ids[place] for place in new.tolist())
        known["seconds"][rows] = measured[new]


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
