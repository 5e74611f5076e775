"""Naive Bayes through OneShot against scikit-learn's on the pooled rows."""

import tracemalloc
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedpact.algorithms.one_shot import OneShot
from fedpact.core.errors import ConfigError, DataError, ModelError
from fedpact.core.model import Schema
from fedpact.core.rows import Rows
from fedpact.core.vector import Vector
from fedpact.learn.naive_bayes import GaussianNB, MultinomialNB
from tests.federation import run_rounds, split

pytest.importorskip("sklearn")
from sklearn import naive_bayes as reference
from sklearn.datasets import load_breast_cancer, load_wine

Array = NDArray[Any]

RANDOM = np.random.default_rng(0)
WORDS_Y = RANDOM.integers(0, 4, 120)
WORDS = RANDOM.poisson(RANDOM.gamma(0.5, 4, size=(4, 20))[WORDS_Y]).astype(np.float64)
WINE_X, WINE_Y = load_wine(return_X_y=True)
CANCER_X, CANCER_Y = load_breast_cancer(return_X_y=True)


def schema(x: Array, y: Array) -> Schema:
    classes = tuple(range(int(y.max()) + 1))
    return Schema("binary" if len(classes) == 2 else "multiclass", x.shape[1:], classes)


def fit(spec: Any, x: Array, y: Array, sizes: Sequence[int]) -> tuple[Any, Vector]:
    model = spec.build(schema(x, y))
    return model, run_rounds(OneShot(), model, split(x, y, sizes), 1).model


def probabilities(model: Any, weights: Vector, x: Array) -> Array:
    found = model.predict(weights, x)
    return np.stack([1 - found, found], axis=1) if found.ndim == 1 else found


@pytest.mark.parametrize("smoothing", [1e-9, 1e-3])
@pytest.mark.parametrize(("x", "y"), [(WINE_X, WINE_Y), (CANCER_X, CANCER_Y)], ids=["wine", "breast cancer"])
def test_gaussian_is_that_of_scikit_learn(x: Array, y: Array, smoothing: float) -> None:
    # The rows of wine lie by class, so that some clients lack some classes.
    model, weights = fit(GaussianNB(smoothing), x, y, [1, 50, len(x) - 51])
    pooled = reference.GaussianNB(var_smoothing=smoothing).fit(x, y)
    assert weights["mean"] == pytest.approx(pooled.theta_, rel=1e-9)
    assert weights["variance"] == pytest.approx(pooled.var_, rel=1e-9)
    assert weights["prior"] == pytest.approx(pooled.class_prior_, rel=1e-12)
    assert probabilities(model, weights, x) == pytest.approx(pooled.predict_proba(x), abs=1e-9)


@pytest.mark.parametrize("alpha", [1.0, 0.01])
def test_multinomial_is_that_of_scikit_learn(alpha: float) -> None:
    model, weights = fit(MultinomialNB(alpha), WORDS, WORDS_Y, [5, 40, 75])
    pooled = reference.MultinomialNB(alpha=alpha).fit(WORDS, WORDS_Y)
    assert weights["log_prior"] == pytest.approx(pooled.class_log_prior_, abs=1e-9)
    assert weights["log_probability"] == pytest.approx(pooled.feature_log_prob_, abs=1e-9)
    assert probabilities(model, weights, WORDS) == pytest.approx(pooled.predict_proba(WORDS), abs=1e-9)


def test_multinomial_of_two_classes_predicts_the_second() -> None:
    y = WORDS_Y % 2
    model, weights = fit(MultinomialNB(), WORDS, y, [60, 60])
    pooled = reference.MultinomialNB().fit(WORDS, y)
    assert model.predict(weights, WORDS) == pytest.approx(pooled.predict_proba(WORDS)[:, 1], abs=1e-9)


@given(st.lists(st.integers(0, 120), max_size=6), st.randoms(use_true_random=False))
@settings(max_examples=20)
@pytest.mark.parametrize("spec", [GaussianNB(), MultinomialNB()], ids=["Gaussian", "multinomial"])
def test_any_partition_and_order_gives_the_same_bits(spec: Any, cuts: list[int], random: Any) -> None:
    x = WORDS if isinstance(spec, MultinomialNB) else WORDS * 0.1 - 3
    order = random.sample(range(120), 120)
    stops = sorted({0, 120, *cuts})
    assert fit(spec, x[order], WORDS_Y[order], np.diff(stops).tolist())[1] == fit(spec, x, WORDS_Y, [120])[1]


def test_variance_does_not_cancel_far_from_zero() -> None:
    # E[x²] − E[x]² in float64 would leave no digit of a variance of 1 around 1e8.
    x = RANDOM.normal(size=(200, 2)) + 1e8
    y = RANDOM.integers(0, 2, 200)
    _, weights = fit(GaussianNB(0.0), x, y, [20, 180])
    assert weights["variance"] == pytest.approx(
        reference.GaussianNB(var_smoothing=0).fit(x, y).var_, rel=1e-9
    )


def test_variance_of_a_constant_is_the_smoothing_and_never_negative() -> None:
    x = np.stack([np.full(50, 0.1), np.full(50, 1e-7) * np.arange(50)], axis=1)
    y = np.arange(50) % 2
    _, weights = fit(GaussianNB(0.0), x, y, [7, 43])
    assert np.all(weights["variance"] >= 0)
    assert np.all(weights["variance"][:, 0] == 0)


@pytest.mark.parametrize("unit", [1e15, 1e-24, 1e100, 1e-150])
def test_gaussian_is_exact_in_any_unit(unit: float) -> None:
    # A power of two, so that the scaled rows are not rounded.
    unit = 2.0 ** round(np.log2(unit))
    plain = fit(GaussianNB(), WINE_X, WINE_Y, [78, 100])[1]
    scaled = fit(GaussianNB(), WINE_X * unit, WINE_Y, [78, 100])[1]
    assert np.array_equal(scaled["mean"], plain["mean"] * unit)
    assert np.array_equal(scaled["variance"], plain["variance"] * unit**2)


def test_memory_of_the_statistics_is_that_of_the_rows_and_not_many_times_as_much() -> None:
    x, y = RANDOM.normal(size=(100_000, 10)), RANDOM.integers(0, 2, 100_000)
    model = GaussianNB().build(schema(x, y))
    tracemalloc.start()
    model.statistics(Rows(x, y))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2.5 * x.nbytes


def test_variance_that_no_float_holds_is_refused_in_a_sentence() -> None:
    with pytest.raises(DataError, match=r"variance of a feature is too large .*; scale the columns"):
        fit(GaussianNB(), WINE_X * 1e200, WINE_Y, [178])


@pytest.mark.parametrize("spec", [GaussianNB(), MultinomialNB()], ids=["Gaussian", "multinomial"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_row_that_is_not_finite_is_named_without_its_values(spec: Any, bad: float) -> None:
    x = WORDS.copy()
    x[7, 3] = bad
    with pytest.raises(DataError, match=r"^naive Bayes needs finite numbers, but row 8 has a NaN or"):
        spec.build(schema(WORDS, WORDS_Y)).statistics(Rows(x, WORDS_Y))


def test_training_ends_after_one_round() -> None:
    model = GaussianNB().build(schema(WINE_X, WINE_Y))
    state = run_rounds(OneShot(), model, split(WINE_X, WINE_Y, [78, 100]), 5)
    assert state.round == 1
    assert OneShot().task(state) is None


@pytest.mark.parametrize("spec", [GaussianNB(), MultinomialNB()], ids=["Gaussian", "multinomial"])
def test_class_that_no_client_has_is_an_error_that_names_it(spec: Any) -> None:
    kept = WORDS_Y != 2
    model = spec.build(Schema("multiclass", (20,), ("politics", "sport", "weather", "music")))
    clients = split(WORDS[kept], WORDS_Y[kept], [10, int(kept.sum()) - 10])
    with pytest.raises(DataError, match='no client has a training row of class "weather"'):
        run_rounds(OneShot(), model, clients, 1)


def test_negative_counts_are_refused() -> None:
    model = MultinomialNB().build(schema(WORDS, WORDS_Y))
    with pytest.raises(DataError, match="needs counts, but a feature is negative; use GaussianNB"):
        model.statistics(Rows(-WORDS, WORDS_Y))


@pytest.mark.parametrize("spec", [GaussianNB(), MultinomialNB()], ids=["Gaussian", "multinomial"])
def test_rows_without_labels_are_refused(spec: Any) -> None:
    with pytest.raises(DataError, match="without labels"):
        spec.build(schema(WORDS, WORDS_Y)).statistics(Rows(WORDS))


@pytest.mark.parametrize("spec", [GaussianNB(), MultinomialNB()], ids=["Gaussian", "multinomial"])
@pytest.mark.parametrize(
    "wrong", [Schema("regression", (20,)), Schema("multiclass", (4, 5), (0, 1, 2))], ids=["numbers", "images"]
)
def test_labels_that_are_numbers_and_examples_that_are_not_flat_are_refused(spec: Any, wrong: Schema) -> None:
    with pytest.raises(ModelError, match="needs flat rows of numbers and labels that are classes"):
        spec.build(wrong)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: GaussianNB(-1e-9), "var_smoothing is -1e-09; it must be a number, 0 or more"),
        (lambda: MultinomialNB(0.0), "alpha is 0.0; it must be a positive number"),
    ],
)
def test_smoothing_out_of_range_is_refused(make: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        make()
