"""How well draws fit a distribution. Secret draws cannot be repeated: none may fail by chance."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

ALPHA = 1e-9


def chi_square_excess(counts: NDArray[Any], probabilities: NDArray[Any]) -> float:
    """Return Pearson's statistic over its critical value; bins that expect less than 50 draws are joined."""
    expected = probabilities * counts.sum()
    joined_counts, joined_expected, count, expectation = [], [], 0.0, 0.0
    for c, e in zip(counts, expected, strict=True):
        count, expectation = count + c, expectation + e
        if expectation >= 50:
            joined_counts.append(count)
            joined_expected.append(expectation)
            count, expectation = 0.0, 0.0
    joined_counts[-1] += count
    joined_expected[-1] += expectation
    observed, expected = np.array(joined_counts), np.array(joined_expected)
    statistic = np.sum((observed - expected) ** 2 / expected)
    return float(statistic / chi2.isf(ALPHA, len(observed) - 1))


def pmf_excess(draws: NDArray[np.int64], pmf: Any, reach: int) -> float:
    """Return `chi_square_excess` for the integers from −reach to reach, one bin each, and one for all beyond."""
    k = np.arange(-reach, reach + 1)
    probabilities = pmf(k)
    inside = draws[np.abs(draws) <= reach]
    counts = np.append(np.bincount(inside + reach, minlength=len(k)), len(draws) - len(inside))
    return chi_square_excess(counts, np.append(probabilities, max(0.0, 1 - probabilities.sum())))


def binned_excess(draws: NDArray[np.int64], cdf: Any, width: float) -> float:
    """Return `chi_square_excess` for 100 bins over ±4 widths; the distribution is so wide that it is continuous."""
    edges = np.rint(np.linspace(-4 * width, 4 * width, 101)).astype(np.int64)
    counts = np.bincount(np.searchsorted(edges, draws, side="right"), minlength=102)
    cumulative = np.concatenate([[0.0], cdf(edges - 0.5), [1.0]])
    return chi_square_excess(counts, np.diff(cumulative))


def deviations(draws: NDArray[np.int64], variance: float) -> float:
    """Return how many standard deviations the mean of the draws is away from 0."""
    return float(abs(draws.astype(float).mean()) / np.sqrt(variance / len(draws)))


def correlation(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    """Return the correlation of two samples in units of its standard deviation 1/√n."""
    return float(abs(np.corrcoef(a.astype(float), b.astype(float))[0, 1]) * np.sqrt(len(a)))
