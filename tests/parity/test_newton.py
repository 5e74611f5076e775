"""Newton over clients against scikit-learn's solutions on the pooled rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedpact.algorithms.newton import Newton
from fedpact.core.model import Schema
from fedpact.core.vector import Vector
from fedpact.learn.linear import Linear, Logistic, Softmax
from tests.federation import run_rounds, split

pytest.importorskip("sklearn")
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge

Array = NDArray[Any]
ROUNDS = 10


def standardised(x: Array) -> Array:
    return (x - x.mean(axis=0)) / x.std(axis=0)


def fit(spec: Any, x: Array, y: Array, sizes: Sequence[int]) -> Vector:
    classes = () if isinstance(spec, Linear) else tuple(range(int(y.max()) + 1))
    model = spec.build(Schema(spec.kind, x.shape[1:], classes))
    return run_rounds(Newton(), model, split(x, y, sizes), ROUNDS).model


def uneven(n: int) -> list[int]:
    return [1, n // 10, n // 3, n - 1 - n // 10 - n // 3]


def check(found: Vector, pooled: Any) -> None:
    assert found["coef"] == pytest.approx(pooled.coef_.reshape(found["coef"].shape), abs=1e-6)
    assert found["intercept"] == pytest.approx(
        np.reshape(pooled.intercept_, found["intercept"].shape), abs=1e-6
    )


def random_rows(n: int = 400, d: int = 6) -> tuple[Array, Array]:
    random = np.random.default_rng(1)
    x = random.normal(size=(n, d)) @ random.normal(size=(d, d)) + random.normal(size=d)
    return x, x @ random.normal(size=d) + random.normal(size=n)


RANDOM_X, RANDOM_SCORES = random_rows()
CANCER_X, CANCER_Y = load_breast_cancer(return_X_y=True)
CANCER_X = standardised(CANCER_X)


def pooled_logistic(x: Array, y: Array, l2: float) -> LogisticRegression:
    return LogisticRegression(C=1 / (len(x) * l2), solver="newton-cholesky", tol=1e-10, max_iter=200).fit(
        x, y
    )


@pytest.mark.parametrize("x", [CANCER_X, load_breast_cancer().data], ids=["standardised", "as they are"])
def test_linear_regression_of_breast_cancer_is_that_of_scikit_learn(x: Array) -> None:
    y = CANCER_Y.astype(np.float64)
    check(fit(Linear(), x, y, uneven(len(x))), LinearRegression().fit(x, y))


def test_linear_regression_of_random_rows_is_that_of_scikit_learn() -> None:
    found = fit(Linear(), RANDOM_X, RANDOM_SCORES, uneven(400))
    check(found, LinearRegression().fit(RANDOM_X, RANDOM_SCORES))


@pytest.mark.parametrize("l2", [1e-3, 0.1, 10.0])
def test_ridge_regression_is_that_of_scikit_learn(l2: float) -> None:
    found = fit(Linear(l2), RANDOM_X, RANDOM_SCORES, uneven(400))
    check(found, Ridge(alpha=400 * l2).fit(RANDOM_X, RANDOM_SCORES))


@pytest.mark.parametrize("l2", [1e-3, 1e-2, 0.1])
def test_logistic_regression_of_breast_cancer_is_that_of_scikit_learn(l2: float) -> None:
    check(
        fit(Logistic(l2), CANCER_X, CANCER_Y, uneven(len(CANCER_X))), pooled_logistic(CANCER_X, CANCER_Y, l2)
    )


def test_logistic_regression_of_random_rows_is_that_of_scikit_learn() -> None:
    y = (RANDOM_SCORES > 0).astype(np.int64)
    check(fit(Logistic(1e-2), RANDOM_X, y, uneven(400)), pooled_logistic(RANDOM_X, y, 1e-2))


def test_logistic_regression_without_a_penalty_is_that_of_scikit_learn() -> None:
    noisy = RANDOM_SCORES + np.random.default_rng(2).normal(0, 5, 400)
    y = (noisy > 0).astype(np.int64)
    pooled = LogisticRegression(C=np.inf, tol=1e-10, solver="newton-cholesky").fit(RANDOM_X, y)
    check(fit(Logistic(), RANDOM_X, y, uneven(400)), pooled)


@pytest.mark.parametrize("load", [load_iris, load_wine])
@pytest.mark.parametrize("l2", [1e-2, 0.1])
def test_softmax_regression_is_that_of_scikit_learn(load: Any, l2: float) -> None:
    x, y = load(return_X_y=True)
    # In an order in which every client has rows of some classes only.
    check(fit(Softmax(l2), standardised(x), y, uneven(len(x))), pooled_logistic(standardised(x), y, l2))


def test_softmax_regression_without_a_penalty_predicts_as_that_of_scikit_learn() -> None:
    noisy = RANDOM_SCORES + np.random.default_rng(2).normal(0, 5, 400)
    y = np.digitize(noisy, np.quantile(noisy, [0.3, 0.6]))
    found = fit(Softmax(), RANDOM_X, y, uneven(400))
    pooled = LogisticRegression(C=np.inf, tol=1e-10, solver="newton-cholesky").fit(RANDOM_X, y)
    model = Softmax().build(Schema("multiclass", (6,), (0, 1, 2)))
    assert model.predict(found, RANDOM_X) == pytest.approx(pooled.predict_proba(RANDOM_X), abs=1e-6)


@given(st.lists(st.integers(0, 569), max_size=6))
@settings(max_examples=15)
def test_any_partition_gives_the_same_model(cuts: list[int]) -> None:
    # Not the same bits: a client's own sum is one of floats, and rounds as its rows lie.
    stops = sorted({0, 569, *cuts})
    found = fit(Logistic(0.1), CANCER_X, CANCER_Y, np.diff(stops).tolist())
    pooled = fit(Logistic(0.1), CANCER_X, CANCER_Y, [569])
    assert found.flats[0] == pytest.approx(pooled.flats[0], abs=1e-10)
