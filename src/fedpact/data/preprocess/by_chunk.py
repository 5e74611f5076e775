"""What an algorithm's client answers where its rows are read in chunks: the sum of what each chunk would answer alone.

Chunks are added up as clients are, and all sums are exact: the server sees the same as from rows in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fedpact.core.accumulator import Accumulator
from fedpact.core.algorithm import Algorithm, Around, ClientState
from fedpact.core.errors import ConfigError, DataError
from fedpact.core.messages import Task, Update
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.data.chunked import ChunkedRows
from fedpact.data.preprocess.categories import MOST_CATEGORIES, Categories, Counts
from fedpact.data.preprocess.columns import as_categories, as_frame
from fedpact.data.preprocess.document_counts import MOST_WORDS, DocumentCounts
from fedpact.data.preprocess.gaps import WithMissing
from fedpact.data.summary.counts import LabelBalance
from fedpact.data.wording import at_client


@dataclass(frozen=True)
class ByChunk(Around):
    """An algorithm of statistics as clients run it whose rows may be read in chunks; of others nothing changes.

    Args:
        algorithm: whose clients answer with sums over rows, or with what can be united.
        prepare: what becomes of a chunk before the algorithm sees it; for rows in chunks alone.
    """

    prepare: Callable[[Rows], Rows] = lambda rows: rows

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return one answer for all rows.

        Raises:
            DataError: a chunk cannot be used; rows are counted from the first of all.
            ConfigError: the algorithm needs all rows at once.
        """
        algorithm: Algorithm[Any] = self.algorithm
        if not isinstance(data.train, ChunkedRows):
            return super().client(model, task, data, kept, seed)

        def answer(rows: Rows) -> Update:
            chunk = ClientData(data.id, self.prepare(rows))
            return algorithm.client(model, task, chunk, {}, seed)[0]

        if task.answers == "sum":
            return _added(task, data.id, data.train.mapped(answer)), kept
        if isinstance(algorithm, Categories | Counts | WithMissing):
            rows = _categories(data.id, data.train, self.prepare, algorithm.names)
            return algorithm.client(model, task, ClientData(data.id, rows), kept, seed)
        united = _UNITED.get(type(algorithm))
        if united is None:
            raise needs_all_rows(type(algorithm).__name__)
        answers = united(data.id, algorithm, (each.answer for each in data.train.mapped(answer)))
        return Update(data.id, task.version, "statistics", answer=answers), kept


def needs_all_rows(name: str) -> ConfigError:
    """Return the error for what cannot be done by chunk."""
    return ConfigError(
        f"{name} needs all rows of a client at once, and these are read in chunks; leave chunk_rows out, or {name}."
    )


def check_steps(steps: Iterable[Any]) -> None:
    """Make sure that steps, or fitted ones, can prepare rows that are read in chunks.

    Raises:
        ConfigError: one needs all rows of a client at once; it is named.
    """
    for step in steps:
        if getattr(step, "needs_all_rows", False):
            raise needs_all_rows(type(step).__name__.removeprefix("Fitted"))


def _added(task: Task, id: str, updates: Iterator[Update]) -> Update:
    total = Accumulator(task, limit=1.0, total_weight=1.0, population=1)
    for number, update in enumerate(updates):
        total.add(replace(update, client=f"{id}, chunk {number + 1}"))
    sums = total.aggregate()
    return Update(id, task.version, sums.kind, summed=sums.sums, metrics=sums.metrics)


def _categories(id: str, rows: ChunkedRows, prepare: Callable[[Rows], Rows], names: Sequence[str]) -> Rows:
    """Return a table that has each value of some columns once, or more of them than can be."""
    import pandas as pd

    def distinct(rows: Rows) -> list[set[Any]]:
        # What prepares them names the client itself.
        x = prepare(rows).x
        with at_client(id):
            frame = as_frame(x)
            return [set(as_categories(frame, name)[1]) for name in names]

    values: list[set[Any]] = [set() for _ in names]
    for found in rows.mapped(distinct):
        for known, more in zip(values, found, strict=True):
            if len(known) <= MOST_CATEGORIES:
                known |= more
    most = max(map(len, values), default=0)
    columns = {}
    for name, known in zip(names, values, strict=True):
        columns[name] = np.array([*known, *[None] * (most - len(known))], object)
    return Rows(pd.DataFrame(columns))


def _words(id: str, counting: DocumentCounts, answers: Iterator[Sequence[Sequence[str]]]) -> list[list[str]]:
    united: list[set[str]] = [set() for _ in counting.names]
    for answer in answers:
        for name, words, more in zip(counting.names, united, answer, strict=True):
            words.update(more)
            if len(words) > MOST_WORDS:
                raise DataError(
                    f'client "{id}": column "{name}" has {len(words):,} different words, and a vocabulary '
                    f'{MOST_WORDS:,} at most; hash them (vocabulary="hashed"), or declare the words that count.'
                )
    return [sorted(words) for words in united]


def _balance(id: str, counting: LabelBalance, answers: Iterator[Sequence[int]]) -> list[int]:
    return [sum(counts) for counts in zip(*answers, strict=True)]


_UNITED: dict[type, Callable[[str, Any, Iterator[Any]], Any]] = {
    DocumentCounts: _words,
    LabelBalance: _balance,
}
