"""Principal components: columns replaced by the few directions in which all clients' rows vary most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError, DataError
from fedpact.core.settings import check_choice, check_counts, check_numbers
from fedpact.data.preprocess.columns import ColumnKind, Columns, as_numbers, with_columns
from fedpact.data.preprocess.estimate import Estimate
from fedpact.data.preprocess.gram import Gram, without_gaps
from fedpact.data.preprocess.numeric import numeric_names
from fedpact.data.preprocess.random_range import RandomRange
from fedpact.data.preprocess.spectrum import Spectrum, spectrum_of
from fedpact.data.preprocess.steps import as_names

if TYPE_CHECKING:
    import pandas as pd

Solver = Literal["exact", "randomized"]

# Of these, clients send 16 MiB of products.
MOST_COLUMNS = 1_024
_OVERSAMPLES = 10


@dataclass(frozen=True)
class PCA:
    """Replace columns by their principal components over all clients' training rows: "pca0", "pca1" and so on.

    As scikit-learn's PCA on the pooled rows, with its rule for signs: of each component's weights the largest in
    absolute size is positive. Columns are centred and not scaled: put Standardize before it where they are measured in
    different units. Values must not be missing. The components stand in the place of the first column.

    "exact" takes two rounds: means and deviations, then sums of the products of all pairs of columns, which are all
    that the server sees. Sums of products of d columns are 16·d² bytes from each client.

    "randomized" is for thousands of columns, of which few components are wanted (Halko, Martinsson and Tropp, "Finding
    structure with randomness", SIAM Review 53(2), 2011, algorithms 4.4 and 5.3). A projection of the centred rows to
    n_components + 10 random directions, drawn from the job's seed, and back is summed over the clients, and once more
    with the directions found: two passes, of d·(n_components + 10)·32 bytes each. Components whose variance is far
    above that of what follows come out exactly, those of a slowly falling spectrum are approximate: more passes bring
    them nearer. The server sees these sums.

    Args:
        n_components: how many components; or a share below 1 of the variance, for as many as explain more than it
            ("exact" alone); None for all, of which there are as many as rows or columns.
        whiten: whether to divide the components by their standard deviations.
        columns: the columns to replace; by default all numeric ones.
        solver: "exact" or "randomized".
        passes: for "randomized": how many passes over the rows, 2 or more.

    Raises:
        ConfigError: a setting that cannot be.
    """

    n_components: int | float | None = None
    whiten: bool = False
    columns: tuple[str, ...] | None = None
    solver: Solver = "exact"
    passes: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", as_names("PCA", self.columns))
        check_choice(self, "solver", get_args(Solver))
        check_counts(self, "passes")
        if self.passes < 2:
            raise ConfigError(
                "PCA: passes is 1, and directions are found in one and used in another; give 2."
            )
        if isinstance(self.n_components, float | np.floating):
            check_numbers(self, "n_components", positive=True, below=1)
        else:
            check_counts(self, "n_components", optional=True)
        if self.solver == "randomized" and not isinstance(self.n_components, int):
            raise ConfigError('PCA: solver "randomized" needs n_components, a whole number.')

    def estimate(self, columns: Columns) -> Estimate:
        """Return what finds the components.

        Raises:
            ConfigError: there are fewer columns than components, or too many for the solver.
        """
        names = self._names(columns)
        wanted = self.n_components
        if not names or (isinstance(wanted, int) and wanted > len(names)):
            raise ConfigError(
                f"PCA: n_components is {wanted}, and there are {len(names)} numeric columns to make them of."
            )
        if self.solver == "randomized":
            directions = min(int(wanted or 1) + _OVERSAMPLES, len(names))
            return RandomRange(names, directions, self.passes)
        if len(names) > MOST_COLUMNS:
            raise ConfigError(
                f"PCA: the products of {len(names):,} columns are {16 * len(names) ** 2 >> 20:,} MiB from each "
                'client; give solver="randomized".'
            )
        return Gram(names, "PCA")

    def fitted(self, columns: Columns, estimates: Mapping[str, Any]) -> FittedPCA:
        """Return the step with the components.

        Raises:
            DataError: there are fewer rows than components, or no two rows.
        """
        found: Spectrum
        found = estimates["spectrum"] if "spectrum" in estimates else spectrum_of(estimates["covariances"])
        if found.n < 2 or (isinstance(self.n_components, int) and self.n_components > found.n):
            raise DataError(
                f"PCA: {found.n} training row(s) of all clients are too few for the components wanted; of n rows there "
                "are n at most, and 2 rows are the least."
            )
        keep = min(self._number(found), len(found.components), found.n)
        return FittedPCA(
            self._names(columns),
            tuple(found.means),
            tuple(map(tuple, found.components[:keep].tolist())),
            tuple(found.deviations[:keep]),
            tuple(found.shares[:keep]),
            self.whiten,
        )

    def _number(self, found: Spectrum) -> int:
        if isinstance(self.n_components, float):
            return int(np.searchsorted(np.cumsum(found.shares), self.n_components, side="right")) + 1
        return len(found.shares) if self.n_components is None else self.n_components

    def _names(self, columns: Columns) -> tuple[str, ...]:
        return numeric_names("PCA", self.columns, columns)


@dataclass(frozen=True)
class FittedPCA:
    """Principal components.

    Args:
        columns: the columns that they replace.
        means: of these columns.
        components: orthogonal directions of length 1 [components, columns].
        deviations: the standard deviation in each direction, with n − 1 in the denominator as scikit-learn's.
        shares: of the variance of all columns, in each direction: scikit-learn's explained_variance_ratio_.
        whiten: whether to divide by the deviations; by 1 in a direction that has none.
    """

    columns: tuple[str, ...]
    means: tuple[float, ...]
    components: tuple[tuple[float, ...], ...]
    deviations: tuple[float, ...]
    shares: tuple[float, ...]
    whiten: bool = False

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the table with the components in the place of the columns, float64.

        Raises:
            DataError: a column is missing, or a value is missing or no finite number.
        """
        centred = [
            without_gaps(as_numbers(frame, name), name, "PCA") - mean
            for name, mean in zip(self.columns, self.means, strict=True)
        ]
        # A matrix product rounds a row otherwise among more rows; einsum does not, so chunks have the bits of all rows.
        made: NDArray[np.float64] = np.einsum(
            "nd,kd->nk", np.stack(centred, axis=1), np.array(self.components)
        )
        if self.whiten:
            made /= [deviation or 1.0 for deviation in self.deviations]
        components = {name: made[:, i] for i, name in enumerate(self._names_out)}
        return with_columns(frame, {name: {} if i else components for i, name in enumerate(self.columns)})

    def columns_out(self, columns: Columns) -> Columns:
        """Return the columns, these replaced by the components.

        Raises:
            DataError: two columns would have one name.
        """
        made: list[tuple[str, ColumnKind]] = [(name, "numeric") for name in self._names_out]
        return columns.replaced("PCA", {name: [] if i else made for i, name in enumerate(self.columns)})

    def to_json(self) -> dict[str, Any]:
        """Return the step as plain data."""
        return {
            "columns": list(self.columns),
            "means": list(self.means),
            "components": [list(each) for each in self.components],
            "deviations": list(self.deviations),
            "shares": list(self.shares),
            "whiten": self.whiten,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FittedPCA:
        """Return the step that `to_json` wrote down."""
        return cls(
            tuple(data["columns"]),
            tuple(data["means"]),
            tuple(map(tuple, data["components"])),
            tuple(data["deviations"]),
            tuple(data["shares"]),
            data["whiten"],
        )

    @property
    def _names_out(self) -> list[str]:
        return [f"pca{i}" for i in range(len(self.components))]
