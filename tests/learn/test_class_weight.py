"""Weights of classes in linear models, naive Bayes and scikit-learn's estimators, against scikit-learn and by hand."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import linear_model, naive_bayes
from sklearn.utils.class_weight import compute_class_weight

import fedpact as fp
from fedpact.core.errors import ConfigError, DataError, ModelError
from fedpact.core.model import Schema
from fedpact.core.registry import Registry
from fedpact.core.rows import Rows
from fedpact.core.seeds import Seed
from fedpact.core.vector import Vector
from fedpact.engine.models import describe_model
from fedpact.learn import MODELS
from fedpact.learn.class_weight import balanced, weights_of_classes
from fedpact.learn.linear import Linear, Logistic, Softmax
from fedpact.learn.naive_bayes import GaussianNB, MultinomialNB
from fedpact.learn.sklearn import Sklearn, from_estimator
from tests.federation import run_rounds, split

RANDOM = np.random.default_rng(0)
N, D = 60, 3
X = RANDOM.normal(size=(N, D))
# A tenth of the rows are of class 1; of three classes a tenth and three tenths of the others.
TWO = (np.arange(N) % 10 == 3).astype(np.int64)
THREE = np.array([0, 0, 0, 1, 2, 0, 2, 0, 2, 0])[np.arange(N) % 10]


def schema(y: Any, counted: bool = True) -> Schema:
    counts = tuple(np.bincount(y).tolist())
    kind = "binary" if len(counts) == 2 else "multiclass"
    return Schema(kind, (D,), tuple(range(len(counts))), class_counts=counts if counted else ())


def sizes(draw: Any, n: int = N) -> list[int]:
    """Return the sizes of clients that hold n rows between them."""
    stops = sorted(draw(st.sets(st.integers(1, n - 1), max_size=6)))
    return np.diff([0, *stops, n]).tolist()


partitions = st.composite(sizes)()


@given(counts=st.lists(st.integers(1, 1000), min_size=2, max_size=5))
def test_balanced_weights_are_scikit_learns_and_their_mean_over_all_rows_is_1(counts: list[int]) -> None:
    y = np.repeat(np.arange(len(counts)), counts)
    weights = balanced(counts, range(len(counts)))
    np.testing.assert_allclose(
        weights, compute_class_weight("balanced", classes=np.unique(y), y=y), rtol=1e-15
    )
    assert weights[y].mean() == pytest.approx(1, rel=1e-12)


@settings(max_examples=15)
@given(rows=partitions)
def test_newton_over_any_partition_finds_scikit_learns_balanced_coefficients(rows: list[int]) -> None:
    l2 = 0.05
    model = Logistic(l2, class_weight="balanced").build(schema(TWO))
    found = run_rounds(fp.Newton(), model, split(X, TWO, rows), 30).model
    pooled = linear_model.LogisticRegression(
        C=1 / (N * l2), class_weight="balanced", tol=1e-12, max_iter=10**5
    )
    pooled.fit(X, TWO)
    np.testing.assert_allclose(found["coef"], pooled.coef_[0], atol=1e-6)
    np.testing.assert_allclose(found["intercept"], pooled.intercept_[0], atol=1e-6)


@settings(max_examples=10)
@given(rows=partitions)
def test_newton_over_any_partition_finds_scikit_learns_softmax_with_weights(rows: list[int]) -> None:
    l2, weights = 0.05, {0: 1.0, 1: 6.0, 2: 0.5}
    model = Softmax(l2, class_weight=weights).build(schema(THREE, counted=False))
    found = run_rounds(fp.Newton(), model, split(X, THREE, rows), 30).model
    pooled = linear_model.LogisticRegression(C=1 / (N * l2), class_weight=weights, tol=1e-12, max_iter=10**5)
    pooled.fit(X, THREE)
    np.testing.assert_allclose(found["coef"], pooled.coef_, atol=1e-6)


@pytest.mark.parametrize("spec", [Logistic(class_weight="balanced"), Softmax(0.1, class_weight="balanced")])
@settings(max_examples=15)
@given(rows=partitions)
def test_full_batch_fedsgd_over_any_partition_is_descent_on_the_pooled_weighted_loss(
    spec: Any, rows: list[int]
) -> None:
    y = TWO if spec.kind == "binary" else THREE
    model, algorithm = spec.build(schema(y)), fp.FedSGD(lr=0.5)
    apart = run_rounds(algorithm, model, split(X, y, rows), 5).model
    pooled = run_rounds(algorithm, model, split(X, y, [N]), 5).model
    np.testing.assert_allclose(apart.flats[0], pooled.flats[0], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("spec", [Logistic(class_weight={1: 6}), Softmax(class_weight={0: 0.5, 1: 6})])
def test_the_hessian_is_that_of_differences_of_the_gradient(spec: Any) -> None:
    y = TWO if spec.kind == "binary" else THREE
    model, rows = spec.build(schema(y, counted=False)), Rows(X, y)
    weights = Vector.zeros(model.layout)
    weights.flats[0][:] = np.random.default_rng(2).normal(size=model.layout.size)
    loss, gradient, hessian = model.curvature(weights, rows)
    session = model.session()
    session.load(weights)
    session.bind(rows, Seed.of(0))
    assert session.gradient(None) == pytest.approx(loss / N, rel=1e-12)
    np.testing.assert_allclose(session.gradients[0], gradient / N, rtol=1e-9, atol=1e-12)
    for place in range(model.layout.size):
        ends = []
        for move in (1e-5, -1e-5):
            moved = weights.copy()
            moved.flats[0][place] += move
            ends.append(model.curvature(moved, rows)[1])
        np.testing.assert_allclose((ends[0] - ends[1]) / 2e-5, hessian[place], rtol=1e-6, atol=1e-6)


def test_the_loss_is_divided_by_the_rows_and_not_by_their_weights() -> None:
    session = Logistic(class_weight={1: 3}).build(schema(TWO, counted=False)).session()
    session.bind(Rows(np.zeros((4, D)), np.array([0, 0, 0, 1])), Seed.of(0))
    # At weights of 0 every row's loss is log 2: (1 + 1 + 1 + 3)·log 2 / 4.
    assert session.gradient(None) == pytest.approx(1.5 * np.log(2), rel=1e-12)


@pytest.mark.parametrize("y", [TWO, THREE], ids=["two classes", "three classes"])
def test_a_rows_weight_is_in_its_gradient_before_that_is_clipped(y: Any) -> None:
    spec: Any = (Logistic if y is TWO else Softmax)(class_weight={1: 1000})
    model = spec.build(schema(y, counted=False))
    session = model.session()
    session.weights[0][:] = np.random.default_rng(1).normal(size=model.layout.size)
    session.bind(Rows(X, y), Seed.of(0))
    norm = 0.7
    each = []
    for row in range(N):
        session.gradient(np.array([row]))
        gradient = session.gradients[0].copy()
        each.append(gradient * min(1.0, norm / np.linalg.norm(gradient)))
    np.testing.assert_allclose(session.clipped(np.arange(N), norm)[0], np.sum(each, axis=0), rtol=1e-9)
    for row in np.flatnonzero(y == 1):
        # Whatever it weighs, a row adds no more than the norm.
        assert np.linalg.norm(session.clipped(np.array([row]), norm)[0]) <= norm * (1 + 1e-12)


@pytest.mark.parametrize("class_weight", ["balanced", {0: 1, 1: 4}])
@settings(max_examples=10)
@given(rows=partitions)
def test_naive_bayes_with_weights_is_scikit_learns_with_sample_weights(
    class_weight: Any, rows: list[int]
) -> None:
    weights = np.asarray(compute_class_weight(class_weight, classes=np.unique(TWO), y=TWO))[TWO]
    counts = np.abs(np.round(3 * X))
    cases: list[tuple[Any, Any, Any]] = [
        (GaussianNB(class_weight=class_weight), naive_bayes.GaussianNB(), X),
        (MultinomialNB(class_weight=class_weight), naive_bayes.MultinomialNB(), counts),
    ]
    for spec, theirs, x in cases:
        model = spec.build(schema(TWO, counted=False))
        found = run_rounds(fp.OneShot(), model, split(x, TWO, rows), 2).model
        pooled = theirs.fit(x, TWO, sample_weight=weights).predict_proba(x)[:, 1]
        np.testing.assert_allclose(model.predict(found, x), pooled, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("y", [TWO, THREE], ids=["two classes", "three classes"])
def test_an_estimator_steps_as_with_sample_weights_of_its_own(y: Any) -> None:
    settings = {"loss": "log_loss", "learning_rate": "constant", "eta0": 0.1, "shuffle": False}
    model = Sklearn("SGDClassifier", settings, class_weight="balanced").build(schema(y))
    fitted, loss = model.fit(model.initial(Seed.of(0)), Rows(X, y), 2, Seed.of(0))
    theirs, weights = linear_model.SGDClassifier(**settings), weights_of_classes("balanced", schema(y), "")
    for _ in range(2):
        theirs.partial_fit(X, y, classes=np.unique(y), sample_weight=weights[y])
    np.testing.assert_allclose(fitted["coef_"], theirs.coef_, rtol=1e-12)
    plain = Sklearn("SGDClassifier", settings).build(schema(y, counted=False))
    assert loss != plain._mean_loss(fitted, X, y)
    one = [Rows(X[y == c], y[y == c]) for c in np.unique(y)]
    of_classes = [plain._mean_loss(fitted, rows.x, rows.y) * len(rows) for rows in one]
    assert loss == pytest.approx(float(weights @ of_classes) / N, rel=1e-12)


def test_a_logistic_regression_of_scikit_learn_keeps_its_class_weights() -> None:
    estimator = linear_model.LogisticRegression(C=np.inf, class_weight="balanced")
    assert from_estimator(estimator) == Logistic(class_weight="balanced")


@pytest.mark.parametrize("labels", [(0, 1), ("0", "1"), (False, True), (0.0, 1.0)])
def test_labels_are_named_as_text_or_as_themselves(labels: Any) -> None:
    weights = weights_of_classes(Logistic(class_weight={labels[1]: 5}).class_weight, schema(TWO), "Logistic")
    np.testing.assert_array_equal(weights, [1, 5])


def test_one_way_of_writing_weights_down() -> None:
    spec = Logistic(class_weight={np.int64(0): 1, 1: np.float32(2.5)})
    assert describe_model(spec)["class_weight"] == {"0": 1.0, "1": 2.5}
    assert MODELS.build(describe_model(spec)) == spec
    estimator = Sklearn("SGDClassifier", class_weight="balanced")
    assert MODELS.build(describe_model(estimator)).class_weight == "balanced"


@pytest.mark.parametrize(
    "spec", [Linear(), Logistic(), Softmax(), GaussianNB(), MultinomialNB(), Sklearn("Perceptron")], ids=repr
)
def test_models_without_weights_are_described_as_before_there_were_any(spec: Any) -> None:
    assert not {"class_weight", "loss"} & set(describe_model(spec))


def test_a_default_of_a_later_setting_says_nothing_and_another_value_does() -> None:
    known = Registry("model", {"Logistic": "fedpact.learn.linear:Logistic"})
    assert known.describe(Logistic()) == {"name": "Logistic", "l2": 0.0, "init": "zeros"}
    assert known.describe(Logistic(class_weight="balanced"))["class_weight"] == "balanced"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: Logistic(class_weight="balance"),
            ConfigError,
            'must be "balanced".*Did you mean "balanced"',
        ),
        (lambda: Logistic(class_weight={}), ConfigError, "must be"),
        (
            lambda: Softmax(class_weight={0: -1}),
            ConfigError,
            'class_weight of "0" is -1; it must be a number',
        ),
        (lambda: Softmax(class_weight={0: np.nan}), ConfigError, 'class_weight of "0" is nan'),
        (lambda: Softmax(class_weight={0: 0}), ConfigError, "0 for every label"),
        (lambda: GaussianNB(class_weight={0: 0, 1: 1}), ConfigError, "must be a positive number"),
        (lambda: Logistic(class_weight={0: 1, "0": 2}), ConfigError, "names a label twice"),
        (lambda: Logistic(class_weight={"yess": 2}).build(TEXT), ModelError, 'no class. Did you mean "yes"'),
        (lambda: Logistic(class_weight="balanced").build(TEXT), ConfigError, "class_counts="),
        (
            lambda: Logistic(class_weight="balanced").build(
                Schema("binary", (D,), (0, 1), class_counts=(4, 0))
            ),
            DataError,
            'no client has a training row of class "1"',
        ),
        (
            lambda: Sklearn("PassiveAggressiveClassifier", class_weight="balanced"),
            ConfigError,
            "that of PassiveAggressiveClassifier does not; use SGDClassifier",
        ),
        (
            lambda: Sklearn("SGDRegressor", class_weight="balanced"),
            ConfigError,
            "SGDRegressor predicts numbers",
        ),
        (
            lambda: Sklearn(linear_model.Perceptron(class_weight="balanced"), class_weight="balanced"),
            ConfigError,
            "a class_weight of its own",
        ),
        (lambda: MODELS.build({"name": "Linear", "class_weight": "balanced"}), ConfigError, "no setting"),
    ],
)
@pytest.mark.filterwarnings("ignore:Class PassiveAggressive:FutureWarning")
def test_mistakes_are_named(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


TEXT = Schema("binary", (D,), ("no", "yes"))
