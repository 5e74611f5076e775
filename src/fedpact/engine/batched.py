"""The batched engine: clients train side by side, each step one operation on all of their models.

What a client answers is what it answers alone, up to rounding. Where clients cannot be trained so, they are trained
one by one, and `describe` says why.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fedpact.core.errors import UpdateError
from fedpact.core.messages import Updates
from fedpact.core.model import StackableModel, stacks
from fedpact.core.settings import check_counts
from fedpact.engine.in_process import InProcess
from fedpact.engine.population import load_all
from fedpact.engine.threads import one_torch_thread
from fedpact.engine.words import many
from fedpact.engine.work import FATAL, Intake, Setting, Work, reason

# What `clients` does for many: a subclass that changes one of these for one client has to change it as well.
_ALONE = ("client", "local_training", "update")


class Batched:
    """Runs clients side by side in this process, so many at once.

    Args:
        chunk: how many clients; None for as many as their arrays leave room for.

    Raises:
        ConfigError: the chunk is not a whole number above 0.
    """

    loads_here = True

    def __init__(self, chunk: int | None = None) -> None:
        self.chunk = chunk
        check_counts(self, "chunk", optional=True)
        self._alone = InProcess()
        self._refused: str | None = None
        # What was learnt by trying, of the model seen last.
        self._model: Any = None
        self._given_up: str | None = None
        self._most: int | None = None
        self._too_many = ""

    def ask(self, work: Work, ids: Sequence[str], intake: Intake) -> None:
        """Run these clients and take in their answers; those with like numbers of rows together."""
        setting, rows = work.setting, _rows(work)
        if setting.model is not self._model:
            self._model, self._given_up, self._most = setting.model, None, None
        refused = why_not(setting) or self._given_up
        if work.task.verb != "evaluate":
            self._refused = refused
        if refused:
            self._alone.ask(work, ids, intake)
            return
        ids = sorted(ids, key=rows, reverse=True)
        with one_torch_thread():
            while ids:
                most = self._most or self.chunk or room(setting.model, rows(ids[0]))
                self._train(work, ids[:most], intake)
                ids = ids[most:]

    def describe(self) -> str:
        """Return how the clients are trained."""
        if self._refused:
            return f"{self._alone.describe()}, not batched: {self._refused}"
        if self._most:
            return f"batched, in this process, {self._most} at once at most: {self._too_many}"
        return "batched, in this process"

    def close(self) -> None:
        """There is nothing to give back."""

    def _train(self, work: Work, ids: Sequence[str], intake: Intake) -> bool:
        """Run clients side by side, and return whether that went well.

        Where it does not, each half is tried, down to the clients whose fault it is: what is said of them is what is
        said one by one.
        """
        start = time.perf_counter()
        try:
            updates, kept = _answers(work, ids)
        except FATAL:
            raise
        except Exception as error:
            why = reason(error)
        else:
            _take(work, updates, kept, time.perf_counter() - start, intake)
            return True
        # Here the error is gone, and with it what it held of the memory that there may have been too little of.
        self._train_parts(work, ids, intake, why)
        return False

    def _train_parts(self, work: Work, ids: Sequence[str], intake: Intake, why: str) -> None:
        if len(ids) == 1:
            self._alone.ask(work, ids, intake)
            if ids[0] not in intake.failures:
                # The client is as it should be: it is this way of training that is not for it.
                self._given_up = f'training client "{ids[0]}" so failed ({why})'
            return
        half = len(ids) // 2
        went_well = [self._train(work, part, intake) for part in (ids[:half], ids[half:])]
        if all(went_well):
            # It was the fault of all of them together: they take more memory than there is.
            self._most, self._too_many = half, f"{many(len(ids), 'client')} at once failed ({why})"


def why_not(setting: Setting) -> str | None:
    """Return why clients cannot be trained side by side, in a clause; None if they can."""
    kind, model = type(setting.algorithm), setting.model
    own = getattr(setting.algorithm, "unstackable", None)
    if own is not None and (why := own()) is not None:
        return str(why)
    stacking = next((base for base in kind.__mro__ if "clients" in vars(base)), None)
    if stacking is None:
        return f"{kind.__name__} runs each client by itself"
    for base in kind.__mro__[: kind.__mro__.index(stacking)]:
        for name in _ALONE:
            if name in vars(base):
                return f'{base.__name__} changes "{name}" for one client and not "clients" for many'
    if not stacks(model):
        return f"{type(model).__name__} trains each client by itself"
    return model.unstackable()


def _rows(work: Work) -> Callable[[str], float]:
    """Return what tells a client's number of rows."""
    return work.weights.__getitem__ if work.task.weighting == "examples" else work.setting.population.size


def room(model: StackableModel, rows: float) -> int:
    """Return how many clients of so many rows are best in memory at once."""
    each = model.layout.nbytes + rows * (math.prod(model.schema.shape) + 1) * np.dtype(np.float32).itemsize
    return max(2, int(model.stack_bytes // each))


def _answers(work: Work, ids: Sequence[str]) -> tuple[Updates, Sequence[Any]]:
    algorithm: Any = work.setting.algorithm
    data = load_all(work.setting.population, ids)
    kept = [work.kept.get(id, {}) for id in ids]
    seeds = work.seed.children("client", ids)
    return algorithm.clients(work.setting.model, work.task, data, kept, seeds)


def _take(work: Work, updates: Updates, kept: Sequence[Any], seconds: float, intake: Intake) -> None:
    """Take in answers as they leave the clients; where a stage refuses one, or knows no stacks, one by one."""
    channel = work.setting.channel
    try:
        encoded = channel.encode_stack(updates, work.channel)
    except UpdateError:
        encoded = None
    if encoded is not None:
        intake.take_stack(encoded, kept, seconds)
        return
    each = seconds / len(updates.clients)
    for place, id in enumerate(updates.clients):
        try:
            update, keeps = channel.encode(
                updates.one(place), work.channel, work.kept.get(id, {}), kept[place]
            )
        except FATAL:
            raise
        except Exception as error:
            intake.fail(id, error, each)
        else:
            intake.take(update, keeps, each)
