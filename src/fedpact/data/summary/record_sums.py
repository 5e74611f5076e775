"""One vector of whole numbers for each row, of bounded length, whose sum over all rows tells of every column at once.

Of a row it has, in units of a step:

- 1, so that the sum is the number of rows;
- for each column 1 where the row has a value, and −1 where it has none: with the number of rows, both counts;
- for a column with a range 1 in the bin of its value x, and the Chebyshev polynomials T₁(v) = v and T₂(v) = 2v² − 1 of
  v = (x − middle) / half the range: their sums are mean and variance, and each lies between −1 and 1;
- for a column with categories 1 at its category, or at "other".

A row without a value has none of the last two. So no row is longer than Δ₂ = step · √(1 + Σ k) and Δ₁ = step ·
(1 + Σ k), with k = 4 for a column with a range, 2 with categories and 1 for others: the L2 and the L1 norm by which one
row more or less can change the sum. That is what the noise of the Gaussian mechanism is scaled to (Dwork and Roth, "The
Algorithmic Foundations of Differential Privacy", 2014, appendix A).

A polynomial is rounded up or down at random, up with the probability that keeps its mean, so that a coarse step adds
nothing but a little noise; it lies between two multiples of the step before and after, so the bound holds all the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.algorithm import ClientState
from fedpact.core.errors import DataError
from fedpact.core.messages import Aggregate, Task, Update
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.data.preprocess.columns import Value, as_frame, column
from fedpact.data.preprocess.estimate import Columnwise, Estimating, reply
from fedpact.data.summary.cells import days_in, numbers_in, places_in, places_of
from fedpact.data.summary.histograms import edges_between
from fedpact.data.table_schema import ColumnSchema, TableSchema
from fedpact.data.wording import at_client
from fedpact.privacy.secret import secret_stream

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Part:
    """What of a row's vector is about one column.

    Args:
        column: the column.
        first: where it begins.
        bins: of its histogram, where it has a range.
    """

    column: ColumnSchema
    first: int
    bins: int

    @property
    def categories(self) -> tuple[Value, ...]:
        """The categories that are counted; none where it has none."""
        return self.column.categories or ()

    @property
    def ends(self) -> tuple[float, float] | None:
        """The finite range of its numbers; None where none is declared, or categories are."""
        bounds = self.column.bounds
        measured = bounds is not None and all(map(math.isfinite, bounds)) and not self.categories
        return bounds if measured else None

    @property
    def cells(self) -> int:
        """How many counts it has: of bins, or of categories and of others."""
        return self.bins if self.ends else len(self.categories) + bool(self.categories)

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return 1 + self.cells + 2 * bool(self.ends)

    @property
    def weight(self) -> int:
        """How many of a row's numbers can differ from 0, none of which is beyond 1."""
        return 1 + bool(self.cells) + 2 * bool(self.ends)

    @property
    def edges(self) -> tuple[float, ...]:
        """The edges of the bins."""
        assert self.ends is not None
        return edges_between(*self.ends, self.bins)

    @property
    def middle(self) -> float:
        """The middle of the range."""
        assert self.ends is not None
        low, high = self.ends
        return low / 2 + high / 2

    @property
    def half(self) -> float:
        """Half the width of the range."""
        assert self.ends is not None
        low, high = self.ends
        return high / 2 - low / 2

    def sums(self, cells: pd.Series[Any], rule: Any, step: int) -> NDArray[np.int64]:
        """Return the sum over rows [size].

        Args:
            cells: the column's.
            rule: brings numbers to the schema's unit; None where they are in it.
            step: what 1 becomes.
        """
        polynomials: list[int] = []
        if self.ends:
            values = days_in(cells) if self.column.kind == "date" else numbers_in(cells)
            if rule is not None:
                with np.errstate(over="ignore", invalid="ignore"):
                    values = rule.apply(values)
            values = np.clip(values[~np.isnan(values)], *self.ends)
            present, places = len(values), np.searchsorted(self.edges, values, side="right") - 1
            polynomials = [_rounded_sum(each, step) for each in self._polynomials(values)]
        elif self.categories:
            places = places_in(cells, self._places, len(self.categories))
            places = places[places >= 0]
            present = len(places)
        else:
            present, places = int(cells.notna().sum()), np.zeros(0, np.int64)
        counts = np.bincount(np.clip(places, 0, max(0, self.cells - 1)), minlength=self.cells)
        signs = 2 * present - len(cells)
        return np.array([signs * step, *(counts[: self.cells] * step).tolist(), *polynomials], np.int64)

    def _polynomials(self, values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        v = np.clip((values - self.middle) / self.half, -1, 1) if self.half else np.zeros(len(values))
        return v, 2 * v * v - 1

    @cached_property
    def _places(self) -> dict[Value, int]:
        return places_of(self.column.name, self.categories)


def parts_of(schema: TableSchema, bins: int) -> tuple[Part, ...]:
    """Return the parts of a row's vector, behind the number of rows.

    Raises:
        ConfigError: two categories of a column cannot be told apart.
    """
    parts, first = [], 1
    for each in schema.columns:
        places_of(each.name, each.categories or ())
        parts.append(Part(each, first, bins))
        first += parts[-1].size
    return tuple(parts)


@dataclass(frozen=True)
class RecordSums(Columnwise):
    """The sum over all rows of their vectors, in one round.

    Only columns of the schema are looked at, and values are never compared with it: those outside a range count as its
    nearest end, those of no declared category as others. So nothing depends on values but the sums.

    Args:
        names: the schema's columns.
        schema: with the ranges and categories.
        own: client → its own schema, whose units are converted.
        bins: of a histogram.
        step: what 1 becomes, a whole number; the larger, the less rounding does.
    """

    schema: TableSchema
    own: Mapping[str, TableSchema] = field(default_factory=dict)
    bins: int = 20
    step: int = 1 << 30

    @property
    def parts(self) -> tuple[Part, ...]:
        """What of the vector is about which column."""
        return parts_of(self.schema, self.bins)

    @property
    def size(self) -> int:
        """How many numbers the vector has."""
        return 1 + sum(part.size for part in self.parts)

    @property
    def weight(self) -> int:
        """How many of a row's numbers can differ from 0: Δ₁ in steps, and Δ₂² in squared steps."""
        return 1 + sum(part.weight for part in self.parts)

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return the sum over the client's training rows [size].

        Raises:
            DataError: a column is missing.
        """
        sums = [np.array([len(data.train) * self.step], np.int64)]
        with at_client(data.id):
            for part, cells in zip(self.parts, _columns(self.schema, data.train), strict=True):
                sums.append(part.sums(cells, self._rule(data.id, part.column), self.step))
        return reply(task, data, {"sums": np.concatenate(sums)}), kept

    def server(self, model: Any, state: Estimating, aggregate: Aggregate) -> Estimating:
        """Keep the sums."""
        return Estimating(state.round + 1, aggregate.sum("sums").tolist())

    def fitted(self, state: Estimating) -> list[int]:
        """Return the sums."""
        return list(state.found)

    def _rule(self, id: str, column: ColumnSchema) -> Any:
        own = self.own.get(id)
        return column.rule_from(own[column.name].unit) if own is not None and column.name in own else None


def _columns(schema: TableSchema, rows: Rows) -> Sequence[pd.Series[Any]]:
    """Return the cells of each of the schema's columns.

    Raises:
        DataError: one is missing.
    """
    import pandas as pd

    images = not hasattr(rows.x, "columns") and np.ndim(rows.x) > 2
    if images:
        frame = pd.DataFrame({name: np.zeros(len(rows), np.int8) for name in schema.of_kind("image")})
    else:
        frame = as_frame(rows.x)
    label = schema.label
    if label is not None and label.name not in frame.columns:
        if rows.y is None:
            raise DataError(f'there are no labels, which the schema calls "{label.name}".')
        labels = np.asarray(rows.y)
        # Labels at every position of an example are neither a number nor a category that could be declared.
        cells = pd.Series(labels if labels.ndim == 1 else [()] * len(rows), frame.index)
        frame = frame.assign(**{label.name: cells})
    return [column(frame, name) for name in schema.names]


def _rounded_sum(values: NDArray[np.float64], step: int) -> int:
    """Return the sum of values between −1 and 1, in steps, each rounded up or down at random by secret draws."""
    draws = (secret_stream().words(len(values)) >> np.uint64(11)) * 2.0**-53
    rounded = np.floor(values * step + draws).astype(np.int64)
    return int(np.clip(rounded, -step, step).sum())
