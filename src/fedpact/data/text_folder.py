"""Rows of a folder of text files: each file a row, its folder the label."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fedpact.core.errors import ConfigError, DataError
from fedpact.core.settings import check_texts
from fedpact.data.folders import class_of, files_in

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class TextFolder:
    """The text files of a folder: `fp.client("lyon", fp.TextFolder("letters"), label="folder")`.

    Its columns are "text", the whole of a file; "folder", the name of the folder that it is in, which is meant to be
    the label: "positive" of letters/positive/2024/17.txt; and "file", its path in the whole folder, where asked for.
    Rows are in order of their paths, on every system. Names that begin with a dot are left out, and links followed. A
    mark of byte order is left out of a text, and its lines end in a line feed.

    Args:
        folder: where the files are, at any depth.
        label: "folder" for the column of labels, or None where there are none.
        encoding: of the files, as Python names it.
        pattern: what the files are called, such as "*.txt" or "report-??.md".
        files: whether there is a column "file", for `fp.splits` and `fp.DropDuplicates` to go by; no model should.

    Raises:
        ConfigError: there is no such encoding, or no pattern.
    """

    folder: str | os.PathLike[str]
    label: Literal["folder"] | None = "folder"
    encoding: str = "utf-8"
    pattern: str = "*.txt"
    files: bool = False

    def __post_init__(self) -> None:
        check_texts(self, "encoding", "pattern")
        if self.label not in ("folder", None):
            raise ConfigError(
                f'TextFolder: label is {self.label!r}; it must be "folder", for the name of the folder that a file is '
                "in, or None."
            )
        try:
            "".encode(self.encoding)
        except (LookupError, ValueError):
            raise ConfigError(
                f'TextFolder: there is no encoding "{self.encoding}"; "utf-8" and "cp1252" are usual.'
            ) from None
        if not self.pattern or "/" in self.pattern:
            raise ConfigError(
                f'TextFolder: pattern is "{self.pattern}"; it must be of a file\'s name alone, such as "*.txt".'
            )

    def table(self, whose: str) -> pd.DataFrame:
        """Return all rows.

        Raises:
            DataError: no such folder or file, a file in no folder of a class, or one that is not in this encoding.
        """
        return self._read(whose, self._found(whose))

    def chunks(self, whose: str, rows: int) -> Iterator[pd.DataFrame]:
        """Yield the same rows, so many at a time.

        Raises:
            DataError: as `table`.
        """
        found = self._found(whose)
        for start in range(0, len(found), rows):
            yield self._read(whose, found[start : start + rows])

    def _found(self, whose: str) -> list[str]:
        return files_in(
            whose, Path(self.folder), lambda name: fnmatchcase(name, self.pattern), f'files "{self.pattern}"'
        )

    def _read(self, whose: str, files: list[str]) -> pd.DataFrame:
        import pandas as pd

        columns = {"text": [self._text(whose, file) for file in files]}
        if self.label is not None:
            columns["folder"] = [class_of(whose, Path(self.folder), file) for file in files]
        if self.files:
            columns["file"] = files
        return pd.DataFrame(columns)

    def _text(self, whose: str, file: str) -> str:
        path = Path(self.folder) / file
        try:
            return path.read_text(encoding=self.encoding).removeprefix("\ufeff")
        except UnicodeError as error:
            where = f", at byte {error.start + 1}" if isinstance(error, UnicodeDecodeError) else ""
            raise DataError(
                f'{whose}: {path} is not text in the encoding "{self.encoding}"{where}; give the right one in encoding.'
            ) from error
        except OSError as error:
            raise DataError(f"{whose}: {path} cannot be read: {error.strerror}.") from error
