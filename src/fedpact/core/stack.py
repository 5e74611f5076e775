"""Many clients' vectors of one layout, stacked: what is elementwise on one vector is so on all of them at once."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ModelError
from fedpact.core.vector import Layout, Role, Vector

Floats = NDArray[np.floating]

_FLOATS = ("float32", "float64")


class Stack:
    """Vectors as the rows of one array for each segment of their layout: float32 and float64 alone.

    Args:
        layout: the layout of every vector.
        flats: for each of its segments an array [clients, elements].

    Raises:
        ModelError: the layout has other dtypes.
    """

    __slots__ = ("flats", "layout")

    def __init__(self, layout: Layout, flats: Sequence[Floats]) -> None:
        for segment in layout.segments:
            if segment.dtype not in _FLOATS:
                raise ModelError(f"arrays of {segment.dtype} cannot be stacked; {' and '.join(_FLOATS)} can.")
        self.layout = layout
        self.flats = tuple(flats)

    @classmethod
    def of(cls, vectors: Sequence[Vector], layout: Layout) -> "Stack":
        """Return copies of vectors of this layout, stacked.

        Raises:
            ModelError: one has another layout.
        """
        for vector in vectors:
            if vector.layout != layout:
                raise ModelError(f"a vector of {vector.layout!r} cannot be stacked with those of {layout!r}.")
        flats = [np.empty((len(vectors), segment.size), segment.dtype) for segment in layout.segments]
        for place, flat in enumerate(flats):
            for row, vector in zip(flat, vectors, strict=True):
                row[:] = vector.flats[place]
        return cls(layout, flats)

    def __len__(self) -> int:
        return len(self.flats[0]) if self.flats else 0

    def row(self, client: int) -> Vector:
        """Return a copy of one client's vector."""
        vector = Vector.zeros(self.layout)
        for out, flat in zip(vector.flats, self.flats, strict=True):
            out[:] = flat[client]
        return vector

    def take(self, clients: NDArray[np.integer]) -> "Stack":
        """Return the vectors of these clients, in this order."""
        return Stack(self.layout, [flat[clients] for flat in self.flats])

    def minus(self, other: "Vector | Stack") -> "Stack":
        """Return this − other, for each client or for all the same, in the layout `layout.wide`.

        Raises:
            ModelError: the other has another layout.
        """
        if other.layout != self.layout:
            raise ModelError(f"{other.layout!r} cannot be taken from {self.layout!r}.")
        return Stack(self.layout.wide, [a - b for a, b in zip(self.flats, other.flats, strict=True)])

    def norms(self, role: Role | None = None) -> NDArray[np.float64]:
        """Return each client's L2 norm [clients] over all elements or those of a role, in float64."""
        total = np.zeros(len(self))
        with np.errstate(over="ignore"):
            for flat, segment in zip(self.flats, self.layout.segments, strict=True):
                if role in (None, segment.role):
                    for client, row in enumerate(flat):
                        total[client] += np.sum(np.square(row, dtype=np.float64))
        return np.sqrt(total)
