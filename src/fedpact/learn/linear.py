"""Linear, logistic and softmax regression in numpy, with exact gradients and Hessians.

All three minimise (1/n) Σ loss + (l2/2)·‖coef‖², with no penalty on the intercept. scikit-learn's C and alpha
sum the loss instead of averaging it: C = 1/(n·l2) for its LogisticRegression, alpha = n·l2 for its Ridge.

With weights of classes it is (1/n) Σ weight·loss, divided by the number of rows and not by the sum of their weights:
the mean over clients by their rows is then the mean over all rows, however these are spread. With "balanced" weights
both are the same number for all rows together.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import DataError, ModelError
from fedpact.core.model import Batch, Kind, Schema
from fedpact.core.registry import LATER
from fedpact.core.rows import Rows
from fedpact.core.seeds import Seed
from fedpact.core.settings import check_choice, check_numbers
from fedpact.core.vector import Entry, Layout, Vector
from fedpact.learn.class_weight import ClassWeight, check_class_weight, weights_of_classes
from fedpact.learn.flat import check_flat
from fedpact.learn.focal import Focal, check_loss
from fedpact.learn.linear_stacked import StackedRegression
from fedpact.learn.links import LINKS, Floats
from fedpact.learn.score_losses import ScoreLoss

Init = Literal["zeros", "uniform"]

# Rows of more numbers than this are read where they are, which may be a file, and copied so many numbers at a time.
_MOST_COPIED = 1 << 22


@dataclass(frozen=True)
class _Regression:
    l2: float = 0.0
    init: Init = "zeros"

    kind: ClassVar[Kind]

    def __post_init__(self) -> None:
        check_numbers(self, "l2")
        check_choice(self, "init", get_args(Init))

    def build(self, schema: Schema) -> "RegressionModel":
        """Return the model for rows of this schema.

        Raises:
            ModelError: the labels are of another kind or not one for each row, the examples are not flat, or a class
                weight is for no class.
            ConfigError: class weights are to be balanced, and the schema has no counts.
            DataError: then, a class has no training row.
        """
        if schema.kind != self.kind:
            raise ModelError(
                f"{type(self).__name__} predicts {_WORDS[self.kind]}, but the labels are {_WORDS[schema.kind]}; "
                f"use {_INSTEAD[schema.kind]}."
            )
        check_flat(schema, type(self).__name__)
        return RegressionModel(schema, self.l2, self.init, self._row_loss(schema))

    def _row_loss(self, schema: Schema) -> ScoreLoss:
        return ScoreLoss(schema.kind)


@dataclass(frozen=True)
class _Classifier(_Regression):
    class_weight: ClassWeight = field(default=None, metadata=LATER)
    loss: Focal | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_class_weight(self)
        check_loss(self)

    @property
    def counts_classes(self) -> bool:
        """Whether the model cannot be built before all clients' training rows of each class are counted."""
        return self.class_weight == "balanced"

    def _row_loss(self, schema: Schema) -> ScoreLoss:
        weights = weights_of_classes(self.class_weight, schema, type(self).__name__)
        return ScoreLoss(schema.kind, self.loss.gamma if self.loss else 0.0, weights)


_WORDS = {"binary": "two classes", "multiclass": "three or more classes", "regression": "numbers"}
_INSTEAD = {"binary": "Logistic", "multiclass": "Softmax", "regression": "Linear"}


@dataclass(frozen=True)
class Linear(_Regression):
    """Linear regression; the loss is (prediction − label)²/2.

    Args:
        l2: the weight of the L2 penalty, ≥ 0.
        init: start from "zeros", or from "uniform" ±1/√d as torch.nn.Linear does.
    """

    kind: ClassVar[Kind] = "regression"


@dataclass(frozen=True)
class Logistic(_Classifier):
    """Logistic regression for two classes; the loss is the log loss.

    Args:
        l2: the weight of the L2 penalty, ≥ 0.
        init: start from "zeros", or from "uniform" ±1/√d as torch.nn.Linear does.
        class_weight: what a row of each class counts: "balanced" for n / (classes · n_c), from the training rows of all
            clients; label → weight, 1 where a label is not named; or None.
        loss: `Focal`, or None for the log loss.

    Raises:
        ConfigError: a setting is not among those above.
    """

    kind: ClassVar[Kind] = "binary"


@dataclass(frozen=True)
class Softmax(_Classifier):
    """Softmax (multinomial logistic) regression for three or more classes; the loss is the log loss.

    Args:
        l2: the weight of the L2 penalty, ≥ 0.
        init: start from "zeros", or from "uniform" ±1/√d as torch.nn.Linear does.
        class_weight: what a row of each class counts: "balanced" for n / (classes · n_c), from the training rows of all
            clients; label → weight, 1 where a label is not named; or None.
        loss: `Focal`, or None for the log loss.

    Raises:
        ConfigError: a setting is not among those above.
    """

    kind: ClassVar[Kind] = "multiclass"


class RegressionModel:
    """A regression for rows of one schema. The weights are `coef` [d] or [classes, d], and `intercept`."""

    input_dtype = "float64"
    # Examples of float32 are computed on in float64 too, but held as they are: half the memory to go through.
    widens = True
    # Of clients trained side by side: as much as stays in the cache of a processor.
    stack_bytes = 8 << 20

    def __init__(self, schema: Schema, l2: float, init: Init, loss: ScoreLoss) -> None:
        self.schema = schema
        self.l2 = l2
        self.loss = loss
        self._init = init
        outputs = (len(schema.classes),) if schema.kind == "multiclass" else ()
        self.layout = Layout(
            [Entry("coef", (*outputs, *schema.shape), "float64"), Entry("intercept", outputs, "float64")]
        )
        self._sessions = threading.local()

    def initial(self, seed: Seed) -> Vector:
        """Return the weights to start from."""
        weights = Vector.zeros(self.layout)
        if self._init == "uniform":
            bound = 1 / np.sqrt(self.schema.shape[0])
            flat = weights.flats[0]
            flat[:] = seed.child("initial weights").generator().uniform(-bound, bound, flat.size)
        return weights

    def predict(self, weights: Vector, x: Any) -> Floats:
        """Return P(class 1) [n], class probabilities [n, classes], or values [n]."""
        return LINKS[self.schema.kind](self._scores(weights, np.asarray(x, np.float64)))

    def session(self) -> "RegressionSession":
        """Return this thread's session."""
        if not hasattr(self._sessions, "session"):
            self._sessions.session = RegressionSession(self)
        return self._sessions.session

    def __reduce__(self) -> tuple[Any, ...]:
        # Sessions are threads' own: another process makes its own.
        return RegressionModel, (self.schema, self.l2, self._init, self.loss)

    def unstackable(self) -> str | None:
        """There is nothing that keeps one from being trained beside others."""
        return None

    def stacked(self) -> StackedRegression:
        """Return this thread's session for many clients."""
        if not hasattr(self._sessions, "stacked"):
            self._sessions.stacked = StackedRegression(self)
        return self._sessions.stacked

    def targets(self, labels: NDArray[Any] | None) -> Floats:
        """Return labels as the losses take them: float64, or rows of 0 and one 1 where there are three classes or more.

        Raises:
            DataError: there are none.
        """
        if labels is None:
            raise DataError("a regression cannot be trained on rows without labels.")
        classes = len(self.schema.classes)
        return np.eye(classes)[labels] if self.schema.kind == "multiclass" else labels.astype(np.float64)

    def scores(self, weights: Vector, x: Any) -> Floats:
        """Return the logits of each row less their mean [n, classes]."""
        scores = self._scores(weights, np.asarray(x, np.float64))
        if self.schema.kind == "binary":
            return np.stack([-scores / 2, scores / 2], axis=1)
        return scores - scores.mean(axis=1, keepdims=True)

    def taught(self, temperature: float) -> "RegressionModel":
        """Return this classifier as it learns from class probabilities (see `TeachableModel`)."""
        from fedpact.learn.linear_taught import TaughtRegression

        return TaughtRegression(self.schema, self.l2, temperature)

    def penalised(self) -> NDArray[np.bool_]:
        """Return which of the flat weights the penalty applies to."""
        mask = Vector.zeros(self.layout)
        mask["coef"] = 1
        return mask.flats[0].astype(bool)

    def not_convex(self) -> str | None:
        """Return why the loss may have a Hessian that no Newton step can follow, in a clause; None if it has not."""
        return "the focal loss is not convex" if self.loss.gamma else None

    def curvature(self, weights: Vector, rows: Rows) -> tuple[float, Floats, Floats]:
        """Return the summed loss, its gradient [p] and its Hessian [p, p] over these rows, without the penalty.

        The Hessian is that of the squared error and the log loss (see `not_convex`).
        """
        x, at_once = np.asarray(rows.x), max(1, _MOST_COPIED // max(1, *self.schema.shape))
        if len(x) <= at_once or rows.y is None:
            return self._curvature_of(weights, x.astype(np.float64, copy=False), self.targets(rows.y))
        loss, gradient = 0.0, np.zeros(self.layout.size)
        hessian = np.zeros((gradient.size, gradient.size))
        for start in range(0, len(x), at_once):
            part = Rows(x[start : start + at_once], rows.y[start : start + at_once])
            of_part = self.curvature(weights, part)
            loss += of_part[0]
            gradient += of_part[1]
            hessian += of_part[2]
        return loss, gradient, hessian

    def _curvature_of(self, weights: Vector, x: Floats, y: Floats) -> tuple[float, Floats, Floats]:
        scores = self._scores(weights, x)
        predicted = LINKS[self.schema.kind](scores)
        loss, residual = float(np.sum(self.loss.losses(scores, y))), self.loss.slopes(scores, y)
        augmented = np.hstack([x, np.ones((len(x), 1))])
        if self.schema.kind != "multiclass":
            slope = predicted * (1 - predicted) if self.schema.kind == "binary" else np.ones(len(x))
            slope = self.loss.weighed(slope, y)
            return loss, augmented.T @ residual, (augmented * slope[:, None]).T @ augmented
        classes, width = predicted.shape[1], augmented.shape[1]
        gradient = (residual.T @ augmented).ravel()
        hessian, weighed = np.empty((classes, width, classes, width)), self.loss.weighed(predicted, y)
        for a in range(classes):
            for b in range(a, classes):
                slope = weighed[:, a] * ((a == b) - predicted[:, b])
                hessian[a, :, b] = (augmented * slope[:, None]).T @ augmented
                hessian[b, :, a] = hessian[a, :, b]
        # By class, then feature, as computed; by coef, then intercept, as laid out.
        order = np.arange(classes * width).reshape(classes, width)
        order = np.concatenate([order[:, :-1].ravel(), order[:, -1]])
        square = hessian.reshape(classes * width, classes * width)
        return loss, gradient[order], square[np.ix_(order, order)]

    def _scores(self, weights: Vector, x: Floats) -> Floats:
        return x @ weights["coef"].T + weights["intercept"]


class RegressionSession:
    """One client's gradients, computed in place on flat weights."""

    def __init__(self, model: RegressionModel) -> None:
        self._model = model
        self._weights = Vector.zeros(model.layout)
        self._gradient = Vector.zeros(model.layout)
        self.weights = list(self._weights.flats)
        self.gradients = list(self._gradient.flats)
        self._penalty = model.l2 * model.penalised()
        self._x: NDArray[Any] = np.empty((0, 0))
        self._y: NDArray[Any] = np.empty(0)
        self._copied = True

    def load(self, weights: Vector) -> None:
        """Overwrite the weights."""
        self._weights.copy_from(weights)

    def store(self) -> Vector:
        """Return a copy of the weights."""
        return self._weights.copy()

    def change(self, start: Vector) -> Vector:
        """Return the weights − start."""
        return self._weights.minus(start)

    def bind(self, rows: Rows, seed: Seed) -> None:
        """Make these rows the ones that `gradient` reads."""
        x = np.asarray(rows.x)
        self._copied = x.size <= _MOST_COPIED
        self._x = self._widened(x) if self._copied else x
        self._y = self._model.targets(rows.y)

    def gradient(self, index: Batch) -> float:
        """Write the gradient of the penalised mean loss over these rows (None: all); return the loss without it."""
        if index is not None or self._copied:
            return self._gradient_of(*self._batch(index))
        n, loss, total = len(self._y), 0.0, np.zeros_like(self.gradients[0])
        rows = max(1, _MOST_COPIED // self._x.shape[1])
        for start in range(0, n, rows):
            x, y = self._batch(slice(start, start + rows))
            loss += self._gradient_of(x, y) * len(y) / n
            total += self.gradients[0] * (len(y) / n)
        self.gradients[0][:] = total
        return loss

    def _batch(self, index: Batch) -> tuple[Floats, NDArray[Any]]:
        x, y = (self._x, self._y) if index is None else (self._x[index], self._y[index])
        return (x if self._copied else self._widened(x)), y

    def _widened(self, x: NDArray[Any]) -> Floats:
        if self._model.schema.kind == "multiclass":
            return np.asarray(x, np.float64)
        # With a column of ones, scores and gradient are one matrix-vector product each.
        widened = np.empty((len(x), x.shape[1] + 1))
        widened[:, :-1] = x
        widened[:, -1] = 1.0
        return widened

    def _gradient_of(self, x: Floats, y: NDArray[Any]) -> float:
        loss, flat = self._model.loss, self.gradients[0]
        multiclass = loss.kind == "multiclass"
        scores = self._model._scores(self._weights, x) if multiclass else x @ self.weights[0]
        residual = loss.slopes(scores, y) / len(x)
        if multiclass:
            np.matmul(residual.T, x, out=self._gradient["coef"])
            np.sum(residual, axis=0, out=self._gradient["intercept"])
        else:
            np.matmul(residual, x, out=flat)
        if self._model.l2:
            flat += self._penalty * self.weights[0]
        return float(loss.losses(scores, y).sum()) / len(x)

    def clipped(self, index: NDArray[np.int64], norm: float) -> list[Floats]:
        """Return the sum of these rows' gradients, each clipped: a row's is its loss's slope times the row.

        The weight of its class is in it before it is clipped, so that a row adds no more than the norm, whatever it is.
        """
        (x, y), loss = self._batch(index), self._model.loss
        multiclass = loss.kind == "multiclass"
        total = Vector.zeros(self._model.layout)
        # What overflows on the way has no finite norm, and counts as 0.
        with np.errstate(all="ignore"):
            scores = self._model._scores(self._weights, x) if multiclass else x @ self.weights[0]
            errors = loss.slopes(scores, y)
            errors = errors if multiclass else errors[:, None]
            # The column of ones, which three classes or more do not have.
            squares = np.square(x).sum(axis=1) + multiclass
            norms = np.sqrt(np.square(errors).sum(axis=1) * squares)
            factors = np.minimum(1.0, norm / norms)
        finite = np.isfinite(norms)
        x, errors = x[finite], errors[finite] * factors[finite, None]
        if multiclass:
            np.matmul(errors.T, x, out=total["coef"])
            np.sum(errors, axis=0, out=total["intercept"])
        else:
            np.matmul(errors[:, 0], x, out=total.flats[0])
        return list(total.flats)

    def set_gradient(self, gradient: Sequence[Floats]) -> None:
        """Write a gradient of the mean loss to `gradients`, and add that of the penalty."""
        np.add(gradient[0], self._penalty * self.weights[0], out=self.gradients[0])

    def arrays(self, vector: Vector) -> list[Floats]:
        """Return a parameter-shaped vector as flat arrays that match `weights`."""
        return list(vector.flats)
