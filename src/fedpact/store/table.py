"""Numbers by client, in columns: what grows with the clients that a run has met, and is saved with each checkpoint."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_FIRST_ROWS = 16


class ClientTable:
    """A row of numbers for each client, in the order in which the clients came; a new one's are 0.

    A client costs the numbers' bytes, its id, and an entry of a dict. To write the table down takes no step per
    client.

    >>> table = ClientTable({"rounds": np.int64})
    >>> rows = table.rows(["lyon", "nice"])
    >>> table["rounds"][rows] += 1
    >>> list(table), table["rounds"]
    (['lyon', 'nice'], array([1, 1]))

    Args:
        columns: name → dtype.
    """

    def __init__(self, columns: Mapping[str, DTypeLike]) -> None:
        self._rows: dict[str, int] = {}
        # The ids one after another in UTF-8, and where each of them ends.
        self._text = bytearray()
        self._columns = {name: np.zeros(_FIRST_ROWS, dtype) for name, dtype in columns.items()}
        self._ends = np.zeros(_FIRST_ROWS, np.int64)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the clients, in the order in which they came."""
        return iter(self._rows)

    def __getitem__(self, column: str) -> NDArray[Any]:
        """Return a column [clients], to be read and written until the next client comes."""
        return self._columns[column][: len(self)]

    def row(self, id: str) -> int | None:
        """Return a client's row; None if it has none."""
        return self._rows.get(id)

    def rows(self, ids: Iterable[str]) -> NDArray[np.int64]:
        """Return the rows of these clients, made for those that have none yet."""
        ids = list(ids)
        try:
            return np.array([self._rows[id] for id in ids], np.int64)
        except KeyError:
            return np.array([self._add(id) for id in ids], np.int64)

    def contents(self) -> dict[str, Any]:
        """Return copies of all that the table holds, as a checkpoint can hold it."""
        return {
            "text": np.frombuffer(self._text, np.uint8).copy(),
            "ends": self._ends[: len(self)].copy(),
            "columns": {name: self[name].copy() for name in self._columns},
        }

    def restore(self, contents: Mapping[str, Any]) -> None:
        """Hold what another table's `contents` were."""
        text, ends = contents["text"].tobytes(), contents["ends"]
        self._text, self._ends = bytearray(text), ends.copy()
        self._columns = {name: contents["columns"][name].copy() for name in self._columns}
        places = enumerate(pairwise([0, *ends.tolist()]))
        self._rows = {text[start:end].decode(errors="surrogatepass"): row for row, (start, end) in places}

    def _add(self, id: str) -> int:
        row = self._rows.get(id)
        if row is None:
            row = len(self._rows)
            if row == len(self._ends):
                self._ends = _longer(self._ends)
                self._columns = {name: _longer(column) for name, column in self._columns.items()}
            self._text += id.encode(errors="surrogatepass")
            self._ends[row] = len(self._text)
            self._rows[id] = row
        return row


def _longer(array: NDArray[Any]) -> NDArray[Any]:
    longer = np.zeros(max(_FIRST_ROWS, 2 * len(array)), array.dtype)
    longer[: len(array)] = array
    return longer
