"""Quantisation to a grid that all clients share, so that sums of few bits are exact.

Suresh et al., "Distributed Mean Estimation with Limited Communication", ICML 2017, section 2 (stochastic k-level
quantisation), with one range for all clients instead of one for each.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from fedpact.channel.transform import (
    Kind,
    RoundContext,
    StageState,
    Transform,
    check_averages,
    check_may_change,
)
from fedpact.core.errors import ChannelError, ConfigError
from fedpact.core.grid import Grid
from fedpact.core.messages import Update
from fedpact.core.settings import check_choice, check_counts, check_numbers
from fedpact.core.vector import Layout

Outside = Literal["refuse", "clip"]
_MOST_BITS = 16


@dataclass(frozen=True)
class Quantize(Transform):
    """Round every averaged value to one of 2^bits levels between −range and range, the same for all clients.

    What a client sends has so many bits a value, and since the levels are common, sums of them are exact and may be
    masked. Values of very different sizes want a `Hadamard` before it, which makes them alike.

    Args:
        bits: 1 to 16.
        range: the largest size of a value; None for the bound of the Clip before it.
        stochastic: round up or down at random, so that the mean is right whatever the levels; else to the nearest.
        outside: "refuse" the update of a client with a value beyond the range, or "clip" the value to it.

    Raises:
        ConfigError: a setting is out of its range.
    """

    bits: int = 8
    range: float | None = None
    stochastic: bool = True
    outside: Outside = "refuse"

    kind: ClassVar[Kind] = "quantize"

    def __post_init__(self) -> None:
        check_counts(self, "bits")
        if self.bits > _MOST_BITS:
            raise ConfigError(
                f"Quantize: bits is {self.bits}; it must be at most {_MOST_BITS}: a float32 holds 24 bits of a value, "
                "and without Quantize all of them are summed."
            )
        check_numbers(self, "range", positive=True, optional=True)
        check_choice(self, "outside", get_args(Outside))

    def bound(self, before: float, state: StageState) -> float:
        """Return the bound before it; what rounding may add to a norm is counted where noise is (see `Noise`)."""
        return before

    def range_of(self, state: StageState) -> float:
        """Return the declared range."""
        return inf if self.range is None else self.range

    def check(self, before: Sequence[Transform], algorithm: Any, layout: Layout | None) -> None:
        """Refuse an algorithm whose clients send statistics, or build on what they sent."""
        check_averages(self, algorithm)
        check_may_change(self, algorithm)

    def check_bounded(self, bound: float, limit: float) -> None:
        """Refuse to be where neither it nor a stage before it says how large a value may be."""
        if min(bound, limit, self.range_of({})) == inf:
            raise ChannelError(
                "Quantize needs to know how large a value can be: write Quantize(bits=8, range=0.1), or put "
                "Clip(1.0) before it."
            )

    def encode(self, update: Update, context: RoundContext) -> Update:
        """Clip values to the range where that was asked for, and note how many there were."""
        if self.outside == "refuse" or self.range is None:
            return update
        clipped, outside = {}, 0
        for name, vector in update.averaged.items():
            clipped[name] = vector.copy()
            for flat in clipped[name].flats:
                most = flat.dtype.type(self.range)
                if float(most) > self.range:
                    # As a float32, 0.05 is a little more than 0.05.
                    most = np.nextafter(most, most.dtype.type(0))
                outside += int(np.count_nonzero(np.abs(flat) > most))
                # A NaN stays what it is, and is refused.
                np.clip(flat, -most, most, out=flat)
        notes = {**update.notes, "quantize.outside": float(outside)}
        return replace(update, averaged=clipped, notes=notes)

    def grid(self, limit: float, most: float) -> Grid:
        """Return the levels as a grid.

        Args:
            limit: the largest size of a value.
            most: the largest weight of a client.
        """
        return Grid.of_levels(self.bits, limit, most, self.stochastic)
