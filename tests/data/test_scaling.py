import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler

import fedpact as fp
from fedpact.core import ClientData, Rows
from fedpact.core.errors import ConfigError, DataError
from fedpact.data import STEPS
from fedpact.data.preprocess import FitPipeline, Pipeline, Step
from tests.data.test_preprocess import fit, fit_steps, patients, spread
from tests.data.test_preprocess_errors import message

ALL: tuple[Step, ...] = (
    fp.MinMax(),
    fp.MinMax((-1, 3), clip=True),
    fp.MaxAbs(),
    fp.Robust(),
    fp.Robust((10, 80), with_centering=False, unit_variance=True),
    fp.ClipRange(lower=-1),
    fp.ClipRange(quantiles=(0.05, 0.9)),
    fp.Log(columns=("age",)),
    fp.QuantileTransform(9, "normal"),
    fp.YeoJohnson(),
    fp.YeoJohnson(standardize=False),
)


def named(step: Step) -> str:
    return str(step)


def numbers() -> pd.DataFrame:
    """The patients' numbers: gaps, constants, tiny and huge values; and a column that few clients have values of."""
    table = patients()[["age", "visit", "dose", "unit", "pain"]].astype(float)
    return table.assign(change=table["age"] - 50, rare=table["age"].where(table.index < 4))


@cache
def pooled_fit(step: Step) -> str:
    return json.dumps(fit_steps([step], numbers()).to_json())


@pytest.mark.parametrize("step", ALL, ids=named)
@settings(max_examples=4, deadline=None)
@given(owners=st.lists(st.integers(0, 5), min_size=60, max_size=60))
def test_fitted_step_is_the_same_bits_for_any_partition_of_the_rows(step: Step, owners: list[int]) -> None:
    parts = spread(numbers(), np.array(owners))
    assert json.dumps(fit_steps([step], *parts).to_json()) == pooled_fit(step)


@pytest.mark.parametrize("step", ALL, ids=named)
def test_one_row_clients_fit_the_same_step(step: Step) -> None:
    table = numbers().iloc[:12]
    rows = spread(table, np.arange(12))
    assert fit_steps([step], *rows).to_json() == fit_steps([step], table).to_json()


@pytest.mark.parametrize("step", ALL, ids=named)
def test_clients_without_rows_and_with_columns_of_missing_values_change_nothing(step: Step) -> None:
    table = numbers()
    others = [table.iloc[:0], table.iloc[:3].assign(**dict.fromkeys(table, np.nan))]
    ours = json.loads(json.dumps(fit_steps([step], others[0], table).to_json()))
    assert ours == json.loads(pooled_fit(step))
    if not isinstance(step, fp.QuantileTransform):
        # Its grid has as many points as there are rows, and these are rows.
        assert json.dumps(fit_steps([step], *others, table).to_json()) == pooled_fit(step)


@pytest.mark.parametrize("step", ALL, ids=named)
def test_test_rows_change_nothing(step: Step) -> None:
    table = numbers()
    test = Rows(table.assign(age=999.0, visit=-1e9, dose=7.0))
    fitted = fit(FitPipeline((step,)), [ClientData("a", Rows(table), test)])
    assert json.dumps(fitted.to_json()) == pooled_fit(step)


@pytest.mark.parametrize("step", ALL, ids=named)
def test_saved_step_prepares_rows_to_the_same_bits(step: Step) -> None:
    pipeline = fit_steps([step], numbers())
    loaded = Pipeline.from_json(json.loads(json.dumps(pipeline.to_json())))
    assert loaded == pipeline
    unseen = numbers() * -2
    if isinstance(step, fp.Log):
        unseen = numbers() * 2
    assert loaded.transform(unseen).to_numpy().tobytes() == pipeline.transform(unseen).to_numpy().tobytes()


@pytest.mark.parametrize("step", ALL, ids=named)
def test_missing_values_stay_missing_and_others_do_not_become_so(step: Step) -> None:
    table = numbers()
    made = fit_steps([step], *spread(table, np.arange(60) % 3)).transform(table)
    assert made.isna().equals(table.isna())


@pytest.mark.parametrize("step", ALL, ids=named)
def test_registry_builds_the_step_from_plain_data(step: Step) -> None:
    assert STEPS.build(json.loads(json.dumps(STEPS.describe(step)))) == step


def in_four(step: Step, table: pd.DataFrame) -> Pipeline:
    return fit_steps([step], *spread(table, np.arange(len(table)) % 4))


COMPARED: list[tuple[Step, Any]] = [
    (fp.MinMax(), MinMaxScaler()),
    (fp.MinMax((-1, 3)), MinMaxScaler((-1, 3))),
    (fp.MinMax(clip=True), MinMaxScaler(clip=True)),
    (fp.MaxAbs(), MaxAbsScaler()),
    (fp.Robust(), RobustScaler()),
    (fp.Robust((10, 80)), RobustScaler(quantile_range=(10, 80))),
    (fp.Robust(unit_variance=True), RobustScaler(unit_variance=True)),
    (fp.Robust(with_centering=False), RobustScaler(with_centering=False)),
    (fp.Robust(with_scaling=False), RobustScaler(with_scaling=False)),
]


@pytest.mark.parametrize(("step", "other"), COMPARED, ids=str)
def test_scaling_equals_scikit_learn_on_the_pooled_rows(step: Step, other: Any) -> None:
    table = numbers().drop(columns="visit")
    expected = other.fit(table.to_numpy()).transform((table * 1.5).to_numpy())
    made = in_four(step, table).transform(table * 1.5).to_numpy()
    np.testing.assert_allclose(made, expected, rtol=1e-12, atol=1e-12)


def test_range_of_numbers_far_from_zero_is_filled_to_the_last_bit() -> None:
    # scikit-learn computes value · scale + shift, which here is off by 4e-7.
    table = numbers()[["visit"]]
    made = in_four(fp.MinMax(), table).matrix(table)
    assert (made.min(), made.max()) == (0.0, 1.0)


def test_columns_of_small_numbers_are_scaled_as_all_others() -> None:
    # scikit-learn takes a span below 2.2e-15 for that of a constant column.
    table = pd.DataFrame({"x": [1e-20, 3e-20, 2e-20]})
    assert fit_steps([fp.MinMax()], table).matrix(table)[:, 0].tolist() == pytest.approx([0, 1, 0.5])


def test_constant_column_becomes_the_lower_end_of_the_range() -> None:
    table = pd.DataFrame({"x": [7.0, 7.0]})
    assert fit_steps([fp.MinMax((2, 5))], table).matrix(table).tolist() == [[2], [2]]


def test_column_of_zeros_stays_one() -> None:
    table = pd.DataFrame({"x": [0.0, -0.0]})
    assert fit_steps([fp.MaxAbs()], table).matrix(table).tolist() == [[0], [0]]


def test_clipping_at_quantiles_equals_pandas_on_the_pooled_rows() -> None:
    table = numbers()
    made = in_four(fp.ClipRange(quantiles=(0.1, 0.75)), table).transform(table)
    pd.testing.assert_frame_equal(
        made, table.clip(table.quantile(0.1), table.quantile(0.75), axis="columns"), rtol=1e-15
    )


def test_declared_bounds_hold_only_the_columns_named() -> None:
    table = pd.DataFrame({"a": [-5.0, 0.5, 9.0], "b": [-5.0, 0.5, 9.0]})
    step = fp.ClipRange(lower=0, upper=1, columns=("b",))
    assert fit_steps([step], table).matrix(table).tolist() == [[-5, 0], [0.5, 0.5], [9, 1]]
    upper = fp.ClipRange(upper=1)
    assert fit_steps([upper], table).matrix(table)[:, 0].tolist() == [-5, 0.5, 1]


@pytest.mark.parametrize("offset", [1.0, 0.0, 2.5])
def test_log_is_numpys(offset: float) -> None:
    table = pd.DataFrame({"x": [1e-12, 0.5, 7.0, 1e300]})
    expected = np.log1p(table["x"]) if offset == 1 else np.log(table["x"] + offset)
    assert fit_steps([fp.Log(offset)], table).matrix(table)[:, 0].tolist() == expected.tolist()


def test_value_without_a_logarithm_names_column_and_row_and_stays_where_it_is() -> None:
    pipeline = fit_steps([fp.Log()], pd.DataFrame({"age": [1.0], "change": [0.0]}))
    said = message(DataError, pipeline.matrix, pd.DataFrame({"age": [1.0, 2, 3], "change": [0, -33.5, -1]}))
    assert 'column "change" has 2 value(s) of -1 or less, first in row 2' in said
    assert "33" not in said


def test_value_without_a_logarithm_names_the_client_while_later_steps_are_fitted() -> None:
    tables = [pd.DataFrame({"x": [1.0]}), pd.DataFrame({"x": [-2.0]})]
    said = message(DataError, fit_steps, [fp.Log(), fp.Standardize()], *tables)
    assert 'client "client 1": column "x" has 1 value(s)' in said


@pytest.mark.parametrize("step", [fp.MinMax(), fp.Robust((0, 100))], ids=named)
def test_span_that_no_float_holds_is_refused(step: Step) -> None:
    table = pd.DataFrame({"x": [-1.7e308, 1.7e308]})
    assert 'column "x" lie further apart' in message(DataError, fit_steps, [step], table)


@pytest.mark.parametrize(
    "step",
    [fp.MinMax(), fp.MaxAbs(), fp.Robust(), fp.ClipRange(quantiles=(0.1, 0.9)), fp.YeoJohnson()],
    ids=named,
)
def test_column_without_any_value_is_refused(step: Step) -> None:
    empty = pd.DataFrame({"age": [1.0, 2.0], "chol": [np.nan, np.nan]})
    assert 'column "chol" has no value at any client' in message(DataError, fit_steps, [step], empty, empty)


@pytest.mark.parametrize(
    "kind", [fp.MinMax, fp.MaxAbs, fp.Robust, fp.Log, fp.YeoJohnson, fp.QuantileTransform]
)
def test_step_for_numbers_refuses_a_column_of_text_and_a_misspelt_one(kind: Any) -> None:
    table = pd.DataFrame({"age": [40.0], "sex": ["f"]})
    said = message(ConfigError, fit_steps, [kind(columns=("sex",))], table)
    assert f'{kind.__name__} is for numeric columns, and column "sex" is of kind "category"' in said
    assert 'Did you mean "age"?' in message(ConfigError, fit_steps, [kind(columns=("aeg",))], table)


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        (fp.MinMax, {"feature_range": (1, 0)}, "MinMax: feature_range is (1, 0)"),
        (fp.MinMax, {"feature_range": (0, float("inf"))}, "two finite numbers"),
        (fp.MinMax, {"feature_range": 5}, "feature_range is 5; it must be two numbers"),
        (fp.MinMax, {"columns": "age"}, "must be a list of column names"),
        (fp.Robust, {"quantile_range": (25, 175)}, "between 0 and 100"),
        (fp.Robust, {"with_centering": False, "with_scaling": False}, "nothing is left to do"),
        (fp.Robust, {"quantile_range": (0, 100), "unit_variance": True}, "no quantiles at 0 and 100"),
        (fp.ClipRange, {}, "give lower, upper or both, or else quantiles"),
        (fp.ClipRange, {"lower": 0, "quantiles": (0, 1)}, "or else quantiles"),
        (fp.ClipRange, {"lower": 2, "upper": 1}, "lower is 2 and upper is 1"),
        (fp.ClipRange, {"upper": float("nan")}, "must be finite numbers"),
        (fp.ClipRange, {"quantiles": (1, 99)}, "between 0 and 1"),
        (fp.Log, {"offset": float("nan")}, "offset is nan"),
    ],
)
def test_settings_that_cannot_be_are_refused(kind: Any, settings: dict[str, Any], said: str) -> None:
    assert said in message(ConfigError, kind, **settings)


def test_steps_work_one_after_another_in_training() -> None:
    table = numbers().drop(columns="rare").assign(ill=np.arange(60) % 2)
    parts: Sequence[pd.DataFrame] = spread(table, np.arange(60) % 3)
    clients = fp.clients({f"clinic {i}": part for i, part in enumerate(parts)}, label="ill", test=0.25)
    steps = [
        fp.Impute("median"),
        fp.ClipRange(quantiles=(0.05, 0.95)),
        fp.Log(columns=("age",)),
        fp.YeoJohnson(columns=("change",)),
        fp.Robust(columns=("visit",)),
        fp.QuantileTransform(10, columns=("dose",)),
        fp.MinMax(columns=("pain", "unit")),
    ]
    result = fp.train(
        fp.models.Logistic(), clients, preprocess=steps, algorithm=fp.FedAvg(lr=0.1), rounds=2, seed=1
    )
    assert result.evaluation.metrics["accuracy"] > 0
