"""The columns that all clients' tables have in common: agreed on before anything else is computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fedpact.core.algorithm import ClientState
from fedpact.core.errors import DataError
from fedpact.core.messages import Aggregate, Task, Update
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.data.chunked import ChunkedRows
from fedpact.data.conflicts import Conflict, in_a_table, lacking
from fedpact.data.objects import are_numbers, is_text
from fedpact.data.preprocess.columns import ColumnKind, Columns, as_frame
from fedpact.data.preprocess.estimate import Collected, Estimating, reply
from fedpact.data.wording import at_client

if TYPE_CHECKING:
    import pandas as pd

_IN_WORDS: dict[ColumnKind, str] = {"numeric": "numbers", "category": "text", "other": "something else"}

_FIRST_ROWS = 100

# (name, kind or None where all is missing, description) of each column of one client.
_Table = list[tuple[str, ColumnKind | None, str]]


@dataclass(frozen=True)
class FitSchema(Collected):
    """An algorithm of one task: clients describe their columns, the server agrees on names, kinds and order.

    Every client must have the same columns. A column without any value agrees with all kinds; without a
    value at any client it is numeric. Where clients order their columns differently, the mean place counts.

    Args:
        raw: columns that may hold anything at each client, and are of kind "other".
    """

    raw: tuple[str, ...] = ()

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return the names and kinds of the columns of the training rows; no value leaves the client."""
        with at_client(data.id):
            if isinstance(data.train, ChunkedRows):
                described = _united(data.train.mapped(_described))
            else:
                described = _described(data.train)
        return reply(task, data, answer=[list(column) for column in described]), kept

    def server(self, model: Any, state: Estimating, aggregate: Aggregate) -> Estimating:
        """Agree on the columns.

        Raises:
            DataError: clients disagree; each client and column is named.
        """
        return Estimating(state.round + 1, _agreed(aggregate.answers, self.raw).to_json())

    def fitted(self, state: Estimating) -> Columns:
        """Return the columns."""
        return Columns.from_json(state.found)


def _described(rows: Rows) -> _Table:
    frame = as_frame(rows.x)
    return [(name, *_describe(frame[name])) for name in frame.columns]


def _united(chunks: Iterator[_Table]) -> _Table:
    """Return what all chunks of a table hold, of which each column has one type in all."""
    united = next(chunks)
    for chunk in chunks:
        columns = zip(united, chunk, strict=True)
        united = [known if known[1] is not None else found for known, found in columns]
    return united


def _describe(values: pd.Series[Any]) -> tuple[ColumnKind | None, str]:
    import pandas as pd
    from pandas.api import types

    # The first rows answer for most columns.
    if not (values.iloc[:_FIRST_ROWS].notna().any() or values.notna().any()):
        return None, "nothing but missing values"
    if isinstance(values.dtype, pd.CategoricalDtype):
        return "category", "a pandas categorical"
    if types.is_numeric_dtype(values.dtype) and not types.is_complex_dtype(values.dtype):
        return "numeric", "numbers"
    if isinstance(values.dtype, pd.StringDtype):
        return "category", "text"
    known = values.notna()
    present = values[known]
    texts = is_text(present)
    if texts.all():
        return "category", "text"
    if not are_numbers(present[~texts]):
        return "other", f"values of dtype {values.dtype}"
    if not texts.any():
        return "numeric", "numbers"
    first = int(np.flatnonzero(known)[np.argmax(texts)]) + 1
    return "category", f"text among numbers in {texts.sum()} row(s), first in row {first}"


def _agreed(tables: Mapping[str, _Table], raw: tuple[str, ...]) -> Columns:
    places = Counter[str]()
    for table in tables.values():
        places.update({name: place for place, (name, _, _) in enumerate(table)})
    described = {
        client: {name: (kind, words) for name, kind, words in table} for client, table in tables.items()
    }
    items: list[tuple[str, ColumnKind]] = []
    conflicts: list[Conflict] = []
    for name in sorted(places, key=lambda name: (places[name], name)):
        having = {client: columns[name] for client, columns in described.items() if name in columns}
        if len(having) < len(described):
            conflicts += lacking(name, described)
        if name in raw:
            items.append((name, "other"))
            continue
        kinds = Counter(kind for kind, _ in having.values() if kind is not None)
        # The first of the most frequent kinds: numbers before text, and where there is no value at all.
        usual = max(_IN_WORDS, key=lambda kind: kinds[kind])
        conflicts += [
            Conflict(client, name, f"{words}, where others have {_IN_WORDS[usual]}")
            for client, (kind, words) in having.items()
            if kind not in (None, usual)
        ]
        items.append((name, usual))
    if conflicts:
        raise DataError(
            in_a_table(
                "the clients' tables do not have the same columns",
                conflicts,
                'Give all clients the same columns. A mark for missing values, such as "?", turns a column of '
                "numbers into text: leave such cells empty.",
            )
        )
    return Columns(tuple(items))
