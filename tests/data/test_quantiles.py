import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import QuantileTransformer

from fedpact.core import Accumulator, ClientData, Rows, Seed
from fedpact.core.errors import ConfigError, DataError, QuorumError
from fedpact.data.preprocess.quantile_transform import QuantileTransform
from fedpact.data.preprocess.quantiles import QuantileGrid, Quantiles
from tests.data.test_preprocess import fit, fit_steps, patients, spread
from tests.data.test_preprocess_errors import hold_round, message

FINITE = st.floats(allow_nan=False, allow_infinity=False)


def quantiles_of(parts: list[Any], at: list[float], absolute: bool = False) -> list[float]:
    clients = [ClientData(f"client {i}", Rows(pd.DataFrame({"x": part}))) for i, part in enumerate(parts)]
    found: list[float] = fit(Quantiles(("x",), tuple(at), absolute), clients)["x"]
    return found


@settings(max_examples=60, deadline=None)
@given(
    st.lists(FINITE, min_size=1, max_size=40),
    st.lists(st.floats(0, 1), min_size=1, max_size=8),
    st.integers(1, 5),
)
def test_quantiles_are_numpys_to_the_bit_for_any_numbers_and_partition(
    values: list[float], at: list[float], clients: int
) -> None:
    # Halves keep numpy from overflowing; + 0.0 makes zeros positive, as they are here.
    halves = np.array(values) / 2 + 0.0
    assert quantiles_of(np.array_split(halves, clients), at) == np.quantile(halves, at).tolist()


@settings(max_examples=40, deadline=None)
@given(st.lists(FINITE, min_size=1, max_size=30), st.integers(1, 4))
def test_quantiles_0_and_1_are_the_least_and_the_largest_value(values: list[float], clients: int) -> None:
    parts = np.array_split(np.array(values), clients)
    assert quantiles_of(parts, [0.0, 1.0]) == [min(values), max(values)]
    assert quantiles_of(parts, [1.0], absolute=True) == [max(map(abs, values))]


def test_quantile_between_numbers_further_apart_than_a_float_is_finite() -> None:
    assert quantiles_of([[-1.7e308], [1.7e308]], [0.5, 0.25]) == [0.0, -8.5e307]


def test_missing_values_are_left_out() -> None:
    values = np.array([np.nan, 3.0, 1.0, np.nan, 2.0])
    assert quantiles_of([values[:1], values[1:3], values[3:]], [0.5, 1.0]) == [2.0, 3.0]


def test_only_counts_of_the_next_byte_and_of_rows_leave_a_client() -> None:
    estimate = Quantiles(("x",), (0.0, 0.5, 1.0))
    data = ClientData("a", Rows(pd.DataFrame({"x": [1.0, 2.0, 1000.0]})))
    state = estimate.init(None, Seed.of(0))
    while (task := estimate.task(state)) is not None:
        update, _ = estimate.client(None, task, data, {}, Seed.of(0))
        assert update.answer is None
        assert update.summed["rows"].tolist() == [3]
        # One row of 256 counts for each distinct beginning: 3 values at most are sought.
        assert update.summed["counts"].shape == (len(task.parameters["prefixes"][0]), 256)
        assert update.summed["counts"].sum() <= 3
        total = Accumulator(task, 65536, 1, 1)
        total.add(update)
        state = estimate.server(None, state, total.aggregate())
    assert estimate.fitted(state) == {"x": [1.0, 2.0, 1000.0]}


def test_grid_has_no_more_points_than_there_are_rows() -> None:
    clients = [ClientData("a", Rows(pd.DataFrame({"x": [5.0, None, 1.0]})))]
    assert fit(QuantileGrid(("x",), number=100), clients) == {"x": [1.0, 3.0, 5.0]}
    assert fit(QuantileGrid(("x",), number=2), clients) == {"x": [1.0, 5.0]}


def test_client_that_leaves_between_rounds_is_noticed() -> None:
    estimate = Quantiles(("x",), (0.5,))
    clients = [ClientData(name, Rows(pd.DataFrame({"x": [1.0, 2.0]}))) for name in "ab"]

    state = hold_round(estimate, estimate.init(None, Seed.of(0)), clients)
    assert "other rows answered" in message(QuorumError, hold_round, estimate, state, clients[:1])


@pytest.mark.parametrize("output", ["uniform", "normal"])
@pytest.mark.parametrize("number", [2, 7, 60, 100])
@pytest.mark.filterwarnings("ignore:n_quantiles")
def test_quantile_transform_equals_scikit_learn_on_the_pooled_rows(output: Any, number: int) -> None:
    # Without "dose": scikit-learn takes values within 1e-7 of the least for the least, here all of them.
    table = patients()[["age", "visit", "unit", "pain", "copies"]].astype(float)
    pipeline = fit_steps([QuantileTransform(number, output)], *spread(table, np.arange(60) % 4))
    other = QuantileTransformer(n_quantiles=number, output_distribution=output).fit(table.to_numpy())
    unseen = pd.concat([table, table * 1.5 - 3])
    np.testing.assert_allclose(
        pipeline.transform(unseen).to_numpy(), other.transform(unseen.to_numpy()), rtol=0, atol=1e-9
    )


def test_small_values_have_normal_scores_of_their_own() -> None:
    table = pd.DataFrame({"x": np.arange(1, 102) * 1e-12})
    scores = fit_steps([QuantileTransform(output_distribution="normal")], table).matrix(table)
    assert scores[50, 0] == pytest.approx(0, abs=1e-12)
    # The share of the 51 + 34 lowest of 101 equally spaced values is .85, whose score is in every table.
    assert scores[85, 0] == pytest.approx(1.0364, abs=1e-4)


def test_share_is_within_a_step_of_the_grid_of_the_share_of_rows_below() -> None:
    x = np.random.default_rng(5).lognormal(0, 2, 500)
    table = pd.DataFrame({"x": x})
    shares = fit_steps([QuantileTransform(20)], *spread(table, np.arange(500) % 7)).matrix(table)[:, 0]
    below = (np.sort(x)[None, :] < x[:, None]).sum(axis=1) / 499
    assert np.abs(shares - below).max() <= 1 / 19


def test_quantile_transform_keeps_missing_values_missing() -> None:
    table = pd.DataFrame({"x": [1.0, None, 3.0]})
    for output in ("uniform", "normal"):
        made = fit_steps([QuantileTransform(3, output)], table).transform(table)["x"]
        assert made.isna().tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"n_quantiles": 1}, "n_quantiles is 1; it must be 2 or more"),
        ({"output_distribution": "gaussian"}, "There are: uniform, normal"),
        ({"output_distribution": "unifrom"}, 'Did you mean "uniform"?'),
    ],
)
def test_quantile_transform_refuses_settings_that_cannot_be(settings: dict[str, Any], said: str) -> None:
    assert said in message(ConfigError, QuantileTransform, **settings)


def test_column_without_any_value_is_named() -> None:
    empty = pd.DataFrame({"x": [1.0], "chol": [np.nan]})
    said = message(DataError, fit_steps, [QuantileTransform()], empty, empty)
    assert 'column "chol" has no value at any client' in said


def test_state_between_rounds_is_plain_data() -> None:
    estimate = QuantileGrid(("x",), number=5)
    data = ClientData("a", Rows(pd.DataFrame({"x": [1.0, 2.0, -7.0]})))
    state = estimate.init(None, Seed.of(0))
    task = estimate.task(state)
    assert task is not None
    total = Accumulator(task, 65536, 1, 1)
    total.add(estimate.client(None, task, data, {}, Seed.of(0))[0])
    found = estimate.server(None, state, total.aggregate()).found
    assert json.loads(json.dumps(found)) == found
