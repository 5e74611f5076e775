"""The engine that chooses an engine: by measuring on this machine, with this model and these rows, as the run goes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import current_process
from typing import Literal

from fedpact.engine.batched import Batched, why_not
from fedpact.engine.in_process import InProcess
from fedpact.engine.prefetch import Prefetched
from fedpact.engine.threads import one_torch_thread, usable_cores
from fedpact.engine.trial import Trial
from fedpact.engine.words import many
from fedpact.engine.work import Engine, Intake, Setting, Work
from fedpact.engine.worker_pool import safe_start
from fedpact.engine.workers import Workers

Arithmetic = Literal["one by one", "batched"]

# Of smaller cohorts too little is left to gain once both ways are measured.
_LEAST_STACKED = 16
# Batched sums round otherwise in the last bits: a little speed is not worth other bits from run to run.
_WORTHWHILE = 1.5
# Forking workers costs some tenths of a second, and handing a round to them about a millisecond.
_START_S = 0.5
_HANDING_S = 2e-3
_LEAST_ROUND_S = 0.02
# A first batched round is no measure of those after it, unless it takes so long.
_LONG_S = 2.0
# After so many rounds in workers that were no faster, this process is tried again.
_DOUBTS = 2

# Whose clients can be batched.
_TRAINED = ("train", "gradient")


@dataclass
class _Pace:
    """How long the clients of all tasks with one verb take: seconds a client.

    Args:
        asked: how many tasks there were.
        spread: whether their clients are run in workers.
        here: in this process, at best; before a whole task of it, as is expected from the first clients.
        measured: whether there was a whole task in this process.
        there: in workers, at best, but for the first task, in which they start; None before two.
        visits: how many tasks were run in workers.
        doubts: how many of them were no faster.
    """

    asked: int = 0
    spread: bool = False
    here: float = 0.0
    measured: bool = False
    there: float | None = None
    visits: int = 0
    doubts: int = 0

    def note_here(self, seconds: float) -> None:
        """Take account of a task in this process."""
        self.here = min(self.here, seconds) if self.measured else seconds
        self.measured = True

    def note_there(self, seconds: float) -> None:
        """Take account of a task in workers."""
        self.visits += 1
        if self.visits == 1:
            return
        self.doubts += seconds >= self.here
        self.there = seconds if self.there is None else min(self.there, seconds)
        if self.doubts >= _DOUBTS and not (self.measured and self.there < self.here):
            self.spread, self.doubts = False, 0


class Auto:
    """Runs the first clients one by one, the next batched, and the rest in the way that was faster.

    Worker processes follow that way as soon as they are expected to save more than it costs to start them, in
    training and in evaluations each for itself; where they turn out to be no faster, they are left again. They are
    considered only where they can be forked, and where the model computes on no other device.

    In process and in workers a job gives the same bits; batched it may differ in the last bits, so that batching is
    chosen only where it is faster by half, and a run that is resumed goes on in the way that it began.

    Args:
        rounds: how many rounds are to come.
        processes: worker processes at most; None for one a core.
        timeout_s: how long one client may take; clients that have a limit of their own are not batched.
        arithmetic: the way that a run began with; None to measure.
        spread: who runs clients one by one, and who batched, where these use several devices; the first ones are then
            timed on one device. Such a run has no worker processes.
    """

    def __init__(
        self,
        rounds: int,
        processes: int | None = None,
        timeout_s: float | None = None,
        arithmetic: Arithmetic | None = None,
        spread: tuple[Engine, Engine] | None = None,
    ) -> None:
        self._rounds = rounds
        self._processes = usable_cores() if processes is None else processes
        self._timeout_s = timeout_s
        self.arithmetic = arithmetic
        self._timed = InProcess(timeout_s), Batched()
        self._spread = spread is not None
        self._alone, self._together = spread or self._timed
        self._crew: Workers | None = None
        self._paces: dict[str, _Pace] = {}
        self._why = ""

    def ask(self, work: Work, ids: Sequence[str], intake: Intake) -> None:
        """Run these clients, measuring how long they take."""
        if not ids:
            return
        pace = self._paces.setdefault(work.task.verb, _Pace())
        pace.asked += 1
        if not pace.spread:
            ids = self._ask_here(work, ids, intake, pace)
        if ids:
            self._ask_there(work, ids, intake, pace)

    def close(self) -> None:
        """Give back the processes, if there are any."""
        self._alone.close()
        self._together.close()
        crew, self._crew = self._crew, None
        if crew is not None:
            crew.close()

    @property
    def loads_here(self) -> bool:
        """Whether the rows of those who train are loaded in this process."""
        return not self._spreads_training()

    def describe(self) -> str:
        """Return what was chosen, and why."""
        if self._crew is not None and self._spreads_training():
            return self._crew.describe() + self._why
        said = (self._together if self.arithmetic == "batched" else self._alone).describe()
        if self._crew is not None:
            said += f", evaluation in {many(self._processes, 'worker process', 'worker processes')}"
        return said + self._why

    def _spreads_training(self) -> bool:
        return any(pace.spread for verb, pace in self._paces.items() if verb != "evaluate")

    def _ask_here(self, work: Work, ids: Sequence[str], intake: Intake, pace: _Pace) -> Sequence[str]:
        """Run clients in this process; return those that are left for workers."""
        cohort = len(ids)
        with one_torch_thread():
            if pace.asked == 1 and not self._batches(work):
                trial = Trial(work, ids, intake)
                pace.here = trial.alone(self._timed[0])
                if work.task.verb in _TRAINED:
                    pace.here = self._chosen(work.setting, trial, pace.here, cohort)
                ids, left = trial.left, pace.here * trial.clients_left()
                # A whole cohort is batched faster than the few that were timed.
                if not self._batches(work) and self._pays(
                    work, pace, left, cohort, self._to_come(work, pace) + 1
                ):
                    pace.spread = True
                    return ids
            if ids:
                engine: Engine = self._together if self._batches(work) else self._alone
                start = time.perf_counter()
                engine.ask(work, ids, intake)
                pace.note_here((time.perf_counter() - start) / len(ids))
            whole = pace.here * cohort
            # And faster again once it was done before.
            if not self._batches(work) or pace.asked > 1 or whole > _LONG_S:
                pace.spread = self._pays(work, pace, whole, cohort, self._to_come(work, pace))
        return ()

    def _batches(self, work: Work) -> bool:
        return work.task.verb in _TRAINED and self.arithmetic == "batched"

    def _to_come(self, work: Work, pace: _Pace) -> int:
        """Return how many tasks will follow: rounds are known; of evaluations as many are expected as there were."""
        return pace.asked if work.task.verb == "evaluate" else self._rounds - pace.asked

    def _ask_there(self, work: Work, ids: Sequence[str], intake: Intake, pace: _Pace) -> None:
        if self._crew is None:
            inner = Batched() if self.arithmetic == "batched" else InProcess(self._timeout_s)
            self._crew = Workers(self._processes, timeout_s=self._timeout_s, inner=inner)
        if pace.visits == 0 and isinstance(work.setting.population, Prefetched):
            # A process that is forked while a thread reads files could inherit a lock that nobody gives back.
            work.setting.population.close()
        start = time.perf_counter()
        self._crew.ask(work, ids, intake)
        pace.note_there((time.perf_counter() - start) / len(ids))
        if not any(pace.spread for pace in self._paces.values()):
            self.close()

    def _pays(self, work: Work, pace: _Pace, seconds: float, cohort: int, tasks: int) -> bool:
        """Return whether workers would save more than they cost.

        Args:
            work: the work.
            pace: of its tasks.
            seconds: how long the clients of one take in this process.
            cohort: how many they are.
            tasks: how many tasks they would be run for.
        """
        if pace.there is not None:
            return pace.there < pace.here
        processes = min(self._processes, cohort)
        if self._spread or processes == 1 or seconds < _LEAST_ROUND_S or not _can_fork(work.setting):
            return False
        saved = (seconds * (1 - 1 / processes) - _HANDING_S) * tasks
        return saved > (_START_S if self._crew is None else 0.0)

    def _chosen(self, setting: Setting, trial: Trial, alone: float, cohort: int) -> float:
        """Choose the arithmetic; return the seconds of a client by it."""
        said, why = f": {_per_client(alone)} one by one", ""
        if self.arithmetic is None:
            refusal = self._refusal(setting, cohort)
            self.arithmetic = "one by one"
            if refusal is None:
                together = trial.together(self._timed[1], alone / _WORTHWHILE)
                said += f", {_per_client(together)} batched"
                if together * _WORTHWHILE < alone:
                    self.arithmetic, alone = "batched", together
            else:
                why = f" ({refusal}, so not batched)"
        self._why = said + why
        return alone

    def _refusal(self, setting: Setting, cohort: int) -> str | None:
        if self._timeout_s is not None:
            return "every client has a limit of time"
        return f"the cohort is {many(cohort, 'client')}" if cohort < _LEAST_STACKED else why_not(setting)


def _can_fork(setting: Setting) -> bool:
    """Return whether workers can be forked, with a model that computes on no device that they would have to share."""
    device = getattr(getattr(setting.model, "device", None), "type", "cpu")
    return device == "cpu" and not current_process().daemon and safe_start() == "fork"


def _per_client(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms a client"
