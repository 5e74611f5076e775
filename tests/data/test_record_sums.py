import math
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpact.core.errors import ConfigError, DataError
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.data.read import read_rows
from fedpact.data.summary.cells import days_in, numbers_in, places_in, places_of
from fedpact.data.summary.record_sums import RecordSums
from fedpact.data.table_schema import ColumnSchema, TableSchema

SCHEMA = TableSchema(
    (
        ColumnSchema("age", "numeric", range=(0, 120)),
        ColumnSchema("same", "numeric", range=(5, 5)),
        ColumnSchema("seen", "date", range=("2024-01-01", "2025-01-01")),
        ColumnSchema("ward", "category", categories=("a", "b", 1)),
        ColumnSchema("note", "text"),
        ColumnSchema("open", "numeric"),
    )
)
# A count, and 4 + 4 + 4 for ranges, 2 for categories, 1 + 1 for presence alone.
WEIGHT = 1 + 12 + 2 + 2

anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=4),
    st.sampled_from(["a", "b", "1", 1, 1.0, "60", 60, "2024-05-05", pd.Timestamp("2024-05-05"), "1e400"]),
    st.sampled_from([10**400, -(10**5000), Fraction(10**400), 3 + 4j, np.complex64(3), "20240505", 20240505]),
    st.sampled_from([Decimal("NaN"), np.datetime64("300000-01-01", "s"), [60], b"60"]),
)
row = st.fixed_dictionaries(dict.fromkeys(SCHEMA.names, anything))


def summed(rows: Sequence[dict[str, Any]], step: int = 16) -> Any:
    # As a reader would: the type of a column depends on all of its rows.
    columns = {name: pd.Series([each[name] for each in rows], dtype=None) for name in SCHEMA.names}
    return of(pd.DataFrame(columns, index=range(len(rows))), step)


def of(table: pd.DataFrame, step: int = 16, schema: TableSchema = SCHEMA) -> Any:
    sums = RecordSums(schema.names, schema, bins=4, step=step)
    task = sums.task(sums.init(None, Seed.of(0)))
    assert task is not None
    return sums.client(None, task, ClientData("a", Rows(table)), {}, Seed.of(0))[0].summed["sums"]


@settings(max_examples=150, deadline=None)
@given(st.lists(row, min_size=0, max_size=3), row, st.integers(0, 3))
def test_no_row_changes_the_sums_by_more_than_the_length_that_noise_is_scaled_to(
    others: list[dict[str, Any]], one: dict[str, Any], place: int
) -> None:
    step = 16
    changed = (summed([*others[:place], one, *others[place:]], step) - summed(others, step)).astype(object)
    # In two draws each polynomial of the other rows is rounded twice: by one step at most, where it is rounded at all.
    slack = np.zeros(len(changed), object)
    for part in RecordSums(SCHEMA.names, SCHEMA, bins=4).parts:
        if part.ends:
            slack[part.first + part.size - 2 : part.first + part.size] = len(others)
    least = np.maximum(np.abs(changed) - slack, 0)
    assert sum(least**2) <= step**2 * WEIGHT
    assert sum(least) <= step * WEIGHT


@settings(max_examples=100, deadline=None)
@given(row)
def test_one_row_alone_is_no_longer_than_that_and_one_without_values_shorter(one: dict[str, Any]) -> None:
    sums = RecordSums(SCHEMA.names, SCHEMA, bins=4, step=1)
    assert sums.weight == WEIGHT
    vector = summed([one], 1).astype(object)
    assert sums.size == len(vector)
    assert sum(vector**2) <= WEIGHT
    empty = summed([dict.fromkeys(SCHEMA.names)], 1)
    # A row, and six columns of which it has no value.
    assert sum(empty**2) == 1 + 6


def test_the_longest_row_has_that_length() -> None:
    longest = {"age": 120, "same": 5, "seen": "2025-01-01", "ward": "a", "note": "x", "open": 1}
    vector = summed([longest], 1 << 20).astype(object)
    # T1 of the constant column is 0: its value is in the middle.
    assert sum(vector**2) == (1 << 40) * (WEIGHT - 1)


def test_sums_are_those_of_a_hand_calculation() -> None:
    table = pd.DataFrame(
        {
            "age": [0.0, 30.0, 120.0, 500.0, np.nan],
            "same": [5.0] * 5,
            "seen": ["2024-07-02", None, None, "no date", "2024-01-01"],
            "ward": ["a", "zzz", "1", None, "b"],
            "note": ["x", None, "y", "z", "z"],
            "open": [1.0, np.inf, np.nan, np.nan, np.nan],
        }
    )
    found = of(table, 2).tolist()
    # Of ages v is −1, −½, 1 and, for 500 counts as 120, 1; 2v² − 1 is 1, −½, 1, 1. In steps of ½ nothing is rounded.
    age = [2 * (4 - 1), 2 * 1, 2 * 1, 0, 2 * 2, 1, 5]
    assert found[:8] == [10, *age]
    # 2024 has 366 days, and the second of July begins 183 days after its first.
    assert found[15:22] == [2 * (2 - 3), 2 * 1, 0, 2 * 1, 0, 2 * (0 - 1), 2 * (-1 + 1)]
    assert found[22:27] == [2 * (4 - 1), 2, 2, 2, 2]
    assert found[27:] == [2 * (4 - 1), 2 * (2 - 3)]


def test_rounding_at_random_keeps_the_mean() -> None:
    schema = TableSchema((ColumnSchema("age", "numeric", range=(0, 100)),))
    rows = 200_000
    first, second = of(pd.DataFrame({"age": np.full(rows, 65.0)}), 1, schema)[-2:]
    # Of v = 0.3 and 2v² − 1 = −0.82 each is rounded with a deviation below ½: 7 of them over all rows are never left.
    assert abs(first - 0.3 * rows) < 7 * 0.5 * math.sqrt(rows)
    assert abs(second + 0.82 * rows) < 7 * 0.5 * math.sqrt(rows)


def test_a_cell_is_read_alike_whatever_else_is_in_its_column() -> None:
    numbers = pd.Series([7.0, 1.5, 0.0, np.nan])
    text = pd.Series(["7", "1.5", "0", None, "abc"])
    np.testing.assert_array_equal(numbers_in(numbers), numbers_in(text)[:4])
    assert np.isnan(numbers_in(text)[4])
    np.testing.assert_array_equal(
        numbers_in(pd.Series([True, False])), numbers_in(pd.Series(["True", "false"]))
    )
    places = places_of("ward", (7, "a"))
    assert places_in(pd.Series([7, 7.0, "7", "a", "b", None], dtype=object), places, 2).tolist() == [
        0,
        0,
        0,
        1,
        2,
        -1,
    ]
    assert places_in(pd.Series([7, 8]), places, 2).tolist() == [0, 2]
    assert places_in(pd.Series([[1], [1], None]), places, 2).tolist() == [2, 2, -1]
    stamps = pd.Series(pd.to_datetime(["2024-01-02", None]))
    np.testing.assert_array_equal(days_in(stamps), days_in(pd.Series(["2024-01-02", "soon"])))
    assert days_in(stamps)[0] == 19724
    here, there = pd.Timestamp("2024-01-02T12:00+00:00"), pd.Timestamp("2024-01-02T18:00+06:00")
    assert here == there
    assert days_in(pd.Series([here, there], dtype=object)).tolist() == [19724.5, 19724.75]


@pytest.mark.parametrize(
    "cell", ["20240102", "2024-01-02", "007", "1e3", "TRUE", " 7", "1_000", "-inf", "99" * 20]
)
def test_a_cell_of_a_file_is_read_alike_beside_text_and_alone(tmp_path: Path, cell: str) -> None:
    path = tmp_path / "a.csv"
    read = []
    for more in ("", "abc,1\n"):
        path.write_text(f"cell,other\n{cell},1\n{more}", encoding="utf-8")
        cells = read_rows(path).x["cell"]
        places = places_in(cells, places_of("cell", ("007", "1e3", "true")), 3)
        read.append((numbers_in(cells)[0], days_in(cells)[0], places[0]))
    np.testing.assert_array_equal(*read)


def test_no_cell_is_beyond_reading() -> None:
    huge = pd.Series(
        [10**400, -(10**5000), Fraction(10**400), 3 + 4j, np.complex64(3), [1], {}], dtype=object
    )
    np.testing.assert_array_equal(numbers_in(huge), [np.inf, -np.inf, np.inf, np.nan, 3, np.nan, np.nan])
    assert places_in(huge, places_of("ward", (1, "a")), 2).tolist() == [2] * 7
    assert numbers_in(pd.Series([7, 3 + 4j]))[0] == numbers_in(pd.Series([7]))[0] == 7
    far = np.datetime64("300000-01-01", "s")
    for cells in (pd.Series([far, "soon"], dtype=object), pd.Series(np.array([far]))):
        assert np.isnan(days_in(cells)).all()
        assert np.isnan(numbers_in(cells)).all()
    assert days_in(pd.Series([np.datetime64("2024-01-02")], dtype=object)).tolist() == [19724]


def test_categories_that_are_one_number_are_refused() -> None:
    schema = TableSchema((ColumnSchema("ward", "category", categories=(1, "1")),))
    with pytest.raises(ConfigError, match="the same number as '1'"):
        of(pd.DataFrame({"ward": ["a"]}), 1, schema)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(DataError, match='client "a": there is no column "same"'):
        of(pd.DataFrame({"age": [1.0]}))


def test_numbers_are_brought_to_the_units_of_the_schema() -> None:
    schema = TableSchema((ColumnSchema("size", "numeric", unit="cm", range=(0, 200)),))
    own = TableSchema((ColumnSchema("size", "numeric", unit="m"),))
    sums = RecordSums(("size",), schema, {"a": own}, bins=4, step=2)
    task = sums.task(sums.init(None, Seed.of(0)))
    assert task is not None
    data = ClientData("a", Rows(pd.DataFrame({"size": [1.5, 1.5]})))
    # 150 cm: v is ½ and 2v² − 1 is −½.
    assert sums.client(None, task, data, {}, Seed.of(0))[0].summed["sums"].tolist() == [
        4,
        4,
        0,
        0,
        0,
        4,
        2,
        -2,
    ]


def test_a_number_that_its_unit_takes_beyond_all_numbers_counts_as_the_end_of_the_range() -> None:
    schema = TableSchema((ColumnSchema("size", "numeric", unit="cm", range=(0, 200)),))
    own = TableSchema((ColumnSchema("size", "numeric", unit="m"),))
    cells = pd.Series([1e308, -1e308, np.nan])
    sums = RecordSums(("size",), schema, {"a": own}, bins=4, step=2)
    task = sums.task(sums.init(None, Seed.of(0)))
    assert task is not None
    data = ClientData("a", Rows(pd.DataFrame({"size": cells})))
    # One value at either end: T1 is −1 and 1, T2 is 1 and 1.
    assert sums.client(None, task, data, {}, Seed.of(0))[0].summed["sums"].tolist() == [
        6,
        2,
        2,
        0,
        0,
        2,
        0,
        4,
    ]


def test_of_labels_at_every_position_there_is_their_number_alone() -> None:
    positions = ClientData("a", Rows(np.ones((3, 2)), np.zeros((3, 5), int)))
    for label, found in (
        # Three rows with a value, which is of no declared category; and no numbers at all.
        (ColumnSchema("y", "label", categories=(0, 1)), [3, 3, 0, 0, 3]),
        (ColumnSchema("y", "label", range=(0, 1)), [3, -3, 0, 0, 0, 0]),
        (ColumnSchema("y", "label"), [3, 3]),
    ):
        sums = RecordSums(("y",), TableSchema((label,)), bins=2, step=1)
        task = sums.task(sums.init(None, Seed.of(0)))
        assert task is not None
        assert sums.client(None, task, positions, {}, Seed.of(0))[0].summed["sums"].tolist() == found


def test_labels_are_a_column_too() -> None:
    schema = TableSchema((ColumnSchema("x0", "numeric"), ColumnSchema("risk", "label", categories=(0, 1))))
    sums = RecordSums(schema.names, schema, bins=4, step=1)
    task = sums.task(sums.init(None, Seed.of(0)))
    assert task is not None
    labelled = ClientData("a", Rows(np.ones((3, 1)), np.array([0, 1, 1])))
    assert sums.client(None, task, labelled, {}, Seed.of(0))[0].summed["sums"].tolist() == [3, 3, 3, 1, 2, 0]
    with pytest.raises(DataError, match='there are no labels, which the schema calls "risk"'):
        sums.client(None, task, ClientData("a", Rows(np.ones((3, 1)))), {}, Seed.of(0))
