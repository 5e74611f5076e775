"""Values that cannot be become missing, or their rows are left out of training and of tests."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import fedpact as fp
from fedpact.core import ClientData, Rows
from fedpact.core.errors import ConfigError, DataError
from fedpact.core.seeds import Seed
from fedpact.data import STEPS
from fedpact.data.agree import Labels
from fedpact.data.preprocess import FitPipeline, Impute, OneHot, Pipeline, Standardize
from fedpact.data.preprocess.clean import Clean
from fedpact.engine.in_process import InProcess
from fedpact.engine.population import InMemory
from fedpact.engine.preparation import Preparation
from fedpact.engine.preparing import prepare
from fedpact.engine.work import Rules
from fedpact.report.toml import job_toml
from tests.data.test_preprocess import fit, fit_steps
from tests.data.test_preprocess_errors import message

TABLE = pd.DataFrame({"age": [40.0, 50.0, 240.0, None], "sex": ["f", "m", "f", "m"]})


def cleaned(step: Clean, *tables: pd.DataFrame) -> pd.DataFrame:
    pipeline = fit_steps([step, Impute("constant", -99), Impute("constant", "none"), OneHot()], *tables)
    (clean, *_) = pipeline.steps
    return clean.transform(tables[0])


def prepared(clients: list[ClientData], *steps: Any) -> Preparation:
    return prepare(None, steps, InMemory(clients), InProcess(), Rules(fatal=(DataError,)), Seed.of(0))


def test_value_out_of_range_becomes_missing_and_bounds_are_in_range() -> None:
    made = cleaned(Clean(ranges={"age": (40, 120)}), TABLE)
    np.testing.assert_array_equal(made["age"], [40, 50, np.nan, np.nan])
    assert made["sex"].tolist() == TABLE["sex"].tolist()


@pytest.mark.parametrize(("bounds", "expected"), [((None, 45), [40]), ((45, None), [50, 240])])
def test_range_may_be_open_at_one_end(bounds: Any, expected: list[float]) -> None:
    assert cleaned(Clean(ranges={"age": bounds}), TABLE)["age"].dropna().tolist() == expected


def test_invalid_values_are_flagged_and_missing_ones_are_not() -> None:
    made = cleaned(Clean(ranges={"age": (0, 120)}, flag=True), TABLE)
    assert list(made) == ["age", "age invalid", "sex"]
    assert made["age invalid"].tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("numeric", [1, 2.5, -3e2, 1, np.nan, np.nan, np.nan, np.nan, np.nan, np.nan, 7]),
        ("integer", [1, np.nan, -3e2, 1, np.nan, np.nan, np.nan, np.nan, np.nan, np.nan, 7]),
    ],
)
def test_what_spells_a_number_is_one_and_all_else_is_missing(kind: Any, expected: list[float]) -> None:
    mixed = [
        1,
        "2.5",
        " -3e2",
        True,
        "?",
        "nan",
        np.inf,
        (1, 2),
        pd.Timestamp("2024-01-01"),
        "1_000",
        Decimal(7),
    ]
    table = pd.DataFrame({"x": pd.Series(mixed, dtype=object)})
    np.testing.assert_array_equal(cleaned(Clean(types={"x": kind}), table)["x"], expected)


def test_category_is_text_or_a_finite_number() -> None:
    table = pd.DataFrame(
        {"x": pd.Series(["a", 1.0, np.inf, pd.Timestamp("2024-01-01"), "", None], dtype=object)}
    )
    made = cleaned(Clean(types={"x": "category"}, flag=True), table)
    assert made["x"].tolist() == ["a", 1, None, None, None, None]
    assert made["x invalid"].tolist() == [0, 0, 1, 1, 0, 0]


def test_clients_need_not_agree_on_what_a_cleaned_column_holds() -> None:
    other = TABLE.assign(age=["?", "33", "50", None])
    said = message(DataError, fit_steps, [Impute()], TABLE, other)
    assert "text among numbers" in said or "where others have numbers" in said
    pipeline = fit_steps([Clean(types={"age": "numeric"}), Impute(), OneHot()], TABLE, other)
    # The mean of 40, 50, 240, 33 and 50 is 82.6.
    assert pipeline.matrix(other)[:, 0].tolist() == [82.6, 33, 50, 82.6]


def test_rows_with_invalid_values_are_left_out_of_what_later_steps_are_fitted_to() -> None:
    steps = [
        Clean(ranges={"age": (0, 120)}, drop=True),
        Impute("most_frequent"),
        OneHot(),
        Standardize(("age",)),
    ]
    table = TABLE.dropna().assign(sex=["f", "m", "x"])
    pipeline = fit_steps(steps, table)
    assert pipeline.feature_names_out == ("age", "sex=f", "sex=m")
    assert pipeline.to_json()["steps"][-1]["mean"] == {"age": 45}


def test_training_and_test_rows_are_dropped_with_their_labels_and_rows_to_predict_are_not() -> None:
    train = Rows(TABLE, np.array([0, 1, 0, 1]))
    test = Rows(TABLE.iloc[[2, 0]], np.array([0, 1]))
    steps = (Clean(ranges={"age": (0, 120)}, drop=True), Impute(), OneHot())
    preparation = prepared([ClientData("a", train, test)], *steps)
    made = preparation.client(ClientData("a", train, test), "float64")
    assert made.train.x[:, 0].tolist() == [40, 50, 45]
    assert made.train.y.tolist() == [0, 1, 1]
    assert made.test.x[:, 0].tolist() == [40]
    assert made.test.y.tolist() == [1]
    assert preparation.examples(TABLE, "float64")[:, 0].tolist() == [40, 50, 45, 45]


def test_steps_fitted_to_labels_are_given_those_of_the_rows_that_stay() -> None:
    table = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0, 999.0], "city": ["a", "a", "b", "b", "a"]})
    rows = Rows(table, np.array([0.0, 1.0, 5.0, 6.0, 1000.0]))
    steps = (Clean(ranges={"x": (0, 10)}, drop=True), fp.TargetEncode(smooth=0, folds=2))
    pipeline = fit(FitPipeline(steps, Labels("regression")), [ClientData("a", rows)])
    assert pipeline.transform(table)["city"].tolist() == [0.5, 0.5, 5.5, 5.5, 0.5]


def test_client_whose_rows_are_all_left_out_is_named() -> None:
    good = ClientData("a", Rows(TABLE, np.array([0, 1, 0, 1])))
    bad = ClientData("b", Rows(TABLE.assign(age=999.0), np.array([0, 1, 0, 1])))
    preparation = prepared([good, bad], Clean(ranges={"age": (0, 120)}, drop=True), Impute(), OneHot())
    said = message(DataError, preparation.client, bad, "float64")
    assert 'client "b"' in said
    assert "leaves out all 4 rows" in said


def test_job_with_dropped_rows_trains_and_judges_the_rest() -> None:
    draw = np.random.default_rng(0)

    def rows(n: int) -> Rows:
        x = draw.normal(size=n)
        y = (x > 0).astype(int)
        return Rows(
            pd.DataFrame({"x": np.where(np.arange(n) % 5, x, 1e6)}), np.where(np.arange(n) % 5, y, 1 - y)
        )

    clients = [ClientData(id, rows(40), rows(20)) for id in "ab"]
    steps = [fp.Clean(ranges={"x": (-10, 10)}, drop=True), fp.Impute()]
    result = fp.train(fp.models.Logistic(), clients, preprocess=steps, algorithm=fp.FedAvg(lr=1.0), rounds=10)
    assert result.evaluation is not None
    assert result.evaluation.metrics["accuracy"] > 0.9
    assert len(result.predict(pd.DataFrame({"x": [1e6, 1.0]}))) == 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "name columns"),
        ({"types": {"age": "number"}}, "numeric, integer, category"),
        ({"types": {"age": "category"}, "ranges": {"age": (0, 1)}}, "has no range"),
        ({"ranges": {"age": (1, 0)}}, "the smaller first"),
        ({"ranges": {"age": (None, None)}}, "the smaller first"),
        ({"ranges": {"age": 5}}, "give the least and the largest"),
    ],
)
def test_clean_that_cannot_be_is_refused(settings: Any, said: str) -> None:
    assert said in message(ConfigError, Clean, **settings)


def test_misspelt_column_names_the_nearest() -> None:
    said = message(ConfigError, fit_steps, [Clean(ranges={"aeg": (0, 1)})], TABLE)
    assert 'Clean: there is no column "aeg". Did you mean "age"?' in said


def test_open_range_is_read_back_from_a_file_of_the_job(tmp_path: Path) -> None:
    step = Clean(ranges={"age": (None, 120)}, drop=True)
    job = fp.Job(model="Logistic", preprocess=[STEPS.describe(step)], algorithm="FedAvg", rounds=1)
    file = tmp_path / "job.toml"
    file.write_text(job_toml(job))
    (read,) = fp.Job.from_toml(file).preprocess
    assert STEPS.build(read) == step


def test_saved_cleaning_is_the_same() -> None:
    pipeline = fit_steps([Clean(ranges={"age": (0, None)}, drop=True, flag=True), OneHot()], TABLE)
    assert Pipeline.from_json(json.loads(json.dumps(pipeline.to_json()))) == pipeline
