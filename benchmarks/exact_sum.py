"""Exact sums: GB/s of float32 updates added, one thread, best of three, beside float64 addition in numpy."""

import time
from collections.abc import Callable

import numpy as np

from fedpact.core.exact import FixedPointSum
from fedpact.core.vector import Entry, Layout, Vector

SIZES = {"10M": 10_000_000, "100M": 100_000_000}
WEIGHT = 37.0


def measure() -> dict[str, float]:
    figures = {}
    for label, size in SIZES.items():
        update = Vector.zeros(Layout([Entry("w", (size,))]))
        values = update.flats[0]
        np.random.default_rng(0).standard_normal(size, np.float32, out=values)
        gigabytes = update.layout.nbytes / 1e9
        exact = FixedPointSum(update.layout, limit=65536.0, total_weight=1000.0)
        figures[f"{label} elements: FixedPointSum.add, GB/s"] = gigabytes / _seconds(
            lambda exact=exact, update=update: exact.add(update, WEIGHT)
        )
        del exact
        plain = np.zeros(size)
        figures[f"{label} elements: numpy acc += w * x in float64, GB/s"] = gigabytes / _seconds(
            lambda plain=plain, values=values: _add(plain, values)
        )
        del plain
    return figures


def _add(total: np.ndarray, values: np.ndarray) -> None:
    total += np.float64(WEIGHT) * values


def _seconds(work: Callable[[], None]) -> float:
    # The first call touches the accumulator's memory.
    work()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)
