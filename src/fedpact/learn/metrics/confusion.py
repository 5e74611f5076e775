"""Metrics of a confusion matrix [K, K]: rows are true classes and columns predicted ones, as in scikit-learn.

A class that a fraction says nothing about (0/0) is NaN, so that an average can leave it out.
"""

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def confusion(y_true: NDArray[np.intp], y_predicted: NDArray[np.intp], n_classes: int) -> Matrix:
    """Count the rows of each true and predicted class."""
    cell = y_true * n_classes + y_predicted
    return np.bincount(cell, minlength=n_classes**2).reshape(n_classes, n_classes).astype(np.float64)


def accuracy(matrix: Matrix) -> float:
    """Share of rows whose class is predicted."""
    return float(np.trace(matrix) / matrix.sum())


def balanced_accuracy(matrix: Matrix) -> float:
    """Mean recall over the classes that have rows."""
    return mean_of_defined(recall(matrix))


def recall(matrix: Matrix) -> NDArray[np.float64]:
    """Recall of each class [K]: NaN for a class without rows."""
    rows: Matrix = matrix.sum(axis=1)
    return matrix.diagonal() / rows


def precision(matrix: Matrix) -> NDArray[np.float64]:
    """Precision of each class [K]: of one never predicted it is 0 if the class has rows, else NaN."""
    rows, predicted = matrix.sum(axis=1), matrix.sum(axis=0)
    return np.where((predicted == 0) & (rows > 0), 0.0, matrix.diagonal() / predicted)


def f1(matrix: Matrix) -> NDArray[np.float64]:
    """F1 of each class [K]: NaN for a class that neither has rows nor is predicted."""
    rows_and_predicted: Matrix = matrix.sum(axis=0) + matrix.sum(axis=1)
    return 2.0 * matrix.diagonal() / rows_and_predicted


def f1_weighted(matrix: Matrix) -> float:
    """Mean F1 over classes, weighted by their rows."""
    rows = matrix.sum(axis=1)
    return float(np.sum(rows * f1(matrix), where=rows > 0) / rows.sum())


def mcc(matrix: Matrix) -> float:
    """Matthews correlation for K classes: NaN when one class alone has rows, 0 when one alone is predicted.

    Gorodkin, "Comparing two K-category assignments by a K-category correlation coefficient",
    Computational Biology and Chemistry 2004, equation 8.
    """
    true, predicted, n = matrix.sum(axis=1), matrix.sum(axis=0), matrix.sum()
    # t·(n - t) summed is n² - t·t without its cancellation, so that one class alone gives 0 exactly.
    true_variance, predicted_variance = true @ (n - true), predicted @ (n - predicted)
    if true_variance == 0:
        return float("nan")
    if predicted_variance == 0:
        return 0.0
    return float(
        (np.trace(matrix) * n - true @ predicted) / np.sqrt(true_variance) / np.sqrt(predicted_variance)
    )


def mean_of_defined(values: NDArray[np.float64]) -> float:
    """Mean of the values that are not NaN: NaN where none is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")
