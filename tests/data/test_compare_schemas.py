from typing import Any

import numpy as np
import pandas as pd
import pytest

import fedpact as fp
from fedpact.core.errors import ConfigError, DataError
from fedpact.core.rows import ClientData, Rows
from fedpact.data.table_schema import TableSchema


def clients(*tables: dict[str, list[Any]], y: list[list[Any]] | None = None) -> list[ClientData]:
    return [
        ClientData(name, Rows(pd.DataFrame(columns), None if y is None else np.array(y[i])))
        for i, (name, columns) in enumerate(zip("abcd", tables, strict=False))
    ]


def refusal(*arguments: Any, **options: Any) -> list[str]:
    """Return the lines of the table of conflicts, with single spaces."""
    with pytest.raises(DataError) as error:
        fp.compare_schemas(*arguments, **options)
    return [" ".join(line.split()) for line in str(error.value).splitlines()]


AGES = {"age": [30.0, 40.0]}


def test_clients_that_agree_have_one_schema_without_their_shares_that_are_missing() -> None:
    agreed = fp.compare_schemas(clients(AGES, {"age": [None, 1.5]}, {"age": [None, None]}))
    assert agreed.to_json() == [{"name": "age", "kind": "numeric"}]


def test_a_misspelt_column_is_mended_by_its_nearest() -> None:
    lines = refusal(clients(AGES, AGES, {"agee": [3.0, 4.0]}))
    assert lines[0] == "the clients' tables do not go together:"
    assert lines[1] == "client column what differs suggested mend"
    assert 'c age is missing Did you mean "agee"?' in lines
    assert 'c agee is missing at others Did you mean "age"?' in lines


def test_numbers_spoilt_by_a_mark_are_told_to_leave_it_empty() -> None:
    lines = refusal(clients(AGES, AGES, {"age": ["30", "?"]}))
    assert any(
        line.startswith("c age category, where others have numeric") and "leave marks" in line
        for line in lines
    )


def test_dates_that_others_cannot_be_read_as_are_named() -> None:
    dates = {"day": ["2024-01-01", "2024-01-02"]}
    assert "b day category, where others have date write dates as 2024-02-29" in refusal(
        clients(dates, {"day": ["1.1.24", "2.1.24"]}, dates)
    )


def test_one_long_text_makes_a_column_free_text_for_all() -> None:
    agreed = fp.compare_schemas(clients({"note": ["x", "y"]}, {"note": ["x" * 61, "y"]}))
    assert agreed["note"].kind == "text"


def own(data: list[ClientData], **changes: dict[str, Any]) -> dict[str, TableSchema]:
    """Return each client's inferred schema with what is known of its column "chol"."""
    return {
        each.id: TableSchema.infer(each.train).with_column("chol", **changes.get(each.id, {}))
        for each in data
    }


CHOL = {"chol": [200.0, 250.0]}


def test_other_units_come_with_the_factor_that_mends_them() -> None:
    data = clients(CHOL, CHOL, {"chol": [5.0, 6.0]})
    mg: dict[str, Any] = {"unit": "mg/dL", "substance": "cholesterol"}
    lines = refusal(data, own=own(data, a=mg, b=mg, c={"unit": "mmol/L"}))
    # 386.664 g/mol: 1 mmol/L is 38.6664 mg/dL.
    assert lines[2] == (
        "c chol in mmol/L, where others have mg/dL × 38.6664: give all clients the schema with unit mg/dL, "
        "and they convert their own"
    )


def test_other_units_without_a_substance_ask_for_it() -> None:
    data = clients(CHOL, CHOL, CHOL)
    lines = refusal(data, own=own(data, a={"unit": "mg/dL"}, b={"unit": "mg/dL"}, c={"unit": "mmol/L"}))
    assert "name the substance" in lines[2]


def test_a_unit_that_one_alone_declares_is_a_conflict() -> None:
    data = clients(CHOL, CHOL)
    assert any(
        "no unit, where others have mg/dL" in line
        for line in refusal(data, own=own(data, a={"unit": "mg/dL"}))
    )


def test_units_that_the_schema_wanted_can_convert_are_none() -> None:
    data = clients(CHOL, {"chol": [5.0, 6.0]})
    known = own(data, a={"unit": "mg/dL"}, b={"unit": "mmol/L"})
    wanted = known["b"].with_column("chol", substance="cholesterol", range=(2, 12))
    assert fp.compare_schemas(data, wanted, own=known)["chol"].unit == "mmol/L"


def test_values_outside_what_is_allowed_are_told_without_the_values() -> None:
    data = clients(
        {"chol": [200.0, 0.0], "sex": ["f", "divers"]}, {"chol": [200.0, 250.0], "sex": ["f", "m"]}
    )
    wanted = (
        TableSchema.infer(data[0].train)
        .with_column("chol", range=(50, 700))
        .with_column("sex", categories=("f", "m"))
    )
    text = "\n".join(refusal(data, wanted))
    assert "a chol has values outside 50 to 700" in text
    assert "a sex has values that are no category of the schema" in text
    assert "divers" not in text
    assert "\nb " not in text


def test_dates_and_labels_are_held_to_their_ranges_too() -> None:
    days = {"day": ["2024-01-01", "2024-01-02"]}
    data = clients(days, {"day": ["2024-01-01", "2025-01-02"]}, y=[[0, 7], [0, 1]])
    wanted = (
        TableSchema.infer(data[0].train)
        .with_column("day", range=("2024-01-01", "2024-12-31"))
        .with_column("label", categories=(0, 1))
    )
    lines = refusal(data, wanted)
    assert any(line.startswith("b day has values outside 2024-01-01 to 2024-12-31") for line in lines)
    assert any(line.startswith("a label has values that are no category") for line in lines)
    assert len(lines) == 5


def test_ranges_and_orders_that_clients_declare_differently_are_conflicts() -> None:
    data = clients(CHOL, CHOL)
    lines = refusal(data, own=own(data, a={"range": (0, 10)}, b={"range": (0, 20)}))
    assert any("allows 0 to 20, where others have 0 to 10" in line for line in lines)
    pains = [pd.Categorical(["lo", "hi"], order, ordered=True) for order in (["lo", "hi"], ["hi", "lo"])]
    lines = refusal(clients(*({"pain": pain} for pain in pains)))
    assert any("declares an order other than others" in line for line in lines)


def test_labels_of_two_kinds_are_a_conflict() -> None:
    lines = refusal(clients(AGES, AGES, AGES, y=[[0, 1], [0, 1], ["no", "yes"]]))
    assert "c the labels text, where others have numbers write labels alike at all clients" in lines


def test_a_column_is_of_the_kind_that_the_schema_wanted_says() -> None:
    data = clients({"ward": [1, 2]}, {"ward": [2, 3]})
    wanted = TableSchema.infer(data[0].train).with_column("ward", kind="category", categories=[1, 2, 3])
    assert fp.compare_schemas(data, wanted) == TableSchema(
        (wanted.columns[0].__class__("ward", "category", categories=(1, 2, 3)),)
    )


def test_no_value_and_no_share_leaves_a_client() -> None:
    from fedpact.core.messages import Task
    from fedpact.core.seeds import Seed
    from fedpact.data.compare_schemas import CompareSchemas

    (data,) = clients({"age": [31.25, None], "sex": ["secret", None]})
    update, _ = CompareSchemas().client(None, Task("statistics"), data, {}, Seed.of(0))
    assert update.answer == {
        "columns": [{"name": "age", "kind": "numeric"}, {"name": "sex", "kind": "category"}],
        "broken": [],
        "label": None,
    }


def test_a_schema_of_nobody_is_refused() -> None:
    with pytest.raises(ConfigError, match='own has a schema for "z"'):
        fp.compare_schemas(clients(AGES), own={"z": TableSchema.infer(pd.DataFrame(AGES))})
