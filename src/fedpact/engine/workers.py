"""The engine in worker processes of this machine: each takes the next longest client until none is left.

Any number of workers gives the same bits as one process: every worker adds its clients' updates up in integers, and
the integers of these partial sums are added in the end.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import UpdateError
from fedpact.core.settings import check_choice, check_counts, check_numbers
from fedpact.engine.batched import Batched, why_not
from fedpact.engine.durations import Durations, longest_first, ranges, size
from fedpact.engine.in_process import InProcess
from fedpact.engine.shared import Queue
from fedpact.engine.threads import usable_cores
from fedpact.engine.travel import Layouts
from fedpact.engine.words import many
from fedpact.engine.work import Engine, Intake, Setting, Work, run_in_order
from fedpact.engine.worker_pool import Pool, Start, safe_start
from fedpact.engine.worker_round import Range, Round

# Workers take clients one by one, or several at once where these last no longer than this together.
_LEAST_S = 2e-3
# An inner engine that runs clients together gets so many groups a worker: few, but enough that none is idle for long.
_GROUPS = 4


class Workers:
    """Runs clients in worker processes, one thread each, that stay for the next rounds.

    On Linux they are forked: rows, model and algorithm are theirs without a copy, whatever they are made of. Where
    they cannot be forked (CUDA is in use, or another system), they are started anew and sent a copy. Clients that
    join or leave a population in memory end the workers, and new ones are forked; other things that the parent
    changes after the first round are not seen.

    A worker that dies is started again, and its clients of this round are run again: the bits are the same. A client
    whose worker dies three times is a failure of its round. One thread at a time may ask.

    Args:
        processes: how many; None for one a core.
        timeout_s: how long one client may take; the worker of one that takes longer is ended.
        inner: how a worker runs its clients; None for one after another.
        start: "fork" or "spawn", as in `multiprocessing`; None for the first where it is safe.

    Raises:
        ConfigError: a setting is out of range.
    """

    loads_here = False

    def __init__(
        self,
        processes: int | None = None,
        timeout_s: float | None = None,
        inner: Engine | None = None,
        start: Start | None = None,
    ) -> None:
        self.processes = usable_cores() if processes is None else processes
        self.timeout_s = timeout_s
        self.start = start
        check_counts(self, "processes")
        check_numbers(self, "timeout_s", positive=True, optional=True)
        if start is not None:
            check_choice(self, "start", ("fork", "spawn"))
        self._inner = InProcess() if inner is None else inner
        self._manner = self._inner.describe()
        self._pool: Pool | None = None
        self._durations = Durations()
        self._layouts = Layouts()

    def ask(self, work: Work, ids: Sequence[str], intake: Intake) -> None:
        """Run these clients and take in their answers.

        Raises:
            ConfigError: workers cannot be started, or cannot be sent what they need.
            DisputedError: the clients would have to mask their updates again.
            FedpactError: as of any engine; where several clients make such a mistake, it is that of any of them.
        """
        if not ids:
            return
        try:
            held = self._held(work, ids)
        except BaseException:
            self._end()
            raise
        if not held.agreed or not _added(held.gathered, intake):
            # Then the order of the clients decides whose answer is refused: all are run again, in theirs.
            run_in_order(InProcess(self.timeout_s).ask, work, ids, intake)
            return
        if work.task.verb != "evaluate":
            self._manner = held.manner or self._manner
        self._durations.note(work, held.gathered.seconds)
        for name in ("kept", "seconds", "upload_bytes", "failures"):
            found = getattr(held.gathered, name)
            # In the order of the clients, however they were run.
            getattr(intake, name).update((id, found[id]) for id in ids if id in found)
        intake.note(held.gathered.notes)
        intake.first_error = intake.first_error or held.first_error(ids)

    def describe(self) -> str:
        """Return how the clients are trained."""
        place = f"in {many(self.processes, 'worker process', 'worker processes')}"
        return self._manner.replace("in this process", place)

    def close(self) -> None:
        """End the processes."""
        self._end()
        self._inner.close()

    def _end(self) -> None:
        pool, self._pool = self._pool, None
        if pool:
            pool.close()

    def _held(self, work: Work, ids: Sequence[str]) -> Round:
        """Return the round when all its clients have been run."""
        pool, part = self._pool_for(work.setting)
        order, cuts = self._cut(work, ids)
        in_order = [ids[place] for place in order.tolist()]
        held = Round(pool, work, part, in_order, order, self.timeout_s, self._layouts)
        held.hold(cuts)
        return held

    def _cut(self, work: Work, ids: Sequence[str]) -> tuple[NDArray[np.int64], list[Range]]:
        """Return the clients' order, and the ranges of it that workers take at once."""
        inner = self._inner
        alone = isinstance(inner, InProcess) or (
            isinstance(inner, Batched) and why_not(work.setting) is not None
        )
        # Who is run together decides about the last bits: it must not depend on what was measured.
        seconds = self._durations.expected(work, ids) if alone else None
        efforts = np.array([size(work, id) for id in ids], np.float64) if seconds is None else seconds
        least = 0.0
        if not alone:
            least = efforts.sum() / (_GROUPS * self.processes)
        elif seconds is not None:
            least = min(_LEAST_S, seconds.sum() / (2 * _GROUPS * self.processes))
        order = longest_first(efforts)
        return order, ranges(efforts[order], least, Queue.MOST)

    def _pool_for(self, setting: Setting) -> tuple[Pool, int]:
        """Return workers that have a setting's model and clients, and its place among what else they know."""
        pool = self._pool
        part = pool.part(setting) if pool and pool.fits(setting) else None
        if pool is None or part is None:
            self._end()
            pool = self._pool = Pool(setting, self._inner, self.processes, self.start or safe_start())
            part = 0
            pool.part(setting)
        return pool, part


def _added(gathered: Intake, intake: Intake) -> bool:
    """Add a sum to what was taken in before; return whether the two go together."""
    if intake.sums.kind is None:
        intake.sums = gathered.sums
        return True
    try:
        intake.sums.merge(gathered.sums)
    except UpdateError:
        return False
    return True
