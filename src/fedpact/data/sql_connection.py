"""A connection to a database that only reads, and that says what went wrong in a sentence without a password."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fedpact.core.errors import ConfigError, DataError, DependencyError, suggest
from fedpact.core.passwords import VARIABLE
from fedpact.data.wording import missing_file

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

_FORMS = '"postgresql://ward:${WARD_PASSWORD}@host/database" or "sqlite:///ward.db"'
_USUAL = ("sqlite", "postgresql", "mysql+pymysql", "mariadb+pymysql", "oracle+oracledb", "mssql+pyodbc")


@contextmanager
def reading(whose: str, url: str) -> Iterator[Connection]:
    """Connect to a database in one transaction, which only reads, sees one state, and is rolled back.

    Args:
        whose: in whose name errors speak.
        url: SQLAlchemy's URL, in which ${NAME} is the environment variable NAME.

    Raises:
        ConfigError: the URL cannot be read, or a variable that it names is not set.
        DataError: no such file, or what the database says, in this block too.
        DependencyError: SQLAlchemy or the database's driver is not installed.
    """
    try:
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:
        raise DependencyError('SQL needs SQLAlchemy: pip install "fedpact[sql]".') from None

    target = _target(whose, url)
    engine = _engine(whose, url, target)
    try:
        with engine.connect() as connection:
            _only_read(connection)
            yield connection
            connection.rollback()
    except (SQLAlchemyError, OSError) as error:
        # Without the error that it comes from, which may show the URL that was connected to.
        raise DataError(f"{whose}: {url} cannot be read: {_said(error, target)}.") from None
    finally:
        engine.dispose()


def _only_read(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA query_only = ON")
        connection.exec_driver_sql("BEGIN")
    elif connection.dialect.name == "postgresql":
        connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def _target(whose: str, url: str) -> URL:
    """Return the URL with the environment's values, which may hold any character, in the place of their names."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    def value(name: str) -> str:
        if name not in os.environ:
            raise ConfigError(
                f"{whose}: the URL of the database, {url}, names the environment variable {name}, which is not set."
            )
        return os.environ[name]

    def filled(part: Any) -> Any:
        if isinstance(part, tuple):
            return tuple(map(filled, part))
        return part and VARIABLE.sub(lambda found: value(found[1]), part)

    whole = VARIABLE.fullmatch(url)
    try:
        made = make_url(value(whole[1]) if whole else url)
    except (ArgumentError, ValueError):
        named = f"the URL in {url}" if whole else "the URL of the database"
        raise ConfigError(f"{whose}: {named} cannot be read; write it as {_FORMS}.") from None
    if made.drivername == "postgresql":
        made = made.set(drivername="postgresql+pg8000")
    if whole:
        return made
    return made.set(
        username=filled(made.username),
        password=filled(made.password),
        host=filled(made.host),
        database=filled(made.database),
        query={key: filled(each) for key, each in made.query.items()},
    )


def _engine(whose: str, url: str, target: URL) -> Engine:
    from sqlalchemy import NullPool, create_engine, event
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    options: dict[str, Any] = {"poolclass": NullPool, "pool_logging_name": "fedpact", "hide_parameters": True}
    # It writes down errors in full, which may quote rows; they are said by `reading`.
    logging.getLogger(f"{NullPool.__module__}.{NullPool.__qualname__}.fedpact").disabled = True
    if target.get_backend_name() == "sqlite" and not (target.database or "").startswith("file:"):
        options["creator"] = _opener(whose, url, target.database)
    by_pg8000 = target.drivername == "postgresql+pg8000"
    if by_pg8000:
        options["paramstyle"] = "numeric_dollar"
    try:
        engine = create_engine(target, **options)
    except NoSuchModuleError:
        near = suggest(target.drivername, _USUAL)
        raise ConfigError(
            f'{whose}: the URL of the database begins with "{target.drivername}", which no driver here is for.{near} '
            f"Write it as {_FORMS}."
        ) from None
    except ModuleNotFoundError as error:
        package = '"fedpact[sql]"' if error.name == "pg8000" else str(error.name)
        raise DependencyError(
            f"{whose}: {target.drivername} needs {error.name}: pip install {package}."
        ) from None
    except (ArgumentError, ImportError, TypeError, ValueError) as error:
        raise ConfigError(f"{whose}: {url} cannot be used: {_said(error, target)}.") from None
    if by_pg8000:
        event.listen(engine, "do_execute", _carry_out_alone)
    return engine


def _carry_out_alone(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
    """Have PostgreSQL take one statement and no more: a second could end the transaction that only reads."""
    # Parameters are PostgreSQL's own $1, $2, and in what is no style pg8000 looks for none of another form, such as %.
    getattr(cursor, "cursor", cursor).paramstyle = "qmark" if parameters else ""
    # For a stream, of which a query makes no use, it takes the protocol of single statements.
    cursor.execute(statement, parameters, stream=BytesIO())
    return True


def _opener(whose: str, url: str, database: str | None) -> Any:
    if not database or database == ":memory:":
        raise ConfigError(
            f"{whose}: {url} names no file, and a new database has no rows; write sqlite:///ward.db."
        )
    path = Path(database)
    if not path.is_file():
        raise DataError(f"{whose}: {missing_file(path)}")
    address = f"file:{quote(str(path.absolute()))}?mode=ro"
    # Chunks may be taken by another thread than the one that closes them.
    return lambda: sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)


def _said(error: BaseException, target: URL) -> str:
    """Return what a database or its driver says, in one line, without values of rows and without the password."""
    cause: Any = getattr(error, "orig", None) or error
    told = cause.args[0] if cause.args else ""
    if isinstance(told, dict):
        # pg8000 gives the fields of PostgreSQL's answer.
        state, message = str(told.get("C", "")), str(told.get("M", ""))
    else:
        # pyodbc gives it first of all.
        code = told if isinstance(told, str) and len(told) == 5 else ""
        state = str(getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None) or code)
        message = str(cause).strip().partition("\n")[0]
    if state.startswith("22"):
        # Of the class of errors in data, whose messages quote them.
        return f"a value does not fit what the query does with it (SQLSTATE {state})"
    message = message.partition(" with text ")[0].rstrip(".")
    if target.password:
        message = message.replace(str(target.password), "***")
    return message or type(cause).__name__
