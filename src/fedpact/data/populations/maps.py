"""Memory maps of files whose pages are handed back, so that a long run does not end up with all files in memory.

A page stays in the system's cache when it is handed back, and is there again at the next access. Without this, every
page that was ever read counts as memory of the process, and a page may be half a megabyte.
"""

import mmap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

# What is read before pages are handed back. However few its rows, a client counts as much as the system maps around
# a page that is asked for.
_MOST_BYTES = 8 << 20
_LEAST_BYTES_A_CLIENT = 128 << 10


class Maps:
    """The maps that clients' rows are read from.

    Args:
        maps: of files that are only read, or written back to.
    """

    def __init__(self, maps: Iterable[mmap.mmap] = ()) -> None:
        self._maps = tuple(maps)
        self._read = 0

    @classmethod
    def under(cls, *arrays: Any) -> "Maps":
        """Return the maps that these arrays are views of; arrays in memory have none."""
        found = [memmap_under(array) for array in arrays]
        bases: list[Any] = [None if each is None else each.base for each in found]
        return cls(base for base in bases if isinstance(base, mmap.mmap))

    @property
    def nbytes(self) -> int:
        """The size of all of them."""
        return sum(map(len, self._maps))

    def read(self, nbytes: int, clients: int = 1) -> None:
        """Note that so much is about to be read of so many clients; now and then, hand back what was read before."""
        if self._read >= _MOST_BYTES:
            self.hand_back()
        self._read += max(nbytes, clients * _LEAST_BYTES_A_CLIENT)

    def hand_back(self) -> None:
        """Hand back all pages; whoever holds views of them goes on reading them."""
        self._read = 0
        if hasattr(mmap, "MADV_DONTNEED"):
            for each in self._maps:
                each.madvise(mmap.MADV_DONTNEED)

    def __reduce__(self) -> tuple[Any, ...]:
        # In another process the arrays are copies in memory.
        return Maps, ()


def mapped(path: Path | str) -> mmap.mmap:
    """Return a file as a memory map that is only read.

    Raises:
        OSError, ValueError: it cannot be opened, or is empty.
    """
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def memmap_under(array: Any) -> "np.memmap[Any, Any] | None":
    """Return the memory map of a file that an array is a view of; None if it lies in memory.

    Changes to a copy-on-write map are in its pages alone, so that it is none of a file.
    """
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap):
            return None if array.mode == "c" else array
        array = array.base
    return None
