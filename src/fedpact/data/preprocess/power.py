"""Power transformation: numeric columns made as normal as a power makes them.

Yeo and Johnson, "A New Family of Power Transformations to Improve Normality or Symmetry", Biometrika 87(4), 2000.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.data.preprocess.columns import Columns
from fedpact.data.preprocess.estimate import Estimate
from fedpact.data.preprocess.numeric import FittedNumeric, numeric_names
from fedpact.data.preprocess.power_fit import PowerFit
from fedpact.data.preprocess.steps import as_names
from fedpact.data.preprocess.yeo_johnson import Power, transformed


@dataclass(frozen=True)
class YeoJohnson:
    """Replace each column by its Yeo-Johnson power, which makes it as normal as a power can, in about 13 rounds.

    As scikit-learn's PowerTransformer on the pooled rows: each column's lambda maximises the log-likelihood of
    all clients' training rows, over the same interval; missing values are left out and stay missing; a constant
    column keeps its values. The maximum is where the log-likelihood's derivative, a function of sums over all rows,
    changes its sign (as in Marchand et al., "SecureFedYJ: a safe feature Gaussianization protocol for Federated
    Learning", NeurIPS 2022); it is found to 1e-10 of the column's scale, finer than by comparing likelihoods.

    What leaves a client is counts, from which each column's least and largest value are found (each that of some
    row), then sums: of the powers, their squares and derivatives at the lambdas that are asked for.

    Args:
        standardize: also subtract the powers' mean and divide by their standard deviation.
        columns: the columns to transform; by default all numeric ones.
    """

    standardize: bool = True
    columns: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", as_names("YeoJohnson", self.columns))

    def estimate(self, columns: Columns) -> Estimate:
        """Return what finds each column's lambda, and the mean and deviation of its powers."""
        return PowerFit(numeric_names("YeoJohnson", self.columns, columns), self.standardize)

    def fitted(self, columns: Columns, estimates: Mapping[str, Any]) -> FittedYeoJohnson:
        """Return the step with these."""
        return FittedYeoJohnson(
            {name: found.power.lam for name, found in estimates.items()},
            {name: found.power.pivot for name, found in estimates.items()},
            {name: found.mean for name, found in estimates.items()},
            {name: found.deviation or 1.0 for name, found in estimates.items()},
        )


@dataclass(frozen=True)
class FittedYeoJohnson(FittedNumeric):
    """(power of the value − mean) / scale.

    Args:
        lambdas: column → its lambda.
        pivot: column → the value whose power is 0 (see `yeo_johnson.transformed`): 0, unless standardised.
        mean: column → what is subtracted.
        scale: column → what it is divided by.
    """

    lambdas: Mapping[str, float]
    pivot: Mapping[str, float]
    mean: Mapping[str, float]
    scale: Mapping[str, float]

    def names(self) -> Iterable[str]:
        """Return the columns that are transformed."""
        return self.lambdas

    def prepared(self, name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the powers."""
        powers = transformed(values, Power(self.lambdas[name], self.pivot[name]))
        return (powers - self.mean[name]) / self.scale[name]
