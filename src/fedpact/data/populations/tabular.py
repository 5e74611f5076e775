"""What back ends over one big table have in common: a client is the rows with one value in a column."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError, DataError
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.data.populations.describe import distinct, standing_for_all
from fedpact.data.populations.names import Names, Some
from fedpact.data.split import hold_out


@dataclass(frozen=True)
class Asked:
    """What is read of a table, and what becomes test rows.

    Args:
        client: the column that says whose row it is.
        label: the column of the labels.
        columns: the feature columns; None for all others.
        test: the share of each client's rows that become test rows, or the column that marks them.
        seed: picks the test rows.
        stratify: keep each class's share.
        classes: the classes of the labels, () where these are numbers; None to look through all labels once.
    """

    client: str
    label: str
    columns: Sequence[str] | None = None
    test: float | str = 0.0
    seed: int = 0
    stratify: bool = True
    classes: Sequence[Any] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.test, str) and not 0 <= self.test < 1:
            raise ConfigError(
                f"test is {self.test}; give a share of each client's rows from 0 to below 1, or the name of the "
                "column that marks test rows."
            )
        for what, name in (("label", self.label), ("client", self.client), ("test", self.test)):
            if self.columns is not None and name in self.columns:
                raise ConfigError(f'column "{name}" is the {what} column; leave it out of columns.')

    @property
    def mark(self) -> str | None:
        """The column that marks test rows, if there is one."""
        return self.test if isinstance(self.test, str) else None

    def features(self, names: Sequence[str]) -> list[str]:
        """Return the feature columns among these.

        Raises:
            DataError: there is none.
        """
        others = [name for name in names if name not in (self.client, self.label, self.mark)]
        wanted = others if self.columns is None else list(self.columns)
        if not wanted:
            raise DataError(f'there is no feature column beside "{self.client}" and "{self.label}".')
        return wanted

    def needed(self, names: Sequence[str]) -> list[str]:
        """Return all columns that are read of these but the clients' own."""
        return [*self.features(names), self.label, *([self.mark] if self.mark else [])]

    def reads(self, **place: Any) -> dict[str, Any]:
        """Return where and what is read, as a job's `data` says it."""
        given = {
            "client": self.client,
            "label": self.label,
            "columns": self.columns and list(self.columns),
            "test": self.test,
            "seed": self.seed if self._draws else None,
            "stratify": self.stratify if self._draws else None,
            "classes": None if self.classes is None else list(self.classes),
        }
        return {**place, **{name: value for name, value in given.items() if value is not None}}

    @property
    def _draws(self) -> bool:
        return self.mark is None and self.test != 0


@dataclass(frozen=True, eq=False)
class Block:
    """The rows of some clients, one client after another.

    Args:
        rows: features and labels.
        marks: which are test rows [n]; None where no column says so.
    """

    rows: Rows
    marks: NDArray[np.bool_] | None


@dataclass(frozen=True, eq=False)
class Index:
    """Whose rows there are.

    Args:
        names: the clients'.
        rows: how many rows each has [clients].
        tests: how many of them are marked as test rows [clients]; None where no column says so.
    """

    names: Names
    rows: NDArray[np.int64]
    tests: NDArray[np.int64] | None = None
    tested: Names = field(init=False)

    def __post_init__(self) -> None:
        tests = np.zeros(0, np.int64) if self.tests is None else self.tests
        object.__setattr__(self, "tested", Some(self.names, np.flatnonzero(tests)))
        if self.tests is not None and (self.rows == self.tests).any():
            name = self.names.at(int(np.argmax(self.rows == self.tests)))
            raise DataError(f'client "{name}" has no training rows; leave it out.')


class Tabular(ABC):
    """A population that is one table. A subclass finds rows; here they become clients.

    Args:
        asked: what is read of the table.
        index: whose rows there are.
        place: the arguments that say where the table is; with `asked`, they make the population anew elsewhere.
    """

    reads_files: ClassVar[bool] = True
    reads: dict[str, Any]

    def __init__(self, asked: Asked, index: Index, **place: Any) -> None:
        self._asked = asked
        self._index = index
        self._place = place
        self._described: ClientData | None = None

    @abstractmethod
    def _block(self, places: Sequence[int]) -> Block:
        """Return the rows of the clients at these places."""

    @abstractmethod
    def _label_block(self, place: int) -> NDArray[Any]:
        """Return a client's labels alone."""

    @abstractmethod
    def _all_labels(self) -> Iterable[NDArray[Any]]:
        """Return labels, in parts, among which are all that occur; none is missing."""

    @abstractmethod
    def _example(self) -> Rows:
        """Return a row with a value in every column that has one anywhere, and a label."""

    def ids(self, round: int) -> Sequence[str]:
        """Return the names of all clients, made on demand."""
        return self._index.names

    def tested(self, round: int) -> Sequence[str]:
        """Return the names of the clients that may hold test rows."""
        return self._index.names if self._share else self._index.tested

    def load(self, id: str) -> ClientData:
        """Return a client's rows.

        Raises:
            DataError: there is no such client, or its rows cannot be read.
        """
        block = self._block([self._index.names.place(id)])
        return self._client(id, block.rows, block.marks)

    def load_many(self, ids: Sequence[str]) -> Sequence[ClientData]:
        """Return the rows of these clients, read at once.

        Raises:
            DataError: there is no such client, or the rows cannot be read.
        """
        if not ids:
            return []
        places = [self._index.names.place(id) for id in ids]
        block = self._block(places)
        ends = np.cumsum(self._index.rows[places]).tolist()
        parts = [slice(begin, end) for begin, end in zip([0, *ends], ends, strict=False)]
        marks = [None if block.marks is None else block.marks[part] for part in parts]
        return [
            self._client(id, _part(block.rows, part), marked)
            for id, part, marked in zip(ids, parts, marks, strict=True)
        ]

    def size(self, id: str) -> int:
        """Return a client's number of training rows; where a share is held out, its labels alone are read.

        Raises:
            DataError: there is no such client.
        """
        place = self._index.names.place(id)
        rows = int(self._index.rows[place])
        if self._share:
            labels = self._label_block(place)
            return len(self._held_out(id, Rows(np.arange(rows), labels)).train)
        return rows - (0 if self._index.tests is None else int(self._index.tests[place]))

    def description(self) -> ClientData:
        """Return a client that stands for all."""
        if self._described is None:
            declared = self._asked.classes
            labels = distinct(self._all_labels()) if declared is None else declared
            self._described = standing_for_all(ClientData(self._index.names.at(0), self._example()), labels)
        return self._described

    def __reduce__(self) -> tuple[Any, ...]:
        # Open files and connections stay in this process; another opens its own.
        return partial(type(self), **self._place, **vars(self._asked)), ()

    @property
    def _share(self) -> float:
        return 0.0 if isinstance(self._asked.test, str) else self._asked.test

    def _client(self, id: str, rows: Rows, marks: NDArray[np.bool_] | None) -> ClientData:
        if marks is None:
            return self._held_out(id, rows)
        train, test = (rows.take(np.flatnonzero(which)) for which in (~marks, marks))
        return ClientData(id, train, test if len(test) else None)

    def _held_out(self, id: str, rows: Rows) -> ClientData:
        return hold_out(id, rows, self._share, Seed.of(self._asked.seed), self._asked.stratify)


def _part(rows: Rows, part: slice) -> Rows:
    x = rows.x.iloc[part].reset_index(drop=True) if hasattr(rows.x, "iloc") else rows.x[part]
    return Rows(x, None if rows.y is None else rows.y[part])
