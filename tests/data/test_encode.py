import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

import fedpact as fp
from fedpact.core import ClientData, Rows
from fedpact.core.errors import ConfigError, DataError
from fedpact.data import STEPS
from fedpact.data.preprocess import FitPipeline, Pipeline, Step
from fedpact.data.preprocess.ordinal import Ordinal
from fedpact.data.preprocess.rare import MergeRare
from tests.data.test_preprocess import fit, fit_steps, spread
from tests.data.test_preprocess_errors import message


def visits(rows: int = 60) -> pd.DataFrame:
    """Rows with skewed categories, codes, gaps, texts and dates."""
    draw = np.random.default_rng(5)
    gaps = draw.random((rows, 4)) < 0.2
    gaps[:2] = False
    words = np.array(["fever", "cough", "mild", "severe", "no", "Pain", "咳嗽"])
    texts = [" ".join(draw.choice(words, draw.integers(1, 6))) for _ in range(rows)]
    days = pd.Timestamp("2023-12-25") + pd.to_timedelta(draw.integers(0, 40 * 24, rows), unit="h")
    return pd.DataFrame(
        {
            "city": pd.Series(draw.choice(["Ulm", "Bonn", "Köln", "aalen"], rows, p=[0.6, 0.3, 0.05, 0.05])),
            "ward": pd.Series(draw.choice(["A", "B", "C", "D", "E"], rows)).mask(gaps[:, 0]),
            "code": draw.choice([10, 2, 7, 31], rows, p=[0.5, 0.4, 0.06, 0.04]),
            "age": np.where(gaps[:, 1], np.nan, draw.integers(20, 90, rows)),
            "dose": draw.normal(3e-12, 1e-13, rows),
            "unit": np.full(rows, 0.1),
            "note": pd.Series(texts).mask(gaps[:, 2]),
            "letter": pd.Series(texts[::-1]),
            "seen": pd.Series(days).mask(gaps[:, 3]),
        }
    )


EVERYTHING: tuple[Step, ...] = (
    fp.MergeRare(("city",), min_share=0.1),
    fp.OneHot(("city",)),
    fp.Ordinal(("ward",), unknown=-1),
    fp.OneHot(("code",), min_count=8, unknown="infrequent"),
    fp.Bin(("age", "unit"), n_bins=4),
    fp.Bin(("dose",), n_bins=3, strategy="uniform", encode="ordinal"),
    fp.TfIdf(("note",), n_features=16, min_documents=3),
    fp.TfIdf(("letter",), "agreed", min_documents=2),
    fp.DateParts(("seen",)),
)


@cache
def pooled_fit() -> str:
    return json.dumps(fit_steps(EVERYTHING, visits()).to_json())


@settings(max_examples=6, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=60, max_size=60), st.permutations(range(6)))
def test_fitted_steps_are_the_same_bits_for_any_partition_of_the_rows(
    owners: list[int], names: list[int]
) -> None:
    parts = spread(visits(), np.array(owners))
    clients = [ClientData(f"client {name}", Rows(part)) for name, part in zip(names, parts, strict=False)]
    assert json.dumps(fit(FitPipeline(EVERYTHING), clients).to_json()) == pooled_fit()


def test_one_row_clients_and_clients_of_missing_values_fit_the_same_steps() -> None:
    table = visits(14)
    empty = visits(3).assign(ward=None, age=np.nan, note=None, seen=pd.NaT).iloc[:0]
    rows = [*spread(table, np.arange(14)), empty]
    assert fit_steps(EVERYTHING, *rows).to_json() == fit_steps(EVERYTHING, table).to_json()
    nothing = pd.DataFrame({"ward": [None, None]})
    pair = fit_steps([fp.Ordinal()], nothing, table[["ward"]])
    assert pair.to_json() == fit_steps([fp.Ordinal()], table[["ward"]]).to_json()


def test_test_rows_change_nothing() -> None:
    train = Rows(visits(30))
    test = Rows(visits(60).iloc[30:].assign(age=999.0, city="unheard of", note="unheard", letter="of"))
    alone = fit(FitPipeline(EVERYTHING), [ClientData("a", train)]).to_json()
    assert fit(FitPipeline(EVERYTHING), [ClientData("a", train, test)]).to_json() == alone


def test_saved_steps_prepare_rows_to_the_same_bits() -> None:
    pipeline = fit_steps(EVERYTHING, visits())
    loaded = Pipeline.from_json(json.loads(json.dumps(pipeline.to_json())))
    assert loaded == pipeline
    pd.testing.assert_frame_equal(loaded.transform(visits()), pipeline.transform(visits()), check_exact=True)
    assert pipeline.feature_names_out == tuple(pipeline.transform(visits()).columns)


@pytest.mark.parametrize(
    "step",
    [
        *EVERYTHING,
        Ordinal(categories={"ward": ["B", 2]}),
        fp.TfIdf(("a",), ("to", "be")),
        fp.TargetEncode(smooth=2),
    ],
)
def test_steps_are_built_from_plain_data(step: Any) -> None:
    assert STEPS.build(json.loads(json.dumps(STEPS.describe(step)))) == step


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("least", [2, 5, 12, 100])
@pytest.mark.parametrize("unknown", ["ignore", "infrequent"])
def test_infrequent_categories_are_scikit_learns_on_the_pooled_rows(
    drop: bool, least: int, unknown: Any
) -> None:
    table = visits()[["city", "code"]]
    step = fp.OneHot(("city", "code"), drop, unknown=unknown, min_count=least)
    pipeline = fit_steps([step], *spread(table, np.arange(60) % 4))
    expected = OneHotEncoder(
        sparse_output=False,
        drop="first" if drop else None,
        min_frequency=least,
        handle_unknown="infrequent_if_exist" if unknown == "infrequent" else "ignore",
    ).fit(table)
    rows = pd.concat([table, pd.DataFrame({"city": ["Rom"], "code": [5]})])
    assert pipeline.matrix(table).tolist() == expected.transform(table).tolist()
    # With drop="first", scikit-learn warns of unknown categories that it encodes as the dropped one, as is done here.
    if not drop:
        assert pipeline.matrix(rows).tolist() == expected.transform(rows).tolist()


def test_names_of_infrequent_categories_are_kept_only_to_tell_them_from_unknown_ones() -> None:
    table = pd.DataFrame({"x": ["a", "a", "b", "a"]})
    kept = fit_steps([fp.OneHot(min_count=2)], table)
    left = fit_steps([fp.OneHot(min_count=2, unknown="infrequent")], table)
    assert kept.to_json()["steps"][0]["infrequent"] == {"x": ["b"]}
    assert left.to_json()["steps"][0]["infrequent"] == {"x": []}
    assert left.feature_names_out == kept.feature_names_out == ("x=a", "x=(infrequent)")
    assert kept.matrix(pd.DataFrame({"x": ["b", "c"]})).tolist() == [[0, 1], [0, 0]]
    assert left.matrix(pd.DataFrame({"x": ["b", "c"]})).tolist() == [[0, 1], [0, 1]]


def test_declared_categories_are_counted_without_being_named_by_clients() -> None:
    table = pd.DataFrame({"x": ["b", "a", "b", "z"]})
    pipeline = fit_steps([fp.OneHot(categories={"x": ["b", "a", "c"]}, min_count=2)], table)
    assert pipeline.feature_names_out == ("x=b", "x=(infrequent)")
    assert pipeline.matrix(table).tolist() == [[1, 0], [0, 1], [1, 0], [0, 0]]


def test_unknown_category_that_is_refused_is_none_of_the_infrequent() -> None:
    pipeline = fit_steps([fp.OneHot(min_count=2, unknown="error")], pd.DataFrame({"x": ["a", "a", "b"]}))
    assert pipeline.matrix(pd.DataFrame({"x": ["b"]})).tolist() == [[0, 1]]
    said = message(DataError, pipeline.matrix, pd.DataFrame({"x": ["b", "c"]}))
    assert "unknown category in row 2" in said


def test_models_of_before_there_were_infrequent_categories_are_read() -> None:
    pipeline = fit_steps([fp.OneHot()], pd.DataFrame({"x": ["a", "b"]}))
    old = pipeline.to_json()
    del old["steps"][0]["infrequent"]
    assert Pipeline.from_json(old) == pipeline


@pytest.mark.parametrize(("columns", "unknown"), [(("city", "code"), -1), (("ward",), -7)])
def test_ordinal_equals_scikit_learn_on_the_pooled_rows(columns: tuple[str, ...], unknown: int) -> None:
    table = visits()[list(columns)]
    pipeline = fit_steps([Ordinal(columns, unknown=unknown)], *spread(table, np.arange(60) % 4))
    expected = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=unknown)
    expected.fit(table.astype(object).where(table.notna(), np.nan))
    rows = pd.concat([table, pd.DataFrame({name: [99 if name == "code" else "Rom"] for name in columns})])
    np.testing.assert_array_equal(
        pipeline.transform(rows), expected.transform(rows.astype(object).where(rows.notna(), np.nan))
    )


def test_declared_order_is_the_order_of_the_numbers() -> None:
    table = pd.DataFrame({"grade": ["low", "high", "middle"]})
    step = Ordinal(categories={"grade": ["low", "middle", "high"]}, unknown="missing")
    pipeline = fit_steps([step], table)
    assert pipeline.matrix(table).tolist() == [[0], [2], [1]]
    assert pipeline.transform(pd.DataFrame({"grade": ["none"]}))["grade"].isna().all()


def test_ordinal_refuses_unknown_categories_by_default() -> None:
    pipeline = fit_steps([Ordinal()], pd.DataFrame({"x": ["a", "b"]}))
    assert "unknown category in row 1" in message(DataError, pipeline.matrix, pd.DataFrame({"x": ["c"]}))


def test_number_of_unknown_categories_is_no_known_place() -> None:
    said = message(ConfigError, fit_steps, [Ordinal(unknown=1)], pd.DataFrame({"x": ["a", "b"]}))
    assert 'stands for a category of column "x"' in said


@pytest.mark.parametrize(
    ("step", "kept"),
    [
        (MergeRare(("x",), min_count=2), ["a", "b"]),
        (MergeRare(("x",), min_count=3), ["a"]),
        # Of ten rows that are not missing, c has one tenth, which is not less than 0.1.
        (MergeRare(("x",), min_share=0.1), ["a", "b", "c"]),
        (MergeRare(("x",), min_share=0.11), ["a", "b"]),
    ],
)
def test_rare_categories_become_one(step: MergeRare, kept: list[str]) -> None:
    column = pd.Series([*"aaaaaaabbc", None])
    pipeline = fit_steps([step, Ordinal()], *spread(pd.DataFrame({"x": column}), np.arange(11) % 3))
    merged = fit_steps([step, fp.Impute("constant", "gap"), Ordinal()], pd.DataFrame({"x": column}))
    assert pipeline.steps[0].to_json()["kept"] == {"x": kept}
    made = merged.steps[0].transform(pd.DataFrame({"x": ["a", "c", "new", None]}))["x"].tolist()
    assert made[:3] == ["a", "c" if "c" in kept else "other", "other"]
    assert pd.isna(made[3])


def test_rare_codes_may_become_a_code_or_text() -> None:
    table = pd.DataFrame({"code": [1, 1, 1, 5, 9]})
    number = fit_steps([MergeRare(("code",), min_count=2, into=-1)], table)
    assert number.matrix(table).tolist() == [[1], [1], [1], [-1], [-1]]
    text = fit_steps([MergeRare(("code",), min_count=2), fp.OneHot()], table)
    assert text.feature_names_out == ("code=1", "code=other")


@pytest.mark.parametrize(
    ("make", "settings", "said"),
    [
        (MergeRare, {}, "give min_count"),
        (MergeRare, {"min_count": 2, "min_share": 0.1}, "give min_count"),
        (MergeRare, {"min_share": 1.5}, "min_share is 1.5"),
        (MergeRare, {"min_count": 2, "into": None}, "into is None"),
        (Ordinal, {"unknown": "eror"}, 'Did you mean "error"?'),
        (Ordinal, {"unknown": float("nan")}, "finite number"),
        (Ordinal, {"categories": {"x": "ab"}}, "Ordinal: the categories of column"),
        (fp.OneHot, {"min_count": 0}, "min_count is 0"),
        (fp.OneHot, {"unknown": "infrequent"}, "set min_count"),
    ],
)
def test_settings_that_cannot_be_are_refused(make: Any, settings: dict[str, Any], said: str) -> None:
    assert said in message(ConfigError, make, **settings)


def test_two_columns_of_one_name_are_refused() -> None:
    table = pd.DataFrame({"seen": [pd.Timestamp("2024-01-01")], "seen:year": [1]})
    steps: Sequence[Step] = [fp.DateParts()]
    assert 'DateParts makes two columns called "seen:year"' in message(DataError, fit_steps, steps, table)
