"""Clients in a folder: a file each, named after the client."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fedpact.core.errors import ConfigError, DataError
from fedpact.core.rows import ClientData
from fedpact.data.populations.describe import standing_for_all
from fedpact.data.populations.names import Listed, Names, Some
from fedpact.data.read import client as read_client

_TABLES = (".csv", ".csv.gz", ".data", ".data.gz", ".tsv", ".tsv.gz", ".parquet", ".pq")
_ARRAYS = ".npz"
_UNKNOWN = -1


class Folder:
    """A population of files: `lyon.csv` is the client "lyon", read as `fp.client` reads it.

    A table's columns are its features but for the label's; an .npz file holds arrays x and y. Files with other
    endings are left alone. A number of rows is read once, from a file's header where that says it.

    Args:
        path: the folder.
        label: the column of the labels, where the files are tables.
        test: the share of each client's rows that become its test rows; or a folder that holds the test rows of
            some clients, in files of the same names.
        seed: picks the test rows.
        stratify: keep each class's share.
        columns: the feature columns to keep, in this order; all by default. Tables only.
        text: columns to read as text although they look like numbers. Tables only.
        names: the columns' names, for text files without a line of names.
        classes: the classes of the labels, () where these are numbers to predict. With them, a run without
            preprocessing starts without reading every file; columns are taken to be those of the first client.

    Raises:
        DataError: no such folder, no file in it that can be read, or test rows of a client that is not there.
        ConfigError: two files of one client, or a share outside [0, 1).
    """

    reads_files = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        label: str | None = None,
        *,
        test: float | str | os.PathLike[str] = 0.0,
        seed: int = 0,
        stratify: bool = True,
        columns: Sequence[str] | None = None,
        text: Collection[str] = (),
        names: Sequence[str] | None = None,
        classes: Sequence[Any] | None = None,
    ) -> None:
        self._how: dict[str, Any] = {"seed": seed, "stratify": stratify}
        self._as_table: dict[str, Any] = {"label": label, "columns": columns, "text": text, "names": names}
        self._anew = partial(Folder, path, test=test, classes=classes, **self._how, **self._as_table)
        self._files = _Files(Path(path))
        self._test_files = None if isinstance(test, (int, float)) else _Files(Path(test))
        self._share = float(test) if isinstance(test, (int, float)) else 0.0
        if not 0 <= self._share < 1:
            raise ConfigError(
                f"test is {test}; give a share of each client's rows from 0 to below 1, or a folder."
            )
        for name in self._test_files.names if self._test_files else ():
            if name not in self._files.names:
                raise DataError(
                    f'there are test rows of a client "{name}" in {test}, and none to train on in {path}.'
                )
        self._classes = classes
        # 8 bytes for each client, filled in as files are read.
        self._sizes = np.full(len(self._files.names), _UNKNOWN, np.int64)
        said = {"label": label, "columns": columns and list(columns), "text": sorted(text), "names": names}
        drawn = self._how if self._share else {}
        self.reads: dict[str, Any] = {
            "folder": os.fspath(path),
            **{name: value for name, value in said.items() if value},
            "test": test if isinstance(test, (int, float)) else os.fspath(test),
            **drawn,
            **({} if classes is None else {"classes": list(classes)}),
        }

    def ids(self, round: int) -> Sequence[str]:
        """Return the names of all clients."""
        return self._files.names

    def tested(self, round: int) -> Sequence[str]:
        """Return the names of the clients that may hold test rows."""
        if self._share:
            return self._files.names
        return self._test_files.names if self._test_files else Some(self._files.names, np.empty(0, np.int64))

    def load(self, id: str) -> ClientData:
        """Return a client's rows.

        Raises:
            DataError: there is no such client, or its file cannot be read.
        """
        place = self._files.names.place(id)
        path = self._files.path(place)
        as_table = self._as_table if path.suffix != _ARRAYS else {}
        client = read_client(id, _source(id, path), test=self._test_of(id), **self._how, **as_table)
        self._sizes[place] = len(client.train)
        return client

    def size(self, id: str) -> int:
        """Return a client's number of training rows.

        Raises:
            DataError: there is no such client, or its file cannot be read.
        """
        place = self._files.names.place(id)
        if self._sizes[place] == _UNKNOWN:
            told = None if self._share else _rows_told(self._files.path(place))
            self._sizes[place] = len(self.load(id).train) if told is None else told
        return int(self._sizes[place])

    def description(self) -> ClientData | None:
        """Return a client that stands for all, if the classes were declared."""
        if self._classes is None:
            return None
        return standing_for_all(self.load(self._files.names.at(0)), self._classes)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._anew, ()

    def _test_of(self, id: str) -> Any:
        if self._test_files is None:
            return self._share
        place = self._test_files.names.find(id)
        return 0.0 if place is None else _source(id, self._test_files.path(place))


class _Files:
    """The files of a folder by the names of their clients, whose endings are one byte each."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder.absolute()}.")
        self._folder = folder
        self._endings = (*_TABLES, _ARRAYS)
        found: list[str] = []
        endings: list[int] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                ending = next((e for e in self._endings if entry.name.endswith(e)), None)
                if ending is not None and entry.is_file():
                    found.append(entry.name[: -len(ending)])
                    endings.append(self._endings.index(ending))
        if not found:
            raise DataError(f"the folder {folder} has no file whose name ends in {', '.join(self._endings)}.")
        names, order = Listed.of(found)
        self.names: Names = names
        self._ending = np.array(endings, np.uint8) if order is None else np.array(endings, np.uint8)[order]

    def path(self, place: int) -> Path:
        return self._folder / (self.names.at(place) + self._endings[self._ending[place]])


def _source(id: str, path: Path) -> Any:
    if path.suffix != _ARRAYS:
        return path
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return arrays["x"], arrays["y"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f'client "{id}": {path} cannot be read as arrays x and y: {error}.') from error


def _rows_told(path: Path) -> int | None:
    """Return the number of rows that a file's header tells; None for a text file, or one that cannot be read."""
    try:
        if path.suffix in (".parquet", ".pq"):
            import pyarrow.parquet as pq

            return int(pq.read_metadata(path).num_rows)
        if path.suffix == _ARRAYS:
            with zipfile.ZipFile(path) as file, file.open("x.npy") as array:
                version = np.lib.format.read_magic(array)
                read = {
                    (1, 0): np.lib.format.read_array_header_1_0,
                    (2, 0): np.lib.format.read_array_header_2_0,
                }
                shape, _, _ = read[version](array)
                return int(shape[0])
    except (OSError, ValueError, KeyError, IndexError, zipfile.BadZipFile):
        # Whoever loads the file says what is wrong with it.
        return None
    return None
