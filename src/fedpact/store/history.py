"""The records of a run's rounds, in columns: a number costs eight bytes, however many rounds there are."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

Record = Mapping[str, Any]
# Each with which of its numbers are there.
Columns = dict[str, tuple[NDArray[Any], NDArray[np.bool_]]]

# Room for so many rounds at most is taken before they come.
_MOST_AHEAD = 10_000
_FIRST = 16


class History(Sequence[Record]):
    """Records that map names to numbers, whole or not; not each of them has all names.

    >>> history = History()
    >>> history.append({"round": 1, "train_loss": 0.5})
    >>> history.append({"round": 2})
    >>> history[-1], list(history)
    ({'round': 2}, [{'round': 1, 'train_loss': 0.5}, {'round': 2}])

    Args:
        expected: how many there will be, for which room is taken at once.
    """

    def __init__(self, expected: int = 0) -> None:
        self._room = max(_FIRST, min(expected, _MOST_AHEAD))
        self._count = 0
        self._columns: Columns = {}

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> Record: ...

    @overload
    def __getitem__(self, place: slice) -> list[Record]: ...

    def __getitem__(self, place: int | slice) -> Record | list[Record]:
        places = range(self._count)[place]
        return _Row(self._columns, places) if isinstance(places, int) else [self[i] for i in places]

    def clear(self) -> None:
        """Forget all records."""
        self._count = 0
        self._columns.clear()

    def append(self, record: Record) -> None:
        """Append a record."""
        if self._count == self._room:
            self._room *= 2
            self._columns.update({name: self._longer(*column) for name, column in self._columns.items()})
        for name, value in record.items():
            numbers, present = self._column(name, value)
            numbers[self._count], present[self._count] = value, True
        self._count += 1

    def _column(self, name: str, value: Any) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        whole = isinstance(value, int | np.integer)
        if name not in self._columns:
            dtype = np.int64 if whole else np.float64
            # Written to, so that the memory is taken now and not round by round.
            self._columns[name] = np.full(self._room, 0, dtype), np.full(self._room, False)
        elif not whole and self._columns[name][0].dtype == np.int64:
            numbers, present = self._columns[name]
            self._columns[name] = numbers.astype(np.float64), present
        return self._columns[name]

    def _longer(
        self, numbers: NDArray[Any], present: NDArray[np.bool_]
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        more = self._room - len(numbers)
        return np.pad(numbers, (0, more)), np.pad(present, (0, more))


class _Row(Mapping[str, Any]):
    """One record: a view of the columns."""

    def __init__(self, columns: Columns, place: int) -> None:
        self._columns = columns
        self._place = place

    def __getitem__(self, name: str) -> Any:
        numbers, present = self._columns[name]
        if not present[self._place]:
            raise KeyError(name)
        return numbers[self._place].item()

    def __contains__(self, name: object) -> bool:
        return name in self._columns and bool(self._columns[name][1][self._place])

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._columns if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return repr(dict(self))
