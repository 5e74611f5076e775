"""Clients' schemas side by side: one table of what differs and how to mend it, before anything else is computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np

from fedpact.core.algorithm import ClientState
from fedpact.core.errors import ConfigError, DataError, suggest
from fedpact.core.messages import Aggregate, Task, Update
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.data.agree import labels_of
from fedpact.data.conflicts import Conflict, in_a_table, lacking
from fedpact.data.preprocess.columns import as_categories, as_frame, as_numbers
from fedpact.data.preprocess.estimate import Estimating, ask, reply
from fedpact.data.table_schema import ColumnSchema, Kind, TableSchema
from fedpact.data.units import same_unit
from fedpact.data.wording import at_client

LabelValues = Literal["text", "classes", "numbers"]
"""What labels are: text, whole numbers, or numbers some of which are not whole."""

# Both are text, of which a client sees only its own: one long value makes a column free text for all.
_LOOSER: dict[frozenset[Kind], Kind] = {frozenset({"category", "text"}): "text"}


@dataclass(frozen=True)
class Agreed:
    """What all clients' tables have in common.

    Args:
        schema: the columns.
        label: what the labels are; None where there are none.
    """

    schema: TableSchema
    label: LabelValues | None


@dataclass(frozen=True)
class CompareSchemas:
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

    releases: ClassVar[Literal["averaged", "summed"]] = "summed"

    def init(self, model: Any, seed: Seed) -> Estimating:
        """Return the state before the first round."""
        return Estimating()

    def task(self, state: Estimating) -> Task | None:
        """Ask every client, once."""
        return ask(state, "collect") if state.round == 0 else None

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
            broken = [] if self.wanted is None else _broken(self.wanted, converted.train)
            values = _label_values(data.train)
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
                    "the clients' tables do not go together", conflicts, "Mend these before anything is computed."
                )
            )
        agreed = merged(schemas, self.wanted)
        label = "numbers" if "numbers" in labels.values() else next(iter(labels.values()), None)
        return Estimating(1, {"columns": agreed.to_json(), "label": label})

    def fitted(self, state: Estimating) -> Agreed:
        """Return what the clients have in common."""
        return Agreed(TableSchema.from_json(state.found["columns"]), state.found["label"])


def compare(schemas: Mapping[str, TableSchema], wanted: TableSchema | None = None) -> list[Conflict]:
    """Return what of clients' schemas differs, column by column.

    A column without any value goes with every kind. A unit that the schema wanted can convert is no conflict.

    Args:
        schemas: client → its schema.
        wanted: what all are to have; None for what most have.
    """
    conflicts: list[Conflict] = []
    columns = {id: {column.name: column for column in schema.columns} for id, schema in schemas.items()}
    if wanted is not None:
        for id, own in columns.items():
            conflicts += [_absent(id, name, own, wanted) for name in wanted.names if name not in own]
            conflicts += [
                Conflict(id, name, "is not in the schema wanted", "leave it out, or add it to the schema")
                for name in own
                if name not in wanted
            ]
    for name in _in_order(schemas.values()) if wanted is None else wanted.names:
        having = {id: own[name] for id, own in columns.items() if name in own}
        if wanted is None and len(having) < len(columns):
            conflicts += [_with_mend(each) for each in lacking(name, columns)]
        if having:
            usual = _usual(having.values()) if wanted is None else wanted[name]
            for id, column in having.items():
                conflicts += _differences(id, column, usual, wanted is not None)
    return conflicts


def merged(schemas: Mapping[str, TableSchema], wanted: TableSchema | None = None) -> TableSchema:
    """Return the schema of clients between whose schemas there is no conflict; of the one wanted, with nothing added."""
    if wanted is not None:
        return TableSchema(tuple(replace(column, missing=None) for column in wanted.columns))
    names = _in_order(schemas.values())
    return TableSchema(tuple(_usual([schema[name] for schema in schemas.values()]) for name in names))


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
    fits = {
        "unit": known.kind in ("numeric", "label"),
        "substance": known.kind in ("numeric", "label"),
        "convert": known.kind in ("numeric", "label"),
        "range": known.kind in ("numeric", "date", "label"),
        "categories": known.kind in ("category", "ordinal", "label"),
        "shape": known.kind == "image",
    }
    return replace(column, kind=known.kind, **{name: None for name, fit in fits.items() if not fit})


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


def _broken(wanted: TableSchema, rows: Rows) -> list[tuple[str, str, str]]:
    """Return (column, what differs, mend) where values are outside what a schema allows; none of them is told."""
    broken = []
    frame = None if not hasattr(rows.x, "columns") and np.ndim(rows.x) > 2 else as_frame(rows.x)
    for column in wanted.columns:
        if frame is None or column.name not in frame.columns:
            continue
        if column.range is not None and column.kind == "numeric":
            try:
                values = as_numbers(frame, column.name)
            except DataError:
                continue
            low, high = column.range
            if np.any((values < low) | (values > high)):
                broken.append(
                    (
                        column.name,
                        f"has values outside {low} to {high}",
                        "look at the unit, leave them empty, or widen the range",
                    )
                )
        if column.categories is not None and column.kind in ("category", "ordinal"):
            _, own = as_categories(frame, column.name)
            if not set(own) <= set(column.categories):
                broken.append(
                    (
                        column.name,
                        "has values that are no category of the schema",
                        "rename them, leave them empty, or list them in categories",
                    )
                )
    return broken


def _label_values(rows: Rows) -> LabelValues | None:
    if rows.y is None:
        return None
    labels = labels_of(rows)
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


def _in_order(schemas: Iterable[TableSchema]) -> list[str]:
    """Return all names, ordered by the mean place that clients give them, as `FitSchema` does."""
    places = Counter[str]()
    for schema in schemas:
        places.update({name: place for place, name in enumerate(schema.names)})
    return sorted(places, key=lambda name: (places[name], name))


def _usual(columns: Iterable[ColumnSchema]) -> ColumnSchema:
    """Return what most say of a column, and of two that as many say the first in order."""
    listed = list(columns)
    telling = [column for column in listed if not column.empty] or listed
    first = telling[0]
    kinds = {column.kind for column in telling}
    kind = _LOOSER.get(frozenset(kinds)) or _most(column.kind for column in telling)
    alike = [column for column in telling if column.kind == kind] or [first]
    found: dict[str, Any] = {"name": first.name, "kind": kind}
    for setting in ("unit", "substance", "range", "categories", "shape", "convert"):
        declared = [getattr(column, setting) for column in alike if getattr(column, setting) is not None]
        if declared:
            spelt = _most(map(repr, declared))
            found[setting] = next(each for each in declared if repr(each) == spelt)
    if all(column.empty for column in listed):
        found["missing"] = 1.0
    return ColumnSchema(**found)


def _most(values: Iterable[Any]) -> Any:
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], str(value)))


def _differences(id: str, column: ColumnSchema, usual: ColumnSchema, wanted: bool) -> list[Conflict]:
    whose = "the schema wanted has" if wanted else "others have"
    name = column.name
    if column.empty:
        return []
    if column.kind != usual.kind:
        if not wanted and _LOOSER.get(frozenset({column.kind, usual.kind})) == usual.kind:
            return []
        return [
            Conflict(id, name, f"{column.kind}, where {whose} {usual.kind}", _mend_of_kind(column, usual))
        ]
    found = []
    if not same_unit(column.unit, usual.unit) and not (wanted and (column.unit is None or usual.unit is None)):
        conflict = _unit_conflict(id, column, usual, whose, wanted)
        found += [conflict] if conflict else []
    if not wanted and None not in (column.range, usual.range) and column.range != usual.range:
        found.append(
            Conflict(
                id,
                name,
                f"allows {_span(column)}, where {whose} {_span(usual)}",
                "agree on one range" + ("" if column.unit else ", or declare the units if these differ"),
            )
        )
    if None not in (column.categories, usual.categories) and _listed(column) != _listed(usual):
        what = "an order" if set(column.categories or ()) == set(usual.categories or ()) else "categories"
        found.append(
            Conflict(id, name, f"declares {what} other than {whose}", f"list {what} alike at all clients")
        )
    if None not in (column.shape, usual.shape) and column.shape != usual.shape:
        found.append(
            Conflict(
                id, name, f"images of shape {column.shape}, where {whose} {usual.shape}", "resize the images"
            )
        )
    return found


def _unit_conflict(
    id: str, column: ColumnSchema, usual: ColumnSchema, whose: str, wanted: bool
) -> Conflict | None:
    """Return what to say of two units; None where the schema wanted says how one becomes the other."""
    if column.unit is None or usual.unit is None:
        has, lacks = (column.unit, "none") if usual.unit is None else ("no unit", usual.unit)
        return Conflict(id, column.name, f"declares {has}, where {whose} {lacks}", "declare the unit everywhere")
    differs = f"in {column.unit}, where {whose} {usual.unit}"
    with_substance = usual if usual.substance else replace(usual, substance=column.substance)
    try:
        rule = (usual if wanted else with_substance).rule_from(column.unit)
    except ConfigError as error:
        return Conflict(id, column.name, differs, str(error))
    if wanted or rule is None:
        return None
    return Conflict(
        id,
        column.name,
        differs,
        f"{rule.words()}: give all clients the schema with unit {usual.unit}, and they convert their own",
    )


def _mend_of_kind(column: ColumnSchema, usual: ColumnSchema) -> str:
    if usual.kind == "numeric":
        return 'write numbers as numbers; leave marks for missing values, such as "?", empty'
    if usual.kind == "date":
        return "write dates as 2024-02-29"
    if column.kind == "numeric" and usual.kind in ("category", "text"):
        return f'read the column as text: text=["{column.name}"]'
    return f"write it as {usual.kind}, or declare its kind in the schema"


def _absent(
    id: str, name: str, own: Mapping[str, ColumnSchema], wanted: TableSchema
) -> Conflict:
    near = suggest(name, [each for each in own if each not in wanted])
    return Conflict(id, name, "is missing", near.strip() or "add it, empty if it was not recorded")


def _with_mend(conflict: Conflict) -> Conflict:
    differs, _, near = conflict.differs.partition(". ")
    mend = near or (
        "add it, empty if it was not recorded" if differs == "is missing." else "leave it out, or add it at all"
    )
    return conflict._replace(differs=differs.rstrip("."), mend=mend)


def _listed(column: ColumnSchema) -> Any:
    listed = column.categories or ()
    return listed if column.kind == "ordinal" else set(listed)


def _span(column: ColumnSchema) -> str:
    low, high = column.range or ("", "")
    return f"{low} to {high}"
