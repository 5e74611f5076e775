"""What noisy sums over all rows say of each column: post-processing, which costs no privacy.

Errors are standard deviations of the noise, as the delta method carries them over to means and deviations; what is said
with a probability holds as the noise is, or is close to, Gaussian.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from fedpact.data.summary.histograms import Histogram
from fedpact.data.summary.record_sums import Part
from fedpact.engine.description import ColumnSummary, Quantile

# Of a column with fewer values than this many standard deviations of their count, nothing else is said.
_CLEAR = 4.0
# A quantile is in the interval that is told with this probability, at least.
_SURE = 0.95
# In all bins and categories together, noise alone passes for a value with this probability, at most.
_FEIGNED = 0.01


@dataclass(frozen=True)
class NoisySummaries:
    """Turns noisy sums into what is said of the columns.

    Args:
        sums: in rows: those of `RecordSums`, divided by its step.
        deviation: of the noise in each.
        rounding: the variance, at most, that rounding adds to a polynomial for each row.
        quantiles: which, from 0 to 1.
        minimum: how many rows a category has at least to be named.
    """

    sums: NDArray[np.float64]
    deviation: float
    rounding: float
    quantiles: tuple[float, ...]
    minimum: int

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return max(0, round(self.sums[0]))

    def columns(self, parts: Sequence[Part]) -> tuple[ColumnSummary, ...]:
        """Return what is said of each column."""
        cells = sum(part.cells for part in parts)
        # Where nothing is counted there is no threshold either.
        threshold = self._beyond(_FEIGNED / max(1, cells))
        return tuple(self._column(part, threshold) for part in parts)

    def _column(self, part: Part, threshold: float) -> ColumnSummary:
        column, sums = part.column, self.sums[part.first : part.first + part.size]
        present, absent = (self.sums[0] + sums[0]) / 2, (self.sums[0] - sums[0]) / 2
        count, missing = max(0, round(present)), max(0, round(absent))
        error = self.deviation / math.sqrt(2)
        known = ColumnSummary(column.name, column.kind, column.unit, count, missing, count_error=error)
        counts = sums[1 : 1 + part.cells]
        if part.ends and present > _CLEAR * error:
            known = self._measured(known, part, present, counts, threshold)
            return self._with_moments(known, part, present, sums[-2] / present, sums[-1] / present)
        return self._listed(known, part, counts, threshold) if part.categories else known

    def _measured(
        self,
        known: ColumnSummary,
        part: Part,
        present: float,
        counts: NDArray[np.float64],
        threshold: float,
    ) -> ColumnSummary:
        seen = np.flatnonzero(counts >= threshold)
        whole = tuple(max(0, round(each)) for each in counts.tolist())
        return replace(
            known,
            least=part.edges[seen[0]] if seen.size else None,
            most=part.edges[seen[-1] + 1] if seen.size else None,
            quantiles=tuple(self._quantiles(part.edges, present, counts)),
            histogram=Histogram(part.edges, whole),
            cell_error=self.deviation,
        )

    def _with_moments(
        self, known: ColumnSummary, part: Part, present: float, first: float, second: float
    ) -> ColumnSummary:
        """Add mean and deviation, from the means of v and of 2v² − 1, v being −1 and 1 at the ends of the range."""
        mean = min(1.0, max(-1.0, first))
        square = min(1.0, max(mean * mean, (second + 1) / 2))
        variance = square - mean * mean
        noise = math.sqrt(self.deviation**2 + self.rounding * present) / present
        of_count = self.deviation / math.sqrt(2) / present
        of_mean = math.hypot(noise, mean * of_count)
        of_variance = math.hypot(noise / 2, 2 * mean * noise, (square - 0.5 - 2 * mean * mean) * of_count)
        # A root's slope has no end at 0: there the error is that of the variance, under the root.
        of_deviation = of_variance / (2 * math.sqrt(max(variance, of_variance / 4)))
        return replace(
            known,
            mean=part.middle + part.half * mean,
            mean_error=part.half * of_mean,
            deviation=part.half * math.sqrt(variance),
            deviation_error=part.half * of_deviation,
        )

    def _quantiles(
        self, edges: Sequence[float], present: float, counts: NDArray[np.float64]
    ) -> Iterator[Quantile]:
        """Yield the quantiles, each with an interval from edge to edge that it lies in with a probability of 95 %.

        How many values are below an edge is known from the bins on its left, and from the number of values less the
        bins on its right; the two are weighed by their variances. From the left, edges are passed until the first that
        the quantile may be below, as a test with an error of 2.5 % says, and so from the right: of tests in an order in
        which all behind the first wrong claim would be wrong too, each may have the whole error (Maurer, Hothorn and
        Lehmacher, "Multiple Comparisons in Drug Clinical Trials and Preclinical Assays", 1995).
        """
        bins = len(counts)
        left = np.cumsum(counts)
        right = left[-1] - left
        on_the_left = np.arange(1.0, bins + 1)
        # The number of values has half a bin's variance.
        weight = (bins - on_the_left + 0.5) / (bins + 0.5)
        below = weight * left + (1 - weight) * (present - right)
        for at in self.quantiles:
            position = at * (present - 1)
            of_present = (1 - weight - at) ** 2 / 2
            variance = weight**2 * on_the_left + (1 - weight) ** 2 * (bins - on_the_left) + of_present
            sure = np.sqrt(variance[:-1]) * self._beyond((1 - _SURE) / 2)
            first = _leading(below[:-1] < position - sure)
            last = bins - 1 - _leading((below[:-1] > position + 1 + sure)[::-1])
            low, high = edges[min(first, last)], edges[max(first, last) + 1]
            value = min(high, max(low, _crossing(edges, below, position)))
            yield Quantile(at, value, max(high - value, value - low))

    def _listed(
        self, known: ColumnSummary, part: Part, counts: NDArray[np.float64], threshold: float
    ) -> ColumnSummary:
        least = max(float(self.minimum), threshold)
        rows = {
            category: round(n)
            for category, n in zip(part.categories, counts.tolist(), strict=False)
            if n >= least
        }
        most_first = dict(sorted(rows.items(), key=lambda pair: -pair[1]))
        return replace(
            known,
            categories=most_first,
            others=max(0, known.count - sum(rows.values())),
            unnamed_at_most=math.ceil(least + threshold),
            cell_error=self.deviation,
        )

    def _beyond(self, probability: float) -> float:
        """Return what the noise of a sum is beyond, on one side, with this probability."""
        return self.deviation * NormalDist().inv_cdf(1 - probability)


def _leading(holds: NDArray[np.bool_]) -> int:
    """Return how many hold before the first that does not."""
    return len(holds) if holds.all() else int(np.argmin(holds))


def _crossing(edges: Sequence[float], below: NDArray[np.float64], position: float) -> float:
    """Return where the number of values below passes a position, made to rise and taken as straight within a bin."""
    # Half-way between the two rising curves that lie above and below.
    rising = (np.maximum.accumulate(below) + np.minimum.accumulate(below[::-1])[::-1]) / 2
    return float(np.interp(position, np.maximum(0.0, [0.0, *rising]), edges))
