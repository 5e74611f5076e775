"""Published files: found in the user's data folder or the cache, or downloaded, and checked by SHA-256."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fedpact.core.errors import DataError

TIMEOUT_S = 30.0
_BLOCK_BYTES = 1 << 16


@dataclass(frozen=True)
class RemoteFile:
    """A file as its publisher released it.

    Args:
        name: its name in the data set's folder.
        sha256: of its bytes, in hex.
        size_bytes: of the file.
        urls: where it can be had, tried in this order.
    """

    name: str
    sha256: str
    size_bytes: int
    urls: tuple[str, ...]


def data_folder() -> Path | None:
    """Return the user's folder of data sets, which the environment variable FEDPACT_DATA names, or None.

    Raises:
        DataError: FEDPACT_DATA names something that is no folder.
    """
    named = os.environ.get("FEDPACT_DATA")
    if not named:
        return None
    if not Path(named).is_dir():
        raise DataError(f'FEDPACT_DATA is "{named}", and there is no such folder: correct it or unset it.')
    return Path(named)


def cache_folder() -> Path:
    """Return the folder that downloads are kept in: fedpact under XDG_CACHE_HOME, or under ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fedpact"


def find(dataset: str, name: str) -> Path | None:
    """Return the path of a data set's file in the user's data folder or the cache, or None."""
    for folder in (data_folder(), cache_folder()):
        if folder is not None and (folder / dataset / name).is_file():
            return folder / dataset / name
    return None


def fetch(dataset: str, file: RemoteFile) -> Path:
    """Return the path of a published file, downloaded to the cache if it is not on this machine yet.

    Args:
        dataset: the data set's folder, under the user's data folder and under the cache.
        file: what to look for.

    Raises:
        DataError: the user's copy is not the published file, or the file can be had nowhere.
    """
    users = data_folder()
    if users is not None and (users / dataset / file.name).is_file():
        return _checked_copy(users / dataset / file.name, file)
    cached = cache_folder() / dataset / file.name
    if not (cached.is_file() and _sha256(cached) == file.sha256):
        _download(file, cached)
    return cached


def _checked_copy(path: Path, file: RemoteFile) -> Path:
    if _sha256(path) != file.sha256:
        raise DataError(
            f"{path} is not the published file (its SHA-256 is {_sha256(path)}, the published one's "
            f"{file.sha256}): replace it by a copy of {file.urls[0]}, or move it away to have it downloaded."
        )
    return path


def _download(file: RemoteFile, path: Path) -> None:
    from http.client import HTTPException

    failures = []
    for url in file.urls:
        try:
            with _whole_or_nothing(path) as (target, partial):
                _copy(url, file, target)
                target.flush()
                found = _sha256(partial)
                if found != file.sha256:
                    raise _MismatchError(f"what came has SHA-256 {found}, not {file.sha256}")
            return
        except (OSError, HTTPException, _MismatchError) as error:
            failures.append(f"{url}: {error}")
    raise DataError(
        f"Could not download {file.name} ({'; '.join(failures)}). On a machine without a network, bring the "
        f"file from elsewhere to {path}, or set FEDPACT_DATA to a folder that holds "
        f"{path.parent.name}/{file.name}."
    )


class _MismatchError(Exception):
    """The bytes that came are not the published ones."""


@contextmanager
def _whole_or_nothing(path: Path) -> Iterator[tuple[IO[bytes], Path]]:
    """Open a neighbour of `path` that takes its name only if the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    partial = Path(name)
    try:
        with os.fdopen(handle, "wb") as target:
            yield target, partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _copy(url: str, file: RemoteFile, target: IO[bytes]) -> None:
    from urllib.request import urlopen

    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with (
        Progress(console=console, transient=True, disable=not console.is_terminal) as progress,
        urlopen(url, timeout=TIMEOUT_S) as response,
    ):
        bar = progress.add_task(file.name, total=file.size_bytes)
        received = 0
        while block := response.read(_BLOCK_BYTES):
            received += len(block)
            if received > file.size_bytes:
                raise _MismatchError(f"more came than the {file.size_bytes:,} bytes of the published file")
            target.write(block)
            progress.update(bar, completed=received)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
