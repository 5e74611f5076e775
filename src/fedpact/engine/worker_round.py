"""One round of the worker engine: who has taken which clients, and what becomes of those whose worker dies."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ClientError, ConfigError, UpdateError
from fedpact.engine.shared import Parcel
from fedpact.engine.travel import Brief, Layouts
from fedpact.engine.work import Intake, Work, reason
from fedpact.engine.worker_pool import Doing, Ended, Hand, Pool
from fedpact.engine.worker_process import Order, WorkerAnswers

# Places in the list of a round's clients, from the first up to the second.
Range = tuple[int, int]

# After so many deaths of its worker a client is a failure of its round; the round is given up after as many in a row
# of workers that had not taken a single client.
_DEATHS = 3
# Clients that were run together when their worker died are run again in so many groups.
_SUSPECT_GROUPS = 64


class Round:
    """One round: who has taken which clients, until all are answered for.

    Args:
        pool: the workers.
        work: the work.
        part: the place of its algorithm and channel among what the workers know.
        ids: the clients in the order in which they are to be taken;
        ranks: and for each its place in the order in which they were given.
        timeout_s: how long one may take.
        layouts: those met so far.

    Attributes:
        gathered: what the workers took in.
        agreed: whether no answer was refused for what others sent; else `gathered` depends on who was faster.
        manner: how they ran the clients, as their engines describe it.
    """

    def __init__(
        self,
        pool: Pool,
        work: Work,
        part: int,
        ids: Sequence[str],
        ranks: NDArray[np.int64],
        timeout_s: float | None,
        layouts: Layouts,
    ) -> None:
        self.gathered = Intake(work)
        self.agreed = True
        self.manner: str | None = None
        self._pool = pool
        self._ids = ids
        self._timeout_s = timeout_s
        self._layouts = layouts
        self._open: list[Range] = []
        self._deaths: Counter[int] = Counter()
        self._idle_deaths = 0
        self._errors: dict[str, Exception] = {}
        pool.down.clear()
        self._takers = pool.down.array(len(ids), np.int32)
        self._takers[:] = 0
        self._order = self._packed(work, part, ranks)

    def _packed(self, work: Work, part: int, ranks: NDArray[np.int64]) -> Parcel:
        kept = work.kept
        if isinstance(kept, dict):
            # Of another mapping, such as a view of a file, workers read for themselves what they want.
            kept = {id: kept[id] for id in self._ids if id in kept}
        order = Order(part, Brief.of(work), kept, self._ids, ranks, self._takers)
        try:
            return self._pool.down.pack(order)
        except Exception as error:
            raise ConfigError(
                f'the task "{work.task.verb}" cannot be sent to worker processes: {reason(error)}. Its parameters '
                "hold numbers, text and containers of these; else run the clients in one process."
            ) from error

    def hold(self, cuts: Sequence[Range]) -> None:
        """Have the clients run, in these ranges."""
        self._open = list(cuts)
        # A worker that has found nothing to take is waited for too: what its order lies in is written to again.
        while self._open or self._pool.busy():
            if not self._pool.busy():
                # Also those that had no room in the queue, and any that a worker took and died before it said so.
                self._pool.queue.clear()
                self._offer(self._open)
            for hand, message in self._pool.heard(self._patience()):
                self._hear(hand, message)
            for hand in self._late():
                self._mourn(hand, self._pool.end(hand), late=True)

    def first_error(self, ids: Sequence[str]) -> Exception | None:
        """Return the error of the first of these clients that has one."""
        return next((self._errors[id] for id in ids if id in self._errors), None)

    def _offer(self, offered: Sequence[Range]) -> None:
        for start, stop in offered:
            self._takers[start:stop] = 0
        self._pool.queue.put(offered)
        self._pool.wake(self._order, len(offered))

    def _hear(self, hand: Hand, message: WorkerAnswers | BaseException | Ended) -> None:
        if isinstance(message, BaseException):
            raise message
        if isinstance(message, Ended):
            self._mourn(hand, message)
            return
        self._idle_deaths = 0
        self._open = [each for each in self._open if not self._took(hand, each)]
        if message.seconds:
            self.manner = message.manner
        taken = Intake(
            self.gathered.work,
            kept={id: self._layouts.meet_all(state) for id, state in message.kept.items()},
            seconds=message.seconds,
            upload_bytes=message.upload_bytes,
            notes=message.notes,
            failures=message.failures,
        )
        taken.sums = message.sums
        if message.first_failed is not None and message.first_error is not None:
            self._errors[message.first_failed] = message.first_error
        self.agreed &= message.agreed
        try:
            self.gathered.merge(taken)
        except UpdateError:
            self.agreed = False

    def _took(self, hand: Hand, taken: Range) -> bool:
        return bool(self._takers[taken[0]] == hand.number + 1)

    def _mourn(self, hand: Hand, ended: Ended, late: bool = False) -> None:
        """Offer again what a worker that has ended had taken, first of all what it was at."""
        lost = [each for each in self._open if self._took(hand, each)]
        self._open = [each for each in self._open if not self._took(hand, each)]
        doing = ended.doing
        if doing is None:
            self._idle_deaths += not lost
            if self._idle_deaths == _DEATHS:
                raise _never_begin(ended.how)
        else:
            lost = list(_without(lost, doing.first, doing.last))
            if doing.last - doing.first > 1:
                lost = _groups(doing.first, doing.last) + lost
            elif error := self._verdict(doing, ended.how, late):
                id = self._ids[doing.first]
                self._errors[id] = error
                self.gathered.fail(id, error, doing.seconds)
            else:
                lost = [(doing.first, doing.last), *lost]
        self._open += lost
        if lost:
            self._offer(lost)

    def _verdict(self, doing: Doing, how: str, late: bool) -> Exception | None:
        """Return why the client that a worker was at is not to be run again, if it is not."""
        if late:
            # Else it was on to its next client when it was ended.
            return TimeoutError(f"no answer within {self._timeout_s:g} s") if self._is_late(doing) else None
        self._deaths[doing.first] += 1
        return _deadly(self._ids[doing.first], how) if self._deaths[doing.first] == _DEATHS else None

    def _late(self) -> list[Hand]:
        """Return the workers that are at what they are at for longer than they may."""
        doings = [(hand, self._pool.doing(hand)) for hand in self._pool.busy()]
        return [hand for hand, doing in doings if doing and self._is_late(doing)]

    def _is_late(self, doing: Doing) -> bool:
        return self._timeout_s is not None and doing.seconds >= self._timeout_s * (doing.last - doing.first)

    def _patience(self) -> float | None:
        """Return how long it is until a worker may be late; None for ever."""
        if self._timeout_s is None:
            return None
        left = [self._timeout_s]
        for hand in self._pool.busy():
            if doing := self._pool.doing(hand):
                left.append(self._timeout_s * (doing.last - doing.first) - doing.seconds)
        return max(0.0, min(left))


def _without(ranges: Sequence[Range], first: int, last: int) -> Iterator[Range]:
    """Yield ranges, but for the places from the first up to the last."""
    for start, stop in ranges:
        for part in ((start, min(stop, first)), (max(start, last), stop)):
            if part[0] < part[1]:
                yield part


def _groups(first: int, last: int) -> list[Range]:
    size = -(-(last - first) // _SUSPECT_GROUPS)
    return [(start, min(start + size, last)) for start in range(first, last, size)]


def _deadly(id: str, how: str) -> ClientError:
    cause = (
        "which is what the system does when memory runs out. Give it fewer rows or smaller batches, or use fewer "
        "worker processes."
        if how == "SIGKILL"
        else 'for which a library that it uses will be the cause. Run it with engine="in_process" to see where.'
    )
    return ClientError(
        f'client "{id}": its worker process ended three times, the last time by {how}, {cause}'
    )


def _never_begin(how: str) -> ConfigError:
    return ConfigError(
        f"worker processes end before they take a client ({how}). Where they are not forked, a script must guard what "
        'it runs by `if __name__ == "__main__":`; else memory may have run out: use fewer worker processes.'
    )
