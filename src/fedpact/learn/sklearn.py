"""Linear scikit-learn estimators that learn by `partial_fit`: their coefficients travel, their own code fits."""

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import linear_model, naive_bayes
from sklearn.base import BaseEstimator, clone

from fedpact.core.errors import ConfigError, DataError, ModelError, suggest
from fedpact.core.model import Kind, Schema
from fedpact.core.rows import Rows
from fedpact.core.seeds import Seed
from fedpact.core.vector import Entry, Layout, Vector
from fedpact.learn.class_weight import ClassWeight, by_index, check_class_weight, weights_of_classes
from fedpact.learn.flat import check_flat
from fedpact.learn.linear import Linear, Logistic
from fedpact.learn.links import LINKS, Floats
from fedpact.learn.naive_bayes import GaussianNB, MultinomialNB

_CLASSIFIERS = ("SGDClassifier", "Perceptron", "PassiveAggressiveClassifier")
_REGRESSORS = ("SGDRegressor", "PassiveAggressiveRegressor")
_SUPPORTED = (*_CLASSIFIERS, *_REGRESSORS)


@dataclass(frozen=True)
class Sklearn:
    """A linear scikit-learn estimator that learns by `partial_fit`, one example at a time.

    It starts from zeros, whatever it was fitted to before. One client's training is as many calls of
    `partial_fit` as there are local epochs, each row a step, and the estimator's own settings rule it (an
    algorithm that sets a learning rate, batch size or the like is refused):

    - the learning rate is the estimator's (`learning_rate`, `eta0`, `power_t`). Its counter of steps starts
      anew with every client and round, as the coefficients of a round come from many clients: "constant" is
      what federated averaging is analysed for, and "optimal" takes large first steps;
    - rows are shuffled for every epoch if `shuffle` is set, by the job's seed instead of `random_state`;
    - `max_iter`, `tol`, `n_iter_no_change` and `warm_start` have no effect, as in any use of `partial_fit`.

    Predictions are the estimator's probabilities for the losses "log_loss" and "modified_huber", with ties
    between classes broken as its `predict` does. All other classifiers have none: there the sigmoid, or softmax,
    of the decision function stands for them. It orders and classifies as the estimator does, but is not
    calibrated, so that a log loss of it means little.

    Args:
        estimator: an SGDClassifier, SGDRegressor, Perceptron, PassiveAggressiveClassifier or
            PassiveAggressiveRegressor, or the name of one.
        options: the parameters of an estimator given by name.
        class_weight: what a row of each class counts, as the `sample_weight` of `partial_fit`: "balanced" for
            n / (classes · n_c), from the training rows of all clients; label → weight, 1 where a label is not named; or
            None.

    Raises:
        ConfigError: there is no estimator or parameter of this name, there are options without a name, or class weights
            for an estimator that takes no `sample_weight` or has some of its own.
        ModelError: it is an estimator of another kind.
    """

    estimator: BaseEstimator | str
    options: Mapping[str, Any] = field(default_factory=dict)
    class_weight: ClassWeight = None

    def __post_init__(self) -> None:
        if isinstance(self.estimator, str):
            self._check_options(self.estimator)
        elif type(self.estimator).__name__ not in _SUPPORTED:
            raise _unsupported(self.estimator)
        elif self.options:
            raise ConfigError("Sklearn: options are for an estimator given by name; this one has its own.")
        check_class_weight(self)
        if self.class_weight is not None:
            self._check_weighable()

    @property
    def kind(self) -> Kind | None:
        """The kind of label that a regressor is made for; None for a classifier, which takes two classes or more."""
        return "regression" if self._name in _REGRESSORS else None

    @property
    def counts_classes(self) -> bool:
        """Whether the model cannot be built before all clients' training rows of each class are counted."""
        return self.class_weight == "balanced"

    def build(self, schema: Schema) -> "SklearnModel":
        """Return the model for rows of this schema.

        Raises:
            ModelError: the labels are of another kind or not one for each row, the examples are not flat, or a
                parameter of the estimator is wrong or does not go with `partial_fit`, or a class weight is for no
                class.
            ConfigError: class weights are to be balanced, and the schema has no counts.
            DataError: then, a class has no training row.
        """
        return SklearnModel(self.create(), schema, weights_of_classes(self.class_weight, schema, "Sklearn"))

    def create(self) -> Any:
        """Return an unfitted estimator with the parameters given."""
        if isinstance(self.estimator, str):
            return getattr(linear_model, self.estimator)(**self.options)
        return clone(self.estimator)

    def describe(self) -> dict[str, Any]:
        """Return the specification as plain data, from which it can be built again."""
        parameters = self.create().get_params()
        # The job's seed takes its place, and it may be an object.
        del parameters["random_state"]
        described = {
            "name": "Sklearn",
            "estimator": self._name,
            "options": {k: v.item() if isinstance(v, np.generic) else v for k, v in parameters.items()},
        }
        return described if self.class_weight is None else {**described, "class_weight": self.class_weight}

    @property
    def _name(self) -> str:
        return self.estimator if isinstance(self.estimator, str) else type(self.estimator).__name__

    def _check_weighable(self) -> None:
        estimator = self.create()
        if self._name in _REGRESSORS:
            raise ConfigError(
                f"Sklearn: class_weight is for labels that are classes; {self._name} predicts numbers. Leave it out."
            )
        if "sample_weight" not in inspect.signature(estimator.partial_fit).parameters:
            raise ConfigError(
                f"Sklearn: class_weight needs a partial_fit that takes sample_weight, and that of {self._name} does "
                "not; use SGDClassifier or Perceptron."
            )
        if estimator.class_weight is not None:
            raise ConfigError(
                f"Sklearn: {self._name} has a class_weight of its own, and the two would be multiplied; give one."
            )

    def _check_options(self, name: str) -> None:
        estimator = getattr(linear_model, name, None) if name in _SUPPORTED else None
        if estimator is None:
            known = ", ".join(_SUPPORTED)
            raise ConfigError(
                f'Sklearn: there is no estimator "{name}".{suggest(name, _SUPPORTED)} Known: {known}.'
            )
        parameters = inspect.signature(estimator).parameters
        for option in self.options:
            if option not in parameters:
                raise ConfigError(f'{name} has no parameter "{option}".{suggest(option, parameters)}')


class SklearnModel:
    """A linear estimator for rows of one schema. The weights are `coef_` and `intercept_`, as scikit-learn has them.

    `coef_` is [1, d] for two classes, [classes, d] for more and [d] for a regression.
    """

    input_dtype = "float64"

    def __init__(self, estimator: Any, schema: Schema, weights: Floats | None = None) -> None:
        name = type(estimator).__name__
        if (schema.kind == "regression") != (name in _REGRESSORS):
            has, needs = (
                ("numbers", _REGRESSORS) if schema.kind == "regression" else ("classes", _CLASSIFIERS)
            )
            raise ModelError(f"{name} does not fit labels that are {has}; use {needs[0]}.")
        check_flat(schema, name)
        if getattr(estimator, "average", False):
            raise ModelError(
                f"{name}(average={estimator.average}) averages the steps of one long fit, which there is not "
                "here; use average=False: the server averages the clients."
            )
        if getattr(estimator, "class_weight", None) == "balanced":
            raise ModelError(
                f'{name}(class_weight="balanced") would balance the rows of one client; write '
                f'fp.models.Sklearn({name}(...), class_weight="balanced"), which balances those of all.'
            )
        self.schema = schema
        self._weights = weights
        outputs = len(schema.classes) if schema.kind == "multiclass" else 1
        shape = schema.shape if schema.kind == "regression" else (outputs, *schema.shape)
        self.layout = Layout([Entry("coef_", shape, "float64"), Entry("intercept_", (outputs,), "float64")])
        self._given = estimator
        # It learns from the indexes of classes.
        self._indexed = copy.deepcopy(estimator)
        if isinstance(getattr(estimator, "class_weight", None), Mapping):
            self._indexed.set_params(class_weight=by_index(estimator.class_weight, schema.classes))
        self._try_out()

    def initial(self, seed: Seed) -> Vector:
        """Return zeros, from which scikit-learn starts too."""
        return Vector.zeros(self.layout)

    def fit(self, weights: Vector, rows: Rows, epochs: int, seed: Seed) -> tuple[Vector, float]:
        """Return the weights after so many calls of `partial_fit`, and the mean loss of the rows under them.

        The loss is the estimator's, without penalty or class weights of its own, summed over the one-versus-rest
        problems where there are three or more classes, and each row's times the weight of its class.

        Args:
            weights: the weights to start from.
            rows: the rows to learn from.
            epochs: passes over the rows.
            seed: for the order of the rows.

        Raises:
            DataError: the rows have no labels, or scikit-learn refuses them (NaN, infinity).
        """
        if rows.y is None:
            raise DataError("an estimator cannot be trained on rows without labels.")
        estimator = self._loaded(weights)
        # The constructor of scikit-learn's kind of generator takes 32 bits.
        shuffle = np.random.RandomState(seed.child("shuffle").integer() % 2**32)
        estimator.set_params(random_state=shuffle)
        x, y = np.asarray(rows.x, np.float64), rows.y
        weighed = {} if self._weights is None else {"sample_weight": self._weights[y]}
        try:
            for _ in range(epochs):
                estimator.partial_fit(x, y, **weighed)
        except ValueError as error:
            raise DataError(f"scikit-learn refuses the rows: {error}") from error
        fitted = Vector.from_arrays(
            {"coef_": estimator.coef_, "intercept_": estimator.intercept_}, self.layout
        )
        return fitted, self._mean_loss(fitted, x, y)

    def predict(self, weights: Vector, x: Any) -> Floats:
        """Return P(class 1) [n], class probabilities [n, classes], or values [n]; see `Sklearn`."""
        x = np.asarray(x, np.float64)
        estimator = self._loaded(weights)
        if not hasattr(estimator, "predict_proba"):
            return LINKS[self.schema.kind](self._scores(weights, x))
        probabilities: Floats = estimator.predict_proba(x)
        if self.schema.kind == "binary":
            return probabilities[:, 1]
        # Far from the decision boundaries several classes have the same probability; scores still tell them apart.
        ties = probabilities == probabilities.max(axis=1, keepdims=True)
        ties[np.arange(len(x)), self._scores(weights, x).argmax(axis=1)] = False
        probabilities[ties] = np.nextafter(probabilities[ties], 0.0)
        return probabilities

    def export(self, weights: Vector) -> Any:
        """Return a fitted scikit-learn estimator, which predicts the labels themselves."""
        estimator = self._with(self._given, weights)
        if self.schema.kind != "regression":
            estimator.classes_ = np.array(self.schema.classes)
        if self.schema.features:
            estimator.feature_names_in_ = np.array(self.schema.features, dtype=object)
        return estimator

    def _loaded(self, weights: Vector) -> Any:
        estimator = self._with(self._indexed, weights)
        if self.schema.kind != "regression":
            estimator.classes_ = np.arange(len(self.schema.classes))
        return estimator

    def _with(self, estimator: Any, weights: Vector) -> Any:
        if weights.layout != self.layout:
            raise ModelError(f"weights of {weights.layout!r} do not fit this model of {self.layout!r}.")
        estimator = copy.deepcopy(estimator)
        estimator.coef_, estimator.intercept_ = weights["coef_"].copy(), weights["intercept_"].copy()
        estimator.n_features_in_ = self.schema.shape[0]
        # The number of the next step, from which the learning rate follows.
        estimator.t_ = 1.0
        return estimator

    def _scores(self, weights: Vector, x: Floats) -> Floats:
        scores: Floats = x @ weights["coef_"].T + weights["intercept_"]
        return scores if self.schema.kind == "multiclass" else scores.ravel()

    def _mean_loss(self, weights: Vector, x: Floats, y: NDArray[Any]) -> float:
        scores, kind = self._scores(weights, x), self.schema.kind
        targets = np.asarray(y, np.float64)
        if kind != "regression":
            one = y[:, None] == np.arange(len(self.schema.classes)) if kind == "multiclass" else y == 1
            targets = np.where(one, 1.0, -1.0)
        losses = _LOSSES[self._given.loss](scores, targets, getattr(self._given, "epsilon", 0.0))
        if self._weights is not None:
            losses *= self._weights[y][:, None] if losses.ndim > 1 else self._weights[y]
        return float(losses.sum()) / len(y)

    def _try_out(self) -> None:
        """Refuse parameters that scikit-learn would refuse at the first client."""
        n = max(2, len(self.schema.classes))
        classes = {} if self.schema.kind == "regression" else {"classes": np.arange(n)}
        try:
            copy.deepcopy(self._indexed).partial_fit(
                np.zeros((n, *self.schema.shape)), np.arange(n), **classes
            )
        except (ValueError, TypeError) as error:
            raise ModelError(
                f"{type(self._given).__name__} cannot be trained over clients: {error}"
            ) from error


def from_estimator(estimator: Any) -> Sklearn | GaussianNB | MultinomialNB | Linear | Logistic:
    """Return the specification of the model that a scikit-learn estimator stands for.

    An estimator with `partial_fit` for linear models becomes `Sklearn`. Those that Fedpact fits exactly by its
    own means become its models: GaussianNB, MultinomialNB, LinearRegression, and LogisticRegression for two
    classes without penalty, with its class weights.

    Raises:
        ModelError: the estimator, or one of its parameters, has no counterpart.
    """
    for cls, convert in _CONVERSIONS.items():
        if type(estimator) is cls:
            return convert(estimator, estimator.get_params())
    return Sklearn(estimator)


def _gaussian_nb(estimator: Any, parameters: dict[str, Any]) -> GaussianNB:
    _refuse_others(estimator, priors=None)
    return GaussianNB(float(parameters["var_smoothing"]))


def _multinomial_nb(estimator: Any, parameters: dict[str, Any]) -> MultinomialNB:
    _refuse_others(estimator, fit_prior=True, class_prior=None)
    alpha = parameters["alpha"]
    if np.ndim(alpha) or not alpha > 0:
        raise ModelError(f"MultinomialNB needs one alpha above 0, not {alpha}.")
    return MultinomialNB(float(alpha))


def _linear_regression(estimator: Any, parameters: dict[str, Any]) -> Linear:
    _refuse_others(estimator, fit_intercept=True, positive=False)
    return Linear()


def _logistic_regression(estimator: Any, parameters: dict[str, Any]) -> Logistic:
    _refuse_others(estimator, fit_intercept=True)
    if parameters.get("penalty", "l2") is not None and not np.isinf(parameters["C"]):
        raise ModelError(
            f"LogisticRegression(C={parameters['C']:g}) weighs its penalty against the summed loss: its l2 is "
            "1/(C·n), with n the number of all clients' training rows. Use Logistic(l2=...) for two classes or "
            "Softmax(l2=...) for more; or C=numpy.inf for no penalty."
        )
    return Logistic(class_weight=parameters["class_weight"])


_CONVERSIONS: Mapping[Any, Callable[[Any, dict[str, Any]], Any]] = {
    naive_bayes.GaussianNB: _gaussian_nb,
    naive_bayes.MultinomialNB: _multinomial_nb,
    linear_model.LinearRegression: _linear_regression,
    linear_model.LogisticRegression: _logistic_regression,
}


def _refuse_others(estimator: Any, **settings: Any) -> None:
    for name, value in settings.items():
        given = getattr(estimator, name)
        if given is not value:
            raise ModelError(
                f"{type(estimator).__name__}({name}={given}) has no counterpart over clients; use {name}={value}."
            )


def _unsupported(estimator: Any) -> ModelError:
    name = type(estimator).__name__
    advice = "."
    if name.startswith("MLP"):
        advice = "; write the network as a torch.nn.Module."
    elif name == "Pipeline":
        advice = "; give its last step as the model, and its transformers as preprocess."
    known = ", ".join((*_SUPPORTED, *(cls.__name__ for cls in _CONVERSIONS)))
    return ModelError(f"{name} cannot be trained over clients. Supported of scikit-learn: {known}{advice}")


def _modified_huber(scores: Floats, y: Floats, epsilon: float) -> Floats:
    margin = y * scores
    return np.where(margin >= -1, np.square(np.maximum(0.0, 1 - margin)), -4 * margin)


def _huber(scores: Floats, y: Floats, epsilon: float) -> Floats:
    distance = np.abs(scores - y)
    return np.where(distance <= epsilon, 0.5 * distance**2, epsilon * (distance - 0.5 * epsilon))


# Of scores, targets (−1 or 1 for classes) and epsilon, as scikit-learn's SGD defines them.
_LOSSES: Mapping[str, Callable[[Floats, Floats, float], Floats]] = {
    "log_loss": lambda scores, y, _: np.logaddexp(0.0, -y * scores),
    "hinge": lambda scores, y, _: np.maximum(0.0, 1 - y * scores),
    "squared_hinge": lambda scores, y, _: np.square(np.maximum(0.0, 1 - y * scores)),
    "perceptron": lambda scores, y, _: np.maximum(0.0, -y * scores),
    "modified_huber": _modified_huber,
    "squared_error": lambda scores, y, _: 0.5 * np.square(scores - y),
    "huber": _huber,
    "epsilon_insensitive": lambda scores, y, epsilon: np.maximum(0.0, np.abs(scores - y) - epsilon),
    "squared_epsilon_insensitive": lambda scores, y, epsilon: np.square(
        np.maximum(0.0, np.abs(scores - y) - epsilon)
    ),
}
