"""Clients that a Python function makes: drawn at random, fetched from anywhere, generated."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fedpact.core.errors import ConfigError, DataError
from fedpact.core.rows import ClientData, Rows
from fedpact.data.populations.describe import standing_for_all
from fedpact.data.populations.names import Listed, Names, Numbered, Some


class Function:
    """A population whose clients come from a function.

    Args:
        ids: the clients' names, or how many there are, who are then called "0000", "0001" and so on.
        load: name → the client: a `ClientData`, `Rows`, or a pair (x, y). It may be called from another thread, and
            must give a client the same rows every time.
        size: name → number of training rows; or one number for all.
        tested: whether clients hold test rows.
        classes: the classes of the labels, () where these are numbers to predict. With them, a run starts without
            asking every client; examples are taken to be like the first client's.
        reads_files: whether `load` waits for files or a network, so that the next cohort is loaded ahead.

    Raises:
        ConfigError: no client, a name that is no text, or two clients of one name.

    Examples:
        >>> import numpy as np
        >>> import fedpact as fp
        >>> def rows(name):
        ...     random = np.random.default_rng(int(name))
        ...     y = random.integers(2, size=5)
        ...     return y[:, None] + random.normal(size=(5, 3)), y
        >>> population = fp.populations.function(1_000_000, rows, size=5, tested=False, classes=[0, 1])
        >>> population.ids(0)[41], len(population.load("000041").train)
        ('000041', 5)
    """

    def __init__(
        self,
        ids: int | Sequence[str],
        load: Callable[[str], Any],
        size: Callable[[str], int] | int,
        *,
        tested: bool = True,
        classes: Sequence[Any] | None = None,
        reads_files: bool = False,
    ) -> None:
        if isinstance(ids, int) and ids < 1:
            raise ConfigError("a federation needs at least one client.")
        self._names: Names = _names(ids)
        self._load = load
        self._size = size
        self._holds_tests = tested
        self._classes = classes
        self.reads_files = reads_files

    def ids(self, round: int) -> Sequence[str]:
        """Return the names of all clients."""
        return self._names

    def tested(self, round: int) -> Sequence[str]:
        """Return the names of the clients that may hold test rows: all or none."""
        return self._names if self._holds_tests else Some(self._names, np.empty(0, np.int64))

    def load(self, id: str) -> ClientData:
        """Return what the function gives for a client.

        Raises:
            DataError: there is no such client, or it has no training rows.
            ConfigError: the function has given something else, or another client.
        """
        self._names.place(id)
        client = _as_client(id, self._load(id))
        if len(client.train) == 0:
            raise DataError(f'client "{id}" has no training rows; leave it out.')
        return client

    def size(self, id: str) -> int:
        """Return a client's number of training rows.

        Raises:
            DataError: there is no such client.
        """
        self._names.place(id)
        return int(self._size(id)) if callable(self._size) else self._size

    def description(self) -> ClientData | None:
        """Return a client that stands for all, if the classes were declared."""
        if self._classes is None:
            return None
        return standing_for_all(self.load(self._names.at(0)), self._classes)


def _names(ids: int | Sequence[str]) -> Names:
    if isinstance(ids, int):
        return Numbered(ids)
    return ids if isinstance(ids, Names) else Listed.of(ids)[0]


def _as_client(id: str, given: Any) -> ClientData:
    if isinstance(given, tuple) and len(given) == 2:
        x, y = given
        given = Rows(x if hasattr(x, "iloc") else np.asarray(x), np.asarray(y))
    if isinstance(given, Rows):
        given = ClientData(id, given)
    if not isinstance(given, ClientData):
        raise ConfigError(
            f'the function gives a {type(given).__name__} for client "{id}"; return a ClientData, Rows, or (x, y).'
        )
    if given.id != id:
        raise ConfigError(f'the function gives client "{given.id}" when it is asked for "{id}".')
    return given
