"""The principal directions of covariances."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedpact.data.preprocess.gram import Covariances


class Spectrum(NamedTuple):
    """The directions in which rows vary, the one of most variance first.

    Args:
        n: the number of rows.
        means: of the columns [d].
        components: [directions, d], orthogonal and of length 1; the largest weight of each is positive.
        deviations: the standard deviation in each direction, with n − 1 in the denominator.
        shares: of the variance of all columns.
    """

    n: int
    means: list[float]
    components: NDArray[np.float64]
    deviations: list[float]
    shares: list[float]


def spectrum_of(found: Covariances) -> Spectrum:
    """Return the principal directions of columns with these covariances.

    The covariances C = D·R·D are factored as (R^½·D)ᵀ·(R^½·D), with D the columns' scales, and the factor's singular
    vectors are taken: unlike the eigenvectors of C they keep their digits where columns are of different sizes.
    """
    values, vectors = np.linalg.eigh(found.matrix)
    # Sums that were rounded may leave −1e-17 of what is 0.
    root = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
    largest = max(found.exponents)
    factor = np.ldexp(root, np.array(found.exponents) - largest)
    _, singular, components = np.linalg.svd(factor)
    total = float((singular**2).sum())
    freedom = found.n / max(found.n - 1, 1)
    with np.errstate(over="ignore"):
        deviations = np.ldexp(singular * np.sqrt(freedom), largest)
    return Spectrum(
        found.n,
        found.means,
        signed(components),
        deviations.tolist(),
        (singular**2 / (total or 1.0)).tolist(),
    )


def signed(components: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return directions [directions, d] whose largest weight in absolute size, the first of such, is positive."""
    largest = np.abs(components).argmax(axis=1)
    flipped: NDArray[np.float64] = (
        components * np.sign(components[np.arange(len(components)), largest])[:, None]
    )
    return flipped
