"""Many clients' training rows one after another in one array, from which a step takes its batches at once."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import DataError
from fedpact.core.rows import ClientData, ClientStack


class Joined:
    """The rows of many clients.

    Attributes:
        x: the features [rows, ...].
        y: the labels [rows, ...].
    """

    def __init__(self, x: NDArray[Any], y: NDArray[Any], sizes: NDArray[np.int64]) -> None:
        self.x = x
        self.y = y
        self._starts = np.cumsum(sizes) - sizes

    @classmethod
    def of(cls, clients: Sequence[ClientData]) -> "Joined":
        """Return the clients' training rows.

        Raises:
            DataError: a client has rows without labels, or not as many labels as rows.
            ValueError: their rows have different shapes.
        """
        if isinstance(clients, ClientStack):
            x, y = (array.reshape(-1, *array.shape[2:]) for array in (clients.x, clients.y))
            return cls(x, y, np.full(len(clients), clients.x.shape[1]))
        xs = [client.train.x for client in clients]
        ys: list[Any] = [client.train.y for client in clients]
        sizes = [len(x) for x in xs]
        if sizes != [None if y is None else len(y) for y in ys]:
            raise DataError("a client has not as many labels as rows.")
        return cls(np.concatenate(xs), np.concatenate(ys), np.array(sizes))

    def batch(
        self, first: int, index: NDArray[np.int64] | None, sizes: NDArray[np.int64], *arrays: NDArray[Any]
    ) -> list[NDArray[Any]]:
        """Return some clients' batches [k, b, ...] of arrays that hold a number or more for each row.

        Args:
            first: the place of the first client.
            index: which of its rows each client takes [k, b]; None for all of them, of which each then has b.
            sizes: how many of them count [k].
            arrays: arrays [rows, ...].
        """
        places, shape = self.places(first, index, sizes)
        if isinstance(places, slice):
            return [array[places].reshape(*shape, *array.shape[1:]) for array in arrays]
        return [array.take(places, axis=0).reshape(*shape, *array.shape[1:]) for array in arrays]

    def places(
        self, first: int, index: NDArray[np.int64] | None, sizes: NDArray[np.int64]
    ) -> tuple[slice | NDArray[np.int64], tuple[int, int]]:
        """Return where in the arrays these batches are, as a slice or as places [k·b], and (k, b)."""
        starts = self._starts[first : first + len(sizes)]
        if index is None:
            return slice(starts[0], starts[0] + sizes.sum()), (len(sizes), int(sizes[0]))
        return (index + starts[:, None]).reshape(-1), index.shape


def rounded_up(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return sizes rounded up to three bits: 1 to 8, 10, 12, 14, 16, 20 and so on."""
    bits = np.frexp(np.maximum(sizes - 1, 1))[1]
    step = 1 << np.maximum(bits - 3, 0)
    return -(-sizes // step) * step
