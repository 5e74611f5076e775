"""Of columns that say the same, one is kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedpact.core.settings import check_numbers
from fedpact.data.preprocess.columns import Columns
from fedpact.data.preprocess.drop import FittedDrop, dropping
from fedpact.data.preprocess.estimate import Estimate
from fedpact.data.preprocess.gram import Covariances, Gram
from fedpact.data.preprocess.numeric import numeric_names
from fedpact.data.preprocess.steps import as_names


@dataclass(frozen=True)
class DropCorrelated:
    """Leave out columns that are correlated with one that is kept, over all clients' training rows, in two rounds.

    The columns are gone through in their order: one is left out if Pearson's |r| with a column before it, that was
    kept, is above the threshold. So of a pair the later one goes, and a column that is correlated with one left out,
    but with none that is kept, stays. A constant column is correlated with none. Values must not be missing.

    The server sees sums of values, of squares and of products over all clients.

    Args:
        threshold: the largest |r| of columns that are both kept, above 0 and below 1.
        columns: the columns to judge; by default all numeric ones.

    Raises:
        ConfigError: a setting that cannot be.
    """

    threshold: float = 0.9
    columns: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", as_names("DropCorrelated", self.columns))
        check_numbers(self, "threshold", positive=True, below=1)

    def estimate(self, columns: Columns) -> Estimate:
        """Return what finds the correlations."""
        return Gram(numeric_names("DropCorrelated", self.columns, columns), "DropCorrelated")

    def fitted(self, columns: Columns, estimates: Mapping[str, Any]) -> FittedDrop:
        """Return the step with the columns that it leaves out."""
        found: Covariances = estimates["covariances"]
        kept: list[int] = []
        dropped: list[str] = []
        for i, name in enumerate(numeric_names("DropCorrelated", self.columns, columns)):
            if any(self._are_correlated(found, i, j) for j in kept):
                dropped.append(name)
            else:
                kept.append(i)
        return dropping("DropCorrelated", columns, tuple(dropped))

    def _are_correlated(self, found: Covariances, i: int, j: int) -> bool:
        matrix = found.matrix
        return bool(matrix[i, j] ** 2 > self.threshold**2 * (matrix[i, i] * matrix[j, j]))
