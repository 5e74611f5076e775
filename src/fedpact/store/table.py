"""Numbers by client, in columns: what grows with the clients that a run has met, and is saved with each checkpoint."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_FIRST_ROWS = 16
# Room for so many clients at most is taken before they come, and for ids of so many bytes.
_MOST_AHEAD = 1 << 20
_ID_BYTES = 16


class ClientTable:
    """A row of numbers for each client, in the order in which the clients came; a new one's are 0.

    A client costs the numbers' bytes, its id, and about 30 bytes more: the ids lie one after another, and are found
    by their hashes. To write the table down takes no step per client.

    >>> table = ClientTable({"rounds": np.int64})
    >>> rows = table.rows(["lyon", "nice"])
    >>> table["rounds"][rows] += 1
    >>> list(table), table["rounds"]
    (['lyon', 'nice'], array([1, 1]))

    Args:
        columns: name → dtype.
        expected: how many clients there will be, for which room is taken at once.
    """

    def __init__(self, columns: Mapping[str, DTypeLike], expected: int = 0) -> None:
        rows = max(_FIRST_ROWS, min(expected, _MOST_AHEAD))
        self._count = 0
        self._columns = {name: _room(rows, dtype) for name, dtype in columns.items()}
        # The ids in UTF-8, and where each of them ends.
        self._text = _room(rows * _ID_BYTES, np.uint8)
        self._ends = _room(rows + 1, np.int64)
        self._hashes = _room(rows, np.int64)
        self._index = _index(rows)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        """Iterate over the clients, in the order in which they came."""
        return map(self._id, range(self._count))

    def __getitem__(self, column: str) -> NDArray[Any]:
        """Return a column [clients], to be read and written until the next client comes."""
        return self._columns[column][: self._count]

    def row(self, id: str) -> int | None:
        """Return a client's row; None if it has none."""
        place = self._place(id, hash(id))
        row = int(self._index[place])
        return row - 1 if row else None

    def rows(self, ids: Iterable[str]) -> NDArray[np.int64]:
        """Return the rows of these clients, made for those that have none yet."""
        ids = list(ids)
        rows = self._found(ids)
        for place in np.flatnonzero(rows < 0).tolist():
            rows[place] = self._found_or_added(ids[place])
        return rows

    def find(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Return the rows of these clients, -1 for those that have none."""
        rows = self._found(ids)
        for place in np.flatnonzero(rows < 0).tolist():
            row = self.row(ids[place])
            rows[place] = -1 if row is None else row
        return rows

    def contents(self) -> dict[str, Any]:
        """Return copies of all that the table holds, as a checkpoint can hold it."""
        return {
            "text": self._text[: self._ends[self._count]].copy(),
            "ends": self._ends[1 : self._count + 1].copy(),
            "columns": {name: self[name].copy() for name in self._columns},
        }

    def restore(self, contents: Mapping[str, Any]) -> None:
        """Hold what another table's `contents` were."""
        self._count, self._ends[0] = 0, 0
        self._index[:] = 0
        text = contents["text"].tobytes()
        for start, end in pairwise([0, *contents["ends"].tolist()]):
            self._found_or_added(text[start:end].decode(errors="surrogatepass"))
        for name, column in self._columns.items():
            column[: self._count] = contents["columns"][name]

    def _id(self, row: int) -> str:
        return self._text[self._ends[row] : self._ends[row + 1]].tobytes().decode(errors="surrogatepass")

    def _found(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Return the rows of clients, all looked up at once; -1 for those that have none or are left to look up."""
        last = len(self._index) - 1
        hashes = np.fromiter(map(hash, ids), np.int64, len(ids))
        places = hashes & last
        rows = self._index[places].astype(np.int64) - 1
        others = np.flatnonzero((rows >= 0) & (self._hashes[rows] != hashes))
        while others.size:
            places[others] = (places[others] + 1) & last
            rows[others] = self._index[places[others]].astype(np.int64) - 1
            others = others[(rows[others] >= 0) & (self._hashes[rows[others]] != hashes[others])]
        found = np.flatnonzero(rows >= 0)
        if not self._are_called(rows[found], [ids[place] for place in found.tolist()]):
            rows[found] = -1
        return rows

    def _are_called(self, rows: NDArray[np.int64], ids: Sequence[str]) -> bool:
        """Return whether the clients in these rows have these ids; False also where these are not ASCII."""
        joined = "".join(ids)
        starts, sizes = self._ends[rows], self._ends[rows + 1] - self._ends[rows]
        if not joined.isascii() or not np.array_equal(sizes, list(map(len, ids))):
            return False
        offsets = np.repeat(starts - (np.cumsum(sizes) - sizes), sizes)
        return self._text[offsets + np.arange(len(offsets))].tobytes() == joined.encode()

    def _place(self, id: str, hashed: int) -> int:
        """Return where in the index a client's row is, or else is to be."""
        index, hashes, last = self._index, self._hashes, len(self._index) - 1
        place = hashed & last
        while row := index[place]:
            if hashes[row - 1] == hashed and self._id(row - 1) == id:
                break
            place = (place + 1) & last
        return place

    def _found_or_added(self, id: str) -> int:
        hashed = hash(id)
        place = self._place(id, hashed)
        if row := int(self._index[place]):
            return row - 1
        row, text = self._count, id.encode(errors="surrogatepass")
        end = int(self._ends[row]) + len(text)
        if row == len(self._hashes) or end > len(self._text):
            self._grow(end)
            place = self._place(id, hashed)
        self._text[end - len(text) : end] = np.frombuffer(text, np.uint8)
        self._ends[row + 1], self._hashes[row] = end, hashed
        for column in self._columns.values():
            column[row] = 0
        self._count += 1
        self._index[place] = self._count
        return row

    def _grow(self, text: int) -> None:
        if text > len(self._text):
            self._text = _longer(self._text, 2 * text)
        if self._count == len(self._hashes):
            rows = 2 * self._count
            self._ends, self._hashes = _longer(self._ends, rows + 1), _longer(self._hashes, rows)
            self._columns = {name: _longer(column, rows) for name, column in self._columns.items()}
            self._index = _index(rows)
            last = len(self._index) - 1
            for row, place in enumerate((self._hashes[: self._count] & last).tolist()):
                while self._index[place]:
                    place = (place + 1) & last
                self._index[place] = row + 1


def _room(size: int, dtype: DTypeLike) -> NDArray[Any]:
    # Written to, so that the memory is taken now and not client by client.
    return np.full(size, 0, dtype)


def _index(rows: int) -> NDArray[np.uint32]:
    """Return an empty table of hashes for so many rows, at most half full: 0 for none, or a row + 1."""
    return np.full(1 << (2 * rows).bit_length(), 0, np.uint32)


def _longer(array: NDArray[Any], size: int) -> NDArray[Any]:
    longer = np.zeros(size, array.dtype)
    longer[: len(array)] = array
    return longer
