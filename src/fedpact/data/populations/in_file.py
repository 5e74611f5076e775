"""Arrays in memory-mapped files, read through the file and not through the map.

Pages of a map count as memory of the process until they are handed back, and to map them and hand them back takes
several times as long as to read the same bytes.
"""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import DataError
from fedpact.data.populations.maps import memmap_under

# Smaller arrays are read into memory as a whole.
_SMALL_BYTES = 32 << 20


class InFile:
    """Where an array lies in its file. Forked processes read it side by side.

    Args:
        path: the file.
        shift: from an address in the array to the place in the file.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str], shift: int) -> None:
        self._path = path
        self._shift = shift
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    @classmethod
    def of(cls, array: NDArray[Any]) -> "tuple[NDArray[Any], InFile | None]":
        """Return the array, and where it lies in a file, if it does; a small one in memory instead.

        An array whose parts do not lie together, or whose map keeps changes to itself, stays as it is.
        """
        mapped = memmap_under(array)
        path = None if mapped is None else mapped.filename
        if mapped is None or path is None or not array.flags.c_contiguous or not hasattr(os, "preadv"):
            return array, None
        if array.nbytes <= _SMALL_BYTES:
            return np.array(array), None
        try:
            return array, cls(path, mapped.offset - _address(mapped))
        except OSError:
            # The file has gone; its map is still there.
            return array, None

    def read(self, part: NDArray[Any], into: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return a copy of a contiguous part of the array.

        Args:
            part: a view of the array, whose elements are not looked at.
            into: where to write the copy; None for a new array.

        Raises:
            DataError: the file cannot be read, or has become shorter.
        """
        copy = np.empty(part.shape, part.dtype) if into is None else into
        left, place = copy.reshape(-1).view(np.uint8).data, _address(part) + self._shift
        while left:
            try:
                count = os.preadv(self._file, [left], place)
            except OSError as error:
                raise DataError(f"{self._path} cannot be read: {error.strerror}.") from error
            if not count:
                raise DataError(
                    f"{self._path} has become shorter since it was opened: it ends at byte {place}."
                )
            left, place = left[count:], place + count
        return copy

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def __reduce__(self) -> tuple[Any, ...]:
        # In another process the arrays are copies in memory.
        return _nowhere, ()


def _nowhere() -> None:
    return None


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])
