"""The schema of a client's table: what each column is called, holds and is measured in; read and written as TOML."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any, Literal, get_args

from fedpact.core.errors import ConfigError, DataError, suggest
from fedpact.core.rows import ClientData, Rows
from fedpact.data.chunked import ChunkedRows
from fedpact.data.preprocess.columns import Value, as_frame, as_numbers, with_columns
from fedpact.data.units import Rule, conversion, molar_mass, rule_of, same_unit
from fedpact.data.wording import at_client, missing_file, what_else

Kind = Literal["numeric", "category", "ordinal", "date", "text", "image", "label", "id", "group"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_MEASURED = ("numeric", "label")
_LISTED = ("category", "ordinal", "label")
_RANGED = ("numeric", "date", "label")
_EPOCH = datetime(1970, 1, 1)


@dataclass(frozen=True)
class ColumnSchema:
    """What is known of a column.

    Args:
        name: what it is called.
        kind: "numeric", "category", "ordinal" (categories in an order), "date", "text" (free text), "image", "label"
            (what is to be predicted), "id" (names the row) or "group" (names what several rows are of, such as a
            patient).
        unit: what its numbers are measured in, such as "mg/dL".
        substance: what is measured, where its molar mass is needed to change the unit: one of `units.MOLAR_MASSES`.
        range: (least, largest) allowed, both included: numbers, of which either may be infinite, or dates as text of
            ISO 8601.
        missing: the share of rows without a value, where it is known.
        categories: the values allowed; of an ordinal column in their order.
        shape: of an image.
        convert: unit → (factor, offset) that bring values in it to `unit`, where units alone do not say how.

    Raises:
        ConfigError: a setting is not of its kind, or does not go with the column's.
    """

    name: str
    kind: Kind
    unit: str | None = None
    substance: str | None = None
    range: tuple[Any, Any] | None = None
    missing: float | None = None
    categories: tuple[Value, ...] | None = None
    shape: tuple[int, ...] | None = None
    convert: Mapping[str, tuple[float, float]] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ConfigError(f"a column of a schema is called {self.name!r}; give it a name.")
        if self.kind not in KINDS:
            raise self._error(
                f'kind is "{self.kind}"; it must be one of {", ".join(KINDS)}.{suggest(str(self.kind), KINDS)}'
            )
        self._check_text("unit", "substance")
        if self.substance is not None:
            molar_mass(self.substance)
        self._check_goes_with("unit", _MEASURED)
        self._check_goes_with("substance", _MEASURED)
        self._check_goes_with("convert", _MEASURED)
        self._check_goes_with("range", _RANGED)
        self._check_goes_with("categories", _LISTED)
        self._check_goes_with("shape", ("image",))
        if self.range is not None:
            object.__setattr__(self, "range", self._checked_range())
        if self.missing is not None and not (_is_number(self.missing) and 0 <= self.missing <= 1):
            raise self._error(f"missing is {self.missing!r}; it is a share, between 0 and 1.")
        if self.categories is not None:
            object.__setattr__(self, "categories", self._checked_categories())
        if self.shape is not None:
            object.__setattr__(self, "shape", tuple(int(side) for side in self.shape))
        if self.convert is not None:
            object.__setattr__(self, "convert", self._checked_rules())

    def rule_from(self, unit: str | None) -> Rule | None:
        """Return the rule that brings values in a unit to this column's; None where they are in it, or none is known.

        Raises:
            ConfigError: the units differ, and nothing says how one becomes the other.
        """
        if unit is None or self.unit is None or same_unit(unit, self.unit):
            return None
        for declared, rule in (self.convert or {}).items():
            if same_unit(declared, unit):
                return rule_of(*rule)
        return conversion(unit, self.unit, self.substance)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The range as numbers, dates as days since the start of 1970; None where none is declared."""
        if self.range is None:
            return None
        low, high = (_days(each) if self.kind == "date" else float(each) for each in self.range)
        return low, high

    @property
    def empty(self) -> bool:
        """Whether the column is known to have no value."""
        return self.missing == 1

    def to_plain(self) -> dict[str, Any]:
        """Return what is known as plain data, without what is not."""
        plain: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Mapping):
                value = {unit: list(rule) for unit, rule in value.items()}
            if value is not None:
                plain[field.name] = list(value) if isinstance(value, tuple) else value
        return plain

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> ColumnSchema:
        """Return the column that `to_plain` wrote down, or a person.

        Raises:
            ConfigError: a key is unknown or missing, or a value is not of its kind.
        """
        known = [field.name for field in fields(cls)]
        called = f'column "{data["name"]}"' if "name" in data else "a column of the schema"
        for key in data:
            if key not in known:
                hint = suggest(key, known) or f" There are {', '.join(known)}."
                raise ConfigError(f'{called} has no "{key}".{hint}')
        for key in ("name", "kind"):
            if key not in data:
                raise ConfigError(f'{called} has no "{key}"; give it one.')
        lists = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in data.items()
            if key in ("range", "categories", "shape")
        }
        if isinstance(ends := lists.get("range"), tuple):
            lists["range"] = tuple(float(end) if end in ("inf", "-inf") else end for end in ends)
        return cls(**{**data, **lists})

    def _checked_range(self) -> tuple[Any, Any]:
        ends = self.range
        if not isinstance(ends, tuple) or len(ends) != 2:
            raise self._error(f"range is {ends!r}; give the least and the largest value allowed.")
        if self.kind == "date":
            ends = tuple(each.isoformat() if hasattr(each, "isoformat") else each for each in ends)
            if not all(_is_date(each) for each in ends):
                raise self._error(f'range is {ends!r}; give two dates such as "2024-02-29".')
        elif not all(_is_number(each) and not math.isnan(each) for each in ends):
            raise self._error(f"range is {ends!r}; give two numbers.")
        low, high = ends
        if not low <= high:
            raise self._error(f"range begins at {low} and ends at {high}, before it; swap them.")
        return low, high

    def _checked_categories(self) -> tuple[Value, ...]:
        listed = self.categories
        if not isinstance(listed, tuple) or not listed or len(set(listed)) < len(listed):
            raise self._error(f"categories are {listed!r}; give a list of one or more, each once.")
        if not all(isinstance(each, str) or _is_number(each) for each in listed):
            raise self._error("a category is neither text nor a number; write it as one of these.")
        return listed

    def _checked_rules(self) -> dict[str, tuple[float, float]]:
        if self.unit is None or not isinstance(self.convert, Mapping):
            raise self._error(
                'convert says how other units become its own: give it a unit, and convert as { "mg/dL" = [0.0555, 0] }.'
            )
        rules = {}
        for unit, rule in self.convert.items():
            numbers = list(rule) if isinstance(rule, Sequence) and not isinstance(rule, str) else [rule]
            if len(numbers) not in (1, 2) or not all(_is_number(each) for each in numbers):
                raise self._error(f'convert from "{unit}" is {rule!r}; give [factor, offset].')
            rule_of(*numbers)
            rules[unit] = (float(numbers[0]), float(numbers[1]) if len(numbers) == 2 else 0.0)
        return rules

    def _check_text(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise self._error(f"{name} is {value!r}; it is text.")

    def _check_goes_with(self, setting: str, kinds: Sequence[str]) -> None:
        if getattr(self, setting) is not None and self.kind not in kinds:
            raise self._error(
                f'it is of kind "{self.kind}", which has no {setting}; leave it out, or change the kind.'
            )

    def _error(self, what: str) -> ConfigError:
        return ConfigError(f'column "{self.name}" of the schema: {what}')


@dataclass(frozen=True)
class TableSchema:
    """The columns of a table, in order, and what is known of each.

    Args:
        columns: each with a name of its own.

    Raises:
        ConfigError: two columns of one name, or two labels.
    """

    columns: tuple[ColumnSchema, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(self.columns))
        names = self.names
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f'the schema has two columns called "{name}"; rename one of them.')
        labels = [column.name for column in self.columns if column.kind == "label"]
        if len(labels) > 1:
            raise ConfigError(
                f'the schema has two labels, "{labels[0]}" and "{labels[1]}"; give one of them another kind.'
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(column.name for column in self.columns)

    @property
    def label(self) -> ColumnSchema | None:
        """The column that is to be predicted."""
        return next((column for column in self.columns if column.kind == "label"), None)

    def __getitem__(self, name: str) -> ColumnSchema:
        for column in self.columns:
            if column.name == name:
                return column
        raise ConfigError(f'the schema has no column "{name}".{what_else(name, self.names)}')

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def of_kind(self, *kinds: Kind) -> tuple[str, ...]:
        """Return the names of the columns of these kinds."""
        return tuple(column.name for column in self.columns if column.kind in kinds)

    def with_column(self, name: str, **changes: Any) -> TableSchema:
        """Return the schema with something else known of a column, such as `unit="mg/dL"`.

        Raises:
            ConfigError: there is no such column, or a setting is not of its kind.
        """
        changed = ColumnSchema.from_plain({**self[name].to_plain(), **changes})
        return replace(self, columns=tuple(changed if each.name == name else each for each in self.columns))

    @classmethod
    def infer(cls, rows: Rows | Any, label: str = "label") -> TableSchema:
        """Return what rows show of their own schema; units, ranges and groups are for people to write in.

        Numbers and booleans are numeric; text and pandas categoricals are categories, ordered ones ordinal; what
        pandas or ISO 8601 calls a date is one. Text is free text where a value has more than 60 characters or a line
        break. Whole numbers or text in a column called "id", "patient_id" and the like are ids. A column without any
        value is numeric. Arrays of more than two dimensions are one image column, "x".

        Args:
            rows: rows, or a table.
            label: what to call the labels.

        Raises:
            DataError: two columns of one name, or a column that holds neither numbers, text, dates nor images.
        """
        from fedpact.data.infer_schema import columns_of

        return cls(columns_of(rows if isinstance(rows, Rows) else Rows(rows), label))

    def converted(self, data: ClientData, own: TableSchema) -> ClientData:
        """Return a client with its columns in this schema's units; done at the client.

        Args:
            data: the client.
            own: its own schema, which says what its numbers are measured in.

        Raises:
            ConfigError: nothing says how a unit becomes the one wanted.
            DataError: a column is missing, or holds no numbers.
        """
        rules = {}
        for column in self.columns:
            if column.name in own and (rule := column.rule_from(own[column.name].unit)) is not None:
                rules[column.name] = rule
        if not rules:
            return data
        test = None if data.test is None else self._converted(data.id, data.test, rules)
        return ClientData(data.id, self._converted(data.id, data.train, rules), test)

    def _converted(self, id: str, rows: Rows, rules: Mapping[str, Rule]) -> Rows:
        if isinstance(rows, ChunkedRows):
            return rows.then(partial(self._converted, id, rules=rules))
        changed, y = {}, rows.y
        with at_client(id):
            frame = as_frame(rows.x)
            for name, rule in rules.items():
                if self[name].kind == "label":
                    if y is None or y.dtype.kind not in "biuf":
                        raise DataError("the labels are no numbers, so their unit cannot be changed.")
                    y = rule.apply(y.astype(float))
                else:
                    changed[name] = {name: rule.apply(as_numbers(frame, name))}
        return Rows(with_columns(frame, changed) if changed else rows.x, y)

    def to_toml(self) -> str:
        """Return the schema as TOML that `from_toml` reads back, one [[column]] for each."""
        blocks = [
            "\n".join(
                ["[[column]]", *(f"{key} = {_toml(value)}" for key, value in column.to_plain().items())]
            )
            for column in self.columns
        ]
        return "\n\n".join(blocks) + "\n"

    @classmethod
    def from_toml(cls, source: str | Path) -> TableSchema:
        """Read a schema.

        Args:
            source: a path, or the text itself.

        Raises:
            ConfigError: it is no TOML, or no schema; the line or the column is named.
            DataError: there is no such file.
        """
        where = f"the schema {source}" if isinstance(source, Path) else "the schema"
        if isinstance(source, Path):
            if not source.is_file():
                raise DataError(missing_file(source))
            source = source.read_text(encoding="utf-8")
        try:
            data = tomllib.loads(source)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{where} is no TOML: {error}.") from None
        listed = data.pop("column", None)
        if data or not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
            extra = f' and no "{next(iter(data))}"' if data else ""
            raise ConfigError(f"{where} must have one [[column]] with name and kind for each column{extra}.")
        try:
            return cls(tuple(ColumnSchema.from_plain(each) for each in listed))
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None

    def to_json(self) -> list[dict[str, Any]]:
        """Return the schema as plain data."""
        columns = [column.to_plain() for column in self.columns]
        # JSON has no infinite numbers.
        endless = [column for column in columns if math.inf in map(_size, column.get("range", ()))]
        for column in endless:
            column["range"] = [str(end) if _size(end) == math.inf else end for end in column["range"]]
        return columns

    @classmethod
    def from_json(cls, data: Sequence[Mapping[str, Any]]) -> TableSchema:
        """Return the schema that `to_json` wrote down."""
        return cls(tuple(ColumnSchema.from_plain(each) for each in data))


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _size(end: Any) -> float:
    return abs(end) if _is_number(end) else 0.0


def _is_date(value: Any) -> bool:
    try:
        datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return False
    return True


def _days(text: str) -> float:
    return (datetime.fromisoformat(text).replace(tzinfo=None) - _EPOCH) / timedelta(days=1)


def _toml(value: Any) -> str:
    if isinstance(value, str):
        # JSON escapes all that a basic string of TOML must, but for one control character.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_toml(key)} = {_toml(each)}' for key, each in value.items())} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value)
