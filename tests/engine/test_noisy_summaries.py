import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from numpy.typing import NDArray

from fedpact.data.summary.record_sums import Part, parts_of
from fedpact.data.table_schema import ColumnSchema, TableSchema
from fedpact.engine.description import ColumnSummary, Description
from fedpact.engine.noisy_summaries import NoisySummaries

STEP = 1 << 30
AT = (0.05, 0.25, 0.5, 0.75, 0.95)
DRAWS = np.random.default_rng(11)
VALUES = {
    "bell": DRAWS.normal(50, 10, 400),
    "one value": np.full(300, 42.0),
    "two values": DRAWS.choice([1.0, 99.0], 400),
    "half missing": np.where(DRAWS.random(800) < 0.5, np.nan, DRAWS.exponential(8, 800)),
    "an edge at the median": np.repeat([47.5, 52.5], [200, 201]),
    "outside": DRAWS.uniform(-50, 150, 500),
}


def part(bins: int = 20) -> Part:
    return parts_of(TableSchema((ColumnSchema("x", "numeric", range=(0, 100)),)), bins)[0]


def described(values: NDArray[np.float64], deviation: float, times: int) -> list[ColumnSummary]:
    """Describe values so many times, each with Gaussian noise of its own."""
    sums = np.array([len(values) * STEP, *part().sums(pd.Series(values), None, STEP)]) / STEP
    noise = np.random.default_rng(7).normal(0, deviation, (times, len(sums)))
    return [NoisySummaries(sums + each, deviation, 0.0, AT, 5).columns((part(),))[0] for each in noise]


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("deviation", [5.0, 25.0])
def test_a_quantile_is_within_its_error_95_times_of_100(kind: str, deviation: float) -> None:
    true = np.quantile(np.clip(VALUES[kind][~np.isnan(VALUES[kind])], 0, 100), AT)
    found = described(VALUES[kind], deviation, 500)
    off = np.array(
        [[abs(q.value - t) - q.error for q, t in zip(each.quantiles, true, strict=True)] for each in found]
    )
    # 25 of 500 are expected at most, and 45 seen less than once in 10^4.
    assert (np.sum(off > 1e-9, axis=0) <= 45).all()


@pytest.mark.parametrize("kind", ["bell", "two values", "half missing", "outside"])
def test_errors_of_mean_and_deviation_are_those_of_the_noise(kind: str) -> None:
    inside = np.clip(VALUES[kind][~np.isnan(VALUES[kind])], 0, 100)
    found = described(VALUES[kind], 5.0, 500)
    mean = np.std([(each.mean - inside.mean()) / each.mean_error for each in found])
    deviation = np.std([(each.deviation - inside.std()) / each.deviation_error for each in found])
    # A standard deviation of 500 draws is known to 3 %; the delta method is off by a little more.
    assert 0.85 < mean < 1.15
    assert 0.8 < deviation < 1.2


def test_the_picture_has_no_others_where_noise_makes_the_listed_more_than_all() -> None:
    column = ColumnSummary(
        "ward", "category", None, 100, 0, categories={"a": 80, "b": 31}, count_error=7.0, cell_error=10.0
    )
    schema = TableSchema((ColumnSchema("ward", "category", categories=("a", "b")),))
    axes: Axes = Description(3, 100, (column,), schema, rows_error=10.0).draw().axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert [bar.get_width() for bar in axes.patches] == [80, 31]
