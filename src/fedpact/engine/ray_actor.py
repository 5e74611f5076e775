"""What runs on a Ray cluster's nodes: an actor that holds clients' rows and sums up their answers."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedpact.channel.channel import Channel
from fedpact.core.algorithm import Algorithm, ClientState
from fedpact.core.errors import ConfigError
from fedpact.core.rows import ClientData
from fedpact.engine.population import InMemory, Population, Prepared
from fedpact.engine.travel import Answers, Brief, Layouts, travelling
from fedpact.engine.work import Engine, Intake, Work, reason

# A run has one model and one population; an evaluation beside it may have others.
_REMEMBERED = 4


@dataclass(frozen=True, eq=False)
class Order:
    """A round's work without its model, its population and what clients keep, which reach actors on other ways."""

    algorithm: Algorithm[Any]
    channel: Channel
    brief: Brief

    @classmethod
    def of(cls, work: Work) -> "Order":
        """Return the order for a round's work."""
        return cls(work.setting.algorithm, work.setting.channel, Brief.of(work))


@dataclass(frozen=True, eq=False)
class Portion:
    """What one actor is asked in a round, besides the order that all get.

    Args:
        ids: its clients.
        gone: clients whose rows it is to let go of first.
        kept: what its clients keep.
    """

    ids: Sequence[str]
    gone: Sequence[str] = ()
    kept: Mapping[str, ClientState] = field(default_factory=dict)


class Held(InMemory):
    """Clients whose rows an actor was given; empty at first."""

    def __init__(self) -> None:
        self.reads = {}
        self._clients = {}
        self._sorted = None

    def hold(self, clients: Iterable[ClientData]) -> None:
        """Hold these clients, in the place of others of the same names."""
        self._clients.update({client.id: client for client in clients})
        self._sorted = None

    def let_go(self, ids: Iterable[str]) -> None:
        """Hold these clients no longer."""
        for id in ids:
            self._clients.pop(id, None)
        self._sorted = None


def in_memory(population: Population) -> InMemory | None:
    """Return the clients in memory that a population gives, prepared or not; None if it gets them elsewhere."""
    while isinstance(population, Prepared):
        population = population.raw
    return population if isinstance(population, InMemory) else None


def without_rows(population: Population) -> Population:
    """Return a population as it travels: clients in memory stay behind, to be held by an actor each."""
    if isinstance(population, Prepared):
        return population.over(without_rows(population.raw))
    return Held() if isinstance(population, InMemory) else population


class Actor:
    """Runs clients for a driver on another machine, and remembers their rows and the model.

    Args:
        inner: the engine that runs them here.
    """

    def __init__(self, inner: Engine) -> None:
        self._inner = inner
        self._remembered: OrderedDict[str, Any] = OrderedDict()
        self._layouts = Layouts()

    def node(self) -> str:
        """Return the id of the node that this is on."""
        import ray

        return ray.get_runtime_context().get_node_id()

    def ask(
        self,
        sent: Mapping[str, Any],
        portion: Portion,
        clients: Sequence[ClientData] = (),
        lent: Sequence[ClientData] = (),
    ) -> Answers | BaseException:
        """Run clients; return one partial sum, whatever their number, or the error that ends the round for all.

        Args:
            sent: the order, the model and the population, as references into the cluster's object store.
            portion: this actor's part.
            clients: clients to hold from now on, of those that the driver has in memory;
            lent: and clients to hold for this round alone.
        """
        try:
            work = self._work(sent, portion.kept)
            held = in_memory(work.setting.population)
            if not isinstance(held, Held):
                return self._run(work, portion.ids)
            held.let_go(portion.gone)
            held.hold([*clients, *lent])
            try:
                return self._run(work, portion.ids)
            finally:
                held.let_go([client.id for client in lent])
        except BaseException as error:
            return travelling(error)

    def _run(self, work: Work, ids: Sequence[str]) -> Answers:
        intake = Intake(work)
        self._inner.ask(work, ids, intake)
        return Answers.of(intake, self._inner.describe())

    def _work(self, sent: Mapping[str, Any], kept: Mapping[str, ClientState]) -> Work:
        order: Order = _fetched("task", sent["task"])
        model = self._fetched_once("model", sent["model"])
        population = self._fetched_once("population", sent["population"])
        self._layouts.meet_model(model)
        return order.brief.work(order.algorithm, order.channel, model, population, dict(kept), self._layouts)

    def _fetched_once(self, what: str, reference: Any) -> Any:
        key = reference.hex()
        if key not in self._remembered:
            self._remembered[key] = _fetched(what, reference)
            if len(self._remembered) > _REMEMBERED:
                self._remembered.popitem(last=False)
        self._remembered.move_to_end(key)
        return self._remembered[key]


def _fetched(what: str, reference: Any) -> Any:
    import ray

    try:
        return ray.get(reference)
    except Exception as error:
        # Of an object that cannot be read Ray's own words are a traceback.
        cause = getattr(error, "client_exc", error)
        raise ConfigError(
            f"the {what} cannot be read on a node of the cluster: {reason(cause)}. Every node needs the modules that "
            "define it, in the versions of the driver."
        ) from error
