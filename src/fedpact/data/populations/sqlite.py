"""Clients in a SQLite database, told apart by a column with an index on it."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError, DataError
from fedpact.core.rows import Rows
from fedpact.data.populations.names import Listed
from fedpact.data.populations.tabular import Asked, Block, Index, Tabular
from fedpact.data.split import MOST_CLASSES
from fedpact.data.tables import rows_of
from fedpact.data.wording import missing_file, what_else


class SQLite(Tabular):
    """A population in a table or a query of a SQLite database, which is only read.

    A client's rows are found through an index on the column that names the client; there must be one. Rows come in
    the order in which they were inserted, those of a query in its own. Every thread and every process has a
    connection of its own.

    Args:
        path: the database's file.
        table: the table or view.
        query: a SELECT statement in the place of a table.
        client: the column that says whose row it is, of text or whole numbers; it is no feature.
        label: the column of the labels.
        columns: the feature columns to keep, in this order; all by default.
        test: the share of each client's rows that become its test rows, drawn as `fp.by_column` draws them, or the
            name of a column that marks test rows with 1.
        seed: picks the test rows.
        stratify: keep each class's share.
        classes: the classes of the labels, () where these are numbers to predict; by default all labels are
            looked through once.

    Raises:
        DataError: no such file, table or column, a row without a client, a client without training rows, or no index
            on the client's column.
        ConfigError: neither or both of table and query, a share outside [0, 1), or a column that is a feature and
            something else.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        table: str | None = None,
        *,
        query: str | None = None,
        client: str,
        label: str,
        columns: Sequence[str] | None = None,
        test: float | str = 0.0,
        seed: int = 0,
        stratify: bool = True,
        classes: Sequence[Any] | None = None,
    ) -> None:
        if (table is None) == (query is None):
            raise ConfigError("rows are in a table or come from a query; give one of the two.")
        asked = Asked(client, label, columns, test, seed, stratify, classes)
        self._connections = _Connections(_existing(Path(path)))
        self._source = _quoted(table) if table is not None else f"({(query or '').strip().rstrip(';')})"
        self._needed = self._check_columns(table, asked)
        self._order = self._row_order() if query is None else ""
        self._one = (
            f"SELECT {', '.join(map(_quoted, self._needed))} FROM {self._source} "
            f"WHERE {_quoted(client)} = ?{self._order}"
        )
        self._check_index(client)
        index, self._are_numbers = self._find_clients(asked)
        where = {"table": table} if table is not None else {"query": query}
        self.reads = asked.reads(sqlite=os.fspath(path), **where)
        super().__init__(asked, index, path=path, **where)

    def _block(self, places: Sequence[int]) -> Block:
        import pandas as pd

        found = [row for place in places for row in self._rows_at(place)]
        table = pd.DataFrame.from_records(found, columns=self._needed)
        mark = self._asked.mark
        marks = None if mark is None else table.pop(mark).to_numpy() != 0
        names = [self._index.names.at(place) for place in places[:2]]
        whose = f'client "{names[0]}"' if len(places) == 1 else f'the clients from "{names[0]}" on'
        return Block(rows_of(whose, table, self._asked.label, columns=self._asked.columns), marks)

    def _label_block(self, place: int) -> NDArray[Any]:
        label, client = _quoted(self._asked.label), _quoted(self._asked.client)
        only = f"SELECT {label} FROM {self._source} WHERE {client} = ?{self._order}"
        return np.array([value for (value,) in self._rows(only, self._key(place))])

    def _all_labels(self) -> Iterable[NDArray[Any]]:
        label = _quoted(self._asked.label)
        different = [
            value
            for (value,) in self._rows(
                f"SELECT DISTINCT {label} FROM {self._source} LIMIT {MOST_CLASSES + 1}"
            )
        ]
        if None in different:
            client = _quoted(self._asked.client)
            ((name,),) = self._rows(f"SELECT {client} FROM {self._source} WHERE {label} IS NULL LIMIT 1")
            raise DataError(f'client "{name}" has a row without a label; fill it in or leave the row out.')
        return (np.array(different),)

    def _example(self) -> Rows:
        import pandas as pd

        names = [name for name in self._needed if name != self._asked.mark]
        values = {name: self._first_value(name) for name in names}
        table = pd.DataFrame.from_records([tuple(values.values())], columns=names)
        return rows_of("the table", table, self._asked.label, columns=self._asked.columns)

    def _first_value(self, name: str) -> Any:
        column = _quoted(name)
        found = self._rows(f"SELECT {column} FROM {self._source} WHERE {column} IS NOT NULL LIMIT 1")
        return found[0][0] if found else None

    def _rows_at(self, place: int) -> list[tuple[Any, ...]]:
        rows = self._rows(self._one, self._key(place))
        if len(rows) != self._index.rows[place]:
            raise DataError(
                f'client "{self._index.names.at(place)}" had {self._index.rows[place]:,} rows when the database was '
                f"opened, and has {len(rows):,} now; open it again, and leave it alone while a run goes on."
            )
        return rows

    def _key(self, place: int) -> str | int:
        name = self._index.names.at(place)
        return int(name) if self._are_numbers else name

    def _rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        try:
            return self._connections.mine().execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise DataError(f"the database {self._connections.path} cannot be read: {error}.") from error

    def _check_columns(self, table: str | None, asked: Asked) -> list[str]:
        path = self._connections.path
        if table is not None:
            tables = [
                name
                for (name,) in self._rows("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
            ]
            if table not in tables:
                raise DataError(f'the database {path} has no table "{table}".{what_else(table, tables)}')
        try:
            described = self._connections.mine().execute(f"SELECT * FROM {self._source} LIMIT 0").description
        except sqlite3.Error as error:
            raise DataError(f"the query cannot be carried out on {path}: {error}.") from error
        names = [column[0] for column in described]
        needed = asked.needed(names)
        for name in (asked.client, *needed):
            if name not in names:
                raise DataError(f'{table or "the query"} has no column "{name}".{what_else(name, names)}')
        return needed

    def _row_order(self) -> str:
        try:
            self._connections.mine().execute(f"SELECT rowid FROM {self._source} LIMIT 0")
        except sqlite3.Error:  # a view, or a table that is sorted by its key
            return ""
        return " ORDER BY rowid"

    def _check_index(self, client: str) -> None:
        plan = [row[-1] for row in self._rows(f"EXPLAIN QUERY PLAN {self._one}", "")]
        if any(step.startswith("SCAN") or "AUTOMATIC" in step for step in plan):
            raise DataError(
                f"each client of {self._connections.path} would be looked for in all rows, as there is no index on "
                f'"{client}" that serves. Make one: CREATE INDEX by_client ON {self._source} ({_quoted(client)}).'
            )

    def _find_clients(self, asked: Asked) -> tuple[Index, bool]:
        """Return whose rows there are, and whether the names are numbers in the database."""
        client = _quoted(asked.client)
        marked = f"SUM({_quoted(asked.mark)} != 0)" if asked.mark else "0"
        found = self._rows(
            f"SELECT {client}, COUNT(*), {marked} FROM {self._source} GROUP BY {client} ORDER BY {client}"
        )
        if not found:
            raise DataError(f"{self._source} of {self._connections.path} has no rows.")
        kinds = {type(row[0]) for row in found}
        if kinds not in ({str}, {int}):
            what = "is missing in some rows" if type(None) in kinds else "holds values of several kinds"
            raise DataError(
                f'column "{asked.client}" of {self._connections.path} says whose row it is, and {what}; give all rows '
                "text, or all of them whole numbers."
            )
        names, order = Listed.of(str(row[0]) for row in found)
        counts = np.array([row[1:] for row in found], np.int64)
        counts = counts if order is None else counts[order]
        tests = counts[:, 1].copy() if asked.mark else None
        return Index(names, counts[:, 0].copy(), tests), kinds == {int}


class _Connections:
    """A connection for each thread of each process, opened when it is first needed.

    A connection must not be used in a process that was forked from the one that opened it, and not even be closed
    there (https://sqlite.org/howtocorrupt.html, section 2.6), so inherited ones are kept and left alone.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._own = threading.local()
        self._inherited: list[sqlite3.Connection] = []

    def mine(self) -> sqlite3.Connection:
        opened = getattr(self._own, "opened", None)
        if opened is not None and opened[0] == os.getpid():
            return opened[1]
        if opened is not None:
            self._inherited.append(opened[1])
        try:
            connection = sqlite3.connect(f"file:{quote(str(self.path.absolute()))}?mode=ro", uri=True)
        except sqlite3.Error as error:
            raise DataError(f"the database {self.path} cannot be opened: {error}.") from error
        self._own.opened = os.getpid(), connection
        return connection


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise DataError(missing_file(path))
    return path


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
