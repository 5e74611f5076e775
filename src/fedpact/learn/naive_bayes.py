"""Naive Bayes from sums: exact, in one round.

The same estimates as scikit-learn's GaussianNB and MultinomialNB on the pooled rows; with weights of classes, as with
its `sample_weight`. Rows are counted by class in any case, so "balanced" weights need no round of their own.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core import sums
from fedpact.core.errors import DataError, ModelError
from fedpact.core.model import Schema
from fedpact.core.registry import LATER
from fedpact.core.rows import Rows
from fedpact.core.seeds import Seed
from fedpact.core.settings import check_numbers
from fedpact.core.vector import Entry, Layout, Vector
from fedpact.core.wide import Wide
from fedpact.learn.class_weight import ClassWeight, balanced, check_class_weight, weights_of_classes
from fedpact.learn.flat import check_flat

_LARGEST = float(np.finfo(np.float64).max)


@dataclass(frozen=True)
class GaussianNB:
    """Naive Bayes with a normal distribution for each feature and class.

    Args:
        var_smoothing: this share of the largest feature variance is added to all variances.
        class_weight: what a row of each class counts in the priors: "balanced" for n / (classes · n_c), by which they
            are all the same; label → weight > 0, 1 where a label is not named; or None.

    Raises:
        ConfigError: the smoothing is no number, or negative, or the class weights are neither of these.
    """

    var_smoothing: float = 1e-9
    class_weight: ClassWeight = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        check_numbers(self, "var_smoothing")
        check_class_weight(self, positive=True)

    def build(self, schema: Schema) -> "GaussianNBModel":
        """Return the model for rows of this schema."""
        _check(schema, "GaussianNB")
        return GaussianNBModel(schema, self.var_smoothing, _weighing(self.class_weight, schema))


@dataclass(frozen=True)
class MultinomialNB:
    """Naive Bayes for counts, such as words in a text.

    Args:
        alpha: additive (Laplace) smoothing, > 0.
        class_weight: what a row of each class counts, in the priors and in the counts that are smoothed: "balanced" for
            n / (classes · n_c); label → weight > 0, 1 where a label is not named; or None.

    Raises:
        ConfigError: alpha is no positive number, or the class weights are neither of these.
    """

    alpha: float = 1.0
    class_weight: ClassWeight = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        check_numbers(self, "alpha", positive=True)
        check_class_weight(self, positive=True)

    def build(self, schema: Schema) -> "MultinomialNBModel":
        """Return the model for rows of this schema."""
        _check(schema, "MultinomialNB")
        return MultinomialNBModel(schema, self.alpha, _weighing(self.class_weight, schema))


def _check(schema: Schema, name: str) -> None:
    if schema.kind == "regression" or len(schema.shape) != 1:
        raise ModelError(f"{name} needs flat rows of numbers and labels that are classes.")
    check_flat(schema, name)


# What a row of each class counts [classes], given how many rows each has.
_Weighing = Callable[[Sequence[int]], NDArray[np.float64]]


def _weighing(class_weight: ClassWeight, schema: Schema) -> _Weighing | None:
    if class_weight == "balanced":
        return partial(balanced, classes=schema.classes)
    weights = weights_of_classes(class_weight, schema, "naive Bayes")
    return None if weights is None else partial(_regardless, weights)


def _regardless(weights: NDArray[np.float64], counts: Sequence[int]) -> NDArray[np.float64]:
    return weights


class _NaiveBayes(ABC):
    input_dtype = "float64"

    def __init__(self, schema: Schema, entries: list[Entry], weighing: _Weighing | None) -> None:
        self.schema = schema
        self.layout = Layout(entries)
        self._weighing = weighing

    def initial(self, seed: Seed) -> Vector:
        """Return zeros: the model is solved, not stepped."""
        return Vector.zeros(self.layout)

    def predict(self, weights: Vector, x: Any) -> NDArray[np.float64]:
        """Return P(class 1) [n] for two classes, else class probabilities [n, classes]."""
        joint = self._joint(weights, np.asarray(x, np.float64))
        joint -= joint.max(axis=1, keepdims=True)
        probabilities = np.exp(joint)
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        return probabilities[:, 1] if self.schema.kind == "binary" else probabilities

    @abstractmethod
    def _joint(self, weights: Vector, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return log P(class, x) but for a constant [n, classes]."""

    def _weights(self, count: list[int]) -> NDArray[np.float64]:
        return np.ones(len(count)) if self._weighing is None else self._weighing(count)

    def _prior(self, count: list[int]) -> NDArray[np.float64]:
        """Return P(class) [classes]."""
        weighed = np.array(count) * self._weights(count)
        return np.asarray(weighed / weighed.sum())

    def _by_class(self, rows: Rows) -> list[NDArray[np.float64]]:
        if rows.y is None:
            raise DataError("naive Bayes cannot be trained on rows without labels.")
        x = np.asarray(rows.x, np.float64)
        if not np.isfinite(x).all():
            row = int(np.argmin(np.isfinite(x).all(axis=1))) + 1
            raise DataError(f"naive Bayes needs finite numbers, but row {row} has a NaN or an infinite one.")
        return [x[rows.y == index] for index in range(len(self.schema.classes))]


class GaussianNBModel(_NaiveBayes):
    """Class priors [classes], means and variances [classes, d]."""

    def __init__(self, schema: Schema, var_smoothing: float, weighing: _Weighing | None = None) -> None:
        shape = (len(schema.classes), *schema.shape)
        super().__init__(
            schema,
            [
                Entry("prior", shape[:1], "float64"),
                Entry("mean", shape, "float64"),
                Entry("variance", shape, "float64"),
            ],
            weighing,
        )
        self._var_smoothing = var_smoothing

    def statistics(self, rows: Rows) -> Mapping[str, Wide | NDArray[np.int64]]:
        """Return counts [classes], and sums and sums of squares as their digits [classes, d, digits].

        Raises:
            DataError: the rows have no labels, or a NaN or infinite feature.
        """
        parts = self._by_class(rows)
        return {
            "count": np.array([len(part) for part in parts]),
            "sum": _by_column(sums.sum_of, parts),
            "square": _by_column(sums.sum_of_squares, parts),
        }

    def solve(self, totals: Mapping[str, Any]) -> Vector:
        """Return the maximum-likelihood estimates.

        Raises:
            DataError: a class has no rows at any client, or a feature's variance is beyond float64.
        """
        count = [int(n) for n in totals["count"]]
        _check_counts(count, self.schema)
        first = _table(sums.sum_in, totals["sum"])
        second = _table(sums.sum_of_squares_in, totals["square"])
        mean = [[s / n for s in row] for row, n in zip(first, count, strict=True)]
        variance = [
            [q / n - m * m for q, m in zip(row, means, strict=True)]
            for row, means, n in zip(second, mean, count, strict=True)
        ]
        total = sum(count)
        pooled = [
            sum(squares) / total - (sum(column) / total) ** 2
            for squares, column in zip(zip(*second, strict=True), zip(*first, strict=True), strict=True)
        ]
        if max(pooled) > _LARGEST or any(v > _LARGEST for row in variance for v in row):
            raise DataError(
                "the variance of a feature is too large for naive Bayes; scale the columns with Standardize."
            )
        smoothing = self._var_smoothing * float(max(pooled))
        weights = Vector.zeros(self.layout)
        weights["prior"] = self._prior(count)
        weights["mean"] = np.array(mean, dtype=np.float64)
        weights["variance"] = np.array(variance, dtype=np.float64) + smoothing
        return weights

    def _joint(self, weights: Vector, x: NDArray[np.float64]) -> NDArray[np.float64]:
        mean, variance = weights["mean"], weights["variance"]
        distance = np.stack(
            [np.sum((x - m) ** 2 / v, axis=1) for m, v in zip(mean, variance, strict=True)], axis=1
        )
        normaliser = np.sum(np.log(2 * np.pi * variance), axis=1)
        return np.log(weights["prior"]) - 0.5 * (normaliser + distance)


class MultinomialNBModel(_NaiveBayes):
    """Class log priors [classes] and log probabilities of the features [classes, d]."""

    def __init__(self, schema: Schema, alpha: float, weighing: _Weighing | None = None) -> None:
        shape = (len(schema.classes), *schema.shape)
        super().__init__(
            schema,
            [Entry("log_prior", shape[:1], "float64"), Entry("log_probability", shape, "float64")],
            weighing,
        )
        self._alpha = alpha

    def statistics(self, rows: Rows) -> Mapping[str, Wide | NDArray[np.int64]]:
        """Return counts [classes] and sums of the features [classes, d].

        Raises:
            DataError: the rows have no labels, or a feature that is negative, NaN or infinite.
        """
        parts = self._by_class(rows)
        if any(part.size and part.min() < 0 for part in parts):
            raise DataError("MultinomialNB needs counts, but a feature is negative; use GaussianNB.")
        return {
            "count": np.array([len(part) for part in parts]),
            "sum": Wide(np.stack([Wide.of(part).sum().limbs for part in parts], axis=1)),
        }

    def solve(self, totals: Mapping[str, Any]) -> Vector:
        """Return the smoothed estimates.

        Raises:
            DataError: a class has no rows at any client.
        """
        count = [int(n) for n in totals["count"]]
        _check_counts(count, self.schema)
        smoothed = totals["sum"].numbers() * self._weights(count)[:, None] + self._alpha
        weights = Vector.zeros(self.layout)
        weights["log_prior"] = np.log(self._prior(count))
        weights["log_probability"] = np.log(smoothed / smoothed.sum(axis=1, keepdims=True))
        return weights

    def _joint(self, weights: Vector, x: NDArray[np.float64]) -> NDArray[np.float64]:
        return x @ weights["log_probability"].T + weights["log_prior"]


def _check_counts(count: list[int], schema: Schema) -> None:
    for label, n in zip(schema.classes, count, strict=True):
        if n == 0:
            raise DataError(f'no client has a training row of class "{label}"; leave the class out.')


def _by_column(
    digits_of: Callable[[NDArray[np.float64]], NDArray[np.int64]], parts: list[NDArray[np.float64]]
) -> NDArray[np.int64]:
    return np.stack([np.stack([digits_of(column) for column in part.T]) for part in parts])


def _table(number_in: Callable[[NDArray[np.int64]], Fraction], digits: Any) -> list[list[Fraction]]:
    return [[number_in(number) for number in row] for row in digits]
