"""One round on a cluster: portions handed out, partial sums taken in, and what was lost asked again."""

import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from weakref import ref

from fedpact.core.errors import ClientError, ConfigError, UpdateError
from fedpact.core.rows import ClientData
from fedpact.engine.placement import Placement
from fedpact.engine.ray_actor import Portion, in_memory
from fedpact.engine.ray_crew import Crew, Hand
from fedpact.engine.travel import Answers, Layouts
from fedpact.engine.work import Intake, Work

# After so many deaths of its actor a client is a failure of its round.
_DEATHS = 3


@dataclass(frozen=True, eq=False)
class _Errand:
    hand: Hand
    ids: Sequence[str]
    start: float = field(default_factory=time.perf_counter)


class Round:
    """One round: who has been asked what, until all clients are answered for.

    Args:
        crew: the actors.
        placement: the clients' homes.
        sent: references to the task, the model and the population.
        work: the work.
        layouts: those met so far.

    Attributes:
        gathered: what was taken in.
        agreed: whether all partial sums could be added; those that could not be are failures of their clients.
        manner: how an actor ran its clients, as its engine describes it.
    """

    def __init__(
        self,
        crew: Crew,
        placement: Placement[Hand],
        sent: Mapping[str, Any],
        work: Work,
        layouts: Layouts,
    ) -> None:
        self.gathered = Intake(work)
        self.agreed = True
        self.manner = ""
        self._crew = crew
        self._placement = placement
        self._sent = sent
        self._layouts = layouts
        self._raw = in_memory(work.setting.population)
        self._under_way: dict[Any, _Errand] = {}
        self._again: deque[Sequence[str]] = deque()
        self._deaths: Counter[str] = Counter()
        self._errors: dict[str, Exception] = {}

    def hold(self, groups: Mapping[Hand, Sequence[str]]) -> None:
        """Have all clients run, each by the actor that it is given with."""
        most = sum(map(len, groups.values()))
        try:
            for hand, ids in groups.items():
                self._hand_out(hand, ids)
            while self._under_way or self._again:
                self._ask_again(most)
                for reference in self._crew.wait(list(self._under_way)):
                    # The others are actors that have started.
                    if reference in self._under_way:
                        self._end(reference, self._under_way.pop(reference))
        except BaseException:
            # Ray cannot stop what an actor is at; without it, neither Ctrl-C nor a mistake would end the round.
            self._crew.dismiss([errand.hand for errand in self._under_way.values()])
            raise

    def first_error(self, ids: Sequence[str]) -> Exception | None:
        """Return the error of the first of these clients that has one."""
        return next((self._errors[id] for id in ids if id in self._errors), None)

    def _hand_out(self, hand: Hand, ids: Sequence[str]) -> None:
        clients, lent = self._missing(hand, ids)
        kept = self.gathered.work.kept
        portion = Portion(ids, hand.gone, {id: state for id in ids if (state := kept.get(id))})
        self._under_way[hand.actor.ask.remote(self._sent, portion, clients, lent)] = _Errand(hand, ids)
        hand.gone = []

    def _missing(self, hand: Hand, ids: Sequence[str]) -> tuple[list[ClientData], list[ClientData]]:
        """Return the clients that an actor is to hold from now on, and those that it is to hold for once."""
        clients: list[ClientData] = []
        lent: list[ClientData] = []
        if self._raw is None:
            return clients, lent
        if hand.population != self._sent["population"]:
            hand.population, hand.holds, hand.gone = self._sent["population"], {}, []
        for id in ids:
            # One that has just left fails at the actor, as it would here.
            with suppress(KeyError):
                client = self._raw.load(id)
                if id not in hand.holds or hand.holds[id]() is not client:
                    (clients if self._placement.home(id) is hand else lent).append(client)
        if clients:
            left = [id for id, held in hand.holds.items() if held() is None]
            for id in left:
                del hand.holds[id]
            hand.gone += left
            hand.holds.update({client.id: ref(client) for client in clients})
        return clients, lent

    def _ask_again(self, most: int) -> None:
        """Give what has been lost to actors that are idle."""
        self._crew.welcome()
        if not self._again:
            return
        self._crew.replenish(most)
        busy = {errand.hand for errand in self._under_way.values()}
        for hand in self._crew.hands:
            if hand not in busy and self._again:
                self._hand_out(hand, self._again.popleft())

    def _end(self, reference: Any, errand: _Errand) -> None:
        import ray

        try:
            answers: Answers | BaseException = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            answers = ConfigError(
                f"what clients are sent or what they answer cannot travel: {error.cause}. It holds numbers, text and "
                'containers of these; else run the clients in one process: engine="in_process".'
            )
        except ray.exceptions.RayError as error:
            self._lose(errand, error)
            return
        if isinstance(answers, BaseException):
            # It may have come before the actor took in what it was sent.
            errand.hand.holds = {}
            raise answers
        self._take(answers)

    def _take(self, answers: Answers) -> None:
        self.manner = answers.manner
        taken = Intake(
            self.gathered.work,
            kept={id: self._layouts.meet_all(state) for id, state in answers.kept.items()},
            seconds=dict(answers.seconds),
            upload_bytes=dict(answers.upload_bytes),
            notes=dict(answers.notes),
            failures=dict(answers.failures),
        )
        taken.sums = answers.sums
        if answers.first_error is not None:
            self._errors[next(iter(answers.failures))] = answers.first_error
        try:
            self.gathered.merge(taken)
        except UpdateError as error:
            self.agreed = False
            refused, taken.sums = taken.sums.clients, taken.work.accumulator()
            taken.kept, taken.upload_bytes = {}, {}
            # What is left: who failed otherwise, and how long each took.
            self.gathered.merge(taken)
            for id in refused:
                self._errors[id] = error
                self.gathered.fail(id, error, taken.seconds[id])

    def _lose(self, errand: _Errand, error: Exception) -> None:
        """Ask again what an actor was asked that has been lost, in halves: so a client that ends it is found."""
        ids = errand.ids
        if self._crew.lose(errand.hand):
            self._deaths.update(ids)
        if len(ids) > 1:
            middle = len(ids) // 2
            self._again += [ids[:middle], ids[middle:]]
        elif self._deaths[ids[0]] < _DEATHS:
            self._again.append(ids)
        else:
            failure = ClientError(
                f'client "{ids[0]}": the process that ran it died {_DEATHS} times, most likely out of memory or by a '
                "fault in native code."
            )
            failure.__cause__ = error
            self._errors[ids[0]] = failure
            self.gathered.fail(ids[0], failure, time.perf_counter() - errand.start)
