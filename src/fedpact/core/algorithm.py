"""An algorithm: four pure methods over explicit state, so that a run can be saved and resumed any round."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from fedpact.core.messages import Aggregate, Task, Update
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed
from fedpact.core.vector import Vector

# What one client keeps from one of its rounds to the next, such as SCAFFOLD's control variate.
ClientState = Mapping[str, Vector]

State = TypeVar("State")


class Algorithm(Protocol[State]):
    """Federated computation as four pure methods.

    An implementation is a frozen dataclass whose fields are its hyper-parameters: that is also how a Job
    names it and writes it down. State is a dataclass of vectors, arrays, numbers and containers of these.

    `releases` says what leaves a client: "averaged" vectors, which a channel can clip and noise, or "summed"
    statistics. One whose clients go on from what they sent, as SCAFFOLD's do from their control variates, says so
    with `keeps_updates = True`: no stage of a channel may then change an update.
    """

    releases: ClassVar[Literal["averaged", "summed"]]

    def init(self, model: Any, seed: Seed) -> State:
        """Return the state before the first round."""
        ...

    def task(self, state: State) -> Task | None:
        """Return what clients are to do next, or None when there is nothing left to do."""
        ...

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return one client's update, and what it keeps for its next round."""
        ...

    def server(self, model: Any, state: State, aggregate: Aggregate) -> State:
        """Return the state after a round's aggregate."""
        ...


@dataclass(frozen=True)
class Around:
    """As another algorithm of statistics; whoever extends it changes what its clients send, or what becomes of it.

    Args:
        algorithm: the other algorithm.
    """

    algorithm: Any

    releases: ClassVar[Literal["averaged", "summed"]] = "summed"

    def init(self, model: Any, seed: Seed) -> Any:
        """Return the other algorithm's state before the first round."""
        return self.algorithm.init(model, seed)

    def task(self, state: Any) -> Task | None:
        """Ask what the other algorithm asks."""
        asked: Task | None = self.algorithm.task(state)
        return asked

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return what a client of the other algorithm returns."""
        inner: Algorithm[Any] = self.algorithm
        return inner.client(model, task, data, kept, seed)

    def server(self, model: Any, state: Any, aggregate: Aggregate) -> Any:
        """Hand the aggregate to the other algorithm."""
        return self.algorithm.server(model, state, aggregate)

    def fitted(self, state: Any) -> Any:
        """Return what the other algorithm found."""
        return self.algorithm.fitted(state)
