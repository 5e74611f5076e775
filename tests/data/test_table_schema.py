from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fedpact as fp
from fedpact.core.errors import ConfigError, DataError
from fedpact.core.rows import ClientData, Rows
from fedpact.data.table_schema import KINDS, ColumnSchema, TableSchema


def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "age": [50.5, None, 61.0, 40.0],
            "patient_id": [1, 2, 3, 4],
            "smoker": [True, False, True, True],
            "sex": ["f", "m", None, "f"],
            "ward": pd.Categorical([3, 1, 3, 1]),
            "pain": pd.Categorical(["low", "high", "low", None], ["low", "high"], ordered=True),
            "seen": pd.to_datetime(["2024-01-01", None, "2024-02-01", "2024-03-01"]),
            "born": ["1970-01-01", "1980-02-02", None, "1990-03-03"],
            "note": [
                "short",
                "a note of more than sixty characters is no category but free text",
                None,
                None,
            ],
            "nothing": [None, None, None, None],
        }
    )


def test_kinds_are_told_from_the_rows() -> None:
    schema = TableSchema.infer(Rows(table(), np.array([0, 1, 0, 1])))
    assert {column.name: column.kind for column in schema.columns} == {
        "age": "numeric",
        "patient_id": "id",
        "smoker": "numeric",
        "sex": "category",
        "ward": "category",
        "pain": "ordinal",
        "seen": "date",
        "born": "date",
        "note": "text",
        "nothing": "numeric",
        "label": "label",
    }
    assert schema["age"].missing == 0.25
    assert schema["nothing"].empty
    assert schema["pain"].categories == ("low", "high")


def test_images_are_one_column() -> None:
    schema = TableSchema.infer(Rows(np.zeros((5, 8, 8)), np.arange(5)), "digit")
    assert schema.columns == (
        ColumnSchema("x", "image", shape=(8, 8)),
        ColumnSchema("digit", "label", missing=0.0),
    )


def test_a_column_that_nothing_can_be_made_of_is_named() -> None:
    with pytest.raises(DataError, match='"odd" holds neither numbers, text, dates nor images'):
        TableSchema.infer(pd.DataFrame({"odd": [{}, {}]}))


names = st.text(min_size=1, max_size=8).filter(lambda name: not any("\ud800" <= c <= "\udfff" for c in name))
numbers = st.floats(-1e9, 1e9)
columns = st.one_of(
    st.builds(
        lambda name, ends, missing: ColumnSchema(
            name, "numeric", unit="mg/dL", substance="glucose", range=tuple(sorted(ends)), missing=missing
        ),
        names,
        st.tuples(numbers, numbers),
        st.none() | st.floats(0, 1),
    ),
    st.builds(
        lambda name, listed, kind: ColumnSchema(name, kind, categories=tuple(listed)),
        names,
        st.lists(names | st.integers(), min_size=1, unique=True),
        st.sampled_from(["category", "ordinal"]),
    ),
    st.builds(lambda name: ColumnSchema(name, "image", shape=(28, 28, 3)), names),
    st.builds(lambda name: ColumnSchema(name, "date", range=("2001-01-01", "2024-02-29")), names),
    st.builds(lambda name: ColumnSchema(name, "numeric", unit="u", convert={'a "b"': (0.5, -1.0)}), names),
    st.builds(ColumnSchema, names, st.sampled_from(KINDS)),
)


@given(
    st.lists(columns, unique_by=lambda column: column.name).filter(
        lambda listed: sum(column.kind == "label" for column in listed) < 2
    )
)
def test_what_is_written_as_toml_is_read_back(listed: list[ColumnSchema]) -> None:
    schema = TableSchema(tuple(listed))
    if listed:
        assert TableSchema.from_toml(schema.to_toml()) == schema
    assert TableSchema.from_json(schema.to_json()) == schema


def test_ends_of_a_range_may_be_infinite() -> None:
    schema = TableSchema.from_toml('[[column]]\nname = "age"\nkind = "numeric"\nrange = [0, inf]\n')
    assert schema["age"].range == (0, float("inf"))
    assert TableSchema.from_toml(schema.to_toml()) == schema


COLUMN = '[[column]]\nname = "age"\nkind = "numeric"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[column]\n", "the schema is no TOML"),
        ("rows = 3\n" + COLUMN, 'one [[column]] with name and kind for each column and no "rows"'),
        ('[[column]]\nname = "age"\n', 'column "age" has no "kind"'),
        (COLUMN.replace("numeric", "numerc"), 'kind is "numerc"'),
        (COLUMN.replace("numeric", "numerc"), 'Did you mean "numeric"?'),
        (COLUMN + 'unitt = "mg/dL"\n', 'column "age" has no "unitt". Did you mean "unit"?'),
        (COLUMN + "range = [9, 1]\n", "range begins at 9 and ends at 1, before it"),
        (COLUMN + "range = 9\n", "give the least and the largest value"),
        (COLUMN + 'range = ["a", "b"]\n', "give two numbers"),
        (COLUMN + "missing = 2\n", "missing is 2; it is a share"),
        (COLUMN + 'categories = ["a"]\n', 'it is of kind "numeric", which has no categories'),
        (COLUMN + 'substance = "glucos"\n', 'Did you mean "glucose"?'),
        (COLUMN + 'convert = { "mg/dL" = [2, 0] }\n', "give it a unit"),
        (COLUMN + COLUMN, 'two columns called "age"'),
        (COLUMN.replace("numeric", "date") + 'range = ["soon", "later"]\n', "give two dates"),
    ],
)
def test_a_schema_that_cannot_be_read_says_why(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        TableSchema.from_toml(text)
    assert said in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no file .*schema\.toml"):
        TableSchema.from_toml(tmp_path / "schema.toml")


def glucose(values: list[Any], **known: Any) -> tuple[ClientData, TableSchema]:
    data = ClientData("a", Rows(pd.DataFrame({"glucose": values}), np.arange(len(values), dtype=float)))
    return data, TableSchema.infer(data.train).with_column("glucose", **known)


def test_a_client_converts_its_own_units() -> None:
    data, own = glucose([90.0, None, 180.156], unit="mg/dL")
    wanted = own.with_column("glucose", unit="mmol/L", substance="glucose")
    converted = wanted.converted(data, own)
    # 180.156 mg/dL is 1,801.56 mg/L, and a mmol weighs 180.156 mg.
    np.testing.assert_allclose(converted.train.x["glucose"], [4.99567, np.nan, 10.0], rtol=1e-6)
    np.testing.assert_array_equal(data.train.x["glucose"], [90.0, np.nan, 180.156])


def test_a_declared_rule_comes_before_what_units_say() -> None:
    data, own = glucose([1.0, 2.0], unit="arbitrary")
    wanted = own.with_column("glucose", unit="mmol/L", convert={"arbitrary": (2.0, 0.5)})
    np.testing.assert_array_equal(wanted.converted(data, own).train.x["glucose"], [2.5, 4.5])


def test_a_label_is_converted_as_any_column() -> None:
    data, own = glucose([1.0, 2.0])
    own = own.with_column("label", unit="g/L")
    converted = own.with_column("label", unit="mg/dL").converted(data, own)
    np.testing.assert_array_equal(converted.train.y, [0.0, 100.0])


def test_without_other_units_the_client_is_the_same() -> None:
    data, own = glucose([1.0], unit="mg/dl")
    assert own.with_column("glucose", unit="mg/dL").converted(data, own) is data


@given(st.sampled_from(KINDS), st.integers(1, 60), st.integers(0, 5))
def test_mock_rows_have_the_schema_that_they_were_made_of(kind: Any, rows: int, seed: int) -> None:
    known = {"shape": (4, 4)} if kind == "image" else {}
    name = "patient_id" if kind == "id" else "x"
    column = ColumnSchema(name, kind, categories=("low", "high") if kind == "ordinal" else None, **known)
    schema = TableSchema(
        (column, ColumnSchema("y", "label")) if kind != "label" else (column, ColumnSchema("z", "numeric"))
    )
    made = TableSchema.infer(
        fp.datasets.mock(schema, rows, seed), schema.label.name if schema.label else "label"
    )
    # A group looks like the category that its names are.
    told = {"group": "category"}.get(kind, kind)
    assert made[name].kind == told
    assert set(made.names) == set(schema.names)


def test_mock_rows_keep_range_categories_and_the_share_that_is_missing() -> None:
    schema = TableSchema(
        (
            ColumnSchema("age", "numeric", range=(18, 90), missing=0.5),
            ColumnSchema("sex", "category", categories=("f", "m")),
            ColumnSchema("seen", "date", range=("2024-01-01", "2024-01-03")),
            ColumnSchema("dose", "numeric", range=(0, float("inf"))),
        )
    )
    x = fp.datasets.mock(schema, rows=2000, seed=1).x
    # 2,000 coins: five standard deviations are 0.056.
    assert x["age"].isna().mean() == pytest.approx(0.5, abs=0.056)
    assert x["age"].dropna().between(18, 90).all()
    assert set(x["sex"]) == {"f", "m"}
    assert set(x["seen"].astype(str)) == {"2024-01-01", "2024-01-02", "2024-01-03"}
    assert (x["dose"] >= 0).all()


def test_the_same_seed_makes_the_same_mock_rows() -> None:
    schema = TableSchema((ColumnSchema("a", "numeric"), ColumnSchema("b", "text")))
    pd.testing.assert_frame_equal(fp.datasets.mock(schema, 5, 7).x, fp.datasets.mock(schema, 5, 7).x)
    assert not fp.datasets.mock(schema, 5, 7).x.equals(fp.datasets.mock(schema, 5, 8).x)
    with pytest.raises(ConfigError, match="rows is 0"):
        fp.datasets.mock(schema, 0)
