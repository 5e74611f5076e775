"""Who there is to ask: a population of clients, which may change from round to round.

`Population` is all that a back end must have; `Described`, `HeldOut`, `Gathered`, `Counted`, `Changing` and `OnDisk`
are what it may have besides, so that a run over a million clients asks no more of them than it needs. The back ends
themselves are in `fedpact.data.populations`.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from fedpact.core.errors import ConfigError, DataError, suggest
from fedpact.core.rows import ClientData, ClientStack, Rows
from fedpact.data.chunked import ChunkedRows

if TYPE_CHECKING:
    from fedpact.data.table_schema import TableSchema


@runtime_checkable
class Population(Protocol):
    """Clients by name; only those of a cohort are loaded.

    Loading may happen in another thread or in a forked process than the one that made the population.
    """

    def ids(self, round: int) -> Sequence[str]:
        """Return the names of the clients that are there in this round, sorted.

        With many clients this is a sequence that makes names when it is asked: its length, `ids[i]` and
        `name in ids` must take no time.
        """
        ...

    def load(self, id: str) -> ClientData:
        """Return a client's rows."""
        ...

    def size(self, id: str) -> int:
        """Return a client's number of training rows, without loading them."""
        ...


@runtime_checkable
class Described(Protocol):
    """A population that knows what all clients' rows have in common, so that not each of them has to be asked."""

    def description(self) -> ClientData | None:
        """Return a client that stands for all: every label that occurs, examples like everyone's.

        Its rows are nobody's, and there need be no more of them than there are labels. None where nothing is known.

        Raises:
            DataError: a label is missing; the client is named.
        """
        ...


@runtime_checkable
class HeldOut(Protocol):
    """A population that knows which clients hold test rows, so that an evaluation asks no others."""

    def tested(self, round: int) -> Sequence[str]:
        """Return the names of the clients that hold test rows in this round, sorted."""
        ...


@runtime_checkable
class Gathered(Protocol):
    """A population that loads a whole cohort for less than its clients one by one."""

    def load_many(self, ids: Sequence[str]) -> Sequence[ClientData]:
        """Return the rows of these clients, in this order; a `ClientStack` where one array holds them all."""
        ...


@runtime_checkable
class Counted(Protocol):
    """A population that tells the sizes of a whole cohort for less than one by one."""

    def sizes(self, ids: Sequence[str]) -> Sequence[int]:
        """Return these clients' numbers of training rows, in this order, without loading them."""
        ...


@runtime_checkable
class Changing(Protocol):
    """A population whose clients change in this process: one that was forked earlier sees it by the version."""

    version: int


@runtime_checkable
class OnDisk(Protocol):
    """A population whose clients come out of files, so that it pays to load the next cohort ahead of time."""

    reads_files: bool


class InMemory:
    """A population held in memory. Clients may join and leave while a run goes on.

    Raises:
        ConfigError: there is no client, or two have the same name.
    """

    version = 0

    def __init__(self, clients: Iterable[ClientData]) -> None:
        self.reads: Mapping[str, Any] = getattr(clients, "reads", {})
        self._clients: dict[str, ClientData] = {}
        self._sorted: tuple[list[str], list[str]] | None = None
        for client in clients:
            self.join(client)
        if not self._clients:
            raise ConfigError("a federation needs at least one client.")

    def join(self, client: ClientData) -> None:
        """Add a client, from the next round on.

        Raises:
            ConfigError: there is a client of this name already.
            DataError: it has no training rows.
        """
        if not isinstance(client.id, str):
            raise ConfigError(f"a client is called {client.id!r}; a name is text.")
        if client.id in self._clients:
            raise ConfigError(f'two clients are called "{client.id}"; every name must be unique.')
        if len(client.train) == 0:
            raise DataError(f'client "{client.id}" has no training rows; leave it out.')
        self._clients[client.id] = client
        self._sorted = None
        self.version += 1

    def leave(self, id: str) -> None:
        """Remove a client, from the next round on.

        Raises:
            ConfigError: there is no client of this name.
        """
        if id not in self._clients:
            raise ConfigError(f'there is no client "{id}".{suggest(id, self._clients)}')
        del self._clients[id]
        self._sorted = None
        self.version += 1

    def ids(self, round: int) -> Sequence[str]:
        """Return the names of the clients that are there."""
        return self._in_order()[0]

    def tested(self, round: int) -> Sequence[str]:
        """Return the names of the clients that hold test rows."""
        return self._in_order()[1]

    def load(self, id: str) -> ClientData:
        """Return a client's rows."""
        return self._clients[id]

    def size(self, id: str) -> int:
        """Return a client's number of training rows."""
        return len(self._clients[id].train)

    def holds(self, client: ClientData) -> bool:
        """Return whether these are a client's rows now."""
        return self._clients.get(client.id) is client

    def in_chunks(self) -> Sequence[str]:
        """Return the names of the clients whose rows are read in chunks."""
        return [id for id, client in self._clients.items() if isinstance(client.train, ChunkedRows)]

    def _in_order(self) -> tuple[list[str], list[str]]:
        # A list that was handed out is never changed: whoever holds it goes on with the clients of its round.
        if self._sorted is None:
            names = sorted(self._clients)
            self._sorted = names, [name for name in names if self._clients[name].test]
        return self._sorted


class Prepared:
    """A population whose rows are prepared when a client is asked.

    Where the population itself is in memory, so are its prepared rows, for the next time. Of rows that are prepared
    twice, those in between are not kept.

    Args:
        population: the clients with their raw rows, or with rows that are prepared once already.
        prepare: makes these rows into what the model reads.
        row_by_row: whether it prepares each row for itself.
        resized: whether a client may have more training rows behind it, or fewer; then they are counted there.
    """

    def __init__(
        self,
        population: Population,
        prepare: Callable[[ClientData], ClientData],
        row_by_row: bool = True,
        resized: bool = False,
    ) -> None:
        if isinstance(population, Prepared):
            prepare = partial(_one_after_the_other, population._prepare, prepare)
            row_by_row &= population._row_by_row
            resized |= population._resized
            population = population._population
        self._population: Population = population
        self._prepare: Callable[[ClientData], ClientData] = prepare
        self._row_by_row: bool = row_by_row
        self._resized: bool = resized
        # By name: training rows behind the preparation, and the version of the population they were counted in.
        self._counted: dict[str, tuple[int, int]] = {}
        # By name: raw rows, and what was made of them.
        self._prepared: dict[str, tuple[ClientData, ClientData]] = {}
        self._seen = version(population)
        self.reads_files = reads_files(population)

    def ids(self, round: int) -> Sequence[str]:
        """Return the names of the clients that are there in this round."""
        return self._population.ids(round)

    def tested(self, round: int) -> Sequence[str]:
        """Return the names of the clients that may hold test rows in this round."""
        return holding_tests(self._population, round)

    @property
    def version(self) -> int:
        """How often the clients have changed."""
        return version(self._population)

    def __reduce__(self) -> tuple[Any, ...]:
        # What another process needs of these rows it prepares itself.
        return Prepared, (self._population, self._prepare, self._row_by_row, self._resized)

    @property
    def raw(self) -> Population:
        """The clients with their raw rows."""
        return self._population

    def over(self, population: Population) -> "Prepared":
        """Return other clients, whose rows are prepared alike."""
        return Prepared(population, self._prepare, self._row_by_row, self._resized)

    def in_chunks(self) -> Sequence[str]:
        """Return the names of the clients whose raw rows are read in chunks."""
        return self._population.in_chunks() if isinstance(self._population, InMemory) else ()

    def ahead(self) -> "Prepared":
        """Prepare the rows that are read in chunks now, so that processes forked from this one share the files."""
        for id in self.in_chunks():
            # What is wrong with its rows is said when it is asked.
            with suppress(DataError):
                self.load(id)
        return self

    def load(self, id: str) -> ClientData:
        """Return a client's prepared rows."""
        return self._of(self._population.load(id))

    def load_many(self, ids: Sequence[str]) -> Sequence[ClientData]:
        """Return the prepared rows of these clients."""
        raw = load_all(self._population, ids)
        if isinstance(raw, ClientStack) and self._row_by_row:
            return self._stack_of(raw)
        return [self._of(each) for each in raw]

    def size(self, id: str) -> int:
        """Return a client's number of training rows; where preparation makes them more or fewer, these."""
        if not self._resized:
            return self._population.size(id)
        now, known = self.version, self._counted.get(id)
        if known is None or known[1] != now:
            try:
                known = self._counted[id] = len(self.load(id).train), now
            except DataError:
                # What is wrong with its rows is said when it is asked to train on them.
                return self._population.size(id)
        return known[0]

    def sizes(self, ids: Sequence[str]) -> Sequence[int]:
        """Return these clients' numbers of training rows; where preparation makes them more or fewer, these."""
        return [self.size(id) for id in ids] if self._resized else sizes_of(self._population, ids)

    def _of(self, raw: ClientData) -> ClientData:
        population = self._population
        if not isinstance(population, InMemory):
            return self._prepare(raw)
        if population.version != self._seen:
            # Rows whose client has left, or came back with others, are let go.
            self._seen, known = population.version, self._prepared
            self._prepared = {id: both for id, both in known.items() if population.holds(both[0])}
        kept = self._prepared.get(raw.id)
        if kept is None or kept[0] is not raw:
            kept = self._prepared[raw.id] = raw, self._prepare(raw)
        return kept[1]

    def _stack_of(self, raw: ClientStack) -> Sequence[ClientData]:
        """Prepare a stack as if all of it were one client's rows, since each row is prepared for itself."""
        x, y = (array.reshape(-1, *array.shape[2:]) for array in (raw.x, raw.y))
        try:
            rows = self._prepare(ClientData("the cohort", Rows(x, y))).train
        except DataError:
            # Whose rows they are is told by preparing each alone.
            return [self._prepare(each) for each in raw]
        if rows.y is None:
            return [self._prepare(each) for each in raw]
        shape = raw.x.shape[:2]
        return ClientStack(
            raw.ids, rows.x.reshape(*shape, *rows.x.shape[1:]), rows.y.reshape(*shape, *rows.y.shape[1:])
        )


def _one_after_the_other(
    first: Callable[[ClientData], ClientData], then: Callable[[ClientData], ClientData], data: ClientData
) -> ClientData:
    return then(first(data))


def as_population(clients: Population | Iterable[ClientData]) -> Population:
    """Return clients as a population.

    Raises:
        ConfigError: these are no clients.
    """
    if isinstance(clients, Population):
        return clients
    many = isinstance(clients, Iterable) and not isinstance(clients, Mapping | str)
    listed = list(clients) if many else []
    if not (many and all(isinstance(client, ClientData) for client in listed)):
        raise ConfigError(
            "clients must be a federation or a list of clients: make them with "
            "fp.clients({name: file or table, ...}, label=...)."
        )
    return InMemory(listed)


def schemas_of(clients: Population | Iterable[ClientData]) -> "Mapping[str, TableSchema]":
    """Return client → what it knows of its own table, where these are clients that say so."""
    schemas: Mapping[str, TableSchema] = getattr(clients, "schemas", {})
    return schemas


def stand_in(population: Population) -> Population | None:
    """Return a population of one client that stands for all, for questions that any client answers alike.

    None where a population does not describe itself: then all clients have to be asked.

    Raises:
        DataError: a label is missing; the client is named.
    """
    client = population.description() if isinstance(population, Described) else None
    return None if client is None else InMemory([client])


def is_among(ids: Sequence[str], id: str) -> bool:
    """Return whether a name is among sorted names, in few steps whatever the sequence is."""
    place = bisect_left(ids, id)
    return place < len(ids) and ids[place] == id


def holding_tests(population: Population, round: int) -> Sequence[str]:
    """Return the names of the clients that may hold test rows: all of them where that is not known."""
    return population.tested(round) if isinstance(population, HeldOut) else population.ids(round)


def sizes_of(population: Population, ids: Sequence[str]) -> Sequence[int]:
    """Return these clients' numbers of training rows, at once where the population can."""
    if isinstance(population, Counted):
        return population.sizes(ids)
    return [population.size(id) for id in ids]


def load_all(population: Population, ids: Sequence[str]) -> Sequence[ClientData]:
    """Return the rows of these clients, at once where the population can."""
    if isinstance(population, Gathered):
        return population.load_many(ids)
    return [population.load(id) for id in ids]


def reads_files(population: Population) -> bool:
    """Return whether loading a client waits for files."""
    return isinstance(population, OnDisk) and population.reads_files


def version(population: Population) -> int:
    """Return how often a population's clients have changed in this process; 0 where they do not."""
    return population.version if isinstance(population, Changing) else 0
