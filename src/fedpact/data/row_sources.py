"""Sources that read themselves: where rows are that lie in no table file, as a job names them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from fedpact.core.registry import Registry

if TYPE_CHECKING:
    import pandas as pd

ROW_SOURCES = Registry(
    "source of rows",
    {
        "SQL": "fedpact.data.sql:SQL",
        "ImageFolder": "fedpact.data.image_folder:ImageFolder",
        "TextFolder": "fedpact.data.text_folder:TextFolder",
    },
)
"""By the name that a job gives: {name = "SQL", url = "sqlite:///ward.db", query = "select * from stays"}."""


@runtime_checkable
class TableSource(Protocol):
    """A source of a table; a frozen dataclass of settings."""

    def table(self, whose: str) -> pd.DataFrame:
        """Return all rows.

        Args:
            whose: in whose name errors speak: 'Client "lyon"'.

        Raises:
            DataError: the rows cannot be read.
        """
        ...

    def chunks(self, whose: str, rows: int) -> Iterator[pd.DataFrame]:
        """Yield the same rows, so many at a time, without holding more of them.

        Raises:
            DataError: the rows cannot be read.
        """
        ...


@runtime_checkable
class ArraySource(Protocol):
    """A source of arrays; a frozen dataclass of settings."""

    def arrays(self, whose: str) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Return examples [n, ...] and their labels [n], None where they have none.

        Raises:
            DataError: the examples cannot be read.
        """
        ...
