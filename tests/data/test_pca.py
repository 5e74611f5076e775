"""Principal components are those of the pooled rows."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import decomposition

from fedpact.core import ClientData, Rows
from fedpact.core.errors import ConfigError, DataError
from fedpact.data.preprocess import FitPipeline, Pipeline
from fedpact.data.preprocess.pca import PCA, FittedPCA
from tests.data.test_preprocess import fit, fit_steps, spread
from tests.data.test_preprocess_errors import message


def measurements(rows: int = 60, columns: int = 6) -> pd.DataFrame:
    """Rows that vary in directions of different size, in columns of different units far from 0."""
    draw = np.random.default_rng(4)
    directions = np.linalg.qr(draw.normal(size=(columns, columns)))[0]
    values = draw.normal(size=(rows, columns)) * 0.5 ** np.arange(columns) @ directions
    values = 10 + values * 10.0 ** (np.arange(columns) % 3)
    return pd.DataFrame(values, columns=[f"c{i}" for i in range(columns)])


def fitted(step: PCA, *tables: pd.DataFrame) -> FittedPCA:
    (found,) = fit_steps([step], *tables).steps
    assert isinstance(found, FittedPCA)
    return found


@pytest.mark.parametrize("n_components", [None, 1, 3, 0.95])
@pytest.mark.parametrize("whiten", [False, True])
def test_components_equal_scikit_learns_on_the_pooled_rows(n_components: Any, whiten: bool) -> None:
    table = measurements()
    pipeline = fit_steps([PCA(n_components, whiten)], *spread(table, np.arange(60) % 4))
    expected = decomposition.PCA(n_components, whiten=whiten, svd_solver="full").fit(table.to_numpy())
    np.testing.assert_allclose(pipeline.matrix(table), expected.transform(table.to_numpy()), atol=1e-9)
    (found,) = pipeline.steps
    assert isinstance(found, FittedPCA)
    np.testing.assert_allclose(found.components, expected.components_, atol=1e-9)
    np.testing.assert_allclose(np.square(found.deviations), expected.explained_variance_, rtol=1e-9)
    np.testing.assert_allclose(found.shares, expected.explained_variance_ratio_, rtol=1e-9)


@pytest.mark.parametrize("solver", ["exact", "randomized"])
@settings(max_examples=8, deadline=None)
@given(owners=st.lists(st.integers(0, 5), min_size=40, max_size=40))
def test_components_are_the_same_bits_for_any_partition_of_the_rows(solver: Any, owners: list[int]) -> None:
    table = measurements(40)
    step = PCA(3, solver=solver)
    pooled = fit_steps([step], table)
    spread_out = fit_steps([step], *spread(table, np.array(owners)))
    assert json.dumps(spread_out.to_json()) == json.dumps(pooled.to_json())


def test_one_row_clients_find_the_same_components() -> None:
    table = measurements(12)
    assert fitted(PCA(), *spread(table, np.arange(12))) == fitted(PCA(), table)


def test_constant_columns_have_no_part_in_components() -> None:
    table = measurements().assign(flat=0.1)
    found = fitted(PCA(), table)
    np.testing.assert_allclose(np.array(found.components)[:-1, -1], 0, atol=1e-12)
    assert found.deviations[-1] == pytest.approx(0, abs=1e-12)


def test_small_column_beside_a_huge_one_keeps_its_digits() -> None:
    # Eigenvectors of the covariances would lose a column 1e9 times as small; scikit-learn's SVD of the rows does not.
    draw = np.random.default_rng(8)
    table = pd.DataFrame({"huge": 1e9 * draw.normal(size=50), "small": draw.normal(size=50)})
    expected = decomposition.PCA(svd_solver="full").fit(table.to_numpy())
    np.testing.assert_allclose(
        fitted(PCA(), table).deviations, np.sqrt(expected.explained_variance_), rtol=1e-6
    )


def test_fewer_rows_than_columns_have_as_many_components_as_rows() -> None:
    table = measurements(4)
    pipeline = fit_steps([PCA(3)], table[:2], table[2:])
    expected = decomposition.PCA(3, svd_solver="full").fit_transform(table.to_numpy())
    np.testing.assert_allclose(pipeline.matrix(table), expected, atol=1e-9)
    assert len(fit_steps([PCA()], table).feature_names_out) == 4


def wide(rows: int, columns: int, falling: float) -> pd.DataFrame:
    draw = np.random.default_rng(9)
    rank = min(rows, columns)
    values = draw.normal(size=(rows, rank)) * falling ** np.arange(rank) @ draw.normal(size=(rank, columns))
    return pd.DataFrame(1 + values, columns=[f"c{i}" for i in range(columns)])


def test_randomized_components_of_few_directions_are_exact() -> None:
    # Of 12 directions 5 + 10 random ones miss nothing.
    draw = np.random.default_rng(10)
    values = draw.normal(size=(80, 12)) @ draw.normal(size=(12, 300))
    table = pd.DataFrame(values, columns=[f"c{i}" for i in range(300)])
    found = fitted(PCA(5, solver="randomized"), *spread(table, np.arange(80) % 3))
    expected = decomposition.PCA(5, svd_solver="full").fit(values)
    np.testing.assert_allclose(found.components, expected.components_, atol=1e-9)
    np.testing.assert_allclose(found.shares, expected.explained_variance_ratio_, rtol=1e-9)


@pytest.mark.parametrize(("passes", "error"), [(2, 1e-3), (4, 1e-8)])
def test_more_passes_bring_randomized_components_nearer(passes: int, error: float) -> None:
    table = wide(60, 200, 0.7)
    found = fitted(PCA(4, solver="randomized", passes=passes), *spread(table, np.arange(60) % 3))
    expected = decomposition.PCA(4, svd_solver="full").fit(table.to_numpy())
    np.testing.assert_allclose(found.components, expected.components_, atol=error)
    assert all(
        a <= b * (1 + 1e-12) for a, b in zip(found.shares, expected.explained_variance_ratio_, strict=True)
    )


def test_components_stand_in_the_place_of_the_first_column() -> None:
    table = measurements().assign(age=1.0)[["c0", "age", "c1", "c2", "c3"]]
    pipeline = fit_steps([PCA(2, columns=("c1", "c2"))], table)
    assert pipeline.feature_names_out == ("c0", "age", "pca0", "pca1", "c3")
    assert pipeline.matrix(table).shape == (60, 5)


def test_saved_components_prepare_rows_to_the_same_bits() -> None:
    table = measurements()
    pipeline = fit_steps([PCA(3, whiten=True)], table)
    loaded = Pipeline.from_json(json.loads(json.dumps(pipeline.to_json())))
    assert loaded == pipeline
    assert loaded.matrix(table).tobytes() == pipeline.matrix(table).tobytes()


def test_test_rows_change_nothing() -> None:
    train, test = Rows(measurements()), Rows(1e9 * measurements())
    alone = fit(FitPipeline((PCA(),)), [ClientData("a", train)])
    assert fit(FitPipeline((PCA(),)), [ClientData("a", train, test)]) == alone


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"n_components": 0}, "whole number, 1 or more"),
        ({"n_components": 1.0}, "below 1"),
        ({"solver": "random"}, 'Did you mean "randomized"?'),
        ({"solver": "randomized"}, "needs n_components"),
        ({"solver": "randomized", "n_components": 2, "passes": 1}, "passes is 1"),
        ({"n_components": 7}, "n_components is 7, and there are 6 numeric columns"),
    ],
)
def test_pca_that_cannot_be_is_refused(settings: Any, said: str) -> None:
    assert said in message(ConfigError, lambda: fit_steps([PCA(**settings)], measurements()))


def test_too_many_columns_for_all_products_ask_for_the_other_solver() -> None:
    table = pd.DataFrame(np.zeros((2, 1100)), columns=[f"c{i}" for i in range(1100)])
    assert 'give solver="randomized"' in message(ConfigError, fit_steps, [PCA(2)], table)


def test_a_single_row_is_refused() -> None:
    assert "1 training row(s)" in message(DataError, fit_steps, [PCA(1)], measurements(1))
