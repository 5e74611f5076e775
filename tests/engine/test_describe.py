import json
import statistics
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import fedpact as fp
from fedpact.core.errors import ChannelError, ConfigError, DataError, SecureError
from fedpact.core.rows import ClientData, Rows
from fedpact.data.table_schema import ColumnSchema, TableSchema
from fedpact.engine.description import Description
from fedpact.privacy.statement import Statement

ROWS = 60


@cache
def patients() -> pd.DataFrame:
    """Rows with all that is awkward: huge offsets, tiny and huge values, constants, missing values, dates, text."""
    draw = np.random.default_rng(3)
    missing = draw.random((ROWS, 3)) < 0.3
    return pd.DataFrame(
        {
            "age": np.where(missing[:, 0], np.nan, draw.integers(20, 90, ROWS)),
            "visit": 1.6e9 + draw.uniform(-1, 1, ROWS),
            "dose": np.where(missing[:, 1], np.nan, draw.normal(3e-12, 1e-13, ROWS)),
            "unit": np.full(ROWS, 0.1),
            "smoker": draw.random(ROWS) < 0.4,
            "ward": pd.Series(
                draw.choice(["B", "a", "Ä", "10", "rare"], ROWS, p=[0.3, 0.3, 0.2, 0.18, 0.02])
            ).mask(missing[:, 2]),
            "seen": pd.Timestamp("2024-01-01") + pd.to_timedelta(draw.integers(0, 90, ROWS), unit="D"),
            "born": [f"19{year}-07-14" for year in draw.integers(30, 99, ROWS)],
            "note": ["a note of more than sixty characters is no category but a free text"] * ROWS,
            "patient_id": np.arange(ROWS),
            "nothing": np.full(ROWS, np.nan),
        }
    )


LABELS = np.array([0, 1, 1] * (ROWS // 3))


def spread(owners: Sequence[int] | NDArray[Any]) -> list[ClientData]:
    owners = np.array(owners)
    return [
        ClientData(
            f"client {owner}",
            Rows(patients()[owners == owner].reset_index(drop=True), LABELS[owners == owner]),
        )
        for owner in np.unique(owners)
    ]


def told(description: Description) -> str:
    """Return all that is said of the rows together."""
    data = description.to_json()
    return json.dumps({key: data[key] for key in ("rows", "columns", "minimum")}, allow_nan=False)


@cache
def pooled() -> Description:
    return fp.describe(spread([0] * ROWS))


@settings(max_examples=10)
@given(st.lists(st.integers(0, 5), min_size=ROWS, max_size=ROWS))
def test_a_description_is_the_same_bits_for_any_partition_of_the_rows(owners: list[int]) -> None:
    assert told(fp.describe(spread(owners))) == told(pooled())


def test_one_row_clients_make_the_same_description() -> None:
    assert told(fp.describe(spread(range(ROWS)))) == told(pooled())


@pytest.mark.parametrize("mask", [fp.SecureSum(), fp.SecureSum(bits=16), fp.SplitTrust()], ids=repr)
def test_a_mask_changes_no_bit(mask: Any) -> None:
    masked = fp.describe(spread(np.arange(ROWS) % 4), channel=mask)
    assert told(masked) == told(pooled())
    assert masked.labels == {}


@pytest.mark.parametrize("name", ["age", "visit", "dose", "unit", "smoker"])
def test_numbers_are_those_of_pandas_and_numpy_on_the_pooled_rows(name: str) -> None:
    column, values = pooled()[name], patients()[name].astype(float).dropna()
    assert (column.count, column.missing) == (len(values), ROWS - len(values))
    assert column.mean == pytest.approx(values.mean(), rel=1e-14)
    # In fractions: numpy's own of a constant column is not 0, but a rounding error.
    assert column.deviation == pytest.approx(statistics.pstdev(values), rel=1e-15)
    assert (column.least, column.most) == (values.min(), values.max())
    assert [each.value for each in column.quantiles] == np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    assert {each.error for each in column.quantiles} == {0.0}


@pytest.mark.parametrize("name", ["age", "visit", "dose", "smoker"])
def test_histograms_are_those_of_numpy_on_the_pooled_rows(name: str) -> None:
    histogram = pooled()[name].histogram
    assert histogram is not None
    counts, edges = np.histogram(patients()[name].astype(float).dropna(), bins=20)
    assert histogram.counts == tuple(counts)
    np.testing.assert_allclose(histogram.edges, edges, rtol=1e-15)
    assert histogram.below == histogram.above == 0


def test_dates_are_described_as_dates() -> None:
    for name in ("seen", "born"):
        column, values = pooled()[name], pd.to_datetime(patients()[name])
        assert column.number(column.least) == values.min().date().isoformat()
        assert column.number(column.most) == values.max().date().isoformat()
        assert column.mean is not None
        assert pd.Timestamp(column.number(column.mean)) == values.mean().floor("s")


def test_categories_below_the_minimum_are_counted_together() -> None:
    column, counts = pooled()["ward"], patients()["ward"].value_counts()
    assert column.categories == {ward: n for ward, n in counts.items() if n >= 5}
    assert 0 < column.others == counts[counts < 5].sum()
    assert column.unnamed_at_most == 4


def test_of_text_and_ids_there_are_counts_alone() -> None:
    for name in ("note", "patient_id"):
        data = next(each for each in pooled().to_json()["columns"] if each["name"] == name)
        assert set(data) == {"name", "kind", "unit", "count", "missing"}


def test_a_column_without_any_value_is_described_as_that() -> None:
    column = pooled()["nothing"]
    assert (column.count, column.missing, column.mean, column.histogram) == (0, ROWS, None, None)


def test_label_balance_is_told_per_client() -> None:
    clients = spread(np.arange(ROWS) % 2)
    balance = fp.describe(clients).label_balance
    for client in clients:
        assert client.train.y is not None
        assert balance.loc[client.id, [0, 1]].tolist() == np.bincount(client.train.y).tolist()
    assert balance["others"].sum() == 0


def test_labels_that_are_no_classes_are_numbers() -> None:
    clients = [
        ClientData(id, Rows(np.ones((4, 1)), np.array([1.0, 2.0, 3.0, end])))
        for id, end in (("a", 4.5), ("b", 4.0))
    ]
    assert fp.describe(clients)["label"].mean == (6 + 4.5 + 6 + 4) / 8
    assert fp.describe(clients).labels == {}


def test_images_are_counted() -> None:
    clients = [ClientData("a", Rows(np.zeros((6, 3, 3)), np.arange(6) % 2))]
    summary = fp.describe(clients, minimum=1)
    assert (summary["x"].kind, summary["x"].count) == ("image", 6)
    assert summary["label"].categories == {0: 3, 1: 3}


def test_labels_at_every_position_are_counted() -> None:
    clients = [ClientData("a", Rows(np.zeros((6, 3, 3)), np.zeros((6, 3, 3), np.int64)))]
    summary = fp.describe(clients)
    assert (summary["label"].count, summary["label"].categories) == (6, None)


def test_a_column_called_as_the_labels_are_is_refused() -> None:
    clients = [ClientData("a", Rows(pd.DataFrame({"label": [1.0, 2.0]}), np.array([0, 1])))]
    with pytest.raises(DataError, match="call the labels otherwise with label="):
        fp.describe(clients)
    assert fp.describe(clients, label="risk").schema.names == ("label", "risk")


def test_rows_that_are_kept_aside_change_nothing() -> None:
    clients = spread(np.arange(ROWS) % 3)
    aside = Rows(patients().assign(age=1e6), LABELS)
    tested = [replace(client, test=aside) for client in clients]
    assert told(fp.describe(tested)) == told(fp.describe(clients))


AGES = TableSchema((ColumnSchema("age", "numeric", range=(0, 100)), ColumnSchema("w", "numeric")))


@given(st.lists(st.integers(0, 100), min_size=1, max_size=40), st.integers(1, 30))
@settings(max_examples=25)
def test_quantiles_from_bins_are_within_their_error(ages: list[int], bins: int) -> None:
    table = pd.DataFrame({"age": np.array(ages, float), "w": np.array(ages) / 7})
    summary = fp.describe(
        [ClientData("a", Rows(table))], schema=AGES, exact=False, bins=bins, quantiles=(0, 0.3, 0.9)
    )
    assert len(summary["age"].quantiles) == 3
    for each in summary["age"].quantiles:
        # One unit in the last place of a number below 128.
        assert abs(each.value - np.quantile(ages, each.at)) <= each.error + 2**-46


def test_without_exact_values_nothing_is_told_that_is_a_value_of_a_row() -> None:
    table = pd.DataFrame({"age": [30.0, 41.5], "w": [1.0, 2.0]})
    summary = fp.describe([ClientData("a", Rows(table))], schema=AGES, exact=False)
    assert (summary["age"].least, summary["age"].most) == (None, None)
    assert summary["w"].histogram is None
    assert summary["w"].quantiles == ()
    assert summary["w"].mean == 1.5
    assert summary.privacy is not None
    assert "least" not in str(summary.privacy)


def test_numbers_come_in_the_units_of_the_schema() -> None:
    mg, mmol = pd.DataFrame({"glucose": [90.0, 180.156]}), pd.DataFrame({"glucose": [5.0, 10.0]})
    clients = [ClientData("a", Rows(mg)), ClientData("b", Rows(mmol))]
    own = {
        "a": TableSchema.infer(mg).with_column("glucose", unit="mg/dL"),
        "b": TableSchema.infer(mmol).with_column("glucose", unit="mmol/L"),
    }
    wanted = own["b"].with_column("glucose", substance="glucose")
    column = fp.describe(clients, schema=wanted, own=own)["glucose"]
    assert column.unit == "mmol/L"
    # 90 mg/dL is 900 mg/L, and a mmol weighs 180.156 mg.
    assert column.mean == pytest.approx((900 / 180.156 + 10 + 5 + 10) / 4)


def test_declared_categories_are_counted_without_being_asked_for() -> None:
    table = pd.DataFrame({"sex": ["f"] * 7 + ["m"] * 6 + ["x"] * 2})
    schema = TableSchema((ColumnSchema("sex", "category", categories=("f", "m", "x")),))
    column = fp.describe([ClientData("a", Rows(table))], schema=schema)["sex"]
    assert (column.categories, column.others) == ({"f": 7, "m": 6}, 2)


def test_conflicts_are_told_before_anything_is_counted() -> None:
    a, b = pd.DataFrame({"age": [1.5, 2.0]}), pd.DataFrame({"aeg": [1.5, 2.0]})
    with pytest.raises(DataError, match="do not go together"):
        fp.describe([ClientData("a", Rows(a)), ClientData("b", Rows(b))])


def test_an_infinite_value_is_named() -> None:
    with pytest.raises(DataError, match='client "a": column "age" is infinite in 1 row'):
        fp.describe([ClientData("a", Rows(pd.DataFrame({"age": [1.5, np.inf]})))])


@pytest.mark.parametrize(
    ("channel", "said"),
    [
        ([fp.Clip(1.0), fp.GaussianNoise(multiplier=1.0)], "Clip changes or packs vectors"),
        (fp.GaussianNoise(multiplier=1.0), "GaussianNoise cannot be put on the sums of a description"),
        ([{"name": "LaplaceNoise", "multiplier": 1.0}], "LaplaceNoise cannot be put on the sums"),
        ([fp.SecureSum(), fp.SecureSum()], "updates are masked once"),
    ],
)
def test_a_channel_that_does_more_than_mask_is_refused(channel: Any, said: str) -> None:
    with pytest.raises(ChannelError, match=said):
        fp.describe(spread([0] * ROWS), channel=channel)


def test_two_clients_are_too_few_for_a_masked_sum() -> None:
    with pytest.raises(SecureError):
        fp.describe(spread(np.arange(ROWS) % 2), channel=fp.SecureSum())


@pytest.mark.parametrize("wrong", [{"bins": 0}, {"minimum": 1.5}, {"quantiles": [2]}, {"channel": "x"}])
def test_a_setting_out_of_its_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        fp.describe(spread([0] * ROWS), **wrong)


def test_the_statement_lists_what_was_released() -> None:
    clear = fp.describe(spread(np.arange(ROWS) % 4)).privacy
    masked = fp.describe(spread(np.arange(ROWS) % 4), channel=fp.SecureSum()).privacy
    assert clear is not None
    assert masked is not None
    assert clear.server_sees == "each client's part of every sum, as it is"
    assert masked.server_sees == fp.SecureSum().seen()
    assert clear.in_clear[:-1] == masked.in_clear
    assert clear.in_clear[-1] == "how many rows of each label each client has"
    assert "the categories of ward, label that at least 5 rows have, and how many do" in masked.in_clear
    assert "nothing bounds what the sums that were released say about a client" in str(clear)
    # One to compare, one to count, one of moments, eight of quantiles, one of histograms, two of categories.
    assert masked.rounds == 14
    assert Statement.from_json(masked.to_json()) == masked


def test_no_client_names_a_category_under_a_mask() -> None:
    masked = fp.describe(spread(np.arange(ROWS) % 4), channel=fp.SecureSum())
    assert masked["ward"].categories == pooled()["ward"].categories


def test_a_description_is_a_table_a_file_and_a_picture(tmp_path: Path) -> None:
    table = pooled().table
    assert table.loc["age", "count"] == pooled()["age"].count
    assert table.loc["seen", "min"] == pooled()["seen"].number(pooled()["seen"].least)
    pooled().save(tmp_path / "description.json")
    assert json.loads((tmp_path / "description.json").read_text(encoding="utf-8")) == json.loads(
        json.dumps(pooled().to_json())
    )
    pooled().save(tmp_path / "description.png")
    assert (tmp_path / "description.png").read_bytes().startswith(b"\x89PNG")
    titles = [axes.get_title(loc="left") for axes in pooled().draw().axes]
    assert [title for title in titles if title] == [
        "age", "visit", "dose", "unit", "smoker", "ward", "seen", "born", "label"
    ]  # fmt: skip


def test_mock_rows_of_the_schema_of_a_description_can_be_described() -> None:
    rows = fp.datasets.mock(pooled().schema, 50)
    again = fp.describe([ClientData("mock", rows)])
    assert set(again.schema.names) == set(pooled().schema.names)
