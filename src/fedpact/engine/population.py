"""Who there is to ask: a population of clients, which may change from round to round."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from fedpact.core.errors import ConfigError, DataError, suggest
from fedpact.core.rows import ClientData


@runtime_checkable
class Population(Protocol):
    """Clients by name; only those of a cohort are loaded."""

    def ids(self, round: int) -> Sequence[str]:
        """Return the names of the clients that are there in this round, sorted."""
        ...

    def load(self, id: str) -> ClientData:
        """Return a client's rows."""
        ...

    def size(self, id: str) -> int:
        """Return a client's number of training rows, without loading them."""
        ...


class InMemory:
    """A population held in memory. Clients may join and leave while a run goes on.

    Raises:
        ConfigError: there is no client, or two have the same name.
    """

    def __init__(self, clients: Iterable[ClientData]) -> None:
        self.reads: Mapping[str, Any] = getattr(clients, "reads", {})
        self._clients: dict[str, ClientData] = {}
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

    def leave(self, id: str) -> None:
        """Remove a client, from the next round on.

        Raises:
            ConfigError: there is no client of this name.
        """
        if id not in self._clients:
            raise ConfigError(f'there is no client "{id}".{suggest(id, self._clients)}')
        del self._clients[id]

    def ids(self, round: int) -> Sequence[str]:
        """Return the names of the clients that are there."""
        return sorted(self._clients)

    def load(self, id: str) -> ClientData:
        """Return a client's rows."""
        return self._clients[id]

    def size(self, id: str) -> int:
        """Return a client's number of training rows."""
        return len(self._clients[id].train)


class Prepared:
    """A population whose rows are prepared when a client is asked.

    Where the population itself is in memory, so are its prepared rows, for the next time.

    Args:
        population: the clients with their raw rows.
        prepare: makes raw rows into what the model reads.
    """

    def __init__(self, population: Population, prepare: Callable[[ClientData], ClientData]) -> None:
        self._population = population
        self._prepare = prepare
        self._prepared: dict[str, tuple[ClientData, ClientData]] = {}

    def ids(self, round: int) -> Sequence[str]:
        """Return the names of the clients that are there in this round."""
        return self._population.ids(round)

    def load(self, id: str) -> ClientData:
        """Return a client's prepared rows."""
        raw = self._population.load(id)
        if not isinstance(self._population, InMemory):
            return self._prepare(raw)
        if id not in self._prepared or self._prepared[id][0] is not raw:
            self._prepared[id] = (raw, self._prepare(raw))
        return self._prepared[id][1]

    def size(self, id: str) -> int:
        """Return a client's number of training rows."""
        return self._population.size(id)


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
