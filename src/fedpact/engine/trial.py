"""How long a round's clients take in each way, found out on the first of them."""

import time
from collections.abc import Mapping, Sequence
from statistics import median

from fedpact.engine.durations import size
from fedpact.engine.work import Engine, Intake, Work

# So many clients are timed one by one; the first of them, which builds what the others reuse, does not count.
_ALONE = 4
_ALONE_S = 0.5
# So many are then run together at once: the first group builds, and the third is asked where the second left it open.
_GROUPS = (16, 64, 256)


class Trial:
    """A round of which the first clients are run in one way, the next in another, and timed.

    Seconds are those of a client with as many rows as the round's have on average.

    Args:
        work: the work.
        ids: the clients, at least one.
        intake: what takes in their answers.
    """

    def __init__(self, work: Work, ids: Sequence[str], intake: Intake) -> None:
        self._work = work
        self._intake = intake
        self._rows: Mapping[str, float] = {id: max(1.0, size(work, id)) for id in ids}
        self._mean = sum(self._rows.values()) / len(ids)
        self.left = ids

    def clients_left(self) -> float:
        """Return the clients that were not run yet, counted by their rows."""
        return sum(self._rows[id] for id in self.left) / self._mean

    def alone(self, engine: Engine) -> float:
        """Run some clients one at a time; return the seconds of one."""
        times: list[float] = []
        begun = time.perf_counter()
        for id in self.left[:_ALONE]:
            times.append(self._timed(engine, [id]))
            if time.perf_counter() - begun > _ALONE_S and len(times) > 1:
                break
        return median(times[1:] or times)

    def together(self, engine: Engine, worthwhile: float) -> float:
        """Run some clients in groups; return the seconds of one.

        Args:
            engine: who runs them.
            worthwhile: the seconds below which it is the better way; of twice as many it is not, however many more
                are run at once.
        """
        seconds = self._timed(engine, self.left[: min(_GROUPS[0], len(self.left) // 2)])
        for most in _GROUPS[1:]:
            if self.left:
                seconds = self._timed(engine, self.left[:most])
            if not worthwhile < seconds < 2 * worthwhile:
                break
        return seconds

    def _timed(self, engine: Engine, ids: Sequence[str]) -> float:
        start = time.perf_counter()
        engine.ask(self._work, ids, self._intake)
        self.left = self.left[len(ids) :]
        return (time.perf_counter() - start) * self._mean / sum(self._rows[id] for id in ids)
