"""A vector in an encoding of its own: what a client sends in its place, and what is counted as sent."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from fedpact.core.vector import Layout


@dataclass(frozen=True, eq=False)
class Packed:
    """A vector that a channel stage has packed.

    Args:
        layout: the vector's.
        arrays: what is sent, by name: arrays of whole bytes, such as packed bits (uint8) or indices (uint32).
        numbers: single float64 numbers that are sent along, such as a scale.
    """

    layout: Layout
    arrays: Mapping[str, NDArray[Any]]
    numbers: Mapping[str, float] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """The bytes of the arrays and numbers, as sent."""
        return sum(array.nbytes for array in self.arrays.values()) + 8 * len(self.numbers)
