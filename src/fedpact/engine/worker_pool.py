"""Worker processes as their parent sees them: how they start, what they are doing, and how they end."""

import gc
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal, NamedTuple
from weakref import WeakSet

import numpy as np

from fedpact.core.errors import ConfigError
from fedpact.engine.population import version
from fedpact.engine.shared import UNSENDABLE, Parcel, Queue, SharedMemory, received
from fedpact.engine.threads import single_threaded
from fedpact.engine.work import Engine, Setting, reason
from fedpact.engine.worker_process import (
    CLIENT,
    NONE,
    SINCE,
    START,
    STOP,
    Outfit,
    Parts,
    WorkerAnswers,
    serve,
)

Start = Literal["fork", "spawn"]

# This process's ends of the connections to all workers there are.
_ENDS: "WeakSet[Connection[Any, Any]]" = WeakSet()

# Between two looks at whether a process still lives: where it left a process of its own, its connection stays open.
_LOOK_S = 1.0
# Workers that are idle end at once when told to.
_END_S = 5.0
# Algorithms and channels that workers are to know; a run has two pairs, one to train and one to evaluate.
_MOST_PARTS = 32


def safe_start() -> Start:
    """Return how processes can start here: forked, unless there is what does not survive a fork."""
    return "fork" if sys.platform == "linux" and not _cuda_in_use() else "spawn"


def _cuda_in_use() -> bool:
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    # Where there is a GPU, autograd starts threads for it in its first backward pass, even on the CPU, and then
    # refuses to work in a forked process.
    return bool(torch.cuda.is_initialized()) or any(name.startswith("pt_autograd") for name in _threads())


def _threads() -> Iterator[str]:
    for path in Path("/proc/self/task").glob("*/comm"):
        with suppress(OSError):
            yield path.read_text()


class Doing(NamedTuple):
    """What a worker is at: places in the list of a round's clients, from the first up to the last, and since when."""

    first: int
    last: int
    seconds: float


class Ended(NamedTuple):
    """How a worker ended ("SIGKILL", "exit code 1"), and what it was at, if anything."""

    how: str
    doing: Doing | None


class Hand:
    """One worker process.

    Args:
        number: its place on the board.
        process: the process.
        connection: to it.
        up: where it puts its answers.
        told: how many algorithms and channels it knows.
    """

    def __init__(self, number: int, process: Any, connection: Any, up: SharedMemory, told: int) -> None:
        self.number = number
        self.process = process
        self.connection = connection
        self.up = up
        self.told = told
        self.busy = False

    def has_ended(self) -> bool:
        """Return whether the process has ended and said all that it will ever say."""
        return not self.process.is_alive() and not self.connection.poll()


class Pool:
    """Worker processes that all have one model and one population; they start when they are needed.

    Args:
        setting: whose model and population they have.
        inner: how they run clients.
        most: how many there may be.
        start: how they start.
    """

    def __init__(self, setting: Setting, inner: Engine, most: int, start: Start) -> None:
        self.down = SharedMemory()
        self.queue = Queue()
        self._setting = setting
        self._version = version(setting.population)
        self._parts: list[Parts] = []
        self._inner = inner
        self._most = most
        self._start = start
        self._hands: dict[int, Hand] = {}
        self._ups = [SharedMemory() for _ in range(most)]
        self._board = SharedMemory()
        self._doings = self._board.array(4 * most, np.int64).reshape(most, 4)
        self._doings[:] = NONE
        # What is collected as garbage is written to: of memory shared with forked processes that makes copies.
        self._freezes = start == "fork" and not gc.get_freeze_count()
        if self._freezes:
            gc.freeze()

    def fits(self, setting: Setting) -> bool:
        """Return whether the workers have this model and these clients, as they are now."""
        mine = self._setting
        same = mine.model is setting.model and mine.population is setting.population
        return same and version(setting.population) == self._version

    def part(self, setting: Setting) -> int | None:
        """Return the number of an algorithm and its channel; None if the workers cannot be told of them."""
        for number, (algorithm, channel) in enumerate(self._parts):
            if algorithm is setting.algorithm and channel is setting.channel:
                return number
        parts = setting.algorithm, setting.channel
        if len(self._parts) == _MOST_PARTS or (self._hands and not _can_be_sent(parts)):
            return None
        self._parts.append(parts)
        return len(self._parts) - 1

    def wake(self, order: Parcel, count: int) -> None:
        """Give so many idle workers an order, and start some where there are too few.

        Raises:
            ConfigError: a process cannot be started.
        """
        for hand in list(self._hands.values()):
            if count and not hand.busy:
                try:
                    self._send(hand, order)
                    count -= 1
                except OSError:
                    self.end(hand)
        for number in range(self._most):
            if count and number not in self._hands:
                self._hands[number] = hand = self._started(number)
                self._send(hand, order)
                count -= 1

    def busy(self) -> list[Hand]:
        """Return the workers that have not answered yet."""
        return [hand for hand in self._hands.values() if hand.busy]

    def heard(self, limit_s: float | None) -> Iterator[tuple[Hand, WorkerAnswers | BaseException | Ended]]:
        """Wait for busy workers, for a while; yield what each answered, or that it has ended instead.

        Args:
            limit_s: how long to wait at most.
        """
        hands = {hand.connection: hand for hand in self.busy()}
        ready = wait(list(hands), _LOOK_S if limit_s is None else min(limit_s, _LOOK_S))
        for connection, hand in hands.items():
            if connection not in ready and not hand.has_ended():
                continue
            try:
                message = connection.recv()
            except (EOFError, OSError):
                yield hand, self.end(hand)
                continue
            hand.busy = False
            yield hand, hand.up.unpack(message, own=True) if isinstance(message, Parcel) else message

    def doing(self, hand: Hand) -> Doing | None:
        """Return what a worker is at: one client, or several that it runs together; None between two."""
        at = self._doings[hand.number].tolist()
        if at[START] == NONE:
            return None
        first, last = (at[START], at[STOP]) if at[CLIENT] == NONE else (at[CLIENT], at[CLIENT] + 1)
        return Doing(first, last, (time.monotonic_ns() - at[SINCE]) / 1e9)

    def end(self, hand: Hand) -> Ended:
        """End a worker, if it has not ended by itself."""
        del self._hands[hand.number]
        hand.process.kill()
        hand.process.join()
        doing = self.doing(hand)
        code = hand.process.exitcode
        hand.process.close()
        hand.connection.close()
        self._doings[hand.number] = NONE
        return Ended(_ending(code), doing)

    def close(self) -> None:
        """End all workers: the idle by telling them, the others by force."""
        if self._freezes:
            gc.unfreeze()
        for hand in self._hands.values():
            with suppress(OSError):
                hand.process.kill() if hand.busy else hand.connection.send(None)
            hand.connection.close()
        deadline = time.monotonic() + _END_S
        for hand in self._hands.values():
            hand.process.join(max(0.0, deadline - time.monotonic()))
            hand.process.kill()
            hand.process.join()
            hand.process.close()
        self._hands.clear()
        self.queue.close()
        for memory in (self.down, self._board, *self._ups):
            memory.close()

    def _send(self, hand: Hand, order: Parcel) -> None:
        if hand.told < len(self._parts):
            hand.connection.send(self._parts[hand.told :])
            hand.told = len(self._parts)
        hand.connection.send(order)
        hand.busy = True

    def _started(self, number: int) -> Hand:
        context = get_context(self._start)
        mine, theirs = context.Pipe()
        outfit = Outfit(
            model=self._setting.model,
            population=self._setting.population,
            parts=self._parts,
            inner=self._inner,
            queue=self.queue,
            board=self._board,
            places=self._board.pack(self._doings),
            down=self.down,
            up=self._ups[number],
            number=number,
            parent=os.getpid(),
        )
        _ENDS.add(mine)
        others = list(_ENDS) if self._start == "fork" else []
        process: Any = context.Process(  # type: ignore[attr-defined]
            target=serve, args=(outfit, theirs, others), name=f"fedpact worker {number + 1}", daemon=True
        )
        try:
            with _undisturbed(), single_threaded():
                process.start()
        except (OSError, *UNSENDABLE) as error:
            mine.close()
            raise self._not_started(error) from error
        finally:
            theirs.close()
        return Hand(number, process, mine, self._ups[number], len(self._parts))

    def _not_started(self, error: Exception) -> ConfigError:
        if isinstance(error, OSError):
            return ConfigError(
                f"{len(self._hands) + 1} worker processes are more than the system lets start: {error}. Ask for "
                "fewer, or run the clients in one process."
            )
        return ConfigError(
            f"worker processes cannot be forked here, since CUDA is in use or this is not Linux, so that they must be "
            f"sent the model and the clients, and these cannot be sent: {reason(error)}. Give them as objects of "
            "classes that a module defines, or run the clients in one process."
        )


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _can_be_sent(parts: Parts) -> bool:
    try:
        received(parts)
    except Exception:
        return False
    return True


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Start a process in it: Ctrl-C waits until the process ignores it, and a fork beside threads is no warning.

    A worker does without the parent's threads: torch computes with one, and who loads ahead does so in the parent.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
