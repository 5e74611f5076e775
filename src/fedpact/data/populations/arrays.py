"""Clients cut out of big arrays, in memory or in memory-mapped files, of which only their own rows are read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedpact.core.errors import ConfigError, DataError
from fedpact.core.rows import ClientData, ClientStack, Rows
from fedpact.data.agree import labels_of
from fedpact.data.populations.describe import distinct, standing_for_all
from fedpact.data.populations.in_file import InFile
from fedpact.data.populations.maps import Maps
from fedpact.data.populations.names import Listed, Names, Numbered, Some
from fedpact.data.wording import at_client

_LABELS_AT_ONCE = 1_000_000


class Arrays:
    """A population in arrays of examples and labels.

    Where all clients have equally many rows, give x as [clients, rows, ...] and y as [clients, rows] (or with a label
    for each position, [clients, rows, positions]). Otherwise give all rows one client after another, x [n, ...] and
    y [n], with `sizes` or `offsets`. Of an array that `numpy.load(path, mmap_mode="r")` makes, a client's rows are read
    when it is asked; of one in memory, rows are views: do not change the arrays while a run goes on.

    Args:
        x: the examples.
        y: the labels.
        sizes: rows of each client [clients].
        offsets: where each client's rows begin, and where the last one's end [clients + 1].
        ids: the clients' names, in the order of the arrays; "0000", "0001" and so on by default.
        test: test rows: (x, y) as [clients, rows, ...], or (x, y, sizes), where a client may have none.
        classes: the classes of the labels, () where these are numbers to predict; by default all labels are
            looked through once.

    Raises:
        DataError: x, y, sizes and ids do not fit together, or a client has no training rows.
        ConfigError: both sizes and offsets, or two clients of one name.

    Examples:
        >>> import numpy as np
        >>> import fedpact as fp
        >>> x, y = np.zeros((1_000_000, 2, 3), np.float32), np.tile([0, 1], (1_000_000, 1))
        >>> population = fp.populations.arrays(x, y)
        >>> population.ids(0)[-1], population.load("999999").train.x.shape
        ('999999', (2, 3))
    """

    reads_files = False

    def __init__(
        self,
        x: ArrayLike,
        y: ArrayLike,
        *,
        sizes: ArrayLike | None = None,
        offsets: ArrayLike | None = None,
        ids: Sequence[str] | None = None,
        test: tuple[Any, ...] | None = None,
        classes: Sequence[Any] | None = None,
    ) -> None:
        if sizes is not None and offsets is not None:
            raise ConfigError("sizes and offsets say the same; give one of them.")
        self._train = _Cut.of("", x, y, _offsets_of("", sizes) if offsets is None else offsets)
        empty = np.flatnonzero(self._train.counts() == 0)
        self._names, self._order = _names_for(ids, self._train.clients)
        if len(empty):
            raise DataError(f'client "{self._name_of(int(empty[0]))}" has no training rows; leave it out.')
        self._test = None if test is None else _test_rows(test, self._train)
        self._tested = self._with_test_rows()
        self._maps = Maps.under(*self._train.mapped, *(self._test.mapped if self._test else ()))
        self._classes = classes
        self._described: ClientData | None = None

    def ids(self, round: int) -> Sequence[str]:
        """Return the names of all clients, made on demand."""
        return self._names

    def tested(self, round: int) -> Sequence[str]:
        """Return the names of the clients that hold test rows."""
        return self._tested

    def load(self, id: str) -> ClientData:
        """Return a client's rows: views, or read from a file.

        Raises:
            DataError: there is no such client.
        """
        place = self._place(id)
        self._maps.read(self._train.row_bytes * self._train.count(place))
        test = self._test.rows(place) if self._test else None
        return ClientData(id, self._train.rows(place), test if test else None)

    def load_many(self, ids: Sequence[str]) -> Sequence[ClientData]:
        """Return the rows of these clients: gathered in one array where all have equally many and none aside.

        Raises:
            DataError: there is no such client.
        """
        if self._train.offsets is not None or len(self._tested) or not len(ids):
            return [self.load(id) for id in ids]
        self._maps.read(self._train.row_bytes * self._train.count(0) * len(ids), len(ids))
        return ClientStack(ids, *self._train.stacked(self._places(ids)))

    def size(self, id: str) -> int:
        """Return a client's number of training rows.

        Raises:
            DataError: there is no such client.
        """
        return self._train.count(self._place(id))

    def sizes(self, ids: Sequence[str]) -> Sequence[int]:
        """Return these clients' numbers of training rows.

        Raises:
            DataError: there is no such client.
        """
        sizes: list[int] = self._train.counts_of(self._places(ids)).tolist()
        return sizes

    def description(self) -> ClientData:
        """Return a client that stands for all.

        Raises:
            DataError: a label is missing, or neither a number nor text; the client is named.
        """
        if self._described is None:
            labels = distinct(self._labels()) if self._classes is None else self._classes
            self._described = standing_for_all(self.load(self._names.at(0)), labels)
        return self._described

    def _place(self, id: str) -> int:
        place = self._names.place(id)
        return place if self._order is None else int(self._order[place])

    def _places(self, ids: Sequence[str]) -> NDArray[np.int64]:
        places = self._names.places(ids)
        return places if self._order is None else self._order[places]

    def _name_of(self, place: int) -> str:
        return self._names.at(place if self._order is None else int(np.flatnonzero(self._order == place)[0]))

    def _with_test_rows(self) -> Names:
        if self._test is None:
            return Some(self._names, np.empty(0, np.int64))
        counts = self._test.counts()
        holds = counts[self._order] > 0 if self._order is not None else counts > 0
        return self._names if holds.all() else Some(self._names, np.flatnonzero(holds))

    def _labels(self) -> Iterator[NDArray[Any]]:
        yield from self._labels_in(self._train, "training")
        if self._test is not None:
            yield from self._labels_in(self._test, "test")

    def _labels_in(self, cut: "_Cut", rows: Literal["training", "test"]) -> Iterator[NDArray[Any]]:
        for first, last in cut.stretches():
            part = cut.labels(first, last)
            try:
                yield labels_of(Rows(part, part))
            except DataError:
                # Which client it is that has no proper labels.
                for place in range(first, last):
                    with at_client(self._name_of(place), rows):
                        labels_of(cut.rows(place))
                raise
            self._maps.hand_back()


@dataclass(frozen=True)
class _Cut:
    """Examples and labels, where each client's begin (None where the first axis is the clients'), and their files."""

    x: NDArray[Any]
    y: NDArray[Any]
    offsets: NDArray[np.int64] | None
    x_file: InFile | None
    y_file: InFile | None

    @classmethod
    def of(cls, whose: str, x: Any, y: Any, offsets: Any) -> "_Cut":
        # Without the subclass of a memory map, whose slices are slow to make.
        (x, x_file), (y, y_file) = (InFile.of(np.asarray(array)) for array in (x, y))
        cut = cls(x, y, None if offsets is None else np.asarray(offsets), x_file, y_file)
        if x.dtype.kind not in "biuf":
            raise DataError(f"{whose}x is an array of dtype {x.dtype}; give numbers.")
        shared = 2 if offsets is None else 1
        if min(x.ndim, y.ndim) < shared or x.shape[:shared] != y.shape[:shared]:
            axes = "[clients, rows, ...]" if offsets is None else "[all rows, ...]"
            raise DataError(
                f"{whose}x has shape {list(x.shape)} and {whose}y {list(y.shape)}; both must begin with {axes}"
                + ("; where clients' rows differ in number, give sizes." if offsets is None else ".")
            )
        if cut.offsets is not None:
            _check_offsets(whose, cut.offsets, len(x))
        if cut.clients == 0:
            raise ConfigError("a federation needs at least one client.")
        return cut

    @property
    def clients(self) -> int:
        return len(self.x) if self.offsets is None else len(self.offsets) - 1

    def counts(self) -> NDArray[np.int64]:
        if self.offsets is None:
            return np.broadcast_to(np.int64(self.x.shape[1]), self.clients)
        return np.diff(self.offsets)

    def counts_of(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        if self.offsets is None:
            return np.full(len(places), self.x.shape[1])
        return self.offsets[places + 1] - self.offsets[places]

    def count(self, place: int) -> int:
        if self.offsets is None:
            return self.x.shape[1]
        return int(self.offsets[place + 1] - self.offsets[place])

    @property
    def mapped(self) -> list[NDArray[Any]]:
        """The arrays that are read through a memory map, if they are in one."""
        both = ((self.x, self.x_file), (self.y, self.y_file))
        return [array for array, file in both if file is None]

    @property
    def row_bytes(self) -> int:
        rows = self.y.shape[0] if self.offsets is not None else self.clients * self.x.shape[1]
        return (self.x.nbytes + self.y.nbytes) // max(1, rows)

    def rows(self, place: int) -> Rows:
        part = (
            place if self.offsets is None else slice(int(self.offsets[place]), int(self.offsets[place + 1]))
        )
        return Rows(_taken(self.x[part], self.x_file), _taken(self.y[part], self.y_file))

    def stacked(self, places: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Copies of these clients' rows, where the first axis is the clients'."""
        return _gathered(self.x, places, self.x_file), _gathered(self.y, places, self.y_file)

    def labels(self, first: int, last: int) -> NDArray[Any]:
        """The labels of the clients from one to before another, one row after another."""
        if self.offsets is None:
            return _taken(self.y[first:last], self.y_file).reshape(-1, *self.y.shape[2:])
        return _taken(self.y[self.offsets[first] : self.offsets[last]], self.y_file)

    def stretches(self) -> Iterator[tuple[int, int]]:
        """The clients in stretches of about as many labels as are looked through at once."""
        rows = self.y.shape[0] if self.offsets is not None else self.y.shape[0] * self.y.shape[1]
        step = max(1, self.clients * _LABELS_AT_ONCE // max(1, rows))
        for first in range(0, self.clients, step):
            yield first, min(first + step, self.clients)


def _taken(part: NDArray[Any], file: InFile | None) -> NDArray[Any]:
    return part if file is None else file.read(part)


def _gathered(array: NDArray[Any], places: NDArray[np.int64], file: InFile | None) -> NDArray[Any]:
    if file is None:
        return array[places]
    copy = np.empty((len(places), *array.shape[1:]), array.dtype)
    for row, place in enumerate(places.tolist()):
        file.read(array[place], into=copy[row])
    return copy


def _offsets_of(whose: str, sizes: Any) -> NDArray[np.int64] | None:
    if sizes is None:
        return None
    given = np.asarray(sizes)
    if given.ndim != 1 or given.dtype.kind not in "iu" or (given < 0).any():
        raise DataError(f"{whose}sizes must be a whole number of rows for each client.")
    return np.concatenate([[0], np.cumsum(given, dtype=np.int64)])


def _check_offsets(whose: str, offsets: NDArray[Any], rows: int) -> None:
    whole = offsets.ndim == 1 and offsets.dtype.kind in "iu" and len(offsets)
    if not whole or offsets[0] != 0 or (offsets[1:] < offsets[:-1]).any():
        raise DataError(f"{whose}offsets must be whole numbers that begin with 0 and never fall.")
    if offsets[-1] != rows:
        raise DataError(f"{whose}sizes add up to {offsets[-1]:,} rows, and {whose}x has {rows:,}.")


def _test_rows(test: Any, train: _Cut) -> _Cut:
    if not (isinstance(test, tuple) and len(test) in (2, 3)):
        raise DataError("test must be (x, y), or (x, y, sizes).")
    sizes = _offsets_of("test ", test[2]) if len(test) == 3 else None
    cut = _Cut.of("test ", test[0], test[1], sizes)
    if cut.clients != train.clients:
        raise DataError(f"there are {train.clients:,} clients, and test has rows for {cut.clients:,}.")
    lead = [2 if each.offsets is None else 1 for each in (train, cut)]
    shapes = [each.x.shape[axes:] for each, axes in zip((train, cut), lead, strict=True)]
    if shapes[0] != shapes[1]:
        raise DataError(f"a train row and a test row have different shapes, {shapes[0]} and {shapes[1]}.")
    return cut


def _names_for(ids: Sequence[str] | None, clients: int) -> tuple[Names, NDArray[np.int64] | None]:
    if ids is None:
        return Numbered(clients), None
    names, order = (ids, None) if isinstance(ids, Names) else Listed.of(ids)
    if len(names) != clients:
        raise DataError(f"there are {clients:,} clients in the arrays, and {len(names):,} ids.")
    return names, order
