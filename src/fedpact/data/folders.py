"""The files of a folder, and what their folders call them, in an order that no file system decides."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

from fedpact.core.errors import DataError, suggest


def files_in(whose: str, folder: Path, wanted: Callable[[str], bool], what: str) -> list[str]:
    """Return the paths of the files that are wanted, at any depth, relative to the folder, with "/", in order.

    The order is that of code points, folder by folder. Names that begin with a dot are left out; links are followed.

    Args:
        whose: in whose name errors speak.
        folder: where they are.
        wanted: by a file's name, whether it is one.
        what: what they are called, for the message where there are none.

    Raises:
        DataError: no such folder, one that cannot be read, or none of these files in it.
    """
    if not folder.is_dir():
        siblings = [each.name for each in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise DataError(f"{whose}: there is no folder {folder.absolute()}.{suggest(folder.name, siblings)}")
    try:
        found = [path for path in _walk(folder, "", frozenset()) if wanted(path.rpartition("/")[2])]
    except OSError as error:
        raise DataError(f"{whose}: {error.filename} cannot be read: {error.strerror}.") from error
    if not found:
        raise DataError(f"{whose} has no rows: there are no {what} in {folder.absolute()}.")
    return sorted(found, key=lambda path: path.split("/"))


def class_of(whose: str, folder: Path, file: str) -> str:
    """Return the name of the folder that a file's class is given by: the first below the whole folder.

    Raises:
        DataError: the file lies in none.
    """
    name, _, inner = file.partition("/")
    if not inner:
        raise DataError(
            f"{whose}: {folder / file} lies in no folder of a class; move it to one, such as {folder / 'positive'}."
        )
    # Systems spell an accented letter in two ways, and clients' classes are compared.
    return unicodedata.normalize("NFC", name)


def _walk(folder: Path, before: str, above: frozenset[str]) -> Iterator[str]:
    place = os.path.realpath(folder)
    if place in above:
        # A link to a folder that it is in.
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _walk(Path(entry.path), f"{before}{entry.name}/", above | {place})
            elif entry.is_file():
                yield before + entry.name
