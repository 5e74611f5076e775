"""Noise on the integers: nanoseconds per coordinate, best of three, beside numpy's seeded Gaussian floats."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from fedpact.privacy.discrete_gaussian import DiscreteGaussian
from fedpact.privacy.discrete_laplace import DiscreteLaplace
from fedpact.privacy.secret import secret_stream
from fedpact.privacy.skellam import Skellam

COORDINATES = 1_000_000
WIDTHS = {"0.3": 0.3, "4": 4.0, "100": 100.0, "1000": 1000.0, "2^20": 2.0**20, "2^40": 2.0**40}


def measure() -> dict[str, float]:
    figures = {}
    for label, width in WIDTHS.items():
        for noise, parameter in (
            (DiscreteGaussian(width), "sigma"),
            (Skellam(width**2), "standard deviation"),
            (DiscreteLaplace(width), "scale"),
        ):
            figures[f"{type(noise).__name__}, {parameter} {label}: ns"] = _nanoseconds(noise.draw)
    words = np.empty(COORDINATES, np.uint64)
    figures["SecretStream.fill, a 64-bit word: ns"] = _nanoseconds(lambda _: secret_stream().fill(words))
    generator = np.random.default_rng(0)
    figures["numpy standard_normal (not secret, not exact): ns"] = _nanoseconds(generator.standard_normal)
    return figures


def _nanoseconds(draw: Callable[[int], Any]) -> float:
    # The first call makes the tables.
    draw(COORDINATES)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        draw(COORDINATES)
        times.append(time.perf_counter() - start)
    return min(times) / COORDINATES * 1e9
