"""The engine that chooses an engine: by measuring the first round on this machine, with this model and these rows."""

import time
from collections.abc import Sequence
from typing import Literal

from fedpact.engine.batched import Batched, why_not
from fedpact.engine.in_process import InProcess
from fedpact.engine.threads import usable_cores
from fedpact.engine.words import many
from fedpact.engine.work import Engine, Intake, Setting, Work
from fedpact.engine.workers import Workers

Arithmetic = Literal["one by one", "batched"]

# So many clients are timed one by one; the first of them, which builds what the others reuse, does not count.
_TRIED = 4
_TRIED_S = 0.5
# Of smaller cohorts too little is left to gain once both ways are measured.
_LEAST_STACKED = 16
# Batched sums round otherwise in the last bits: a little speed is not worth other bits from run to run.
_WORTHWHILE = 1.5
# Forking workers costs some tenths of a second, and handing a round to them about a millisecond.
_START_S = 0.5
_HANDING_S = 2e-3
_LEAST_ROUND_S = 0.02


class Auto:
    """Runs the first clients one by one, the next batched, and the rest in the way that was faster.

    Where both cores and work suffice, that way is followed in worker processes. In process and in workers
    a job gives the same bits; batched it may differ in the last bits, so that batching is chosen only where it is
    faster by half, and a run that is resumed goes on in the way that it began.

    Args:
        rounds: how many rounds are to come.
        processes: worker processes at most; None for one a core.
        timeout_s: how long one client may take; clients that have a limit of their own are not batched.
        arithmetic: the way that a run began with; None to measure.
    """

    def __init__(
        self,
        rounds: int,
        processes: int | None = None,
        timeout_s: float | None = None,
        arithmetic: Arithmetic | None = None,
    ) -> None:
        self._rounds = rounds
        self._processes = usable_cores() if processes is None else processes
        self._timeout_s = timeout_s
        self.arithmetic = arithmetic
        self._alone = InProcess(timeout_s)
        self._chosen: Engine | None = None
        self._reason = ""

    def ask(self, work: Work, ids: Sequence[str], intake: Intake) -> None:
        """Run these clients, the first time measuring how."""
        if self._chosen is None:
            if work.task.verb in _MEASURED:
                ids = self._measure(work, ids, intake)
            else:
                self._alone.ask(work, ids, intake)
                return
        if ids and self._chosen is not None:
            self._chosen.ask(work, ids, intake)

    def close(self) -> None:
        """Give back the processes, if there are any."""
        if self._chosen is not None:
            self._chosen.close()

    @property
    def loads_here(self) -> bool:
        """Whether clients' rows are loaded in this process: so they are until workers are chosen."""
        return self._chosen is None or self._chosen.loads_here

    def describe(self) -> str:
        """Return what was chosen, and why."""
        return self._reason or self._alone.describe()

    def _measure(self, work: Work, ids: Sequence[str], intake: Intake) -> Sequence[str]:
        alone, done = _time_alone(self._alone, work, ids, intake)
        ids, seconds, cohort = ids[done:], alone, len(ids)
        refusal = self._refusal(work.setting, cohort)
        said = f"{_per_client(alone)} one by one"
        if self.arithmetic == "batched":
            refusal, seconds = None, alone
        elif self.arithmetic is None and refusal is None:
            together, done = _time_stacked(work, ids, intake)
            ids = ids[done:]
            said += f", {_per_client(together)} batched"
            self.arithmetic = "batched" if together * _WORTHWHILE < alone else "one by one"
            seconds = together if self.arithmetic == "batched" else alone
        self.arithmetic = self.arithmetic or "one by one"
        inner: Engine = Batched() if self.arithmetic == "batched" else self._alone
        processes = min(self._processes, cohort)
        saved = (seconds * cohort * (1 - 1 / processes) - _HANDING_S) * self._rounds
        spread = (
            processes > 1
            and seconds * cohort > _LEAST_ROUND_S
            and saved > _START_S
            and not _on_a_device(work.setting)
        )
        self._chosen = Workers(processes, timeout_s=self._timeout_s, inner=inner) if spread else inner
        place = f"in {many(processes, 'worker process', 'worker processes')}" if spread else "in this process"
        why = f" ({refusal}, so not batched)" if refusal else ""
        self._reason = f"{self.arithmetic}, {place}: {said}{why}"
        return ids

    def _refusal(self, setting: Setting, cohort: int) -> str | None:
        if self._timeout_s is not None:
            return "every client has a limit of time"
        return f"the cohort is {many(cohort, 'client')}" if cohort < _LEAST_STACKED else why_not(setting)


# Whose clients do the work of a round; an evaluation says nothing about it.
_MEASURED = ("train", "gradient")


def _time_alone(engine: Engine, work: Work, ids: Sequence[str], intake: Intake) -> tuple[float, int]:
    """Return the seconds of a client, and how many clients were run to measure them."""
    times = []
    begun = time.perf_counter()
    for id in ids[:_TRIED]:
        start = time.perf_counter()
        engine.ask(work, [id], intake)
        times.append(time.perf_counter() - start)
        if time.perf_counter() - begun > _TRIED_S and len(times) > 1:
            break
    return min(times[1:] or times), len(times)


def _time_stacked(work: Work, ids: Sequence[str], intake: Intake) -> tuple[float, int]:
    engine, size = Batched(), max(1, min(len(ids) // 2, 64))
    times = []
    for part in (ids[:size], ids[size : 2 * size]):
        start = time.perf_counter()
        engine.ask(work, part, intake)
        times.append((time.perf_counter() - start) / size)
    return times[-1], min(2 * size, len(ids))


def _on_a_device(setting: Setting) -> bool:
    """Return whether the model computes on a device of its own, which worker processes would have to share."""
    device = getattr(setting.model, "device", None)
    return getattr(device, "type", "cpu") != "cpu"


def _per_client(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms a client"
