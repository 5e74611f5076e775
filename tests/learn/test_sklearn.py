import json
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import fedpact as fp
from fedpact.algorithms.fedavg import FedAvg
from fedpact.core import Accumulator, ClientData, Rows, Schema, Seed, Vector
from fedpact.core.errors import ConfigError, DataError, FedpactError, ModelError
from fedpact.core.model import FittingModel
from fedpact.learn import MODELS
from fedpact.learn.linear import Linear, Logistic
from fedpact.learn.naive_bayes import GaussianNB, MultinomialNB

sklearn = pytest.importorskip("sklearn")

from sklearn import ensemble, linear_model, metrics, naive_bayes, neural_network, pipeline  # noqa: E402

from fedpact.learn.sklearn import Sklearn, SklearnModel, from_estimator  # noqa: E402

TWO = Schema("binary", (4,), ("no", "yes"), ("a", "b", "c", "d"))
THREE = Schema("multiclass", (4,), ("x", "y", "z"))
NUMBER = Schema("regression", (4,))
BY_KIND = {schema.kind: schema for schema in (TWO, THREE, NUMBER)}


def rows(schema: Schema, n: int = 60, seed: int = 0) -> Rows:
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, 4))
    score = x @ [1.0, -2.0, 0.5, 0.0] + 0.3 * random.normal(size=n)
    if schema.kind == "regression":
        return Rows(x, score)
    cuts = [0.0] if schema.kind == "binary" else [-0.8, 0.8]
    return Rows(x, np.digitize(score, cuts))


@pytest.fixture(autouse=True)
def passive_aggressive_is_deprecated_in_silence() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Class PassiveAggressive", FutureWarning)
        yield


CASES = {
    "SGD log loss": (lambda: linear_model.SGDClassifier(loss="log_loss"), "binary"),
    "SGD hinge": (lambda: linear_model.SGDClassifier(learning_rate="constant", eta0=0.05), "binary"),
    "SGD three classes": (lambda: linear_model.SGDClassifier(loss="log_loss", penalty="l1"), "multiclass"),
    "SGD in order": (lambda: linear_model.SGDClassifier(loss="modified_huber", shuffle=False), "multiclass"),
    "SGD regression": (lambda: linear_model.SGDRegressor(loss="huber", epsilon=0.5), "regression"),
    "Perceptron": (lambda: linear_model.Perceptron(fit_intercept=False), "binary"),
    "PA classifier": (linear_model.PassiveAggressiveClassifier, "multiclass"),
    "PA regressor": (lambda: linear_model.PassiveAggressiveRegressor(C=0.1), "regression"),
}
every_case = pytest.mark.parametrize("case", CASES)


def fitted_alone(estimator: Any, schema: Schema, data: Rows, seed: Seed, epochs: int) -> Any:
    """Return the estimator after plain calls of partial_fit, shuffled as a client's are."""
    estimator.set_params(random_state=np.random.RandomState(seed.child("shuffle").integer() % 2**32))
    classes = {} if schema.kind == "regression" else {"classes": np.arange(len(schema.classes))}
    for _ in range(epochs):
        estimator.partial_fit(data.x, data.y, **classes)
    return estimator


def trained(estimator: Any, schema: Schema, epochs: int = 3) -> tuple[SklearnModel, Vector, float]:
    model = Sklearn(estimator).build(schema)
    start = model.initial(Seed.of(0))
    return model, *model.fit(start, rows(schema), epochs, Seed.of(5))


@every_case
def test_one_clients_training_is_partial_fit_to_the_bit(case: str) -> None:
    make, kind = CASES[case]
    model, weights, _ = trained(make(), BY_KIND[kind])
    alone = fitted_alone(make(), BY_KIND[kind], rows(BY_KIND[kind]), Seed.of(5), 3)
    assert isinstance(model, FittingModel)
    np.testing.assert_array_equal(weights["coef_"], alone.coef_)
    np.testing.assert_array_equal(weights["intercept_"], alone.intercept_)
    assert weights["coef_"].any()


def test_a_round_of_federated_averaging_is_the_weighted_mean_of_the_clients_own_fits() -> None:
    make, algorithm, seed = CASES["SGD log loss"][0], FedAvg(local_epochs=2), Seed.of(3)
    model = Sklearn(make()).build(TWO)
    clients = [ClientData(name, rows(TWO, n, n)) for name, n in (("lyon", 30), ("nice", 70))]
    state = algorithm.init(model, seed)
    task = algorithm.task(state)
    accumulator = Accumulator(task, 65536.0, 100.0, 2)
    for client in clients:
        update, _ = algorithm.client(model, task, client, {}, seed.child(client.id))
        accumulator.add(update)
    averaged = algorithm.server(model, state, accumulator.aggregate()).model
    alone = [fitted_alone(make(), TWO, c.train, seed.child(c.id), 2).coef_ for c in clients]
    np.testing.assert_allclose(averaged["coef_"], 0.3 * alone[0] + 0.7 * alone[1], rtol=1e-9)


def test_training_does_not_change_the_weights_received_nor_the_estimator_given() -> None:
    estimator = linear_model.SGDClassifier(loss="log_loss").fit(rows(TWO).x, rows(TWO).y)
    before = estimator.coef_.copy()
    model = Sklearn(estimator).build(TWO)
    start = model.initial(Seed.of(0))
    assert not start["coef_"].any()
    model.fit(start, rows(TWO), 1, Seed.of(0))
    assert start == model.initial(Seed.of(0))
    np.testing.assert_array_equal(estimator.coef_, before)


@every_case
def test_the_exported_estimator_predicts_as_the_model_does(case: str) -> None:
    make, kind = CASES[case]
    schema, x = BY_KIND[kind], rows(BY_KIND[kind], seed=9).x
    model, weights, _ = trained(make(), schema)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X does not have valid feature names")
        labels = model.export(weights).predict(x)
    predicted = model.predict(weights, x)
    if kind == "regression":
        np.testing.assert_allclose(predicted, labels, rtol=1e-12)
    else:
        index = predicted.argmax(axis=1) if kind == "multiclass" else (predicted > 0.5).astype(int)
        np.testing.assert_array_equal(np.array(schema.classes)[index], labels)
    if kind == "multiclass":
        np.testing.assert_allclose(predicted.sum(axis=1), 1.0, rtol=1e-12)


@pytest.mark.parametrize("loss", ["log_loss", "modified_huber"])
@pytest.mark.parametrize("schema", [TWO, THREE], ids=["two classes", "three classes"])
def test_probabilities_are_the_estimators_where_it_has_any(loss: str, schema: Schema) -> None:
    model, weights, _ = trained(linear_model.SGDClassifier(loss=loss), schema)
    x = rows(schema, seed=9).x
    alone = fitted_alone(linear_model.SGDClassifier(loss=loss), schema, rows(schema), Seed.of(5), 3)
    expected = alone.predict_proba(x)
    expected = expected[:, 1] if schema.kind == "binary" else expected
    np.testing.assert_allclose(model.predict(weights, x), expected, rtol=1e-15)


def test_the_exported_estimator_can_be_trained_further_and_knows_its_columns() -> None:
    pandas = pytest.importorskip("pandas")
    model, weights, _ = trained(linear_model.SGDClassifier(loss="log_loss"), TWO)
    exported = model.export(weights)
    table = pandas.DataFrame(rows(TWO).x, columns=["a", "b", "c", "d"])
    exported.partial_fit(table, np.array(TWO.classes)[rows(TWO).y])
    assert set(exported.predict(table)) == {"no", "yes"}
    with pytest.raises(ValueError, match="feature names"):
        exported.predict(table.rename(columns={"a": "e"}))


def decision(weights: Vector, x: np.ndarray) -> np.ndarray:
    return (x @ weights["coef_"].T + weights["intercept_"]).squeeze()


@pytest.mark.parametrize(
    ("estimator", "kind", "reference"),
    [
        (
            linear_model.SGDClassifier(loss="log_loss"),
            "binary",
            lambda y, s: metrics.log_loss(y, 1 / (1 + np.exp(-s))),
        ),
        (linear_model.SGDClassifier(), "binary", metrics.hinge_loss),
        (
            linear_model.SGDClassifier(),
            "multiclass",
            lambda y, s: sum(metrics.hinge_loss(y == k, s[:, k]) for k in range(3)),
        ),
        (linear_model.SGDRegressor(), "regression", lambda y, s: metrics.mean_squared_error(y, s) / 2),
        (
            linear_model.SGDRegressor(loss="epsilon_insensitive", epsilon=0.0),
            "regression",
            metrics.mean_absolute_error,
        ),
        # Below epsilon all residuals are squared, above it the loss is linear: check both by hand.
        (
            linear_model.SGDRegressor(loss="huber", epsilon=0.2),
            "regression",
            lambda y, s: np.mean([r * r / 2 if r < 0.2 else 0.2 * (r - 0.1) for r in np.abs(y - s)]),
        ),
        (
            linear_model.SGDClassifier(loss="modified_huber"),
            "binary",
            lambda y, s: np.mean([-4 * m if m < -1 else max(0, 1 - m) ** 2 for m in s * (2 * y - 1)]),
        ),
        (
            linear_model.Perceptron(),
            "binary",
            lambda y, s: np.mean([max(0, -m) for m in s * (2 * y - 1)]),
        ),
    ],
    ids=["log", "hinge", "one versus rest", "squares", "absolute", "huber", "modified huber", "perceptron"],
)
def test_training_loss_is_the_estimators_loss(estimator: Any, kind: str, reference: Any) -> None:
    schema = BY_KIND[kind]
    _, weights, loss = trained(estimator, schema)
    data = rows(schema)
    assert loss == pytest.approx(reference(data.y, decision(weights, data.x)), rel=1e-9)


def test_class_weights_follow_their_labels() -> None:
    # The classes of a job's file are text, whatever they are in the tables.
    schema = Schema("binary", (4,), (1, 2))
    for class_weight in ({1: 1.0, 2: 9.0}, {"1": 1.0, "2": 9.0}):
        estimator = linear_model.SGDClassifier(loss="log_loss", class_weight=class_weight)
        _, weights, _ = trained(estimator, schema)
        by_index = linear_model.SGDClassifier(loss="log_loss", class_weight={0: 1.0, 1: 9.0})
        alone = fitted_alone(by_index, schema, rows(TWO), Seed.of(5), 3)
        np.testing.assert_array_equal(weights["coef_"], alone.coef_)
    with pytest.raises(ModelError, match='class_weight has "maybe", which is no class'):
        Sklearn(linear_model.SGDClassifier(class_weight={"maybe": 2.0})).build(schema)


@every_case
def test_a_description_builds_the_same_estimator_again(case: str) -> None:
    spec = Sklearn(CASES[case][0]())
    described = json.loads(json.dumps(spec.describe()))
    assert MODELS.build(described).create().get_params() == spec.create().get_params()
    assert MODELS.build(described).describe() == described


@pytest.mark.parametrize(
    ("make", "schema", "error", "message"),
    [
        (
            lambda: Sklearn(linear_model.SGDClassifier()),
            NUMBER,
            ModelError,
            "labels that are numbers; use SGDReg",
        ),
        (
            lambda: Sklearn(linear_model.SGDRegressor()),
            TWO,
            ModelError,
            "labels that are classes; use SGDClass",
        ),
        (lambda: Sklearn("Perceptron"), Schema("binary", (2, 2), (0, 1)), ModelError, "needs flat rows"),
        (lambda: Sklearn(linear_model.SGDClassifier(average=True)), TWO, ModelError, "use average=False"),
        (lambda: Sklearn(linear_model.SGDClassifier(early_stopping=True)), TWO, ModelError, "early_stopping"),
        (lambda: Sklearn(linear_model.SGDClassifier(class_weight="balanced")), TWO, ModelError, "balanced"),
        (lambda: Sklearn(linear_model.SGDClassifier(loss="logloss")), TWO, ModelError, "'loss' parameter"),
        (lambda: Sklearn("SGDClasifier"), TWO, ConfigError, 'Did you mean "SGDClassifier"'),
        (lambda: Sklearn("LogisticRegression"), TWO, ConfigError, "there is no estimator"),
        (lambda: Sklearn("SGDClassifier", {"los": "hinge"}), TWO, ConfigError, 'Did you mean "loss"'),
        (lambda: Sklearn(linear_model.SGDClassifier(), {"a": 1}), TWO, ConfigError, "options are for"),
        (
            lambda: Sklearn(ensemble.RandomForestClassifier()),
            TWO,
            ModelError,
            "RandomForestClassifier cannot",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused(
    make: Any, schema: Schema, error: type[FedpactError], message: str
) -> None:
    with pytest.raises(error, match=message):
        make().build(schema)


def test_rows_that_do_not_fit_are_refused() -> None:
    model = Sklearn(linear_model.SGDClassifier()).build(TWO)
    start, data = model.initial(Seed.of(0)), rows(TWO)
    with pytest.raises(DataError, match="without labels"):
        model.fit(start, Rows(data.x), 1, Seed.of(0))
    with pytest.raises(DataError, match="refuses the rows: Input X contains NaN"):
        model.fit(start, Rows(np.full_like(data.x, np.nan), data.y), 1, Seed.of(0))
    with pytest.raises(ModelError, match="do not fit this model"):
        model.predict(Sklearn("SGDRegressor").build(NUMBER).initial(Seed.of(0)), data.x)


@pytest.mark.parametrize(
    ("estimator", "spec"),
    [
        (naive_bayes.GaussianNB(var_smoothing=1e-6), GaussianNB(1e-6)),
        (naive_bayes.MultinomialNB(alpha=0.5), MultinomialNB(0.5)),
        (linear_model.LinearRegression(), Linear()),
        (linear_model.LogisticRegression(C=np.inf), Logistic()),
    ],
    ids=["GaussianNB", "MultinomialNB", "LinearRegression", "LogisticRegression"],
)
def test_an_estimator_that_is_fitted_exactly_becomes_that_model(estimator: Any, spec: Any) -> None:
    assert from_estimator(estimator) == spec


def test_other_linear_estimators_learn_by_partial_fit() -> None:
    estimator = linear_model.SGDClassifier()
    assert from_estimator(estimator) == Sklearn(estimator)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (linear_model.LogisticRegression(), r"its l2 is 1/\(C·n\)"),
        (linear_model.LogisticRegression(C=np.inf, fit_intercept=False), "use fit_intercept=True"),
        (linear_model.LinearRegression(positive=True), "use positive=False"),
        (naive_bayes.GaussianNB(priors=[0.5, 0.5]), "use priors=None"),
        (naive_bayes.MultinomialNB(fit_prior=False), "use fit_prior=True"),
        (naive_bayes.MultinomialNB(alpha=[1.0, 2.0]), "needs one alpha"),
        (
            neural_network.MLPClassifier(),
            r"Supported of scikit-learn: SGDClassifier, .*; write the network as",
        ),
        (pipeline.make_pipeline(linear_model.SGDClassifier()), "give its last step as the model"),
        (ensemble.RandomForestClassifier(), "RandomForestClassifier cannot be trained over clients"),
    ],
)
def test_an_estimator_without_an_exact_counterpart_is_refused(estimator: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        from_estimator(estimator)


@pytest.mark.parametrize(
    "settings", [{"lr": 0.5}, {"batch_size": 8}, {"local_steps": 3}, {"max_grad_norm": 1.0}]
)
def test_settings_that_an_estimator_would_not_heed_are_refused(settings: dict[str, Any]) -> None:
    model = Sklearn(linear_model.SGDClassifier()).build(TWO)
    with pytest.raises(ModelError, match=f"{next(iter(settings))} of FedAvg would have no effect"):
        FedAvg(**settings).local_training(model, model.initial(Seed.of(0)), rows(TWO), 0, Seed.of(0))


def test_whole_numbers_are_no_classes_to_a_regressor() -> None:
    x = np.random.default_rng(0).normal(size=(60, 2))
    ages = np.rint(50 + 5 * x[:, 0])
    clients = [
        ClientData(id, Rows(x[part], ages[part]), Rows(x, ages))
        for id, part in (("a", slice(30)), ("b", slice(30, 60)))
    ]
    result = fp.train(linear_model.SGDRegressor(), clients, rounds=60)
    assert result.evaluation is not None
    assert result.evaluation.metrics["r2"] > 0.5
