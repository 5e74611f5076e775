"""Memory that several processes see: arrays cross from one to another with one copy, and sums with none.

Python's `multiprocessing.shared_memory` is not used: its blocks have names, which outlive a process that is killed,
and lie in /dev/shm, which containers keep small. The files here have no name, and end with the last who holds them.
"""

import mmap
import os

# What is packed here is read by processes that this one has started itself, over pipes that no other can write to.
import pickle  # noqa: TID251
import struct
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.reduction import DupFd
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

# Arrays begin on a cache line; smaller ones than eight of them are cheaper to send along.
_ALIGNMENT = 64
_SMALL = 512
_FIRST_BYTES = 1 << 20


class Parcel(NamedTuple):
    """A value on its way to another process.

    Args:
        small: the value without its larger arrays.
        places: where in the shared memory each of these is: its offset, its bytes, and whether it lives there.
    """

    small: bytes
    places: list[tuple[int, int, bool]]


class SharedMemory:
    """Memory into which one process packs values and out of which others unpack them; it grows as needed.

    It is shared with processes that are forked from this one, or given it as they start.

    Args:
        file: the descriptor of another's memory; None for one of its own.
    """

    def __init__(self, file: int | None = None) -> None:
        self._file = _nameless_file() if file is None else file
        self._bytes: NDArray[np.uint8] = np.empty(0, np.uint8)
        self._used = 0
        # By their addresses; kept, so that no other array can come to have one of these.
        self._residents: dict[int, tuple[int, NDArray[Any]]] = {}

    def clear(self) -> None:
        """Let all that was packed and allocated be overwritten."""
        self._used = 0
        self._residents.clear()

    def array(self, size: int, dtype: DTypeLike) -> NDArray[Any]:
        """Return an array that lives in the memory, as it happens to be filled; packing it copies nothing."""
        itemsize = np.dtype(dtype).itemsize
        offset = self._allocate(size * itemsize)
        array = self._bytes[offset : offset + size * itemsize].view(dtype)
        self._residents[_address(array)] = offset, array
        return array

    def pack(self, value: Any) -> Parcel:
        """Copy a value's arrays into the memory and return how it is found there.

        Raises:
            Exception: of any kind, where the value holds something that cannot be sent.
        """
        places: list[tuple[int, int, bool]] = []

        def goes_along(buffer: pickle.PickleBuffer) -> bool:
            raw = buffer.raw()
            if not raw.nbytes:
                return True
            source = np.frombuffer(raw, np.uint8)
            resident = self._residents.get(_address(source))
            if resident is not None:
                places.append((resident[0], source.size, True))
                return False
            if source.size < _SMALL:
                return True
            offset = self._allocate(source.size)
            self._bytes[offset : offset + source.size] = source
            places.append((offset, source.size, False))
            return False

        small = pickle.dumps(value, protocol=5, buffer_callback=goes_along)
        return Parcel(small, places)

    def unpack(self, parcel: Parcel, own: bool = False) -> Any:
        """Return a value that was packed in this process or another.

        Args:
            parcel: what `pack` returned.
            own: copy its arrays, but for those that live in the memory; else all of them are views of it.
        """
        self._reach(max((offset + size for offset, size, _ in parcel.places), default=0))
        arrays = []
        for offset, size, resident in parcel.places:
            array = self._bytes[offset : offset + size]
            if own and not resident:
                array = _aligned_copy(array)
            arrays.append(array)
        return pickle.loads(parcel.small, buffers=arrays)  # noqa: S301

    def close(self) -> None:
        """Give the memory back, as soon as nobody has an array in it any more."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            self._bytes = np.empty(0, np.uint8)
            self.clear()

    def __del__(self) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened, (DupFd(self._file),)

    def _allocate(self, nbytes: int) -> int:
        offset = -(-self._used // _ALIGNMENT) * _ALIGNMENT
        self._used = offset + nbytes
        self._reach(self._used)
        return offset

    def _reach(self, stop: int) -> None:
        """Map the file up to here; arrays in an earlier mapping stay in it, and see the same bytes."""
        if stop <= self._bytes.size:
            return
        if os.fstat(self._file).st_size < stop:
            os.ftruncate(self._file, max(stop, 2 * self._bytes.size, _FIRST_BYTES))
        self._bytes = np.frombuffer(mmap.mmap(self._file, 0), np.uint8)


class Queue:
    """Ranges of a list that processes take in turn, each range once: a pipe, which the system hands out in order.

    A process that is killed takes no lock with it.
    """

    _RANGE = struct.Struct("=II")
    # So many have room in a pipe, but for one that a short system gives less.
    MOST = 4096

    def __init__(self) -> None:
        self._reader, self._writer = Pipe(duplex=False)
        for end in (self._reader, self._writer):
            os.set_blocking(end.fileno(), False)

    def put(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Add ranges at the end: the first of them, as far as there is room."""
        with suppress(BlockingIOError):
            os.write(self._writer.fileno(), b"".join(self._RANGE.pack(*each) for each in ranges))

    def take(self) -> tuple[int, int] | None:
        """Take the first range; None when there are no more."""
        try:
            data = os.read(self._reader.fileno(), self._RANGE.size)
        except BlockingIOError:
            return None
        return self._RANGE.unpack(data) if data else None

    def clear(self) -> None:
        """Take all that are left."""
        while self.take():
            pass

    def close(self) -> None:
        """Give the pipe back."""
        self._reader.close()
        self._writer.close()


# What a value may raise that cannot be sent to another process.
UNSENDABLE = (pickle.PicklingError, TypeError, AttributeError)


def received(value: Any) -> Any:
    """Return a value as another process would receive it.

    Raises:
        Exception: of any kind, where the value cannot be sent.
    """
    return pickle.loads(pickle.dumps(value))  # noqa: S301


def _nameless_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("fedpact")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _opened(file: Any) -> SharedMemory:
    return SharedMemory(file.detach())


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


def _aligned_copy(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    room = np.empty(array.size + _ALIGNMENT, np.uint8)
    start = -_address(room) % _ALIGNMENT
    copy = room[start : start + array.size]
    copy[:] = array
    return copy
