"""Readers: a file, a query, a folder, a DataFrame, arrays or a torch Dataset become a client's rows."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError, DataError, suggest
from fedpact.core.registry import Spec
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.data import partition, tables
from fedpact.data.chunk_readers import reader_of
from fedpact.data.chunked import ChunkedRows, ChunkedTable, drawn
from fedpact.data.examples import Examples, pair_of
from fedpact.data.federation import Federation
from fedpact.data.partitions.simulate import simulate
from fedpact.data.row_sources import ROW_SOURCES, ArraySource, TableSource
from fedpact.data.split import hold_out
from fedpact.data.table_schema import TableSchema

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


Source: TypeAlias = """
    str | os.PathLike[str] | pd.DataFrame | tuple[Any, Any] | Examples
    | pa.Table | pa.RecordBatch | TableSource | ArraySource | Mapping[str, Any]
"""
"""A path to a table, a table, an (x, y) pair of arrays, a torch Dataset, or one of `ROW_SOURCES` or its spec."""


def client(
    id: str,
    source: Source,
    label: str | None = None,
    *,
    test: float | Source = 0.25,
    seed: int = 0,
    stratify: bool = True,
    columns: Sequence[str] | None = None,
    text: Collection[str] = (),
    names: Sequence[str] | None = None,
    chunk_rows: int | None = None,
) -> ClientData:
    """Read one client's rows and keep some aside as test rows.

    A table's features stay a DataFrame, without the label's column; anything else becomes an array
    [n, ...]. Labels become an array [n]. In a text file an empty cell, "?" and what pandas takes for
    missing are missing. Errors count rows from 1, without the line of column names.

    A table larger than memory is read in chunks: with `chunk_rows`, rows are gone through so many at a time whenever
    something is computed of them, and what is computed has the same bits. Each row is then a test row with the
    probability `test`, by a draw that its place alone decides, so that the share of each class is kept in the mean
    only. A text file is parsed once, to a temporary file (in TMPDIR); a Parquet file or a query is read again for each
    pass over it.

    Args:
        id: the client's name, unique in its federation.
        source: a path to a table (.csv, .data, .tsv, each also .gz; .parquet, .arrow, .feather), a DataFrame, an Arrow
            table, a pair (x, y) of arrays where y may be None, a torch Dataset, whose examples are stacked, or
            `fp.SQL`, `fp.TextFolder` or `fp.ImageFolder`.
        label: the column that holds the label, where the source is a table.
        test: the share of the rows that become test rows (0 for none), or a source that holds them.
        seed: picks the test rows; the same for every client, whose id makes the stream its own.
        stratify: keep each class's share (see `fedpact.data.split.train_test`).
        columns: the feature columns to keep, in this order; all by default. Tables only.
        text: columns to read as text although they look like numbers: postal codes, ICD codes. Tables only.
        names: the columns' names, for a text file without a line of names.
        chunk_rows: how many rows of a table are in memory at a time, such as 100,000; None for all. Tables only.

    Raises:
        DataError: no such file or column, no rows, missing labels, x and y of different lengths, a column
            that mixes numbers and text, or a file that is not what its name says.
        ConfigError: an option that this kind of source does not have.
    """
    if not id:
        raise ConfigError("A client needs a name: give it an id that is not empty.")
    reading = _Reading(f'Client "{id}"', label, columns, text, names)
    if chunk_rows is not None:
        table = reading.chunked(source, chunk_rows)
        if isinstance(test, (int, float)):
            return drawn(id, table, float(test), Seed.of(seed))
        tests = reading.like_chunked(table, reading.chunked(test, chunk_rows))
        return ClientData(id, ChunkedRows(table), ChunkedRows(tests))
    rows = reading.rows(source)
    if isinstance(test, (int, float)):
        return hold_out(id, rows, float(test), Seed.of(seed), stratify)
    return ClientData(id, rows, reading.like(rows, reading.rows(test)))


def clients(
    sources: Mapping[str, Source],
    label: str | None = None,
    *,
    test: float | Mapping[str, Source] = 0.25,
    name: str = "",
    schemas: Mapping[str, TableSchema | str | os.PathLike[str]] | None = None,
    **options: Any,
) -> Federation:
    """Read a federation, each client as `client` reads it.

    Args:
        sources: client id → where its rows are.
        label: the column that holds the label, where the sources are tables.
        test: one share for all, or client id → where its test rows are.
        name: the federation's name.
        schemas: client id → what it knows of its own table, such as units: a schema, or the path of one in TOML.
        options: `seed`, `stratify`, `columns`, `text`, `names`, `chunk_rows`, as for `client`.

    Raises:
        DataError, ConfigError: as `client`; and DataError where `test` lacks a client.
    """
    if isinstance(test, Mapping):
        for id in sources:
            if id not in test:
                raise DataError(f'Client "{id}" has no test rows given.{suggest(id, test)}')
        tests: Mapping[str, float | Source] = test
    else:
        tests = dict.fromkeys(sources, test)
    read = tuple(client(id, source, label, test=tests[id], **options) for id, source in sources.items())
    reads = _reads(label, options.get("columns"), options.get("text", ()))
    known = {
        id: schema if isinstance(schema, TableSchema) else TableSchema.from_toml(Path(schema))
        for id, schema in (schemas or {}).items()
    }
    return Federation(read, name=name, label=label or "", reads=reads, schemas=known)


def by_column(
    table: str | os.PathLike[str] | pd.DataFrame,
    column: str,
    label: str | None = None,
    *,
    test: float = 0.25,
    seed: int = 0,
    stratify: bool = True,
    columns: Sequence[str] | None = None,
    text: Collection[str] = (),
    names: Sequence[str] | None = None,
    name: str = "",
) -> Federation:
    """Read one table and make a client of each value of a column, which then is no feature any more.

    Args:
        table: a path to a table, or a DataFrame.
        column: says which client a row belongs to, such as its hospital.
        label: the column that holds the label.
        test: the share of each client's rows that become its test rows; 0 for none.
        seed: picks the test rows.
        stratify: keep each class's share.
        columns: the feature columns to keep; all by default.
        text: columns to read as text although they look like numbers.
        names: the columns' names, for a text file without a line of names.
        name: the federation's name.

    Raises:
        DataError, ConfigError: as `client`; and DataError for a row without a value in the column.
    """
    features = None if columns is None else [column, *(each for each in columns if each != column)]
    rows = _Reading("The table", label, features, text, names).rows(table)
    return partition.federate(
        Rows(rows.x.drop(columns=column), rows.y),
        partition.by_column(rows, column),
        test=test,
        seed=seed,
        stratify=stratify,
        name=name,
        note=f'One client for each value of column "{column}".',
        label=label or "",
        reads=_reads(label, columns, text),
    )


def read_rows(
    source: Source,
    label: str | None = None,
    *,
    columns: Sequence[str] | None = None,
    text: Collection[str] = (),
    names: Sequence[str] | None = None,
    chunk_rows: int | None = None,
) -> Rows:
    """Read rows that are nobody's yet, to be spread over simulated clients (`fp.partitions.simulate`).

    Args:
        source: as `client` takes it.
        label: the column that holds the label, where the source is a table.
        columns: the feature columns to keep; all by default. Tables only.
        text: columns to read as text although they look like numbers. Tables only.
        names: the columns' names, for a text file without a line of names.
        chunk_rows: as of `client`; what needs all rows at once, such as `simulate`, then refuses them.

    Raises:
        DataError, ConfigError: as `client`.
    """
    reading = _Reading("The source", label, columns, text, names)
    return reading.rows(source) if chunk_rows is None else ChunkedRows(reading.chunked(source, chunk_rows))


def partitioned(
    table: str | os.PathLike[str] | pd.DataFrame,
    how: Spec | str,
    label: str | None = None,
    *,
    test: float = 0.25,
    seed: int = 0,
    stratify: bool = True,
    columns: Sequence[str] | None = None,
    text: Collection[str] = (),
    names: Sequence[str] | None = None,
    name: str = "",
) -> Federation:
    """Read one table and spread it over simulated clients, as a job's `data` asks.

    Args:
        table: a path to a table, or a DataFrame.
        how: the specification of a partition of `fp.partitions`.
        label: the column that holds the label.
        test: the share of each client's rows that become its test rows; 0 for none.
        seed: the root of every choice.
        stratify: keep each class's share.
        columns: the feature columns to keep; all by default.
        text: columns to read as text although they look like numbers.
        names: the columns' names, for a text file without a line of names.
        name: the federation's name.

    Raises:
        DataError, ConfigError: as `read_rows` and `fp.partitions.simulate`.
    """
    rows = read_rows(table, label, columns=columns, text=text, names=names)
    about = {"name": name, "label": label or "", "reads": _reads(label, columns, text)}
    return simulate(rows, how, test=test, seed=seed, stratify=stratify, **about).clients


def _reads(label: str | None, columns: Sequence[str] | None, text: Collection[str]) -> dict[str, Any]:
    asked = {"label": label, "columns": columns and list(columns), "text": sorted(text)}
    return {setting: value for setting, value in asked.items() if value}


@dataclass(frozen=True)
class _Reading:
    """What was asked of a source, and in whose name errors speak."""

    whose: str
    label: str | None
    columns: Sequence[str] | None
    text: Collection[str]
    names: Sequence[str] | None

    def rows(self, source: Any) -> Rows:
        import pandas as pd

        source = self._source(source)
        if isinstance(source, (str, os.PathLike)):
            table = tables.read_table(self.whose, Path(source), text=self.text, names=self.names)
            rows = self._of_table(table)
        elif isinstance(source, pd.DataFrame):
            self._refuse("a text file without a line of names", names=self.names)
            rows = self._of_table(source)
        elif isinstance(source, TableSource):
            self._refuse("a text file without a line of names", names=self.names)
            rows = self._of_table(source.table(self.whose))
        else:
            self._refuse("a table", label=self.label, columns=self.columns, text=self.text, names=self.names)
            of_source = isinstance(source, ArraySource)
            rows = self._of_arrays(*(source.arrays(self.whose) if of_source else pair_of(self.whose, source)))
        if len(rows) == 0:
            raise DataError(f"{self.whose} has no rows: give it at least one, or leave it out.")
        return rows

    def _source(self, source: Any) -> Any:
        import pyarrow as pa

        if isinstance(source, pa.Table | pa.RecordBatch):
            return source.to_pandas()
        if not isinstance(source, Mapping):
            return source
        try:
            return ROW_SOURCES.build(dict(source))
        except ConfigError as error:
            raise ConfigError(f"{self.whose}: {error}") from None

    def chunked(self, source: Any, rows: object) -> ChunkedTable:
        """Return a table that is read so many rows at a time."""
        if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
            raise ConfigError(
                f"{self.whose}: chunk_rows is {rows!r}; it must be a number of rows, such as 100000."
            )
        source = self._source(source)
        if not isinstance(source, (str, os.PathLike)):
            self._refuse("a text file without a line of names", names=self.names)
        reader = reader_of(self.whose, source, rows, self.text, self.names)
        return ChunkedTable(self.whose, reader, self.label, self.columns, self.text)

    def like_chunked(self, train: ChunkedTable, test: ChunkedTable) -> ChunkedTable:
        """Return the test rows' table with the columns in the train rows' order, once they fit together."""
        self._check_alike(train.columns, test.columns)
        return test.ordered(train.columns)

    def like(self, train: Rows, test: Rows) -> Rows:
        """Return the test rows with the columns in the train rows' order, once they fit together."""
        if (test.y is None) != (train.y is None):
            raise DataError(f"{self.whose}: either both train and test rows have labels, or neither.")
        if not (hasattr(train.x, "iloc") and hasattr(test.x, "iloc")):
            if train.x.shape[1:] != test.x.shape[1:]:
                shapes = f"{train.x.shape[1:]} and {test.x.shape[1:]}"
                raise DataError(f"{self.whose}: a train row and a test row have different shapes, {shapes}.")
            return test
        self._check_alike(list(train.x.columns), list(test.x.columns))
        return Rows(test.x[list(train.x.columns)], test.y)

    def _check_alike(self, train: Sequence[str], test: Sequence[str]) -> None:
        lacking = [each for each in train if each not in test]
        added = [each for each in test if each not in train]
        if lacking or added:
            which = (
                f'the test rows lack column "{lacking[0]}"'
                if lacking
                else f'only they have column "{added[0]}"'
            )
            raise DataError(f"{self.whose}: train and test rows must have the same columns, but {which}.")

    def _of_table(self, table: pd.DataFrame) -> Rows:
        return tables.rows_of(self.whose, table, self.label, columns=self.columns, text=self.text)

    def _of_arrays(self, x: Any, y: NDArray[Any] | None) -> Rows:
        import pandas as pd

        if y is not None:
            if len(x) != len(y):
                raise DataError(
                    f"{self.whose} has {len(x)} rows of features and {len(y)} labels: give one a row."
                )
            missing: NDArray[np.bool_] = np.any(pd.isna(y), axis=tuple(range(1, y.ndim)))
            tables.check_labels(self.whose, missing, "y")
        return Rows(self._of_table(x).x if isinstance(x, pd.DataFrame) else x, y)

    def _refuse(self, kind: str, **options: object) -> None:
        for option, value in options.items():
            if value:
                raise ConfigError(
                    f"{self.whose}: {option}={value!r} is for {kind}; leave it out for this source."
                )
