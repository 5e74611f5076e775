"""Rows that are larger than memory: a table that is gone through by chunk, each time from its first row to its last.

Whatever is a sum over rows comes out with the same bits as of the same rows in memory, for any size of the chunks.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError, DataError
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.data.chunk_readers import ChunkReader
from fedpact.data.tables import Words, as_text, feature_columns, labels_in, missing_labels

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

_MOST_THREADS = 4
_BLOCK = 1 << 20
# A row in a message, but for those in a column's name or a value.
_ROW = re.compile(r'"[^"]*"|\b(row )(\d+)')


@dataclass(frozen=True)
class Draw:
    """Which rows of a table are test rows: each by a draw of its own, which its place alone decides.

    Args:
        share: the probability of each row to be one.
        seed: the stream that is drawn from.
    """

    share: float
    seed: Seed

    def tests(self) -> Callable[[int], NDArray[np.bool_]]:
        """Return what tells of the next so many rows, from the first on, which are test rows."""
        generator = self.seed.generator()
        return lambda rows: generator.random(rows) < self.share


class ChunkedTable:
    """A table and its labels, read by chunk.

    Args:
        whose: in whose name errors speak.
        reader: reads it.
        label: the label's column.
        columns: the feature columns to keep, in this order; all by default.
        text: columns to turn into text.

    Raises:
        DataError: as `tables.rows_of`; and where there are no rows.
        ConfigError: the label among the features.
    """

    def __init__(
        self,
        whose: str,
        reader: ChunkReader,
        label: str | None,
        columns: Sequence[str] | None,
        text: Collection[str],
    ) -> None:
        self.whose = whose
        self.label = label
        self._reader = reader
        self._text = text
        self.columns = feature_columns(whose, reader.begin(), label, columns, text)
        self.rows = self._checked()

    def chunks(self) -> Iterator[Rows]:
        """Yield the rows, in order.

        Raises:
            DataError: they are not as many as at first.
        """
        rows = 0
        for frame in self._frames():
            rows += len(frame)
            yield Rows(frame[self.columns], None if self.label is None else labels_in(frame[self.label]))
        if rows != self.rows:
            raise DataError(
                f"{self.whose} had {self.rows} rows at first and {rows} when they were read again; a table that is "
                "read in chunks must stay as it is."
            )

    def ordered(self, columns: Sequence[str]) -> ChunkedTable:
        """Return the table with its feature columns in this order."""
        table = copy(self)
        table.columns = list(columns)
        return table

    def _frames(self) -> Iterator[pd.DataFrame]:
        for frame in self._reader.frames():
            as_text(frame, self._text)
            yield frame

    def _checked(self) -> int:
        """Return the number of rows."""
        wanted = [*self.columns, *([] if self.label is None else [self.label])]
        words = {name: Words(name) for name in wanted}
        rows, missing, first = 0, 0, 0
        for frame in self._frames():
            for name in wanted:
                words[name].note_types(frame[name], rows)
            if self.label is not None and (lacking := frame[self.label].isna().to_numpy()).any():
                first = first or rows + int(np.argmax(lacking)) + 1
                missing += int(lacking.sum())
            rows += len(frame)
        for each in words.values():
            each.check(self.whose)
        if missing:
            raise missing_labels(self.whose, missing, first, f'column "{self.label}"')
        if not rows:
            raise DataError(f"{self.whose} has no rows: give it at least one, or leave it out.")
        return rows


class ChunkedRows(Rows):
    """Some rows of a table that is read by chunk: all, or those that are test rows, or those that are not.

    What needs all rows at once, such as `x`, is refused.

    Args:
        table: the table.
        draw: which rows are test rows; None where none are.
        tests: whether these are the test rows.
        size: how many rows these are.
        views: what is made of each chunk, one after the other; each keeps the number of rows.
    """

    def __init__(
        self,
        table: ChunkedTable,
        draw: Draw | None = None,
        tests: bool = False,
        size: int | None = None,
        views: tuple[Callable[[Rows], Rows], ...] = (),
    ) -> None:
        fields = {"table": table, "draw": draw, "tests": tests, "views": views}
        # The fields of Rows are frozen, and it has two that these rows cannot have.
        vars(self).update(fields, size=table.rows if size is None else size)

    table: ChunkedTable
    draw: Draw | None
    tests: bool
    size: int
    views: tuple[Callable[[Rows], Rows], ...]

    def __len__(self) -> int:
        return self.size

    def __repr__(self) -> str:
        return f"<{self.size:,} rows, read in chunks>"

    @property
    def x(self) -> NoReturn:
        """Raise DataError: the features are not all in memory."""
        raise self._too_large()

    @property
    def y(self) -> NoReturn:
        """Raise DataError: the labels are not all in memory."""
        raise self._too_large()

    @property
    def labelled(self) -> bool:
        """Whether there are labels."""
        return self.table.label is not None

    def take(self, index: NDArray[np.integer]) -> NoReturn:
        """Raise DataError: the rows are not all in memory."""
        raise self._too_large()

    def then(self, view: Callable[[Rows], Rows]) -> ChunkedRows:
        """Return these rows, of which each chunk is looked at through a view that keeps the number of rows."""
        return ChunkedRows(self.table, self.draw, self.tests, self.size, (*self.views, view))

    def chunks(self) -> Iterator[Rows]:
        """Yield the rows, in order.

        Raises:
            DataError: a chunk cannot be read.
        """
        return self.mapped(lambda rows: rows)

    def mapped(self, function: Callable[[Rows], T]) -> Iterator[T]:
        """Yield what a function makes of each chunk, in order.

        Some chunks at a time are worked on, each on a thread of its own.

        Raises:
            DataError: what the function raises of the first chunk that it refuses. Rows are numbered from the first of
                all chunks; a count is that chunk's.
        """
        threads = min(_MOST_THREADS, os.cpu_count() or 1)
        pending: deque[Future[T]] = deque()
        with ThreadPoolExecutor(threads, "fedpact chunk") as pool:
            try:
                for before, rows in self._raw():
                    pending.append(pool.submit(self._applied, function, before, rows))
                    if len(pending) > threads:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for each in pending:
                    each.cancel()

    def _applied(self, function: Callable[[Rows], T], before: int, rows: Rows) -> T:
        try:
            for view in self.views:
                rows = view(rows)
            return function(rows)
        except DataError as error:
            raise DataError(_ROW.sub(lambda found: _moved(found, before), str(error))) from error

    def _raw(self) -> Iterator[tuple[int, Rows]]:
        """Yield how many of these rows come before a chunk, and its rows, where it has any."""
        before = 0
        tests = self.draw.tests() if self.draw else None
        for rows in self.table.chunks():
            if tests is not None:
                rows = rows.take(np.flatnonzero(tests(len(rows)) == self.tests))
            if len(rows):
                yield before, rows
            before += len(rows)

    def _too_large(self) -> DataError:
        return DataError(
            f"{self.table.whose} is read in chunks, and this needs all of its rows at once; leave chunk_rows out to "
            "read them into memory."
        )


def drawn(id: str, table: ChunkedTable, share: float, seed: Seed) -> ClientData:
    """Return a client some of whose rows are test rows, each drawn from the client's own stream with this probability.

    It keeps no test rows (None) where the share is 0, or none was drawn.

    Raises:
        ConfigError: a share that is none.
        DataError: all rows were drawn.
    """
    if share == 0:
        return ClientData(id, ChunkedRows(table))
    if not 0 < share < 1:
        raise ConfigError(f"The share of test rows must lie between 0 and 1, and is {share}: take 0.25, say.")
    draw = Draw(share, seed.child("client", id, "test rows"))
    tests = draw.tests()
    # By block, as there may be more rows than fit into memory as numbers.
    blocks = (min(_BLOCK, table.rows - start) for start in range(0, table.rows, _BLOCK))
    kept = sum(int(tests(rows).sum()) for rows in blocks)
    if kept == table.rows:
        raise DataError(
            f"{table.whose}: all {kept} row(s) were drawn as test rows, and none is left to train on; take a smaller "
            "share of test rows."
        )
    if not kept:
        return ClientData(id, ChunkedRows(table))
    return ClientData(
        id, ChunkedRows(table, draw, False, table.rows - kept), ChunkedRows(table, draw, True, kept)
    )


def _moved(found: re.Match[str], before: int) -> str:
    return f"{found[1]}{int(found[2]) + before}" if found[1] else found[0]
