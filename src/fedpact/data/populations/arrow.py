"""Arrow and Parquet files as record batches in memory maps, and single rows out of them."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from mmap import mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import DataError, DependencyError
from fedpact.data.populations.maps import Maps, mapped
from fedpact.data.wording import missing_file, what_else

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET = (".parquet", ".pq")
ARROW = (".arrow", ".feather", ".ipc")
_ROWS_AT_ONCE = 65_536
# Every batch is an object of its own: a file of very many is written anew in larger ones.
_MOST_BATCHES = 10_000


@dataclass(frozen=True, eq=False)
class Batches:
    """The rows of a table in record batches.

    Args:
        schema: the columns.
        parts: the batches.
        starts: the row that each begins with [batches].
        maps: what they lie in;
        row_bytes: and how much of it a row takes, on average.
    """

    schema: pa.Schema
    parts: Sequence[pa.RecordBatch]
    starts: NDArray[np.int64]
    maps: Maps
    row_bytes: int

    @classmethod
    def of(cls, schema: pa.Schema, parts: Sequence[pa.RecordBatch], maps: Maps) -> Batches:
        """Return these batches, without those that are empty."""
        filled = [part for part in parts if part.num_rows]
        sizes = [part.num_rows for part in filled]
        ends = np.cumsum([0, *sizes], dtype=np.int64)
        return cls(schema, filled, ends[:-1], maps, maps.nbytes // max(1, int(ends[-1])))

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a column, without copying it."""
        import pyarrow as pa

        return pa.chunked_array([part.column(name) for part in self.parts], type=self.schema.field(name).type)

    def between(self, first: int, last: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows from one to before another."""
        place = int(np.searchsorted(self.starts, first, side="right")) - 1
        while first < last:
            begin = first - int(self.starts[place])
            piece = self.parts[place].slice(begin, last - first)
            yield piece
            first += piece.num_rows
            place += 1

    def at(self, rows: NDArray[np.integer[Any]]) -> Iterator[pa.RecordBatch]:
        """Yield the rows with these numbers, ascending."""
        import pyarrow as pa

        places = np.searchsorted(self.starts, rows, side="right") - 1
        cuts = [0, *(np.flatnonzero(np.diff(places)) + 1).tolist(), len(rows)]
        for begin, end in pairwise(cuts):
            place = int(places[begin])
            yield self.parts[place].take(pa.array(rows[begin:end] - int(self.starts[place])))


def open_batches(path: Path, choose: Callable[[Path, pa.Schema], Sequence[str]]) -> Batches:
    """Return rows of an Arrow or a Parquet file, or of a folder of such files, as memory-mapped batches.

    What is compressed cannot be mapped as it is: it is written once to a temporary file, which has no name and goes
    with the process.

    Args:
        path: the file or the folder; files are taken in the order of their names.
        choose: returns the columns to read of a file with this schema.

    Raises:
        DataError: no such file, none that can be read, or files with different columns.
        DependencyError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
    except ImportError as error:
        raise DependencyError(f"reading {path} needs pyarrow: install pyarrow.") from error

    files = _files(path)
    schemas: list[pa.Schema] = []
    for file in files:
        with _naming(file):
            schema = _schema(file)
        columns = choose(file, schema)
        if schemas and sorted(columns) != sorted(schemas[0].names):
            raise DataError(f"{file} has other columns than {files[0]}; give all files the same.")
        schemas.append(_chosen(schema, schemas[0].names if schemas else columns))
    with _naming(path):
        # A column may be of whole numbers in one file, and have gaps or no value at all in another.
        together = pa.unify_schemas(schemas, promote_options="permissive")
    wanted = together if len(files) == 1 else _plain(together)
    opened = []
    for file in files:
        with _naming(file):
            opened.append(_opened(file, wanted))
    parts = [part for batches, _ in opened for part in batches]
    maps = Maps(source for _, source in opened)
    return Batches.of(parts[0].schema if parts else wanted, parts, maps)


def columns_of(path: Path, schema: pa.Schema, asked: Callable[[Sequence[str]], Sequence[str]]) -> list[str]:
    """Return the columns that are asked for of a file's own; the row labels of a pandas frame are none of them.

    Raises:
        DataError: one is not there, or there twice.
    """
    described = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))
    labels = [each for each in described.get("index_columns", []) if isinstance(each, str)]
    own = [name for name in schema.names if name not in labels]
    wanted = list(asked(own))
    for name in wanted:
        if own.count(name) > 1:
            raise DataError(f'{path} has two columns called "{name}": rename one of them.')
        if name not in own:
            raise DataError(f'{path} has no column "{name}".{what_else(name, own)}')
    return wanted


def _files(path: Path) -> list[Path]:
    known = ", ".join(PARQUET + ARROW)
    if path.is_dir():
        files = sorted(each for each in path.iterdir() if each.suffix.lower() in PARQUET + ARROW)
        if not files:
            raise DataError(f"the folder {path} has no file whose name ends in {known}.")
        return files
    if not path.is_file():
        raise DataError(missing_file(path))
    if path.suffix.lower() not in PARQUET + ARROW:
        raise DataError(f"{path} is no Arrow or Parquet file; its name must end in {known}.")
    return [path]


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the file in what pyarrow says about it."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error


def _schema(path: Path) -> pa.Schema:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix.lower() in PARQUET:
        return pq.read_schema(path)
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).schema


def _opened(path: Path, wanted: pa.Schema) -> tuple[list[pa.RecordBatch], mmap]:
    """Return a file's rows with the columns that are wanted, and the map that they are in."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix.lower() in PARQUET:
        with pq.ParquetFile(path) as file:
            return _spooled(file.iter_batches(_ROWS_AT_ONCE, columns=wanted.names), wanted)
    source = mapped(path)
    whole = pa.py_buffer(source)
    reader = pa.ipc.open_file(whole)
    count = reader.num_record_batches
    as_it_is = count <= _MOST_BATCHES and _chosen(reader.schema, wanted.names).equals(wanted)
    if as_it_is and (count == 0 or _lies_in(whole, reader.get_batch(0))):
        return [reader.get_batch(i).select(wanted.names) for i in range(count)], source
    return _spooled((reader.get_batch(i) for i in range(count)), wanted)


def _lies_in(whole: pa.Buffer, batch: pa.RecordBatch) -> bool:
    """Return whether a batch lies in the file's map, and was not decompressed into memory."""
    buffers = [
        each for column in batch.columns for each in column.buffers() if each is not None and each.size
    ]
    return all(whole.address <= each.address < whole.address + whole.size for each in buffers)


def _spooled(batches: Iterator[pa.RecordBatch], wanted: pa.Schema) -> tuple[list[pa.RecordBatch], mmap]:
    """Write the columns to a file without a name, in batches of a good size, and map it."""
    import pyarrow as pa

    # An Arrow file has one dictionary for a column, and batches may come with different ones.
    plain = _plain(wanted)
    handle, name = tempfile.mkstemp(prefix="fedpact-", suffix=".arrow")
    try:
        os.close(handle)
        with pa.OSFile(name, "wb") as sink, pa.ipc.new_file(sink, plain) as writer:
            for table in _in_larger(batches, plain):
                writer.write_table(table, max_chunksize=_ROWS_AT_ONCE)
        source = mapped(name)
    finally:
        os.unlink(name)
    reader = pa.ipc.open_file(pa.py_buffer(source))
    return [reader.get_batch(i) for i in range(reader.num_record_batches)], source


def _in_larger(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    import pyarrow as pa

    waiting: list[pa.Table] = []
    rows = 0
    for batch in batches:
        waiting.append(pa.Table.from_batches([batch]).select(schema.names).cast(schema))
        rows += batch.num_rows
        if rows >= _ROWS_AT_ONCE:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting, rows = [], 0
    if rows:
        yield pa.concat_tables(waiting).combine_chunks()


def _chosen(schema: pa.Schema, columns: Sequence[str]) -> pa.Schema:
    import pyarrow as pa

    return pa.schema([schema.field(name) for name in columns])


def _plain(schema: pa.Schema) -> pa.Schema:
    """Return the columns without dictionaries."""
    import pyarrow as pa

    types = [field.type.value_type if pa.types.is_dictionary(field.type) else field.type for field in schema]
    return pa.schema([field.with_type(each) for field, each in zip(schema, types, strict=True)])
