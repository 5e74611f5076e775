"""Schemas side by side: what of them differs, and how to mend it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from fedpact.core.errors import ConfigError, suggest
from fedpact.data.conflicts import Conflict, lacking
from fedpact.data.table_schema import ColumnSchema, Kind, TableSchema
from fedpact.data.units import same_unit

LabelValues = Literal["text", "classes", "numbers"]
"""What labels are: text, whole numbers, or numbers some of which are not whole."""

# Both are text, of which a client sees only its own: one long value makes a column free text for all.
_LOOSER: dict[frozenset[Kind], Kind] = {frozenset({"category", "text"}): "text"}


@dataclass(frozen=True)
class Agreed:
    """What all clients' tables have in common.

    Args:
        schema: the columns.
        label: what the labels are; None where there are none, or an array of them for each example.
    """

    schema: TableSchema
    label: LabelValues | None


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
    """Return what schemas without a conflict have in common: the one wanted, or what most say."""
    if wanted is not None:
        return TableSchema(tuple(replace(column, missing=None) for column in wanted.columns))
    names = _in_order(schemas.values())
    return TableSchema(tuple(_usual([schema[name] for schema in schemas.values()]) for name in names))


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
    if not same_unit(column.unit, usual.unit) and not (
        wanted and (column.unit is None or usual.unit is None)
    ):
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
        return Conflict(
            id, column.name, f"declares {has}, where {whose} {lacks}", "declare the unit everywhere"
        )
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


def _absent(id: str, name: str, own: Mapping[str, ColumnSchema], wanted: TableSchema) -> Conflict:
    near = suggest(name, [each for each in own if each not in wanted])
    return Conflict(id, name, "is missing", near.strip() or "add it, empty if it was not recorded")


def _with_mend(conflict: Conflict) -> Conflict:
    differs, _, near = conflict.differs.partition(". ")
    mend = near or (
        "add it, empty if it was not recorded"
        if differs == "is missing."
        else "leave it out, or add it at all"
    )
    return conflict._replace(differs=differs.rstrip("."), mend=mend)


def _listed(column: ColumnSchema) -> Any:
    listed = column.categories or ()
    return listed if column.kind == "ordinal" else set(listed)


def _span(column: ColumnSchema) -> str:
    low, high = column.range or ("", "")
    return f"{low} to {high}"
