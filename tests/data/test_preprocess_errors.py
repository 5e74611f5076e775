from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedpact.core import Accumulator, ClientData, Rows, Seed
from fedpact.core.errors import ConfigError, DataError, FedpactError, ModelError, QuorumError
from fedpact.data.preprocess import FitPipeline, Impute, OneHot, Pipeline, Standardize, as_frame
from tests.data.test_preprocess import fit, fit_steps

TABLE = pd.DataFrame({"age": [40.0, 50.0, 60.0], "chol": [200.0, 210.0, 220.0], "sex": ["f", "m", "f"]})


def message(kind: type[FedpactError], action: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        action(*arguments, **options)
    return str(caught.value)


def hold_round(algorithm: Any, state: Any, present: list[ClientData]) -> Any:
    """Return the state after these clients alone were asked."""
    task = algorithm.task(state)
    assert task is not None
    total = Accumulator(task, 65536, 2, 2)
    for data in present:
        total.add(algorithm.client(None, task, data, {}, Seed.of(0))[0])
    return algorithm.server(None, state, total.aggregate())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"strategy": "medain"}, 'Did you mean "median"?'),
        ({"strategy": "mode"}, "mean, median, most_frequent, constant"),
        ({"strategy": "constant"}, "fill_value is None"),
        ({"strategy": "constant", "fill_value": float("nan")}, "fill_value is nan"),
        ({"strategy": "mean", "fill_value": 0}, 'fill_value is for strategy "constant"'),
        ({"columns": "age"}, "must be a list of column names"),
    ],
)
def test_impute_refuses_settings_that_cannot_be(settings: dict[str, Any], said: str) -> None:
    assert said in message(ConfigError, Impute, **settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"unknown": "eror"}, 'Did you mean "error"?'),
        ({"categories": {"sex": []}}, "at least one"),
        ({"categories": {"sex": "fm"}}, "must be a list"),
        ({"categories": {"sex": ["f", "f"]}}, "declared twice"),
        ({"categories": {"sex": [None]}}, "neither text nor a finite number"),
        ({"columns": ("sex",), "categories": {"sx": ["f"]}}, 'Did you mean "sex"?'),
    ],
)
def test_one_hot_refuses_settings_that_cannot_be(settings: dict[str, Any], said: str) -> None:
    assert said in message(ConfigError, OneHot, **settings)


def test_standardize_that_would_do_nothing_is_refused() -> None:
    assert "nothing is left to do" in message(ConfigError, Standardize, None, False, False)


def test_misspelt_column_of_a_step_names_the_nearest() -> None:
    said = message(ConfigError, fit_steps, [Standardize(("chl",))], TABLE)
    assert 'Standardize: there is no column "chl". Did you mean "chol"?' in said


@pytest.mark.parametrize(
    "step", [Impute("mean", columns=("sex",)), Impute("median", columns=("sex",)), Standardize(("sex",))]
)
def test_step_for_numbers_refuses_a_column_of_text(step: Any) -> None:
    assert 'column "sex" is of kind "category"' in message(ConfigError, fit_steps, [step], TABLE)


def test_text_is_no_constant_for_numbers() -> None:
    step = Impute("constant", "none", ("age",))
    assert 'column "age" is of kind "numeric"' in message(ConfigError, fit_steps, [step], TABLE)


def test_infinite_value_names_client_column_and_row() -> None:
    bad = TABLE.assign(chol=[1.0, np.inf, 2.0])
    said = message(DataError, fit_steps, [Standardize()], TABLE, bad)
    assert 'client "client 1": column "chol" is infinite in 1 row(s), first in row 2' in said


def test_conflict_of_kinds_is_a_table_of_clients_and_columns() -> None:
    text = TABLE.assign(chol=["200", "?", "220"])
    mixed = TABLE.assign(age=[40.0, "?", 50.0])
    lines = message(DataError, fit_steps, [], TABLE, text, mixed).splitlines()
    assert [line.split(maxsplit=3)[1:] for line in lines[2:4]] == [
        ["2", "age", "text among numbers in 1 row(s), first in row 2, where others have numbers"],
        ["1", "chol", "text, where others have numbers"],
    ]


def test_column_that_a_client_lacks_is_named_with_the_nearest_that_it_has() -> None:
    said = message(DataError, fit_steps, [], TABLE, TABLE, TABLE.rename(columns={"chol": "Chol"}))
    assert 'client 2  chol    is missing. Did you mean "Chol"?' in said
    assert 'client 2  Chol    is missing at others. Did you mean "chol"?' in said


def test_long_table_of_conflicts_is_cut() -> None:
    others = [TABLE.assign(sex=[1, 2, 3]) for _ in range(30)]
    said = message(DataError, fit_steps, [], *others, *[TABLE] * 25)
    assert "and 5 more" in said


def test_two_columns_of_one_name_are_refused() -> None:
    twice = pd.DataFrame([[1, 2]], columns=["age", "age"])
    assert 'client "client 0": two columns are called "age"' in message(DataError, fit_steps, [], twice)


@pytest.mark.parametrize("step", [Impute(), Impute("median"), Standardize()])
def test_column_without_any_value_is_refused(step: Any) -> None:
    empty = TABLE.assign(chol=np.nan)
    assert 'column "chol" has no value at any client' in message(DataError, fit_steps, [step], empty, empty)


def test_missing_values_that_are_left_are_counted() -> None:
    gaps = ClientData("Zürich", Rows(TABLE[["age", "chol"]].assign(chol=[np.nan, np.nan, 1.0])))
    pipeline = fit(FitPipeline((Standardize(),)), [gaps])
    said = message(DataError, pipeline.matrix, gaps.train.x)
    assert said == 'column "chol" still has 2 missing value(s); add Impute.'


def test_missing_category_asks_for_impute_before_one_hot() -> None:
    pipeline = fit_steps([OneHot()], TABLE)
    said = message(DataError, pipeline.matrix, TABLE.assign(sex=pd.Series(["f", None, None])))
    assert 'column "sex" has 2 missing value(s)' in said
    assert 'Impute("most_frequent")' in said


def test_text_left_at_the_end_asks_for_one_hot() -> None:
    said = message(DataError, fit_steps, [Standardize()], TABLE)
    assert "encode with OneHot, or leave out: sex" in said


def test_dates_left_at_the_end_are_to_be_left_out() -> None:
    dates = TABLE[["age"]].assign(seen=pd.Timestamp("2024-01-01"))
    assert "leave out: seen" in message(DataError, fit_steps, [], dates)


def test_column_missing_at_prediction_names_the_nearest() -> None:
    pipeline = fit_steps([OneHot()], TABLE)
    said = message(DataError, pipeline.matrix, TABLE.rename(columns={"chol": "Chol"}))
    assert 'there is no column "chol". Did you mean "Chol"?' in said


def test_text_in_a_numeric_column_names_its_row() -> None:
    pipeline = fit_steps([OneHot()], TABLE)
    said = message(DataError, pipeline.matrix, TABLE.assign(age=pd.Series([40.0, None, "sixty"])))
    assert 'column "age" is numeric, and row 3 holds text' in said
    assert "sixty" not in said


def test_unknown_category_that_is_not_to_be_ignored_names_its_row() -> None:
    pipeline = fit_steps([OneHot(unknown="error")], TABLE.assign(sex=["male", "female", "male"]))
    said = message(DataError, pipeline.matrix, TABLE.assign(sex=["male", "femal", "male"]))
    assert 'column "sex" has an unknown category in row 2. Known: female, male.' in said


@pytest.mark.parametrize("value", [np.inf, pd.Timestamp("1960-03-01"), (7, 8)])
def test_value_that_is_no_category_names_its_row_and_stays_where_it_is(value: Any) -> None:
    table = TABLE.assign(sex=pd.Series(["f", None, value], dtype=object))
    said = message(DataError, fit_steps([OneHot()], TABLE).matrix, table)
    assert 'column "sex" holds neither text nor a finite number in row 3' in said
    assert not any(part in said for part in ("inf", "1960", "7"))


def test_names_are_no_categories() -> None:
    names = pd.DataFrame({"name": [f"patient {i}" for i in range(10_001)]})
    assert "10,001 different values" in message(DataError, fit_steps, [OneHot()], names)


def test_two_columns_of_one_name_are_never_made() -> None:
    table = pd.DataFrame({"a": ["b=c", "d"], "a=b": ["c", "e"]})
    assert 'two columns called "a=b=c"' in message(DataError, fit_steps, [OneHot()], table)


def test_number_too_large_for_float32_is_refused() -> None:
    table = pd.DataFrame({"x": [1e39, 0.0]})
    assert 'column "x" holds numbers too large for float32' in message(
        DataError, fit_steps([], table).matrix, table, np.float32
    )


def test_images_are_no_table() -> None:
    said = message(ConfigError, as_frame, np.zeros((5, 28, 28)))
    assert "arrays of shape [28, 28]; leave preprocess out" in said


def test_client_that_leaves_between_rounds_of_a_median_is_noticed() -> None:
    algorithm = FitPipeline((Impute("median", columns=("age",)), OneHot()))
    clients = [ClientData("a", Rows(TABLE)), ClientData("b", Rows(TABLE))]

    state = hold_round(algorithm, hold_round(algorithm, algorithm.init(None, Seed.of(0)), clients), clients)
    assert "other rows answered" in message(QuorumError, hold_round, algorithm, state, clients[:1])


@pytest.mark.parametrize("data", [{}, {"columns": [], "steps": [{"name": "Impute"}]}, {"steps": 3}])
def test_unreadable_pipeline_of_a_model_file_is_refused(data: dict[str, Any]) -> None:
    assert "cannot be read" in message(ModelError, Pipeline.from_json, data)


def test_step_of_a_newer_version_is_named() -> None:
    said = message(ModelError, Pipeline.from_json, {"columns": [], "steps": [{"name": "Hash"}]})
    assert 'no preprocessing step "Hash"' in said
