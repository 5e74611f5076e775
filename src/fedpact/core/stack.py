"""Many clients' vectors of one layout, stacked: what is elementwise on one vector is so on all of them at once."""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ModelError
from fedpact.core.vector import Layout, Role, Vector, squared_sum

# A numpy array, or a torch tensor on any device.
Array = Any

_FLOATS = ("float32", "float64")
# Of 64 Ki elements a float64 scratch array stays in the cache of one core.
_BLOCK = 1 << 16


class Stack:
    """Vectors as the rows of one array for each segment of their layout: float32 and float64 alone.

    The arrays are numpy's, or torch tensors where a device trained them: they stay there until one is asked for.

    Args:
        layout: the layout of every vector.
        flats: for each of its segments an array [clients, elements].

    Raises:
        ModelError: the layout has other dtypes.
    """

    __slots__ = ("flats", "layout")

    def __init__(self, layout: Layout, flats: Sequence[Array]) -> None:
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
        flats = [np.empty((len(vectors), segment.size), segment.dtype) for segment in layout.segments]
        for place, vector in enumerate(vectors):
            if vector.layout != layout:
                raise ModelError(f"a vector of {vector.layout!r} cannot be stacked with those of {layout!r}.")
            for stacked, flat in zip(flats, vector.flats, strict=True):
                stacked[place] = flat
        return cls(layout, flats)

    def __len__(self) -> int:
        return len(self.flats[0]) if self.flats else 0

    def row(self, client: int) -> Vector:
        """Return a copy of one client's vector."""
        return self.take([client]).rows()[0]

    def rows(self) -> list[Vector]:
        """Return copies of all clients' vectors."""
        flats, vectors = [on_host(flat) for flat in self.flats], []
        for client in range(len(self)):
            vector = Vector.zeros(self.layout)
            for out, flat in zip(vector.flats, flats, strict=True):
                out[:] = flat[client]
            vectors.append(vector)
        return vectors

    def take(self, clients: Sequence[int] | NDArray[np.integer]) -> "Stack":
        """Return the vectors of these clients, in this order."""
        chosen = np.asarray(clients, np.int64)
        return Stack(self.layout, [flat[beside(chosen, flat)] for flat in self.flats])

    def minus(self, other: "Vector | Stack") -> "Stack":
        """Return this − other, for each client or for all the same, in the layout `layout.wide`.

        Raises:
            ModelError: the other has another layout.
        """
        if other.layout != self.layout:
            raise ModelError(f"{other.layout!r} cannot be taken from {self.layout!r}.")
        pairs = zip(self.flats, other.flats, strict=True)
        return Stack(self.layout.wide, [flat - beside(less, flat) for flat, less in pairs])

    def plus(self, other: "Stack") -> "Stack":
        """Return this + another stack of the same layout."""
        pairs = zip(self.flats, other.flats, strict=True)
        return Stack(self.layout, [flat + more for flat, more in pairs])

    def beside(self, other: "Stack") -> "Stack":
        """Return the vectors where another stack's are: on their device if those are tensors."""
        pairs = zip(self.flats, other.flats, strict=True)
        return Stack(self.layout, [beside(flat, like) for flat, like in pairs])

    def times(self, factors: NDArray[np.float64], role: Role | None = None) -> "Stack":
        """Return each client's vector times its factor [clients], or only the elements of a role.

        The products are float64, rounded once to the dtype of the vectors.
        """
        flats = []
        for flat, segment in zip(self.flats, self.layout.segments, strict=True):
            if role not in (None, segment.role):
                flats.append(flat)
            elif is_numpy(flat):
                out = np.empty_like(flat)
                np.multiply(flat, factors[:, None], out=out, dtype=np.float64, casting="same_kind")
                flats.append(out)
            else:
                flats.append((doubles(flat) * beside(factors, flat)[:, None]).to(flat.dtype))
        return Stack(self.layout, flats)

    def norms(self, role: Role | None = None) -> NDArray[np.float64]:
        """Return each client's L2 norm [clients], the number that `Vector.norm` gives; inf on overflow.

        Of tensors it may differ from that in the last bits.
        """
        total = np.zeros(len(self))
        for flat, segment in zip(self.flats, self.layout.segments, strict=True):
            if role in (None, segment.role):
                if is_numpy(flat):
                    rows = max(1, _BLOCK // max(1, segment.size))
                    for first in range(0, len(flat), rows):
                        part = slice(first, first + rows)
                        total[part] += squared_sum(flat[part], segment.dtype)
                else:
                    total += on_host(doubles(flat).square_().sum(1))
        return np.sqrt(total)


def is_numpy(array: Array) -> bool:
    """Return whether an array is numpy's rather than a tensor."""
    return isinstance(array, np.ndarray)


def on_host(array: Array) -> NDArray[Any]:
    """Return an array, or a tensor of any device, as numpy's."""
    return array if is_numpy(array) else array.cpu().numpy()


def beside(array: Array, like: Array) -> Array:
    """Return an array where another one is: on its device if that is a tensor."""
    if is_numpy(like):
        return on_host(array)
    # torch warns of arrays that nobody may write to, such as those in memory that processes share.
    owned = np.require(array, requirements="W") if is_numpy(array) else array
    # Whoever made the tensor has imported torch; importing it here would cost everyone else a second.
    return sys.modules["torch"].as_tensor(owned, device=like.device)


def doubles(array: Array) -> Array:
    """Return a copy in float64."""
    if is_numpy(array):
        return array.astype(np.float64)
    return array.to(sys.modules["torch"].float64, copy=True)


def whole(array: Array) -> Array:
    """Return an array of whole numbers as int64."""
    return array.astype(np.int64) if is_numpy(array) else array.long()


def extremes(array: Array) -> tuple[Array, Array]:
    """Return the least and the greatest of each row; NaN where it holds one."""
    if is_numpy(array):
        return array.min(axis=1), array.max(axis=1)
    return array.amin(1), array.amax(1)
