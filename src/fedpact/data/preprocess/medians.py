"""Medians over all clients' rows: the quantile 0.5, as the mean of the two middle values."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from fedpact.data.preprocess.estimate import Estimating
from fedpact.data.preprocess.quantiles import Quantiles


@dataclass(frozen=True)
class Medians(Quantiles):
    """The median of each column over all rows, exact, in eight rounds: see `Quantiles`.

    Of an even number of values it is the mean of both middle ones. A median is a value of some row: counts
    hide whose, not what.

    Args:
        names: numeric columns.
    """

    at: tuple[float, ...] = (0.5,)

    def fitted(self, state: Estimating) -> Mapping[str, float]:
        """Return column → median."""
        return {name: median for name, (median,) in super().fitted(state).items()}

    def between(self, values: Mapping[int, float], position: float) -> float:
        """Return the mean of the two values beside a position, in fractions, rounded once."""
        low, high = (Fraction(values[place]) for place in (math.floor(position), math.ceil(position)))
        return float((low + high) / 2)
