"""A file of slots of one size, each written and read as a whole; whoever writes one keeps its place and checksum."""

import os
import secrets
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import CheckpointError, FedpactError
from fedpact.store.files import cannot, write_atomically

Bytes = NDArray[np.uint8]

_MAGIC = b"Fedpact slots 1\n"
_PAGE = 4096
_LINE = 64


class SlotFile:
    """A file of slots, numbered from 0; behind a page that says what it is.

    It is read and written by offset and not mapped into memory: a full disk, or a file cut short, is then an error
    and not a signal that ends the process, and none of its pages count as memory of the process. Any process may
    read it, one that this was forked to or sent to as well; one process writes.

    Args:
        path: where it is.
        nbytes: the size of a slot.
        identity: what tells it from other files that were there before.
    """

    def __init__(self, path: Path, nbytes: int, identity: str) -> None:
        self.path = path
        self.nbytes = nbytes
        self.identity = identity
        # Large slots begin at a page each, so that to write one never means to read a part of its neighbour first.
        unit = _PAGE if nbytes >= 8 * _PAGE else _LINE
        self._stride = -(-nbytes // unit) * unit
        self._descriptors: dict[int, int] = {}

    @classmethod
    def create(cls, path: Path, nbytes: int) -> "SlotFile":
        """Return a new file, which takes the place of an older one.

        Raises:
            FedpactError: it cannot be written, or what is there is no such file.
        """
        file = cls(path, nbytes, secrets.token_hex(16))
        try:
            if path.exists() and _start(path, len(_MAGIC)) != _MAGIC:
                raise FedpactError(
                    f'"{path}" is there already, and it is no file of slots; choose another path.'
                )
        except OSError as error:
            raise cannot("write", path, error) from error
        write_atomically(path, file._description())
        return file

    @classmethod
    def open(cls, path: Path, nbytes: int, identity: str) -> "SlotFile":
        """Return the file that `create` made with this identity.

        Raises:
            CheckpointError: it is missing, another one, or damaged.
        """
        file = cls(path, nbytes, identity)
        try:
            start = _start(path, _PAGE)
        except OSError as error:
            raise _unreadable(path, error) from None
        if not start.startswith(_MAGIC):
            raise CheckpointError(f'"{path}" is no file of slots, or no longer.')
        if start != file._description():
            raise CheckpointError(
                f'"{path}" is that of another run, or of another start of this one: restore the one that belongs to '
                "the checkpoint, or start the run anew in another folder."
            )
        return file

    def check_length(self, slots: int) -> None:
        """Check that the file is long enough for so many slots.

        Raises:
            CheckpointError: it is truncated, or cannot be read.
        """
        needed = self._offset(slots - 1) + self.nbytes if slots and self.nbytes else _PAGE
        try:
            size = os.stat(self.path).st_size
        except OSError as error:
            raise _unreadable(self.path, error) from None
        if size < needed:
            raise CheckpointError(f'"{self.path}" is truncated: it has {size} of {needed} bytes.')

    def write(self, slot: int, parts: Sequence[Bytes]) -> int:
        """Write a slot and return its checksum. On the disk it is after `sync`.

        Raises:
            FedpactError: the file cannot be written; the slot may hold anything then.
        """
        offset, checksum = self._offset(slot), 0
        try:
            descriptor = self._descriptor(os.O_RDWR)
            for part in parts:
                left = part.data
                checksum = zlib.crc32(left, checksum)
                while left:
                    written = os.pwrite(descriptor, left, offset)
                    offset, left = offset + written, left[written:]
        except OSError as error:
            raise cannot("write", self.path, error) from error
        return checksum

    def read(self, slot: int, parts: Sequence[Bytes]) -> int:
        """Fill the parts from a slot and return its checksum, which is up to the caller to compare.

        Raises:
            CheckpointError: the file cannot be read, or ends before the slot does.
        """
        offset, checksum = self._offset(slot), 0
        try:
            descriptor = self._descriptor(os.O_RDONLY)
            for part in parts:
                left = part.data
                # Of more than 2 GiB, the system reads and writes a part at a time.
                while left:
                    count = os.preadv(descriptor, [left], offset)
                    if not count:
                        raise CheckpointError(f'"{self.path}" is truncated: it ends at byte {offset}.')
                    offset, left = offset + count, left[count:]
                checksum = zlib.crc32(part.data, checksum)
        except OSError as error:
            raise _unreadable(self.path, error) from None
        return checksum

    def sync(self) -> None:
        """Return when all that was written is on the disk.

        Raises:
            FedpactError: it cannot be written.
        """
        try:
            os.fsync(self._descriptor(os.O_RDWR))
        except OSError as error:
            raise cannot("write", self.path, error) from error

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_descriptors": {}}

    def __del__(self) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)

    def _offset(self, slot: int) -> int:
        return _PAGE + slot * self._stride

    def _descriptor(self, access: int) -> int:
        # Opened for writing only when something is written: states may be read where nothing can be written.
        if access not in self._descriptors:
            self._descriptors[access] = os.open(self.path, access | os.O_CLOEXEC)
        return self._descriptors[access]

    def _description(self) -> bytes:
        return (_MAGIC + f"{self.identity}\n{self.nbytes} bytes a slot\n".encode()).ljust(_PAGE, b"\0")


def _start(path: Path, nbytes: int) -> bytes:
    with open(path, "rb") as file:
        return file.read(nbytes)


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    return CheckpointError(f'"{path}" cannot be read: {error.strerror or error}.')
