"""Files that are complete or not there: written beside their place, forced to disk, then renamed over it."""

import errno
import fcntl
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fedpact.core.errors import ConfigError, FedpactError

Chunk = bytes | memoryview

_PREFIX, _SUFFIX = ".fedpact-", ".tmp"
_REASONS = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder",
    errno.EFBIG: "the file would be larger than is allowed here",
    errno.EACCES: "this is not permitted; choose a folder that you may write to",
    errno.EPERM: "this is not permitted; choose a folder that you may write to",
    errno.EROFS: "the disk is read-only; choose another folder",
    errno.ENOENT: "its folder does not exist; create it first",
    errno.ENOTDIR: "its folder is a file; choose another folder",
    errno.EEXIST: "there is a file where its folder should be; choose another folder",
    errno.EISDIR: "there is a folder of that name; choose another name",
}


def write_atomically(path: str | Path, chunks: Chunk | Iterable[Chunk]) -> None:
    """Write a file so that its place holds the old file or the new, whatever kills the process and when.

    When this returns, file and name are on the disk. On an error the old file is untouched and nothing is
    left beside it.

    Raises:
        FedpactError: the file cannot be written; it says why.
    """
    path = Path(path)
    try:
        temporary, descriptor = _create(path.parent)
        try:
            with open(descriptor, "wb") as file:
                for chunk in [chunks] if isinstance(chunks, bytes | memoryview) else chunks:
                    file.write(chunk)
                file.flush()
                os.fsync(descriptor)
                os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise cannot("write", path, error) from error


def remove_leftovers(folder: str | Path) -> None:
    """Remove what processes that were killed while they wrote into this folder have left there.

    A file that a living process is writing stays, as does every file that is not ours. What cannot be
    removed stays too: it is in nobody's way.
    """
    for path in Path(folder).glob(f"{_PREFIX}{'[0-9a-f]' * 16}{_SUFFIX}"):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            # Its writer holds this lock for as long as it lives; a number of a process would tell less, since
            # in a container every process may have the same one.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        except OSError:
            continue
        finally:
            os.close(descriptor)


# The descriptors of the locks that this process holds.
_held: set[int] = set()


def _let_go_in_a_child() -> None:
    # A lock is held as long as any process has its descriptor open: a worker must not outlive its parent's lock.
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go_in_a_child)


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Hold a folder against other processes; the lock ends with the process, however it ends.

    Raises:
        ConfigError: another process holds it.
        FedpactError: the folder cannot be opened.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise cannot("open", folder, error) from error
    _held.add(descriptor)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f'another process is at work in "{folder}": wait until it has ended, or choose another folder.'
            ) from None
        except OSError:
            # A file system without locks.
            pass
        yield
    finally:
        if descriptor in _held:
            _held.remove(descriptor)
            os.close(descriptor)


def cannot(do: str, path: str | Path, error: OSError) -> FedpactError:
    """Return the error that says why "do" ("write", "delete") was not possible with this file."""
    reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
    return FedpactError(f'cannot {do} "{path}": {reason}.')


def _create(folder: Path) -> tuple[Path, int]:
    while True:
        path = folder / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        if _claim(descriptor):
            return path, descriptor
        os.close(descriptor)


def _claim(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # A file system without locks: there `remove_leftovers` gets none either and removes nothing.
        return True
    # `remove_leftovers` may have come between the creation and the lock.
    return os.fstat(descriptor).st_nlink > 0


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
