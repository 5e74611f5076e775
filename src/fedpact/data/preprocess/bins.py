"""Binning: numbers become the intervals that they lie in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from fedpact.core.errors import ConfigError
from fedpact.core.settings import check_choice, check_counts
from fedpact.data.preprocess.columns import Columns, as_numbers, with_columns
from fedpact.data.preprocess.estimate import Estimate
from fedpact.data.preprocess.numeric import distance, numeric_names
from fedpact.data.preprocess.quantiles import Quantiles
from fedpact.data.preprocess.steps import as_names

if TYPE_CHECKING:
    import pandas as pd

Strategy = Literal["uniform", "quantile"]
Encode = Literal["onehot", "ordinal"]


@dataclass(frozen=True)
class Bin:
    """Cut the values of all clients' training rows into bins, in eight rounds.

    As scikit-learn's KBinsDiscretizer on the pooled rows, with its quantile_method="linear": a value at a cut belongs
    to the bin above it, values beyond the training rows' to the outermost bins, and equal cuts are one, so that there
    may be fewer bins than asked for, and of a constant column there is one. (scikit-learn takes cuts closer than 1e-8
    for equal; here they are not.) Missing values are left out and stay missing.

    The least and the largest value and the quantiles are found from counts; each is the value of some row, or lies
    between those of two, and becomes known.

    Args:
        columns: the columns to cut; by default all numeric ones.
        n_bins: the number of bins, 2 or more.
        strategy: "quantile" for bins of equally many training rows, "uniform" for bins of equal width between the
            least and the largest value.
        encode: "onehot" for a column of zeros and ones for each bin, called "column:bin0", "column:bin1" and so on;
            "ordinal" for the number of the bin, from 0.

    Raises:
        ConfigError: a setting that cannot be.
    """

    columns: tuple[str, ...] | None = None
    n_bins: int = 5
    strategy: Strategy = "quantile"
    encode: Encode = "onehot"

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", as_names("Bin", self.columns))
        check_counts(self, "n_bins")
        check_choice(self, "strategy", get_args(Strategy))
        check_choice(self, "encode", get_args(Encode))
        if self.n_bins < 2:
            raise ConfigError("Bin: n_bins is 1, which tells no values apart; give 2 or more.")

    def estimate(self, columns: Columns) -> Estimate:
        """Return what finds the cuts."""
        names = numeric_names("Bin", self.columns, columns)
        if self.strategy == "uniform":
            return Quantiles(names, (0.0, 1.0))
        # Percentages first, as scikit-learn: a cut that is a value must not fall a bit beside it.
        return Quantiles(names, tuple((np.linspace(0, 100, self.n_bins + 1) / 100).tolist()))

    def fitted(self, columns: Columns, estimates: Mapping[str, Any]) -> FittedBin:
        """Return the step with its cuts.

        Raises:
            DataError: a column spans more than a float64 holds.
        """
        return FittedBin({name: self._cuts(name, found) for name, found in estimates.items()}, self.encode)

    def _cuts(self, name: str, edges: Sequence[float]) -> tuple[float, ...]:
        if self.strategy == "uniform":
            distance(name, edges[0], edges[1])
            edges = np.linspace(edges[0], edges[1], self.n_bins + 1).tolist()
        return tuple(sorted(set(edges))[1:-1])


@dataclass(frozen=True)
class FittedBin:
    """Where columns are cut.

    Args:
        cuts: column → what lies between its bins, in ascending order.
        encode: whether bins are columns or numbers.
    """

    cuts: Mapping[str, tuple[float, ...]]
    encode: Encode = "onehot"

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the table with these columns binned, float64, NaN where a value is missing.

        Raises:
            DataError: a column is missing, or a value is no finite number.
        """
        changed = {}
        for name, cuts in self.cuts.items():
            values = as_numbers(frame, name)
            place = np.where(np.isnan(values), np.nan, np.searchsorted(cuts, values, side="right"))
            if self.encode == "ordinal":
                changed[name] = {name: place}
            else:
                changed[name] = {
                    made: np.where(np.isnan(place), np.nan, place == i)
                    for i, made in enumerate(self._names_out(name))
                }
        return with_columns(frame, changed)

    def columns_out(self, columns: Columns) -> Columns:
        """Return the columns, those of bins in the place of the column that they replace.

        Raises:
            DataError: two columns would have one name.
        """
        return columns.replaced(
            "Bin", {name: [(made, "numeric") for made in self._names_out(name)] for name in self.cuts}
        )

    def to_json(self) -> dict[str, Any]:
        """Return the step as plain data."""
        return {"cuts": {name: list(each) for name, each in self.cuts.items()}, "encode": self.encode}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FittedBin:
        """Return the step that `to_json` wrote down."""
        return cls({name: tuple(each) for name, each in data["cuts"].items()}, data["encode"])

    def _names_out(self, name: str) -> list[str]:
        if self.encode == "ordinal":
            return [name]
        return [f"{name}:bin{i}" for i in range(len(self.cuts[name]) + 1)]
