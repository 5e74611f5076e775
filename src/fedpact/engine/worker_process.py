"""What runs in a worker process: it takes clients in turn, and sums their answers where its parent can read them."""

import ctypes
import gc
import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedpact.channel.channel import Channel
from fedpact.core.algorithm import Algorithm, ClientState
from fedpact.core.errors import ConfigError, UpdateError
from fedpact.core.messages import Update
from fedpact.engine.population import Population
from fedpact.engine.shared import Parcel, Queue, SharedMemory
from fedpact.engine.travel import Answers, Brief, Layouts, travelling
from fedpact.engine.work import Engine, Intake, Work, reason

# Of the places on the board, those that say what a worker does: the range that it took, the client in it that it is
# at (its place in the list, or NONE for no single one), and since when.
START, STOP, CLIENT, SINCE = range(4)
NONE = -1

_PR_SET_PDEATHSIG = 1

Raised = TypeVar("Raised", bound=BaseException)

# What tells the clients of one task from those of another, beside model and population.
Parts = tuple[Algorithm[Any], Channel]


@dataclass(frozen=True, eq=False)
class Outfit:
    """What a worker has from its start.

    Args:
        model: the model.
        population: the clients.
        parts: algorithms and their channels, which a round names by their place.
        inner: how it runs the clients that it takes.
        queue: from which it takes them.
        board: where each worker says what it is doing;
        places: and where on it that is, an int64 array [workers, 4].
        down: where its parent puts a round's arrays.
        up: where it puts its answers.
        number: its place on the board.
        parent: its parent's process.
    """

    model: Any
    population: Population
    parts: list[Parts]
    inner: Engine
    queue: Queue
    board: SharedMemory
    places: Parcel
    down: SharedMemory
    up: SharedMemory
    number: int
    parent: int


@dataclass(frozen=True, eq=False)
class Order:
    """What workers are asked in a round.

    Args:
        part: the place of its algorithm and channel among the worker's.
        brief: the rest of the work.
        kept: what clients kept from earlier rounds.
        ids: those to be asked, in the order in which they are taken;
        ranks: and for each its place in the order in which they were given.
        takers: for each of them the worker that took it, 1 for the first; 0 for none yet.
    """

    part: int
    brief: Brief
    kept: Mapping[str, ClientState]
    ids: Sequence[str]
    ranks: NDArray[np.int64]
    takers: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class WorkerAnswers(Answers):
    """What one worker gives back of a round.

    Args:
        agreed: whether no client was refused for what another one sent before it.
        first_failed: the client that was given first of those that failed, if any did.
    """

    agreed: bool
    first_failed: str | None


@dataclass(frozen=True, eq=False)
class Watched(Work):
    """Work that notes on the board which client is being run.

    Args:
        places: client → its place in the list of those asked.
        board: the worker's own part of the board [4].
    """

    places: Mapping[str, int]
    board: NDArray[np.int64]

    def client(self, id: str) -> tuple[Update, ClientState]:
        # The time first: a parent that looks in between takes the client for a fast one, not for a slow one.
        self.board[SINCE] = time.monotonic_ns()
        self.board[CLIENT] = self.places[id]
        try:
            return super().client(id)
        finally:
            self.board[CLIENT] = NONE


@dataclass
class Unordered(Intake):
    """An intake of answers that come in any order, which knows where it would matter.

    Args:
        places: client → its place in the list of those asked;
        ranks: and for each of these places the client's in the order in which they were given.
        agreed: whether no client was refused for what another one sent before it.
        first_failed: of those that failed the one that was given first; `first_error` is its.
    """

    places: Mapping[str, int] = field(default_factory=dict)
    ranks: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    agreed: bool = True
    first_failed: str | None = None

    def take(self, update: Update, kept: ClientState, seconds: float) -> None:
        super().take(update, kept, seconds)
        if update.client in self.failures:
            with suppress(UpdateError):
                self.work.accumulator().add(update)
                self.agreed = False

    def fail(self, id: str, error: Exception, seconds: float) -> None:
        super().fail(id, error, seconds)
        first = self.first_failed
        if first is None or self.ranks[self.places[id]] < self.ranks[self.places[first]]:
            self.first_failed, self.first_error = id, error


def serve(outfit: Outfit, connection: Connection, others: Iterable[Connection]) -> None:
    """Answer a parent's orders until it sends None, or is there no longer.

    Args:
        outfit: what the worker has.
        connection: to the parent.
        others: the parent's ends of connections, inherited: as long as they are open here, their other ends stay too.
    """
    _prepare(outfit.parent)
    for other in others:
        other.close()
    worker = Worker(outfit)
    # A parent that is there no longer has closed its end.
    with suppress(EOFError, OSError):
        while (message := connection.recv()) is not None:
            reply = worker.reply(message)
            if reply is not None:
                connection.send(reply)


def _prepare(parent: int) -> None:
    # The parent alone heeds Ctrl-C, and ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    signal.set_wakeup_fd(-1)
    if sys.platform == "linux":
        # Whatever ends the parent ends its workers too.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
    # What the parent had when this process was forked is shared with it as long as nobody writes to it.
    gc.freeze()
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


class Worker:
    """One worker, round after round."""

    def __init__(self, outfit: Outfit) -> None:
        self._outfit = outfit
        self._parts = list(outfit.parts)
        self._board = outfit.board.unpack(outfit.places)[outfit.number]
        self._layouts = Layouts()
        self._layouts.meet_model(outfit.model)

    def reply(self, message: list[Parts] | Parcel) -> Parcel | BaseException | None:
        """Learn of algorithms and channels, or carry out an order; return its answers, or what ends the round."""
        if isinstance(message, list):
            self._parts += message
            return None
        try:
            return self._answers(self._outfit.down.unpack(message))
        except BaseException as error:
            return travelling(error)

    def _answers(self, order: Order) -> Parcel:
        intake = self._carry_out(order)
        manner = self._outfit.inner.describe()
        answers = WorkerAnswers.of(intake, manner, agreed=intake.agreed, first_failed=intake.first_failed)
        try:
            return self._outfit.up.pack(answers)
        except Exception as error:
            raise ConfigError(
                f"what clients answer cannot leave a worker process: {reason(error)}; an answer holds numbers, text "
                'and containers of these. Or run the clients in one process: engine="in_process".'
            ) from error

    def _carry_out(self, order: Order) -> Unordered:
        work, outfit, board = self._work(order), self._outfit, self._board
        intake = Unordered(work, places=work.places, ranks=order.ranks)
        outfit.up.clear()
        sums: dict[tuple[str, int], NDArray[np.int64]] = {}

        def integers(name: str, size: int) -> NDArray[np.int64]:
            # The same place again: an accumulator asks anew as long as nothing was added to it.
            if (name, size) not in sums:
                sums[name, size] = outfit.up.array(size, np.int64)
            return sums[name, size]

        intake.sums = work.accumulator(integers)
        while taken := outfit.queue.take():
            start, stop = taken
            order.takers[start:stop] = outfit.number + 1
            board[SINCE] = time.monotonic_ns()
            board[STOP], board[START] = stop, start
            outfit.inner.ask(work, order.ids[start:stop], intake)
            board[START] = NONE
        return intake

    def _work(self, order: Order) -> Watched:
        outfit, (algorithm, channel) = self._outfit, self._parts[order.part]
        work = order.brief.work(
            algorithm, channel, outfit.model, outfit.population, order.kept, self._layouts
        )
        places = {id: place for place, id in enumerate(order.ids)}
        return Watched(**vars(work), places=places, board=self._board)
