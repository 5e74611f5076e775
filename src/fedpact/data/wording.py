"""What errors about rows say alike: whose rows they are, and which columns there are instead."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from fedpact.core.errors import DataError, suggest

_NAMED = 12


@contextmanager
def at_client(id: str, rows: Literal["training", "test"] | None = None) -> Iterator[None]:
    """Name the client, and which of its rows, in every DataError of this block."""
    try:
        yield
    except DataError as error:
        which = f", {rows} rows" if rows else ""
        raise DataError(f'client "{id}"{which}: {error}') from error


def missing_file(path: Path) -> str:
    """Return a sentence about a file that is not there, with the nearest name beside it."""
    siblings = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
    return f"there is no file {path.absolute()}.{suggest(path.name, siblings)}"


def what_else(name: str, columns: Iterable[Any]) -> str:
    """Return a sentence about a name that is not among the columns: the nearest, or else the first of them."""
    known = [str(each) for each in columns]
    more = f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
    return suggest(str(name), known) or f" Columns: {', '.join(known[:_NAMED])}{more}."
