"""Many clients' regressions side by side: the gradients of `fedpact.learn.linear`, on arrays [clients, rows, d].

A client's batches have the same shape whoever is trained beside it, and so its weights have the same bits.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import DataError
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed
from fedpact.core.stack import Stack
from fedpact.core.vector import Vector
from fedpact.learn.joined import Joined, rounded_up
from fedpact.learn.links import Floats

if TYPE_CHECKING:
    from fedpact.learn.linear import RegressionModel


class StackedRegression:
    """Many clients' gradients, computed in place on flat weights.

    Attributes:
        weights: one array [clients, p].
        gradients: one array [clients, p].
    """

    def __init__(self, model: "RegressionModel") -> None:
        self._model = model
        self._penalty = model.l2 * model.penalised()
        self._outputs = model.layout.place("intercept")[0].size
        self._make(0)

    def load(
        self, weights: Vector, clients: Sequence[ClientData], seeds: Callable[[], Sequence[Seed]]
    ) -> None:
        """Start a group of clients from the same weights.

        Raises:
            DataError: there are rows without labels, or that do not fit the model.
        """
        if len(clients) != len(self.weights[0]):
            self._make(len(clients))
        self.weights[0][:] = weights.flats[0]
        rows, shape = Joined.of(clients), self._model.schema.shape
        if rows.x.dtype.kind != "f":
            rows.x = rows.x.astype(np.float64)
        if rows.x.shape[1:] != shape:
            raise DataError(f"an example has shape {rows.x.shape[1:]}; the model takes {shape}.")
        self._rows, self._targets = rows, self._model.targets(rows.y)

    def widths(self, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sizes rounded up to three bits: a client's batches have that width whoever is beside it."""
        return rounded_up(sizes)

    def gradient(self, first: int, index: NDArray[np.int64] | None, sizes: NDArray[np.int64]) -> Floats:
        """Write the gradients of k clients' penalised mean losses; return the losses without the penalty [k]."""
        kind, places = self._model.schema.kind, slice(first, first + len(sizes))
        if index is None:
            # All rows, in every step: they are widened once, and batches one by one while they are in the cache.
            self._rows.x = self._rows.x.astype(np.float64, copy=False)
        x, y = self._rows.batch(first, index, sizes, self._rows.x, self._targets)
        x = x.astype(np.float64, copy=False)
        coef, intercept = self._coef[places], self._intercept[places, None]
        scores = np.matmul(x, coef.transpose(0, 2, 1))
        scores += intercept
        if kind != "multiclass":
            scores = scores[..., 0]
        losses, residual = self._model.loss.losses(scores, y), self._model.loss.slopes(scores, y)
        if sizes.min() < x.shape[1]:
            filled = np.arange(x.shape[1]) >= sizes[:, None]
            losses[filled] = residual[filled] = 0.0
        residual = residual.reshape(*x.shape[:2], -1)
        residual /= sizes[:, None, None]
        np.matmul(residual.transpose(0, 2, 1), x, out=self._coef_gradient[places])
        residual.sum(axis=1, out=self._intercept_gradient[places])
        if self._model.l2:
            self.gradients[0][places] += self._penalty * self.weights[0][places]
        return losses.sum(axis=1) / sizes

    def slopes(self) -> Stack:
        """Return all clients' gradients."""
        return Stack(self._model.layout, self.gradients)

    def models(self) -> Stack:
        """Return all clients' weights."""
        return Stack(self._model.layout, self.weights)

    def arrays(self, vectors: Stack | Vector) -> list[Floats]:
        """Return parameter-shaped vectors as arrays that match `weights`."""
        return list(vectors.flats)

    def _make(self, clients: int) -> None:
        """Make room for so many clients."""
        self.weights = [np.empty((clients, self._model.layout.size))]
        self.gradients = [np.empty((clients, self._model.layout.size))]
        self._coef, self._intercept = self._split(self.weights[0])
        self._coef_gradient, self._intercept_gradient = self._split(self.gradients[0])

    def _split(self, flat: Floats) -> tuple[Floats, Floats]:
        """Return views [clients, outputs, d] and [clients, outputs]."""
        width = self._model.schema.shape[0]
        coef, intercept = flat[:, : self._outputs * width], flat[:, self._outputs * width :]
        return coef.reshape(len(flat), self._outputs, width), intercept
