"""Readers of tables by chunk: a text file, a Parquet or Arrow file, a frame, or a source of tables."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fedpact.core.errors import ConfigError
from fedpact.data.chunk_types import SpeltColumn, TypedColumn, as_types
from fedpact.data.row_sources import TableSource
from fedpact.data.spool import Spool
from fedpact.data.tables import (
    Words,
    check_names,
    is_arrow,
    reading_text,
    reading_typed,
    separator_of,
    text_options,
)

if TYPE_CHECKING:
    import pandas as pd


class ChunkReader(Protocol):
    """A table that can be gone through from its first row to its last, time and again."""

    def begin(self) -> list[str]:
        """Go through the table, where that was not done yet, to find the types of its columns; return their names.

        Raises:
            DataError: it cannot be read, or a column mixes numbers and text.
        """
        ...

    def frames(self) -> Iterator[pd.DataFrame]:
        """Yield the rows by chunk, in order; a column has the same type in all of them, that of the whole table."""
        ...


def reader_of(
    whose: str, source: Any, rows: int, text: Collection[str] = (), names: Sequence[str] | None = None
) -> ChunkReader:
    """Return what reads a source of a table by chunk.

    Args:
        whose: in whose name errors speak.
        source: a path, a frame, or a source of tables.
        rows: of a chunk.
        text: columns of a text file to read as text although they look like numbers.
        names: the columns' names, for a text file without a line of names.

    Raises:
        DataError: there is no such file.
        ConfigError: it is no table.
    """
    import pandas as pd

    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        separator = separator_of(whose, path, names)
        if separator is None:
            return TypedReader(whose, path, rows)
        return TextReader(whose, path, separator, text, names, rows)
    if isinstance(source, pd.DataFrame | TableSource):
        return TypedReader(whose, source, rows)
    raise ConfigError(
        f"{whose}: only tables are read in chunks: a file, a DataFrame or a query; leave chunk_rows out."
    )


@dataclass
class TextReader:
    """A text file. It is parsed once, and what it holds is kept in a temporary file without a name.

    That takes as much room in the folder for temporary files as the table has as numbers, 8 bytes each, and text.

    Args:
        whose: in whose name errors speak.
        path: the file.
        separator: what parts its cells.
        text: columns to read as text although they look like numbers.
        names: the columns' names, for a file without a line of names.
        rows: of a chunk.
    """

    whose: str
    path: Path
    separator: str
    text: Collection[str]
    names: Sequence[str] | None
    rows: int
    _dtypes: dict[str, Any] = field(default_factory=dict)
    _read_as: dict[str, Any] = field(default_factory=dict)
    _kept: Spool | None = None

    def begin(self) -> list[str]:
        """Parse the file; again where a column that began as numbers goes on as text."""
        if self._kept is not None:
            return list(self._dtypes)
        with reading_text(self.whose, self.path):
            check_names(self.whose, self.path, self.separator, self.names)
        self._read_as = {**dict.fromkeys(self.text, str), **self._read_as}
        while True:
            kept, found, words = self._parsed()
            again = {name: column.must_be_read_as(self.whose) for name, column in found.items()}
            again = {name: dtype for name, dtype in again.items() if dtype is not None}
            if not again:
                break
            self._read_as |= again
        for name, count in words.items():
            if name not in self.text:
                count.check(self.whose, most=1 / 2)
        self._dtypes = {
            name: str if name in self.text else column.dtype(self.whose) for name, column in found.items()
        }
        # Last, so that a file which could not be read to its end is read again.
        self._kept = kept
        return list(self._dtypes)

    def frames(self) -> Iterator[pd.DataFrame]:
        """Yield the rows by chunk."""
        self.begin()
        for frame in self._kept.frames() if self._kept is not None else ():
            frame = as_types(frame, self._dtypes)
            for name, dtype in self._dtypes.items():
                # What is missing among booleans is NaN to pandas, and None once it was kept.
                if dtype == np.dtype(object):
                    frame[name] = frame[name].where(frame[name].notna(), np.nan)
            yield frame

    def __getstate__(self) -> dict[str, Any]:
        # Another process parses the file itself, in one go as it knows the types.
        return {**vars(self), "_kept": None}

    def _parsed(self) -> tuple[Spool, dict[str, SpeltColumn], dict[str, Words]]:
        import pandas as pd

        kept = Spool()
        found: dict[str, SpeltColumn] = {}
        words: dict[str, Words] = {}
        before = 0
        options = text_options(self.separator, self.names)
        with reading_text(self.whose, self.path):
            reader = pd.read_csv(self.path, dtype=self._read_as, chunksize=self.rows, **options)
        with reader:
            while True:
                with reading_text(self.whose, self.path):
                    frame = next(reader, None)
                if frame is None:
                    return kept, found, words
                frame = frame.reset_index(drop=True)
                for name in frame.columns:
                    found.setdefault(name, SpeltColumn(name)).note(frame[name])
                    words.setdefault(name, Words(name)).note_spelt(frame[name], before)
                before += len(frame)
                # Integers of any size fit no file; such a table is read again, or refused, once it is known whole.
                if not any("other" in column.kinds for column in found.values()):
                    kept.add(frame)


@dataclass
class TypedReader:
    """A table that comes with types, gone through once to find those of the whole, and again each time it is wanted.

    Args:
        whose: in whose name errors speak.
        source: a Parquet or Arrow file, a frame, or a source of tables, which has to give the same rows each time.
        rows: of a chunk.
    """

    whose: str
    source: Path | pd.DataFrame | TableSource
    rows: int
    _dtypes: dict[str, Any] = field(default_factory=dict)

    def begin(self) -> list[str]:
        """Find the types."""
        if self._dtypes:
            return list(self._dtypes)
        found: dict[str, TypedColumn] = {}
        for frame in self._raw():
            if not frame.columns.is_unique:
                return list(frame.columns)
            for name in frame.columns:
                found.setdefault(name, TypedColumn()).note(frame[name])
        self._dtypes = {name: column.dtype() for name, column in found.items()}
        return list(self._dtypes)

    def frames(self) -> Iterator[pd.DataFrame]:
        """Yield the rows by chunk."""
        self.begin()
        for frame in self._raw():
            yield as_types(frame, self._dtypes)

    def _raw(self) -> Iterator[pd.DataFrame]:
        import pandas as pd

        if isinstance(self.source, Path):
            with reading_typed(self.whose, self.source):
                # Columns of row numbers, which pandas writes, are no features.
                batches = _in_arrow if is_arrow(self.source) else _in_parquet
                for batch in batches(self.source, self.rows):
                    yield batch.to_pandas(split_blocks=True).reset_index(drop=True)
        elif isinstance(self.source, pd.DataFrame):
            # A table without rows is a chunk as well: its columns are there.
            for start in range(0, max(len(self.source), 1), self.rows):
                yield self.source.iloc[start : start + self.rows].reset_index(drop=True)
        else:
            for frame in self.source.chunks(self.whose, self.rows):
                yield frame.reset_index(drop=True)


def _in_parquet(path: Path, rows: int) -> Iterator[Any]:
    """Yield record batches, and an empty table of a file without rows: its columns are there."""
    from pyarrow import parquet

    with parquet.ParquetFile(path, pre_buffer=False) as file:
        yield from file.iter_batches(rows, use_threads=False)
        if not file.metadata.num_rows:
            yield file.schema_arrow.empty_table()


def _in_arrow(path: Path, rows: int) -> Iterator[Any]:
    """As `_in_parquet`; of the file only what is read is in memory."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as file:
        found = 0
        for place in range(file.num_record_batches):
            batch = file.get_batch(place)
            found += batch.num_rows
            yield from (batch.slice(start, rows) for start in range(0, batch.num_rows, rows))
        if not found:
            yield file.schema.empty_table()
