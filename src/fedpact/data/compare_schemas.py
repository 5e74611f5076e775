"""Clients' schemas side by side: one table of what differs and how to mend it, before anything else is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fedpact.core.algorithm import ClientState
from fedpact.core.errors import ConfigError, DataError
from fedpact.core.messages import Aggregate, Task, Update
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.data.agree import labels_of
from fedpact.data.chunked import ChunkedRows
from fedpact.data.compare import Agreed, LabelValues, compare, merged
from fedpact.data.conflicts import Conflict, in_a_table
from fedpact.data.preprocess.columns import Value, as_categories, as_frame, as_numbers
from fedpact.data.preprocess.dates import FittedDateParts
from fedpact.data.preprocess.estimate import Collected, Estimating, reply
from fedpact.data.table_schema import ColumnSchema, Kind, TableSchema
from fedpact.data.wording import at_client

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class CompareSchemas(Collected):
    """An algorithm of one task: clients describe their columns, the server compares.

    A client tells names, kinds, units and what its schema declares of ranges and orders, and in which columns it has
    values that the schema wanted does not allow. No value leaves it, no number of rows, and no share that is missing.

    Args:
        wanted: the schema that all are to have; None for what most have.
        own: client → its own schema, where it has written one; of others it is inferred.
        label: what to call the labels of inferred schemas.
    """

    wanted: TableSchema | None = None
    own: Mapping[str, TableSchema] = field(default_factory=dict)
    label: str = "label"

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return the client's schema, without the shares that are missing, and what breaks the one wanted."""
        known = self.own.get(data.id)
        label = next((s.label.name for s in (self.wanted, known) if s and s.label), self.label)
        with at_client(data.id):
            inferred = TableSchema.infer(data.train, label)
            schema = inferred if known is None else _told(known, inferred)
            if self.wanted is not None:
                schema = _told(self.wanted, schema, kinds_only=True)
            converted = _converted(self.wanted or schema, schema, data)
            broken = [] if self.wanted is None else _broken_in_all(self.wanted, converted.train)
            values = _label_values_in_all(data.train)
        columns = [
            {**column.to_plain(), "missing": 1.0 if column.empty else None} for column in schema.columns
        ]
        answer = {
            "columns": [{k: v for k, v in each.items() if v is not None} for each in columns],
            "broken": broken,
            "label": values,
        }
        return reply(task, data, answer=answer), kept

    def server(self, model: Any, state: Estimating, aggregate: Aggregate) -> Estimating:
        """Agree on the schema.

        Raises:
            DataError: clients differ; each client and column is named, with a suggested mend.
        """
        answers = dict(sorted(aggregate.answers.items()))
        schemas = {id: TableSchema.from_json(each["columns"]) for id, each in answers.items()}
        conflicts = compare(schemas, self.wanted)
        conflicts += [Conflict(id, *each) for id, answer in answers.items() for each in answer["broken"]]
        labels = {id: each["label"] for id, each in answers.items() if each["label"] is not None}
        conflicts += _label_conflicts(labels)
        if conflicts:
            raise DataError(
                in_a_table(
                    "the clients' tables do not go together",
                    conflicts,
                    "Mend these before anything is computed.",
                )
            )
        agreed = merged(schemas, self.wanted)
        label = "numbers" if "numbers" in labels.values() else next(iter(labels.values()), None)
        return Estimating(1, {"columns": agreed.to_json(), "label": label})

    def fitted(self, state: Estimating) -> Agreed:
        """Return what the clients have in common."""
        return Agreed(TableSchema.from_json(state.found["columns"]), state.found["label"])


def _told(known: TableSchema, inferred: TableSchema, kinds_only: bool = False) -> TableSchema:
    """Return what rows show of a schema, with what somebody knows of the columns that are there."""
    columns = []
    for column in inferred.columns:
        if column.name not in known:
            columns.append(column)
        elif not kinds_only:
            columns.append(replace(known[column.name], missing=column.missing))
        elif _may_be(column.kind, known[column.name].kind):
            columns.append(_with_kind(column, known[column.name]))
        else:
            columns.append(column)
    return TableSchema(tuple(columns))


def _with_kind(column: ColumnSchema, known: ColumnSchema) -> ColumnSchema:
    fits: dict[str, bool] = {
        "unit": known.kind in ("numeric", "label"),
        "substance": known.kind in ("numeric", "label"),
        "convert": known.kind in ("numeric", "label"),
        "range": known.kind in ("numeric", "date", "label"),
        "categories": known.kind in ("category", "ordinal", "label"),
        "shape": known.kind == "image",
    }
    dropped: dict[str, Any] = {name: None for name, fit in fits.items() if not fit}
    return replace(column, kind=known.kind, **dropped)


def _may_be(kind: Kind, wanted: Kind) -> bool:
    """Return whether a column that looks like one kind can be of another, which people know and rows do not show."""
    if wanted in ("id", "group"):
        return kind in ("numeric", "category", "text", "id")
    if wanted in ("category", "ordinal"):
        return kind in ("numeric", "category", "text", "id", "ordinal", "date")
    if wanted == "text":
        return kind in ("category", "id", "date")
    if wanted == "numeric":
        return kind == "id"
    return False


def _converted(wanted: TableSchema, own: TableSchema, data: ClientData) -> ClientData:
    try:
        return wanted.converted(data, own)
    except ConfigError:
        # The comparison says of which unit no rule is known.
        return data


def _broken_in_all(wanted: TableSchema, rows: Rows) -> list[tuple[str, str, str]]:
    """Return what `_broken` does, also of rows that are read in chunks."""
    if not isinstance(rows, ChunkedRows):
        return _broken(wanted, rows)
    found = {each for chunk in rows.mapped(partial(_broken, wanted)) for each in chunk}
    # As of all rows at once: by column, and ranges before categories.
    return sorted(found, key=lambda each: (wanted.names.index(each[0]), "range" not in each[2]))


def _broken(wanted: TableSchema, rows: Rows) -> list[tuple[str, str, str]]:
    """Return (column, what differs, mend) where values are outside what a schema allows; none of them is told."""
    broken = []
    frame = _frame(wanted, rows)
    for column in wanted.columns:
        name = column.name
        if name not in frame.columns or frame[name].isna().all():
            continue
        if column.bounds is not None and _leaves(column, frame):
            low, high = column.range or ("", "")
            mend = "look at the unit, leave them empty, or widen the range"
            broken.append((name, f"has values outside {low} to {high}", mend))
        if column.categories is not None and not _are_among(column.categories, name, frame):
            mend = "rename them, leave them empty, or list them in categories"
            broken.append((name, "has values that are no category of the schema", mend))
    return broken


def _frame(wanted: TableSchema, rows: Rows) -> pd.DataFrame:
    """Return the columns of rows, and the labels, as one table; none of arrays that are no table."""
    import pandas as pd

    if not hasattr(rows.x, "columns") and np.ndim(rows.x) > 2:
        frame = pd.DataFrame(index=range(len(rows)))
    else:
        frame = as_frame(rows.x)
    if wanted.label is None or rows.y is None or np.ndim(rows.y) > 1:
        return frame
    return frame.assign(**{wanted.label.name: labels_of(rows)})


def _leaves(column: ColumnSchema, frame: pd.DataFrame) -> bool:
    """Return whether a value is outside a column's range; what is of another kind is told as that."""
    low, high = column.bounds or (-np.inf, np.inf)
    try:
        if column.kind == "date":
            days = FittedDateParts((column.name,), ("days",)).transform(frame[[column.name]])
            values = days[f"{column.name}:days"].to_numpy(np.float64)
        else:
            values = as_numbers(frame, column.name)
    except DataError:
        return False
    return bool(np.any((values < low) | (values > high)))


def _are_among(categories: Sequence[Value], name: str, frame: pd.DataFrame) -> bool:
    try:
        _, own = as_categories(frame, name)
    except DataError:
        return False
    return set(own) <= set(categories)


def _label_values_in_all(rows: Rows) -> LabelValues | None:
    if not isinstance(rows, ChunkedRows):
        return _label_values(rows)
    values = set(rows.mapped(_label_values))
    return "numbers" if "numbers" in values else values.pop()


def _label_values(rows: Rows) -> LabelValues | None:
    if rows.y is None:
        return None
    labels = labels_of(rows)
    if labels.ndim > 1:
        return None
    if labels.dtype.kind == "U":
        return "text"
    return "classes" if labels.dtype.kind in "biu" or bool(np.all(labels == np.floor(labels))) else "numbers"


def _label_conflicts(labels: Mapping[str, LabelValues]) -> list[Conflict]:
    texts = [id for id, values in labels.items() if values == "text"]
    if not texts or len(texts) == len(labels):
        return []
    odd = texts if 2 * len(texts) <= len(labels) else [id for id in labels if id not in texts]
    return [
        Conflict(
            id,
            "the labels",
            f"{'text' if id in texts else 'numbers'}, where others have {'numbers' if id in texts else 'text'}",
            "write labels alike at all clients",
        )
        for id in odd
    ]
