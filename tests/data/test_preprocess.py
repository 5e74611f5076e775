import json
import statistics
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from fedpact.core import Accumulator, ClientData, Rows, Seed
from fedpact.core.algorithm import Algorithm
from fedpact.core.registry import Registry
from fedpact.data.preprocess import FitPipeline, Impute, OneHot, Pipeline, Standardize, Step


def fit(algorithm: Any, clients: Sequence[ClientData]) -> Any:
    """Run an algorithm to its end; all plain data pass through JSON, as on a wire."""
    runs: Algorithm[Any] = algorithm
    state = runs.init(None, Seed.of(0))
    while (task := runs.task(state)) is not None:
        task = replace(task, parameters=json.loads(json.dumps(task.parameters)))
        total = Accumulator(task, limit=65536, total_weight=len(clients), population=len(clients))
        for client in clients:
            update, _ = runs.client(None, task, client, {}, Seed.of(0))
            total.add(replace(update, answer=json.loads(json.dumps(update.answer))))
        state = runs.server(None, state, total.aggregate())
    return algorithm.fitted(state)


def fit_steps(steps: Sequence[Step], *tables: Any) -> Pipeline:
    clients = [ClientData(f"client {i}", Rows(table)) for i, table in enumerate(tables)]
    pipeline = fit(FitPipeline(tuple(steps)), clients)
    assert isinstance(pipeline, Pipeline)
    return pipeline


def spread(table: pd.DataFrame, owners: NDArray[np.int64]) -> list[pd.DataFrame]:
    return [table[owners == owner].reset_index(drop=True) for owner in np.unique(owners)]


def patients(rows: int = 60) -> pd.DataFrame:
    """Rows with all that is awkward: huge offsets, tiny and huge values, constants, missing values, codes."""
    draw = np.random.default_rng(3)
    missing = draw.random((rows, 3)) < 0.3
    missing[:2] = False
    return pd.DataFrame(
        {
            "age": np.where(missing[:, 0], np.nan, draw.integers(20, 90, rows)),
            "visit": 1.6e9 + draw.uniform(-1, 1, rows),
            "dose": np.where(missing[:, 1], np.nan, draw.normal(3e-12, 1e-13, rows)),
            "copies": draw.normal(0, 4e200, rows),
            "unit": np.full(rows, 0.1),
            "smoker": draw.random(rows) < 0.4,
            "ward": pd.Series(draw.choice(["B", "a", "Ä", "10", "9"], rows)).mask(missing[:, 2]),
            "pain": draw.integers(1, 4, rows),
        }
    )


EVERYTHING: tuple[Step, ...] = (
    Impute("median", columns=("age",)),
    Impute("mean"),
    Impute("most_frequent"),
    Standardize(columns=("age", "visit", "dose", "copies", "unit")),
    OneHot(columns=("ward", "pain")),
)


@cache
def pooled_fit() -> str:
    return json.dumps(fit_steps(EVERYTHING, patients()).to_json())


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=60, max_size=60), st.permutations(range(6)))
def test_fitted_pipeline_is_the_same_bits_for_any_partition_of_the_rows(
    owners: list[int], names: list[int]
) -> None:
    parts = spread(patients(), np.array(owners))
    clients = [ClientData(f"client {name}", Rows(part)) for name, part in zip(names, parts, strict=False)]
    spread_out = fit(FitPipeline(EVERYTHING), clients)
    assert json.dumps(spread_out.to_json()) == pooled_fit()


def test_one_row_clients_fit_the_same_pipeline() -> None:
    table = patients(12)
    rows = spread(table, np.arange(12))
    assert fit_steps(EVERYTHING, *rows).to_json() == fit_steps(EVERYTHING, table).to_json()


@pytest.mark.parametrize("column", ["age", "visit", "unit", "smoker", "pain"])
def test_standardize_equals_scikit_learn_on_the_pooled_rows(column: str) -> None:
    table = patients()[[column]].astype(float)
    pipeline = fit_steps([Standardize()], *spread(table, np.arange(60) % 4))
    expected = StandardScaler().fit(table.to_numpy())
    (step,) = pipeline.to_json()["steps"]
    assert step["mean"][column] == pytest.approx(expected.mean_[0], rel=1e-12)
    assert step["scale"][column] == pytest.approx(expected.scale_[0], rel=1e-12)
    # One unit in the last place of a mean near 1.6e9 is 2.4e-7.
    np.testing.assert_allclose(
        pipeline.transform(table).to_numpy(),
        expected.transform(table.to_numpy()),
        rtol=1e-12,
        atol=1e-6 if column == "visit" else 1e-12,
    )


@pytest.mark.parametrize("column", ["age", "visit", "dose", "copies", "pain"])
def test_mean_and_deviation_are_right_to_the_last_bit(column: str) -> None:
    # The standard library's statistics compute in fractions and round once.
    table = patients()[[column]]
    (step,) = fit_steps([Standardize()], *spread(table, np.arange(60) % 4)).to_json()["steps"]
    values = table[column].dropna().astype(float).tolist()
    assert step["mean"][column] == statistics.mean(values)
    assert step["scale"][column] == statistics.pstdev(values)


@pytest.mark.parametrize(("with_mean", "with_std"), [(True, False), (False, True)])
def test_standardize_can_leave_out_a_half(with_mean: bool, with_std: bool) -> None:
    table = patients()[["age", "pain"]]
    pipeline = fit_steps([Standardize(None, with_mean, with_std)], *spread(table, np.arange(60) % 3))
    expected = StandardScaler(with_mean=with_mean, with_std=with_std).fit_transform(table.to_numpy(float))
    np.testing.assert_allclose(pipeline.transform(table).to_numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("strategy", ["mean", "median"])
@pytest.mark.parametrize("rows", [59, 60])
def test_impute_equals_scikit_learn_on_the_pooled_rows(strategy: Any, rows: int) -> None:
    table = patients(rows)[["age", "visit", "dose", "pain"]]
    pipeline = fit_steps([Impute(strategy)], *spread(table, np.arange(rows) % 5))
    expected = SimpleImputer(strategy=strategy).fit_transform(table.to_numpy(float))
    np.testing.assert_allclose(pipeline.matrix(table), expected, rtol=1e-15)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=40))
def test_median_is_numpys_for_any_numbers(values: list[float]) -> None:
    # A zero is positive here, whichever sign it had; halves keep numpy from overflowing.
    halves = np.array(values) / 2
    tables = [pd.DataFrame({"x": part}) for part in np.array_split(halves, 3) if part.size]
    (step,) = fit_steps([Impute("median")], *tables).to_json()["steps"]
    assert step["numeric"]["x"] == np.median(halves)


@pytest.mark.parametrize("column", ["ward", "pain"])
def test_most_frequent_equals_scikit_learn_on_the_pooled_rows(column: str) -> None:
    table = patients()[[column]].astype(object)
    table.loc[::7, column] = None
    pipeline = fit_steps(
        [Impute("most_frequent", columns=(column,)), OneHot((column,))], *spread(table, np.arange(60) % 4)
    )
    (step, _) = pipeline.to_json()["steps"]
    expected = SimpleImputer(strategy="most_frequent", missing_values=None).fit(
        table.where(table.notna(), None).to_numpy()
    )
    assert {**step["numeric"], **step["category"]} == {column: expected.statistics_[0]}


def test_most_frequent_of_equally_frequent_is_the_smallest() -> None:
    tables = [pd.DataFrame({"x": ["b", "c"]}), pd.DataFrame({"x": ["c", "b", "d"]})]
    pipeline = fit_steps([Impute("most_frequent"), OneHot()], *tables)
    assert pipeline.to_json()["steps"][0]["category"] == {"x": "b"}


@pytest.mark.parametrize("drop_first", [False, True])
def test_one_hot_equals_scikit_learn_on_the_pooled_rows(drop_first: bool) -> None:
    table = patients()[["ward", "pain"]].fillna({"ward": "none"})
    pipeline = fit_steps([OneHot(("ward", "pain"), drop_first)], *spread(table, np.arange(60) % 4))
    expected = OneHotEncoder(sparse_output=False, drop="first" if drop_first else None).fit(table)
    assert pipeline.matrix(table).tolist() == expected.transform(table).tolist()
    names = expected.get_feature_names_out(["ward", "pain"])
    assert [name.replace("=", "_") for name in pipeline.feature_names_out] == names.tolist()


def test_category_of_a_single_client_is_a_column_at_every_client() -> None:
    tables = [pd.DataFrame({"city": ["Nice", "Lyon"]}), pd.DataFrame({"city": ["Ötz"]})]
    pipeline = fit_steps([OneHot()], *tables)
    assert pipeline.feature_names_out == ("city=Lyon", "city=Nice", "city=Ötz")
    assert pipeline.matrix(tables[0]).tolist() == [[0, 1, 0], [1, 0, 0]]


def test_numbers_are_sorted_as_numbers_and_text_by_code_point() -> None:
    table = pd.DataFrame({"code": [10, 9, -1], "word": ["b", "B", "10"]})
    pipeline = fit_steps([OneHot(("code", "word"))], table)
    assert pipeline.feature_names_out == ("code=-1", "code=9", "code=10", "word=10", "word=B", "word=b")


def test_unknown_category_is_all_zeros() -> None:
    pipeline = fit_steps([OneHot()], pd.DataFrame({"city": ["Nice", "Lyon"]}))
    assert pipeline.matrix(pd.DataFrame({"city": ["Paris"]})).tolist() == [[0, 0]]


def test_declared_categories_keep_their_order_and_ask_nobody() -> None:
    steps = (OneHot(categories={"city": ["Nice", "Lyon"], "grade": [2, 1]}),)
    table = pd.DataFrame({"grade": [1.0], "city": ["Nice"]})
    algorithm = FitPipeline(steps)
    state = algorithm.init(None, Seed.of(0))
    task = algorithm.task(state)
    assert task is not None
    total = Accumulator(task, 65536, 1, 1)
    total.add(algorithm.client(None, task, ClientData("a", Rows(table)), {}, Seed.of(0))[0])
    state = algorithm.server(None, state, total.aggregate())
    assert algorithm.task(state) is None
    assert algorithm.fitted(state).feature_names_out == ("grade=2", "grade=1", "city=Nice", "city=Lyon")


def test_constants_fill_columns_of_their_kind() -> None:
    table = pd.DataFrame({"age": [1.0, None], "city": [None, "Nice"]})
    pipeline = fit_steps([Impute("constant", -1), Impute("constant", "none"), OneHot()], table)
    assert pipeline.matrix(table).tolist() == [[1, 0, 1], [-1, 1, 0]]


def test_client_with_a_column_of_missing_values_agrees_with_the_others() -> None:
    empty = pd.DataFrame({"age": [None, None], "city": [np.nan, np.nan]})
    full = pd.DataFrame({"age": [40, 50, 60], "city": ["Nice", "Nice", "Lyon"]})
    steps: list[Step] = [Impute("median"), Impute("most_frequent"), OneHot()]
    assert fit_steps(steps, empty, full).to_json() == fit_steps(steps, full).to_json()
    assert fit_steps(steps, empty, full).matrix(empty).tolist() == [[50, 0, 1], [50, 0, 1]]


def test_test_rows_change_nothing() -> None:
    train = Rows(patients(30))
    alone = fit(FitPipeline(EVERYTHING), [ClientData("a", train)])
    test = Rows(patients(60).iloc[30:].assign(age=999.0, ward="unheard of"))
    assert fit(FitPipeline(EVERYTHING), [ClientData("a", train, test)]).to_json() == alone.to_json()


def test_saved_pipeline_prepares_rows_to_the_same_bits() -> None:
    table = patients()
    pipeline = fit_steps(EVERYTHING, table)
    loaded = Pipeline.from_json(json.loads(json.dumps(pipeline.to_json())))
    assert loaded == pipeline
    assert loaded.matrix(table).tobytes() == pipeline.matrix(table).tobytes()


def test_columns_may_come_in_another_order_and_with_others_between() -> None:
    table = patients()
    pipeline = fit_steps(EVERYTHING, table)
    shuffled = table[sorted(table.columns)].assign(extra="not asked for")
    assert pipeline.matrix(shuffled).tobytes() == pipeline.matrix(table).tobytes()


def test_dtypes_of_the_same_values_make_no_difference() -> None:
    table = pd.DataFrame({"age": [1, 2, 2, None], "smoker": [True, False, True, True], "city": list("abca")})
    others = [
        table.astype({"age": "Int64", "smoker": "boolean", "city": "string"}),
        table.astype({"age": object, "smoker": int, "city": object}),
        table.astype({"age": "float32", "smoker": float, "city": "category"}),
    ]
    steps: list[Step] = [Impute("median"), Standardize(), OneHot()]
    pipeline = fit_steps(steps, table)
    for other in others:
        assert fit_steps(steps, other).to_json() == pipeline.to_json()
        assert pipeline.matrix(other).tolist() == pipeline.matrix(table).tolist()


def test_arrays_are_tables_too() -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(5, 2, (40, 3)).astype(np.float32)
    pipeline = fit_steps([Standardize()], x[:15], x[15:])
    assert pipeline.feature_names_out == ("x0", "x1", "x2")
    expected = StandardScaler().fit_transform(x.astype(float))
    np.testing.assert_allclose(pipeline.matrix(x), expected, rtol=1e-12, atol=1e-12)


def test_matrix_is_of_the_dtype_asked_for() -> None:
    table = patients()
    pipeline = fit_steps(EVERYTHING, table)
    matrix = pipeline.matrix(table, np.float32)
    assert matrix.shape == (60, len(pipeline.feature_names_out))
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, pipeline.matrix(table).astype(np.float32))


@pytest.mark.parametrize(
    "values",
    [
        [1, None, 2.5],
        [True, pd.NA, 3],
        [Decimal("1.5"), None, 2],
        [Fraction(1, 2), 1, np.nan],
        [np.True_, 2, np.float32(0.5)],
    ],
)
def test_objects_that_are_numbers_are_a_column_of_numbers(values: list[Any]) -> None:
    table = pd.DataFrame({"a": pd.Series(values, dtype=object)})
    pipeline = fit_steps([], table)
    assert pipeline.columns.kinds == {"a": "numeric"}
    expected = [np.nan if pd.isna(value) else float(value) for value in values]
    np.testing.assert_array_equal(pipeline.transform(table)["a"], expected)


def test_no_steps_make_a_matrix_of_the_agreed_columns() -> None:
    table = pd.DataFrame({"a": [1, 2], "b": [0.5, 1.5]})
    assert fit_steps([], table, table[["b", "a"]]).matrix(table).tolist() == [[1, 0.5], [2, 1.5]]


def test_registry_builds_the_steps_from_plain_data() -> None:
    entries = {name: f"fedpact.data.preprocess:{name}" for name in ("Impute", "Standardize", "OneHot")}
    steps = Registry("preprocessing step", entries)
    for step in (*EVERYTHING, OneHot(categories={"city": ["Nice", 2]}), Impute("constant", "none")):
        assert steps.build(json.loads(json.dumps(steps.describe(step)))) == step
