"""Clients' names in order, as sequences that hold little or nothing: a name is made when it is asked for."""

import operator
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError, DataError, suggest

_FEWEST_DIGITS = 4
# Looking for the nearest of a million names would take minutes.
_MOST_COMPARED = 5000


class Names(Sequence[str], ABC):
    """Names in ascending order, each of them once; a subclass says how one is made and found."""

    @abstractmethod
    def at(self, place: int) -> str:
        """Return the name at a place in [0, length)."""

    @abstractmethod
    def find(self, name: str) -> int | None:
        """Return the place of a name; None if it is not there."""

    def places(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Return the places of clients' names.

        Raises:
            DataError: there is no such client.
        """
        return np.fromiter(map(self.place, names), np.int64, len(names))

    def place(self, name: str) -> int:
        """Return the place of a client's name.

        Raises:
            DataError: there is no such client.
        """
        found = self.find(name) if isinstance(name, str) else None
        if found is None:
            near = suggest(str(name), self) if len(self) <= _MOST_COMPARED else ""
            there = near or f' There are {len(self):,}, from "{self.at(0)}" to "{self.at(len(self) - 1)}".'
            raise DataError(f'there is no client "{name}".{there}')
        return found

    @overload
    def __getitem__(self, key: int) -> str: ...
    @overload
    def __getitem__(self, key: slice) -> Sequence[str]: ...
    def __getitem__(self, key: int | slice) -> str | Sequence[str]:
        count = len(self)
        # Nearly all keys are such, and a cohort is made of them.
        if type(key) is int and 0 <= key < count:
            return self.at(key)
        if isinstance(key, slice):
            return [self.at(place) for place in range(*key.indices(count))]
        place = operator.index(key)
        if not -count <= place < count:
            raise IndexError(f"there are {count:,} clients; place {place} is none of theirs")
        return self.at(place if place >= 0 else place + count)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.find(name) is not None

    def __iter__(self) -> Iterator[str]:
        return map(self.at, range(len(self)))

    def index(self, value: Any, start: int = 0, stop: int | None = None) -> int:
        """Return the place of a name in [start, stop).

        Raises:
            ValueError: it is not there.
        """
        found = self.find(value) if isinstance(value, str) else None
        if found is None or found not in range(*slice(start, stop).indices(len(self))):
            raise ValueError(f"{value!r} is not among the names")
        return found

    def __repr__(self) -> str:
        return (
            f'<{len(self):,} names, "{self.at(0)}" to "{self.at(len(self) - 1)}">'
            if len(self)
            else "<no names>"
        )


class Numbered(Names):
    """Numbers as names: "0000", "0001" and so on, of as many digits as the last one needs, so that they sort.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._digits = max(_FEWEST_DIGITS, len(str(count - 1)))
        self._spelt = f"%0{self._digits}d"

    def __len__(self) -> int:
        return self._count

    def at(self, place: int) -> str:
        """Return the name at a place."""
        return self._spelt % place

    def places(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Return the places of clients' names.

        Raises:
            DataError: there is no such client.
        """
        if set(map(type, names)) == {str} and set(map(len, names)) == {self._digits}:
            text = "".join(names)
            if text.isascii() and text.isdigit():
                places = np.fromiter(map(int, names), np.int64, len(names))
                if places.max() < self._count:
                    return places
        # One of them is none: it is looked for by itself, and named.
        return super().places(names)

    def find(self, name: str) -> int | None:
        """Return the place of a name."""
        if len(name) != self._digits or not (name.isascii() and name.isdigit()):
            return None
        return place if (place := int(name)) < self._count else None


class Listed(Names):
    """Names of any kind, held as one run of bytes: a million of them take megabytes.

    Args:
        names: in ascending order.
    """

    def __init__(self, names: Sequence[str]) -> None:
        encoded = [name.encode(errors="surrogatepass") for name in names]
        self._text = b"".join(encoded)
        self._starts = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(each) for each in encoded], out=self._starts[1:])

    @classmethod
    def of(cls, names: Iterable[Any]) -> "tuple[Listed, NDArray[np.int64] | None]":
        """Return names in order, and where each of them stood before; None if they were in order.

        Raises:
            ConfigError: a name is no text or is empty, two clients have the same, or there is none.
        """
        given = list(names)
        if not given:
            raise ConfigError("a federation needs at least one client.")
        for name in given:
            if not (isinstance(name, str) and name):
                raise ConfigError(f"a client is called {name!r}; a name is text that is not empty.")
        order = None
        if any(a >= b for a, b in pairwise(given)):
            order = np.array(sorted(range(len(given)), key=given.__getitem__), np.int64)
            given = [given[place] for place in order]
            twice = next((a for a, b in pairwise(given) if a == b), None)
            if twice is not None:
                raise ConfigError(f'two clients are called "{twice}"; every name must be unique.')
        return cls(given), order

    def __len__(self) -> int:
        return len(self._starts) - 1

    def at(self, place: int) -> str:
        """Return the name at a place."""
        return self._text[self._starts[place] : self._starts[place + 1]].decode(errors="surrogatepass")

    def find(self, name: str) -> int | None:
        """Return the place of a name."""
        # Text in UTF-8 sorts as its bytes do, so no name is decoded; a memoryview gives plain numbers.
        wanted, text, starts = name.encode(errors="surrogatepass"), self._text, self._starts.data
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if text[starts[middle] : starts[middle + 1]] < wanted:
                low = middle + 1
            else:
                high = middle
        found = low < len(self) and text[starts[low] : starts[low + 1]] == wanted
        return low if found else None


class Some(Names):
    """Some of other names.

    Args:
        names: the others.
        places: the places of those that are meant among them, ascending.
    """

    def __init__(self, names: Names, places: NDArray[np.integer[Any]]) -> None:
        self._names = names
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def at(self, place: int) -> str:
        """Return the name at a place."""
        return self._names.at(int(self._places[place]))

    def find(self, name: str) -> int | None:
        """Return the place of a name."""
        among = self._names.find(name)
        if among is None:
            return None
        place = int(np.searchsorted(self._places, among))
        return place if place < len(self) and self._places[place] == among else None
