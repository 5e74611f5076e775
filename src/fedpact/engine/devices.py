"""Several devices at once: on each a replica of the model, and a thread of this process that runs clients with it.

While a device computes, its thread does not hold Python's lock. Any number of devices gives the bits of one, where
clients are run one by one: each thread adds their updates up in integers, and these partial sums are added in the end.
"""

import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from fedpact.core.errors import ClientError, ConfigError, UpdateError
from fedpact.core.model import gives_gradients
from fedpact.core.rows import ClientData
from fedpact.engine.batched import Batched, room, why_not
from fedpact.engine.device_parts import Part, Parts
from fedpact.engine.durations import Durations, longest_first, ranges, size
from fedpact.engine.population import Population, load_all
from fedpact.engine.threads import one_torch_thread
from fedpact.engine.words import listed, many
from fedpact.engine.work import Engine, Intake, Setting, Work, run_in_order
from fedpact.engine.worker_process import Unordered


def replicas_of(model: Any) -> Sequence[Any]:
    """Return a model as it computes on each of its devices."""
    return [model.on(device) for device in model.devices]


class Devices:
    """Runs clients on several devices at once; each takes the next longest client until none is left.

    Clients that are trained side by side are cut into as many groups as there are devices, or more where these do not
    fit into memory. What a device has no memory for is tried on the others; a client that none of them has memory for
    is a failure of its round, and a device without memory for the model has no clients. One thread at a time may ask.

    Args:
        inner: makes the engine that runs the clients of one device.
        replicas: called with a model for what computes on each device.
    """

    loads_here = True

    def __init__(
        self, inner: Callable[[], Engine], replicas: Callable[[Any], Sequence[Any]] = replicas_of
    ) -> None:
        self._inner = inner
        self._replicas = replicas
        self._model: Any = None
        self._posts: list[_Post] = []
        self._durations = Durations()
        self._manner = inner().describe()

    def ask(self, work: Work, ids: Sequence[str], intake: Intake) -> None:
        """Run these clients and take in their answers.

        Raises:
            ConfigError: no device has memory for the model.
            DisputedError: the clients would have to mask their updates again.
        """
        if not ids:
            return
        with one_torch_thread():
            posts = self._settled(work.setting)
            taken = _run(work, ids, self._cut(work, ids, posts), posts)
        if not (all(each.agreed for each in taken) and _merged(taken, intake)):
            # Then the order of the clients decides whose answer is refused: all are run again, in theirs.
            run_in_order(self._inner().ask, work, ids, intake)
            return
        if work.task.verb != "evaluate":
            # The device that had to depart from what the others do has the most to say.
            self._manner = max((post.engine.describe() for post in posts), key=len)
        found: dict[str, dict[str, Any]] = {}
        for name in ("kept", "seconds", "upload_bytes", "failures"):
            record = {id: value for each in taken for id, value in getattr(each, name).items()}
            # In the order of the clients, whoever ran them.
            found[name] = {id: record[id] for id in ids if id in record}
            getattr(intake, name).update(found[name])
        for each in taken:
            intake.note(each.notes)
        errors = {each.first_failed: each.first_error for each in taken}
        first = next((errors[id] for id in found["failures"] if id in errors), None)
        intake.first_error = intake.first_error or first
        self._durations.note(work, found["seconds"])

    def describe(self) -> str:
        """Return how the clients are trained, on which devices, and which of these had too little memory."""
        if not self._posts:
            return self._manner.replace("in this process", "on several devices")
        used = [post for post in self._posts if post.fits]
        names = ", ".join(post.name for post in used)
        said = [self._manner.replace("in this process", f"on {many(len(used), 'device')} ({names})")]
        if out := [post.name for post in self._posts if not post.fits]:
            said.append(f"{listed(out)} had no memory for the model")
        if short := [post for post in self._posts if post.short]:
            count = many(sum(post.short for post in short), "client")
            said.append(
                f"{listed(post.name for post in short)} ran out of memory, and what {count} had been asked was tried "
                "on another device"
            )
        return "; ".join(said)

    def close(self) -> None:
        """End the threads, and give back what the devices hold."""
        posts, self._posts, self._model = self._posts, [], None
        for post in posts:
            post.close()

    def _settled(self, setting: Setting) -> "list[_Post]":
        """Return the devices that are ready for a setting, one of which at least is."""
        if setting.model is not self._model:
            self.close()
            turn = threading.Lock()
            self._posts = [_Post(model, self._inner(), turn) for model in self._replicas(setting.model)]
            self._model = setting.model
        for post in self._posts:
            post.settle(setting)
        if posts := [post for post in self._posts if post.fits]:
            return posts
        names = listed(post.name for post in self._posts)
        raise ConfigError(
            f"there is no memory for the model on {names}: end what else computes there, or name other devices."
        )

    def _cut(self, work: Work, ids: Sequence[str], posts: "Sequence[_Post]") -> list[Part]:
        """Return the clients in the parts that devices take at once, longest first."""
        setting, count = work.setting, len(posts)
        together = isinstance(posts[0].engine, Batched) and why_not(setting) is None
        # Who is run together decides about the last bits: it must not depend on what was measured.
        seconds = None if together else self._durations.expected(work, ids)
        efforts = np.array([size(work, id) for id in ids], np.float64) if seconds is None else seconds
        order = longest_first(efforts).tolist()
        if not together:
            return [Part((ids[place],)) for place in order]
        groups = count * -(-len(ids) // (count * room(setting.model, efforts[order[0]])))
        cuts = ranges(efforts[order], efforts.sum() / groups, 2 * len(ids))
        return [Part(tuple(ids[place] for place in order[start:stop])) for start, stop in cuts]


class _Post:
    """One device: its replica of the model, its engine and its thread.

    Attributes:
        fits: whether it has memory for the model.
        short: how many clients it had no memory for.
    """

    def __init__(self, model: Any, engine: Engine, turn: threading.Lock) -> None:
        self.name = str(model.device)
        self.engine = engine
        self.fits = True
        self.short = 0
        self._model = model
        self._turn = turn
        self._settings: WeakKeyDictionary[Setting, Setting] = WeakKeyDictionary()
        self._thread = ThreadPoolExecutor(1, f"fedpact {self.name}")

    def settle(self, setting: Setting) -> None:
        """Build what this device's thread reuses.

        To look into a module torch changes how all modules are called, so that none may be running meanwhile.
        """
        if setting not in self._settings:
            own = replace(setting, model=self._model, population=_InTurn(setting.population, self._turn))
            try:
                self._thread.submit(_build, own, self.engine).result()
            except Exception as error:
                if not _is_short_of_memory(error):
                    raise
                self.fits = False
                return
            self._settings[setting] = own
            self.fits = True

    def start(self, work: Work, parts: Parts, intake: "_OfDevice", place: int) -> Future[None]:
        """Begin to run clients as long as there are any for this device, the place-th of all."""
        own = replace(work, setting=self._settings[work.setting])
        return self._thread.submit(self._serve, own, parts, intake, place)

    def close(self) -> None:
        self._thread.shutdown()
        self.engine.close()

    def _serve(self, work: Work, parts: Parts, intake: "_OfDevice", place: int) -> None:
        try:
            while (part := parts.take(place)) is not None:
                self.engine.ask(work, part.ids, intake)
                short = intake.without_memory()
                self.short += len(short)
                left = parts.give_back(part, short, place)
                for id in left:
                    intake.fail(id, _too_large(id), 0.0)
        except BaseException:
            parts.stop()
            raise


def _build(setting: Setting, engine: Engine) -> None:
    model = setting.model
    if gives_gradients(model):
        model.session()
    if isinstance(engine, Batched) and why_not(setting) is None:
        model.stacked()


def _run(work: Work, ids: Sequence[str], cut: Sequence[Part], posts: Sequence[_Post]) -> "list[_OfDevice]":
    """Return what each device took in, when all clients have been run."""
    places, ranks = {id: place for place, id in enumerate(ids)}, np.arange(len(ids))
    taken = [_OfDevice(work, places=places, ranks=ranks) for _ in posts]
    parts = Parts(cut, len(posts))
    begun = [post.start(work, parts, taken[place], place) for place, post in enumerate(posts)]
    try:
        wait(begun)
    except BaseException:
        parts.stop()
        wait(begun)
        raise
    for each in begun:
        each.result()
    return taken


def _merged(taken: "Sequence[_OfDevice]", intake: Intake) -> bool:
    """Add all sums to what was taken in before; return whether they go together."""
    first, *others = taken
    try:
        for other in others:
            first.sums.merge(other.sums)
        intake.sums.merge(first.sums)
    except UpdateError:
        return False
    return True


@dataclass
class _OfDevice(Unordered):
    """What one device takes in, with the clients that it had no memory for."""

    _short: list[str] = field(default_factory=list, init=False)

    def fail(self, id: str, error: Exception, seconds: float) -> None:
        if not _is_short_of_memory(error):
            super().fail(id, error, seconds)
            return
        # What was computed when memory ran out is held by the error.
        cause: BaseException | None = error
        while cause is not None:
            traceback.clear_frames(cause.__traceback__)
            cause = cause.__cause__ or cause.__context__
        # Until it is asked for them, so that an engine sees that they failed.
        self.failures[id] = str(error)
        self._short.append(id)

    def without_memory(self) -> list[str]:
        """Return the clients that there was no memory for since this was last asked, which have not failed yet."""
        short, self._short = self._short, []
        for id in short:
            del self.failures[id]
        return short


class _InTurn:
    """A population that one thread at a time may load clients of."""

    def __init__(self, population: Population, turn: threading.Lock) -> None:
        self._population = population
        self._turn = turn

    def ids(self, round: int) -> Sequence[str]:
        with self._turn:
            return self._population.ids(round)

    def load(self, id: str) -> ClientData:
        with self._turn:
            return self._population.load(id)

    def load_many(self, ids: Sequence[str]) -> Sequence[ClientData]:
        with self._turn:
            return load_all(self._population, ids)

    def size(self, id: str) -> int:
        with self._turn:
            return self._population.size(id)


def _is_short_of_memory(error: BaseException | None) -> bool:
    torch = sys.modules.get("torch")
    while torch is not None and error is not None:
        if isinstance(error, torch.OutOfMemoryError) or "CUBLAS_STATUS_ALLOC_FAILED" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _too_large(id: str) -> ClientError:
    return ClientError(
        f'client "{id}": no device has the memory that it takes. Give it fewer rows or smaller batches, or train in '
        'precision="bf16".'
    )
