"""Records that are appended to one file, of which a checkpoint holds no more than the length and the digest."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from fedpact.core.errors import CheckpointError
from fedpact.store.files import cannot, write_atomically

_CHUNK = 1 << 20


class Position(TypedDict):
    """How far a file of records goes: so many records in so many bytes, and the SHA-256 of these in hex."""

    count: int
    nbytes: int
    sha256: str


class Records:
    """A file of records, one JSON object a line; to append one takes the same time however many there are.

    A record maps names to what JSON holds, and numbers may be NaN or infinite, as Python's json spells them. What
    was there before is replaced when the first record is appended, unless `cut` takes it up.

    Args:
        path: where the file is; made when the first record is appended.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._count = 0
        self._nbytes = 0
        self._digest = hashlib.sha256()
        self._begun = False
        self._synced = True

    def __len__(self) -> int:
        return self._count

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Append records; they are on the disk when `position` has returned.

        Raises:
            CheckpointError: a record holds what JSON cannot hold.
            FedpactError: the file cannot be written; it then holds what it did before.
        """
        lines = [_line(record) for record in records]
        data = b"".join(lines)
        if not data:
            return
        try:
            if not self._begun:
                write_atomically(self.path, b"")
                self._begun = True
            self._synced = False
            self._write(data)
        except OSError as error:
            raise cannot("write", self.path, error) from error
        self._digest.update(data)
        self._nbytes += len(data)
        self._count += len(lines)

    def position(self) -> Position:
        """Return how far the file goes, when all up to there is on the disk.

        Raises:
            FedpactError: the file cannot be written.
        """
        if not self._synced:
            try:
                with open(self.path, "rb") as file:
                    os.fsync(file.fileno())
            except OSError as error:
                raise cannot("write", self.path, error) from error
            self._synced = True
        return {"count": self._count, "nbytes": self._nbytes, "sha256": self._digest.copy().hexdigest()}

    def cut(self, position: Position) -> None:
        """Take up the file as it was at this position: what was appended since is removed.

        Raises:
            CheckpointError: the file is missing or shorter, or does not hold what it did then.
            FedpactError: the file cannot be written.
        """
        count, nbytes, digest = position["count"], position["nbytes"], hashlib.sha256()
        if nbytes:
            for chunk in self._chunks(nbytes):
                digest.update(chunk)
            if digest.hexdigest() != position["sha256"]:
                raise CheckpointError(
                    f'"{self.path}" is damaged: its first {count} records do not have the SHA-256 that the checkpoint '
                    "has of them. Restore the file, or start the run anew in another folder."
                )
            try:
                os.truncate(self.path, nbytes)
            except OSError as error:
                raise cannot("write", self.path, error) from error
        self._count, self._nbytes, self._digest = count, nbytes, digest
        self._begun, self._synced = nbytes > 0, True

    def read(self) -> Iterator[dict[str, Any]]:
        """Iterate over the records, in the order in which they were appended.

        Raises:
            CheckpointError: the file is missing or shorter than it was, or holds what is no record.
        """
        left = b""
        for chunk in self._chunks(self._nbytes):
            *lines, left = (left + chunk).split(b"\n")
            for line in lines:
                try:
                    yield json.loads(line)
                except ValueError:
                    raise CheckpointError(f'"{self.path}" is damaged: a line of it is no JSON.') from None

    def _write(self, data: bytes) -> None:
        # At its place instead of at the end: a part that did not fit on the disk may lie there.
        with open(self.path, "r+b", buffering=0) as file:
            file.seek(self._nbytes)
            view = memoryview(data)
            try:
                while view:
                    view = view[file.write(view) :]
            except OSError:
                with suppress(OSError):
                    file.truncate(self._nbytes)
                raise

    def _chunks(self, nbytes: int) -> Iterator[bytes]:
        if not nbytes:
            return
        left = nbytes
        try:
            with open(self.path, "rb") as file:
                while left and (chunk := file.read(min(left, _CHUNK))):
                    left -= len(chunk)
                    yield chunk
        except OSError as error:
            raise CheckpointError(f'"{self.path}" cannot be read: {error.strerror or error}.') from None
        if left:
            raise CheckpointError(
                f'"{self.path}" is truncated: it has {nbytes - left} bytes, and the checkpoint counts on {nbytes}.'
            )


def _line(record: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(dict(record), default=_plain, ensure_ascii=False, separators=(",", ":"))
        return text.encode(errors="surrogatepass") + b"\n"
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"a record cannot be written down: {error}.") from None


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is nothing that JSON holds")
