"""Quantile transformation: each value becomes its share of all clients' rows, or a normal score of that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError, suggest
from fedpact.data.preprocess.columns import Columns
from fedpact.data.preprocess.estimate import Estimate
from fedpact.data.preprocess.numeric import FittedNumeric, numeric_names
from fedpact.data.preprocess.quantiles import QuantileGrid
from fedpact.data.preprocess.steps import as_names

Distribution = Literal["uniform", "normal"]
# scikit-learn's: shares nearer to 0 or 1 than this become the normal scores ∓5.2, not the infinite ones.
_LEAST_SHARE = 1e-7 - np.spacing(1.0)


@dataclass(frozen=True)
class QuantileTransform:
    """Replace each value by the share of all clients' training rows below it, or by a normal score, in eight rounds.

    As scikit-learn's QuantileTransformer on the pooled rows, all of them rather than a subsample: the share is
    interpolated between the quantiles of a grid, found exactly from counts; missing values are left out and stay
    missing. Between the grid's points a share is off by at most 1 / (n_quantiles − 1). (For normal scores
    scikit-learn also moves values within 1e-7 of the least and the largest to them; here only these are.)

    Each point of the grid is the value of some row, or lies between those of two, and becomes known: of fewer rows
    than `n_quantiles` all values do, though not whose they are. A round takes up to 4 KiB a column and quantile.

    Args:
        n_quantiles: the points of the grid; of fewer rows, as many as there are rows. (scikit-learn's default is 1000.)
        output_distribution: "uniform" for shares from 0 to 1, "normal" for scores from −5.2 to 5.2.
        columns: the columns to transform; by default all numeric ones.

    Raises:
        ConfigError: a setting that cannot be.
    """

    n_quantiles: int = 100
    output_distribution: Distribution = "uniform"
    columns: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", as_names("QuantileTransform", self.columns))
        if self.n_quantiles < 2:
            raise ConfigError(f"QuantileTransform: n_quantiles is {self.n_quantiles}; it must be 2 or more.")
        known = get_args(Distribution)
        if self.output_distribution not in known:
            raise ConfigError(
                f'QuantileTransform: there is no output_distribution "{self.output_distribution}".'
                f"{suggest(str(self.output_distribution), known)} There are: {', '.join(known)}."
            )

    def estimate(self, columns: Columns) -> Estimate:
        """Return what finds the grid."""
        names = numeric_names("QuantileTransform", self.columns, columns)
        return QuantileGrid(names, number=self.n_quantiles)

    def fitted(self, columns: Columns, estimates: Mapping[str, Any]) -> FittedQuantileTransform:
        """Return the step with its grid."""
        # Interpolation rounds, and may put one point of several equal ones before another.
        grid = {name: np.maximum.accumulate(points).tolist() for name, points in estimates.items()}
        return FittedQuantileTransform(grid, self.output_distribution)


@dataclass(frozen=True)
class FittedQuantileTransform(FittedNumeric):
    """The share of a grid that lies below a value.

    Args:
        quantiles: column → its quantiles at equal distances from 0 to 1.
        output_distribution: "uniform" or "normal".
    """

    quantiles: Mapping[str, list[float]]
    output_distribution: Distribution = "uniform"

    def names(self) -> Iterable[str]:
        """Return the columns that are transformed."""
        return self.quantiles

    def prepared(self, name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the shares, or their normal scores."""
        grid = np.array(self.quantiles[name])
        shares = np.linspace(0, 1, grid.size)
        # Of equal points, interpolation takes the last going up and the first going down: the mean is their middle.
        up = np.interp(values, grid, shares)
        down = np.interp(-values, -grid[::-1], -shares[::-1])
        share = 0.5 * (up - down)
        share[values >= grid[-1]] = 1.0
        share[values <= grid[0]] = 0.0
        return share if self.output_distribution == "uniform" else _normal_scores(share)


def _normal_scores(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    scores = shares.copy()
    present = ~np.isnan(shares)
    inside = np.clip(shares[present], _LEAST_SHARE, 1 - _LEAST_SHARE)
    scores[present] = list(map(NormalDist().inv_cdf, inside.tolist()))
    return scores
