"""Missing values are filled by the regressions of the pooled rows."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer
from sklearn.linear_model import Ridge

from fedpact.core import ClientData, Rows, Seed
from fedpact.core.errors import ConfigError, DataError
from fedpact.data.preprocess import FitPipeline, Pipeline
from fedpact.data.preprocess.estimate import Estimating, ask
from fedpact.data.preprocess.iterative import IterativeImpute
from fedpact.data.preprocess.iterative_fit import RidgeRounds
from tests.data.test_preprocess import fit, fit_steps, spread
from tests.data.test_preprocess_errors import message


def gaps(rows: int = 60) -> pd.DataFrame:
    """Columns that depend on each other, in different units, one without gaps and one constant."""
    draw = np.random.default_rng(12)
    base = draw.normal(size=(rows, 3))
    mixed = base @ draw.normal(size=(3, 4)) + 0.3 * draw.normal(size=(rows, 4))
    table = pd.DataFrame(mixed * [1, 10, 0.1, 1] + [0, 100, 5, -3], columns=list("abcd"))
    table["flat"] = 2.0
    hidden = draw.random(table.shape) < [0.3, 0.1, 0.2, 0, 0.1]
    hidden[:3] = False
    return table.mask(hidden)


def pooled(rounds: int, ridge: float, table: pd.DataFrame) -> IterativeImputer:
    imputer = IterativeImputer(Ridge(alpha=ridge), max_iter=rounds, tol=0, skip_complete=True)
    return imputer.fit(table.to_numpy())


@pytest.mark.filterwarnings("ignore:.*Early stopping.*")
@pytest.mark.parametrize(("rounds", "ridge"), [(1, 1e-3), (10, 1e-3), (3, 5.0)])
def test_filled_values_equal_scikit_learns_on_the_pooled_rows(rounds: int, ridge: float) -> None:
    table = gaps()
    pipeline = fit_steps([IterativeImpute(rounds, ridge)], *spread(table, np.arange(60) % 4))
    expected = pooled(rounds, ridge, table)
    np.testing.assert_allclose(pipeline.matrix(table), expected.transform(table.to_numpy()), rtol=1e-9)
    unseen = gaps(90)[60:]
    np.testing.assert_allclose(pipeline.matrix(unseen), expected.transform(unseen.to_numpy()), rtol=1e-9)


@settings(max_examples=5, deadline=None)
@given(owners=st.lists(st.integers(0, 5), min_size=40, max_size=40))
def test_regressions_are_the_same_bits_for_any_partition_of_the_rows(owners: list[int]) -> None:
    table, step = gaps(40), IterativeImpute(2)
    spread_out = fit_steps([step], *spread(table, np.array(owners)))
    assert json.dumps(spread_out.to_json()) == json.dumps(fit_steps([step], table).to_json())


def test_client_with_an_empty_column_and_one_row_clients_change_nothing() -> None:
    table = gaps(20)
    table.loc[:4, "a"] = np.nan
    step = IterativeImpute(2)
    parts = spread(table, np.array([0] * 5 + list(range(1, 16))))
    assert fit_steps([step], *parts) == fit_steps([step], table)


def test_each_round_moves_filled_values_less() -> None:
    table = gaps()

    def moved(rounds: int) -> float:
        before, after = (
            fit_steps([IterativeImpute(n, 30.0)], table).matrix(table) for n in (rounds, rounds + 1)
        )
        return float(np.abs(after - before).max())

    # Each round leaves about four fifths of the way to the fixed point.
    assert moved(12) < moved(2) / 5


def test_columns_of_very_different_units_are_filled_in_each() -> None:
    draw = np.random.default_rng(13)
    x = draw.normal(size=50)
    table = pd.DataFrame({"kg": x, "seconds": 1.6e9 + 1e5 * x})
    table.loc[0, "seconds"] = np.nan
    made = fit_steps([IterativeImpute(2)], table).matrix(table)
    # The penalty of 0.001 beside 50 rows shrinks the slope by 2e-5.
    assert made[0, 1] == pytest.approx(1.6e9 + 1e5 * x[0], abs=20)


def test_column_that_misses_nothing_in_training_is_filled_with_its_mean() -> None:
    table = gaps()
    unseen = table.iloc[:1].assign(d=np.nan)
    made = fit_steps([IterativeImpute(2)], table).transform(unseen)
    assert made["d"].iloc[0] == pytest.approx(table["d"].mean(), rel=1e-12)


def test_single_column_is_filled_with_its_mean() -> None:
    table = gaps()[["a"]]
    assert fit_steps([IterativeImpute(2)], table).matrix(table)[table["a"].isna()] == pytest.approx(
        table["a"].mean()
    )


def test_values_that_are_there_keep_their_bits() -> None:
    table = gaps()
    made = fit_steps([IterativeImpute(2)], table).transform(table)
    assert made.where(table.notna()).equals(table)


def test_saved_regressions_fill_rows_to_the_same_bits() -> None:
    table = gaps()
    pipeline = fit_steps([IterativeImpute(2)], table)
    loaded = Pipeline.from_json(json.loads(json.dumps(pipeline.to_json())))
    assert loaded == pipeline
    assert loaded.matrix(table).tobytes() == pipeline.matrix(table).tobytes()


def test_test_rows_change_nothing() -> None:
    steps = (IterativeImpute(2),)
    alone = fit(FitPipeline(steps), [ClientData("a", Rows(gaps()))])
    assert fit(FitPipeline(steps), [ClientData("a", Rows(gaps()), Rows(gaps() * 1e6))]) == alone


def test_predictions_that_grow_without_bound_name_client_and_column() -> None:
    # The second column is predicted as 10^9 times the first.
    task = ask(Estimating(1), of=0, means=[0.0, 0.0], exponents=[0, 0], regressions=[[1, 0.0, [1e9, 0.0]]])
    data = ClientData("Bern", Rows(pd.DataFrame({"a": [1.0, 2.0], "b": [None, 1.0]})))
    said = message(DataError, RidgeRounds(("a", "b")).client, None, task, data, {}, Seed.of(0))
    assert 'client "Bern"' in said
    assert 'column "b" grows without bound' in said


def test_ridge_of_zero_and_empty_columns_are_refused() -> None:
    assert "ridge is 0" in message(ConfigError, IterativeImpute, 1, 0)
    empty = gaps().assign(a=np.nan)
    assert 'column "a" has no value at any client' in message(
        DataError, fit_steps, [IterativeImpute()], empty
    )
