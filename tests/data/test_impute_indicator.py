"""Impute can say which values were missing."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.impute import SimpleImputer

from fedpact.core.errors import DataError
from fedpact.data.preprocess import Impute, OneHot, Pipeline
from tests.data.test_preprocess import fit_steps, patients, spread
from tests.data.test_preprocess_errors import message


@pytest.mark.parametrize("strategy", ["mean", "median"])
def test_indicators_equal_scikit_learns_on_the_pooled_rows(strategy: str) -> None:
    table = patients()[["age", "visit", "dose"]]
    pipeline = fit_steps([Impute(strategy, indicator=True)], *spread(table, np.arange(60) % 4))
    expected = SimpleImputer(strategy=strategy, add_indicator=True).fit_transform(table.to_numpy())
    names = ("age", "age missing", "visit", "dose", "dose missing")
    assert pipeline.feature_names_out == names
    np.testing.assert_allclose(pipeline.matrix(table)[:, [0, 2, 3, 1, 4]], expected, rtol=1e-15)


def test_column_that_one_client_alone_misses_is_indicated_at_every_client() -> None:
    full, gap = pd.DataFrame({"x": [1.0, 3.0]}), pd.DataFrame({"x": [None, 2.0]})
    pipeline = fit_steps([Impute(indicator=True)], full, gap)
    assert pipeline.matrix(full).tolist() == [[1, 0], [3, 0]]
    assert pipeline.matrix(gap).tolist() == [[2, 1], [2, 0]]


def test_categories_and_constants_are_indicated_too() -> None:
    table = pd.DataFrame({"x": [None, 1.0], "city": ["Ulm", None], "y": [0.0, 1.0]})
    steps = [Impute("constant", 7, indicator=True), Impute("most_frequent", indicator=True), OneHot()]
    pipeline = fit_steps(steps, table)
    assert pipeline.feature_names_out == ("x", "x missing", "city=Ulm", "city missing", "y")
    assert pipeline.matrix(table).tolist() == [[7, 1, 1, 0, 0], [1, 0, 1, 1, 1]]


def test_what_is_missing_at_prediction_alone_has_no_indicator() -> None:
    pipeline = fit_steps([Impute(indicator=True)], pd.DataFrame({"x": [1.0, 3.0]}))
    assert pipeline.matrix(pd.DataFrame({"x": [None]})).tolist() == [[2]]


@settings(max_examples=6, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=30, max_size=30))
def test_indicated_columns_are_the_same_for_any_partition_of_the_rows(owners: list[int]) -> None:
    table = patients(30)[["age", "visit", "dose"]]
    step = Impute("median", indicator=True)
    found = fit_steps([step], *spread(table, np.array(owners)))
    assert json.dumps(found.to_json()) == json.dumps(fit_steps([step], table).to_json())


def test_saved_step_is_the_same_and_one_without_indicators_is_read() -> None:
    pipeline = fit_steps([Impute(indicator=True)], pd.DataFrame({"x": [1.0, None]}))
    assert Pipeline.from_json(json.loads(json.dumps(pipeline.to_json()))) == pipeline
    before = {
        "columns": [["x", "numeric"]],
        "steps": [{"name": "Impute", "numeric": {"x": 1.0}, "category": {}}],
    }
    assert Pipeline.from_json(before).feature_names_out == ("x",)


def test_indicator_of_the_name_of_a_column_is_refused() -> None:
    table = pd.DataFrame({"x": [1.0, None], "x missing": [0.0, 1.0]})
    assert 'two columns called "x missing"' in message(DataError, fit_steps, [Impute(indicator=True)], table)
