"""Temporary files without a name: frames on their way, and arrays that are larger than memory.

They are in the folder for temporary files (the environment variable TMPDIR), and gone when nobody has them open any
more, also after a crash.
"""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"a temporary file in {tempfile.gettempdir()} cannot be written: {error.strerror or error}. Make room "
            "there, or name a folder with more in the environment variable TMPDIR."
        ) from error


def _temporary_file() -> IO[bytes]:
    with _room():
        return tempfile.TemporaryFile(prefix="fedpact-")


def _close(file: IO[bytes]) -> None:
    # What a full disk did not take is tried once more, and nobody waits for it.
    with suppress(OSError):
        file.close()


class Spool:
    """Frames in a file.

    Raises:
        DataError: there is no room for it.
    """

    def __init__(self) -> None:
        self._file = _temporary_file()
        finalize(self, _close, self._file)
        self._ends = [0]

    def add(self, frame: pd.DataFrame) -> None:
        """Write a frame behind the others."""
        import pyarrow as pa

        table = pa.Table.from_pandas(frame, preserve_index=False)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        with _room():
            self._file.write(sink.getvalue())
            self._file.flush()
            self._ends.append(self._file.tell())

    def frames(self) -> Iterator[pd.DataFrame]:
        """Yield the frames."""
        import pyarrow as pa

        for start, end in zip(self._ends, self._ends[1:], strict=False):
            stream = pa.ipc.open_stream(pa.py_buffer(self._read(start, end - start)))
            yield stream.read_all().to_pandas(split_blocks=True)

    def _read(self, start: int, size: int) -> bytes:
        if not hasattr(os, "pread"):
            self._file.seek(start)
            return self._file.read(size)
        parts = []
        while size:
            # Not by the place at which the file is read, which forked processes share.
            part = os.pread(self._file.fileno(), size, start)
            parts.append(part)
            start, size = start + len(part), size - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


class ArrayFile:
    """An array [n, ...] that is written part by part, and then mapped from its file: it is read where it is touched.

    Raises:
        DataError: there is no room for it.
    """

    def __init__(self) -> None:
        self._file = _temporary_file()
        finalize(self, _close, self._file)
        self._dtype: np.dtype[Any] = np.dtype(np.float64)
        self._shape: tuple[int, ...] = ()
        self._rows = 0

    def add(self, part: NDArray[Any]) -> None:
        """Write rows behind the others; all parts have one dtype, and rows of one shape."""
        self._dtype, self._shape = part.dtype, part.shape[1:]
        with _room():
            self._file.write(np.ascontiguousarray(part).data)
            self._rows += len(part)

    def mapped(self) -> NDArray[Any]:
        """Return the array. What is written to it stays in this process, and is in memory."""
        with _room():
            self._file.flush()
        shape = (self._rows, *self._shape)
        if 0 in shape:
            return np.empty(shape, self._dtype)
        return np.frombuffer(_private(self._file), self._dtype).reshape(shape)


def _private(file: IO[bytes]) -> mmap.mmap:
    # One that cannot be written to would be copied by torch, and without NORESERVE (which Python knows from 3.13 on)
    # Linux maps no more than would fit into memory.
    if sys.platform == "win32":
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    flags = mmap.MAP_PRIVATE | (0x4000 if sys.platform == "linux" else 0)
    return mmap.mmap(file.fileno(), 0, flags, mmap.PROT_READ | mmap.PROT_WRITE)
