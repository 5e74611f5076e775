"""Rows of a SQL query, from any database that SQLAlchemy has a dialect for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fedpact.core.errors import ConfigError, DataError, DependencyError, suggest
from fedpact.core.passwords import refuse_passwords
from fedpact.core.settings import check_texts
from fedpact.data.sql_columns import Block, Column, Kind, as_series, fits, widened
from fedpact.data.sql_connection import reading

if TYPE_CHECKING:
    import pandas as pd
    from sqlalchemy import Connection, TextClause

# Rows that are held as Python objects at once, on the way into a whole table.
_ROWS = 20_000


@dataclass(frozen=True)
class SQL:
    r"""The rows of a query, which is only read: `fp.client("lyon", fp.SQL("sqlite:///ward.db", "SELECT ..."))`.

    On SQLite, and on PostgreSQL with pg8000, it is the one statement of a transaction that the database lets only read.
    Elsewhere, give a user who may only read. Rows come in the query's order: without ORDER BY a database may change it,
    and other rows become test rows.

    A column's dtype is decided by all of its values, so that it is the same in every chunk. Whole numbers are int64,
    and float64 where some are missing; decimals are float64; text, identifiers (UUID) and times of day are text;
    booleans are bool, or objects where some are missing; dates are datetime64[us], with a time zone those of UTC;
    intervals are seconds. A column without any value is float64. NULL is missing. SQLite has no dates and booleans:
    they are the text and the numbers that they are kept as.

    Args:
        url: SQLAlchemy's URL, such as "sqlite:///ward.db" or "postgresql://ward:${WARD_PASSWORD}@host/stays", which is
            read with pg8000. ${NAME} is the environment variable NAME, filled in when a connection is made; a URL that
            is nothing but "${NAME}" is all in it. A password must be given so, as job files travel.
        query: one SELECT statement, in which :name is a parameter (write \:name for a colon and a name).
        parameters: name → value.

    Raises:
        ConfigError: a setting of another kind, a password in the URL, an empty query, or parameters that are not those
            of the query.
        DependencyError: SQLAlchemy is not installed.
    """

    url: str
    query: str
    parameters: Mapping[str, Any] | None = None
    _kinds: list[Kind] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        refuse_passwords(self.url, "SQL: url")
        check_texts(self, "url", "query")
        if not self.query.strip():
            raise ConfigError('SQL: the query is empty; write one such as "SELECT age, ill FROM stays".')
        if not isinstance(self.parameters, Mapping | None):
            raise ConfigError('SQL: parameters must be names and values, such as {"ward": "a"}.')
        needed, given = _parameters(self._statement()), dict(self.parameters or {})
        for name in needed:
            if name not in given:
                raise ConfigError(f'SQL: the query has the parameter ":{name}"; give it in parameters.')
        for name in given:
            if name not in needed:
                raise ConfigError(f'SQL: the query has no parameter ":{name}".{suggest(name, needed)}')

    def table(self, whose: str) -> pd.DataFrame:
        """Return all rows; the query is carried out once.

        Raises:
            ConfigError: the URL cannot be read, or names a variable that is not set.
            DataError: no rows, a column of several kinds, or what the database says.
            DependencyError: the database's driver is not installed.
        """
        import pandas as pd

        with reading(whose, self.url) as connection:
            names, blocks = self._blocks(whose, connection, _ROWS)
            columns = [Column(whose, name) for name in names]
            parts: list[list[tuple[pd.Series[Any], Kind]]] = [[] for _ in names]
            row = 1
            for block in blocks:
                for column, values, own in zip(columns, block, parts, strict=True):
                    kind = column.see(values, row)
                    own.append((as_series(values, kind), kind))
                row += len(block[0])
        made = {}
        for place, (column, own) in enumerate(zip(columns, parts, strict=True)):
            made[place] = pd.concat(
                [widened(series, kind, column.kind) for series, kind in own], ignore_index=True
            )
            own.clear()
        return _named(made, names)

    def chunks(self, whose: str, rows: int) -> Iterator[pd.DataFrame]:
        """Yield the same rows with the same dtypes, so many at a time.

        The first time the query is carried out twice, to see what is in each column, in one transaction: on SQLite and
        PostgreSQL both see the same rows. Chunks that are taken again have the dtypes that were found then.

        Raises:
            ConfigError, DependencyError: as `table`.
            DataError: as `table`; and columns in which there is something else than the last time.
        """
        with reading(whose, self.url) as connection:
            if not self._kinds:
                self._kinds.extend(self._kinds_in(*self._blocks(whose, connection, rows), whose))
            names, blocks = self._blocks(whose, connection, rows)
            row = 1
            for block in blocks:
                made = {}
                for place, (name, values) in enumerate(zip(names, block, strict=True)):
                    own = Column(whose, name).see(values, row)
                    if len(names) != len(self._kinds) or not fits(own, self._kinds[place]):
                        raise DataError(
                            f'{whose}: column "{name}" of the query holds something else than when it was first read; '
                            "leave the database alone while a run goes on, or begin again."
                        )
                    made[place] = as_series(values, self._kinds[place])
                row += len(block[0])
                yield _named(made, names)

    def _kinds_in(self, names: list[str], blocks: Iterator[Block], whose: str) -> list[Kind]:
        columns = [Column(whose, name) for name in names]
        row = 1
        for block in blocks:
            for column, values in zip(columns, block, strict=True):
                column.see(values, row)
            row += len(block[0])
        return [column.kind for column in columns]

    def _blocks(self, whose: str, connection: Connection, rows: int) -> tuple[list[str], Iterator[Block]]:
        """Return the names of the query's columns, and its rows, at least one, so many at a time."""
        streamed = connection.execution_options(stream_results=True, max_row_buffer=rows)
        result = streamed.execute(self._statement(), dict(self.parameters or {}))
        if not result.returns_rows:
            raise DataError(f"{whose}: the query is no SELECT; it gives no rows.")
        first = result.fetchmany(rows)
        if not first:
            raise DataError(f"{whose} has no rows: the query gives none.")

        def blocks() -> Iterator[Block]:
            block = first
            while block:
                yield tuple(zip(*block, strict=True))
                block = result.fetchmany(rows)

        return list(map(str, result.keys())), blocks()

    def _statement(self) -> TextClause:
        try:
            from sqlalchemy import text
        except ImportError:
            raise DependencyError('SQL needs SQLAlchemy: pip install "fedpact[sql]".') from None
        return text(self.query)


def _parameters(statement: TextClause) -> list[str]:
    return list(statement.compile().params)


def _named(columns: dict[int, pd.Series[Any]], names: list[str]) -> pd.DataFrame:
    """Return a table; columns of one name stay apart, for the reader to refuse."""
    import pandas as pd

    return pd.DataFrame(columns, copy=False).set_axis(names, axis="columns")
