"""Where a command's output goes, and how plain data and tables are written."""

import json
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedpact.engine.progress import console

if TYPE_CHECKING:
    from rich.table import Table

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]


@dataclass(frozen=True)
class Output:
    """What a command prints: JSON for programs, or words and tables for people.

    Args:
        as_json: JSON on standard output, and all that is said meanwhile on standard error.
        quiet: say nothing meanwhile.
    """

    as_json: bool = False
    quiet: bool = False

    def result(self, data: Any) -> None:
        """Print the result for programs, if they asked."""
        if self.as_json:
            typer.echo(json.dumps(plain(data), indent=2, ensure_ascii=False, allow_nan=False))

    def show(self, *things: Any) -> None:
        """Print words and tables for people; words are broken into lines in a terminal alone."""
        if not self.as_json:
            screen = console(sys.stdout)
            for thing in things:
                screen.print(thing, soft_wrap=isinstance(thing, str) and not screen.is_terminal)

    def command(self, *words: str, before: str = "") -> None:
        """Print a command to be copied, on one line however long it is, with words before it."""
        if not self.as_json:
            console(sys.stdout).print(before + shlex.join(words), soft_wrap=True)

    def say(self, text: str) -> None:
        """Say something meanwhile, on standard error."""
        if not self.quiet:
            console(sys.stderr).print(text, soft_wrap=True)


def grid(head: Sequence[str], rows: Iterable[Sequence[str]], text_columns: Iterable[int] = (0,)) -> "Table":
    """Return a table with few lines.

    Args:
        head: the columns' names.
        rows: their cells.
        text_columns: the columns that are words, not numbers.
    """
    from rich import box
    from rich.table import Table

    words = set(text_columns)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False, show_edge=False)
    for column, name in enumerate(head):
        table.add_column(name, justify="left" if column in words else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def one_of(options: type[StrEnum]) -> Callable[[str], StrEnum]:
    """Return what reads one of these options; of another word it says which is the nearest."""

    def read(text: str) -> StrEnum:
        if text in list(options):
            return options(text)
        from fedpact.core.errors import suggest

        raise typer.BadParameter(f'"{text}" is none of {", ".join(options)}.{suggest(text, options)}')

    return read


def plain(data: Any) -> Any:
    """Return data as JSON can hold them: numpy's numbers as Python's, NaN and infinities as None."""
    if isinstance(data, Mapping):
        return {str(key): plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [plain(value) for value in data]
    if hasattr(data, "tolist"):
        return plain(data.tolist())
    if isinstance(data, float) and not isfinite(data):
        return None
    return data
