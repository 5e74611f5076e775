"""What an algorithm may ask of a model, whatever library it is written in."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeGuard, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.core.stack import Stack
from fedpact.core.vector import Layout, Vector
from fedpact.core.wide import Wide

Kind = Literal["binary", "multiclass", "regression"]

# A flat numpy array or torch tensor: elementwise arithmetic reads the same on both.
Array = Any
# The rows of a step: their places; None for all; or, for an ArrangingSession alone, a slice with a start and a stop.
Batch = NDArray[np.int64] | slice | None


@dataclass(frozen=True)
class Schema:
    """What all clients' rows have in common once they are prepared.

    Args:
        kind: what is predicted.
        shape: the shape of one example.
        classes: the labels in the order of their indexes; empty for regression.
        features: the names of the columns, where the examples are table rows.
        positions: the shape of one example's labels; () where it has one label.
        class_counts: how many training rows all clients have of each class, a label at each position counted for
            itself; () where nobody asked.
    """

    kind: Kind
    shape: tuple[int, ...]
    classes: tuple[Any, ...] = ()
    features: tuple[str, ...] = ()
    positions: tuple[int, ...] = ()
    class_counts: tuple[int, ...] = ()


@runtime_checkable
class Model(Protocol):
    """A model whose weights are a Vector; it holds no weights of its own that training changes."""

    schema: Schema
    layout: Layout

    def initial(self, seed: Seed) -> Vector:
        """Return the weights to start from."""
        ...

    def predict(self, weights: Vector, x: Any) -> NDArray[np.floating[Any]]:
        """Return P(class 1) or values [n, *positions], or class probabilities [n, *positions, classes]."""
        ...


class Session(Protocol):
    """A model in memory, reused for one client after another.

    `weights` and `gradients` hold one flat array for each dtype of trained parameters; algorithms compute on
    them in place.
    """

    weights: Sequence[Array]
    gradients: Sequence[Array]

    def load(self, weights: Vector) -> None:
        """Overwrite all weights: one copy."""
        ...

    def store(self) -> Vector:
        """Return a copy of all weights."""
        ...

    def change(self, start: Vector) -> Vector:
        """Return all weights − start, in the layout `layout.wide`: the bits of `store().minus(start)`."""
        ...

    def bind(self, rows: Rows, seed: Seed) -> None:
        """Make these rows the ones that `gradient` reads; the seed is for dropout and the like."""
        ...

    def gradient(self, index: Batch) -> Array:
        """Write the gradient of the mean loss over these rows (None: all) to `gradients`; return the loss.

        The loss is a number, or an array of one number on a device that nobody has waited for yet.
        """
        ...

    def arrays(self, vector: Vector) -> list[Array]:
        """Return a parameter-shaped vector (layout `layout.wide`) as flat arrays that match `weights`."""
        ...


@runtime_checkable
class DescendingSession(Session, Protocol):
    """A session that takes a step of plain gradient descent faster than by a gradient and a step along it."""

    def descend(self, index: Batch, lr: float) -> Array:
        """Move the weights by −lr · the gradient of the mean loss over these rows (None: all); return the loss.

        What `gradients` holds afterwards means nothing.
        """
        ...


@runtime_checkable
class ArrangingSession(Session, Protocol):
    """A session that lays rows out in the order in which steps take them, for less than every step's own copy."""

    def arrange(self, order: NDArray[np.int64]) -> None:
        """Put the bound rows into this order; `gradient` and `descend` then take slices of it.

        Without an order they take slices of the rows as they lie.
        """
        ...


@runtime_checkable
class ClippingSession(Session, Protocol):
    """A session that bounds what each row adds to a gradient, for differential privacy of records."""

    def clipped(self, index: NDArray[np.int64], norm: float) -> list[NDArray[np.float64]]:
        """Return the sum of the gradients of these rows' losses, each one scaled down to an L2 norm of at most `norm`.

        It is given as one flat array for each of `weights`. The norm of a row is over all of them together; where it
        is NaN or infinite, the row counts as 0. A penalty on the weights is left out. There may be no rows.

        Raises:
            ModelError: the model computes no row's loss for itself.
        """
        ...

    def set_gradient(self, gradient: Sequence[NDArray[np.float64]]) -> None:
        """Write a gradient of the mean loss to `gradients`, and add that of a penalty on the weights."""
        ...


class StackedSession(Protocol):
    """Many clients' models in memory, trained side by side.

    `weights` and `gradients` hold one array [clients, elements] for each dtype of trained parameters; algorithms
    compute on them, and on their first rows, in place.
    """

    weights: Sequence[Array]
    gradients: Sequence[Array]

    def load(
        self, weights: Vector, clients: Sequence[ClientData], seeds: Callable[[], Sequence[Seed]]
    ) -> None:
        """Start a group of clients from the same weights; `gradient` reads their training rows.

        The seeds, for dropout and the like, are asked for only by a model that draws random numbers.

        Raises:
            DataError: there are rows that do not fit the model; whose they are is not said.
        """
        ...

    def widths(self, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return to how many rows batches of these sizes are filled up; those of one width are computed together."""
        ...

    def gradient(self, first: int, index: NDArray[np.int64] | None, sizes: NDArray[np.int64]) -> Array:
        """Write the gradients of the mean losses of k clients from a first one on; return the losses [k].

        Args:
            first: the place of the first of them.
            index: which of its rows each takes [k, b]; None for all of them, of which each then has b.
            sizes: how many of them count, from the first [k]: the rest repeat a row that does, to fill the array.
        """
        ...

    def models(self) -> Stack:
        """Return all clients' weights, which the next step or `load` may overwrite."""
        ...

    def slopes(self) -> Stack:
        """Return all clients' gradients in the layout `layout.wide`, which the next step may overwrite."""
        ...

    def arrays(self, vectors: Stack | Vector) -> list[Array]:
        """Return parameter-shaped vectors (layout `layout.wide`) as arrays that match `weights`.

        Of a Stack they are [clients, elements]; of a Vector, the same for all, [elements].
        """
        ...


@runtime_checkable
class DescendingStackedSession(StackedSession, Protocol):
    """A session that takes steps of plain gradient descent faster than by gradients and a step along them."""

    def descend(
        self, first: int, index: NDArray[np.int64] | None, sizes: NDArray[np.int64], lr: float
    ) -> Array:
        """Move the weights of k clients by −lr · the gradients of their mean losses; return the losses [k].

        The clients and their rows are given as to `gradient`; what `gradients` holds afterwards means nothing.
        """
        ...


@runtime_checkable
class StackableModel(Model, Protocol):
    """A model of which many can be trained side by side.

    `stack_bytes` says how many bytes of clients' weights and rows are best in memory at once.
    """

    @property
    def stack_bytes(self) -> int: ...

    def unstackable(self) -> str | None:
        """Return why this one cannot after all, in a clause such as "the module has batch norm"; None if it can."""
        ...

    def stacked(self) -> StackedSession:
        """Return this thread's session for many clients."""
        ...


@runtime_checkable
class GradientModel(Model, Protocol):
    """A model that gives gradients."""

    def session(self) -> Session:
        """Return this thread's session."""
        ...


# To look through all of a protocol takes longer than a step of a small model, and is done for every client.


def gives_gradients(model: Any) -> TypeGuard[GradientModel]:
    """Return whether a model gives gradients."""
    return hasattr(model, "session")


def stacks(model: Any) -> TypeGuard[StackableModel]:
    """Return whether many of a model can be trained side by side, if nothing in it keeps them from it."""
    return hasattr(model, "unstackable")


def descends_together(session: StackedSession) -> TypeGuard[DescendingStackedSession]:
    """Return whether a session takes steps of plain gradient descent with many models itself."""
    return hasattr(session, "descend")


def clips(session: Session) -> TypeGuard[ClippingSession]:
    """Return whether a session bounds what each row adds to a gradient."""
    return hasattr(session, "clipped")


def descends(session: Session) -> TypeGuard[DescendingSession]:
    """Return whether a session takes steps of plain gradient descent itself."""
    return hasattr(session, "descend")


def arranges(session: Session) -> TypeGuard[ArrangingSession]:
    """Return whether a session takes slices of rows in an order of its own."""
    return hasattr(session, "arrange")


@runtime_checkable
class FittingModel(Model, Protocol):
    """A model that fits by its own means and gives no gradients, such as a scikit-learn estimator."""

    def fit(self, weights: Vector, rows: Rows, epochs: int, seed: Seed) -> tuple[Vector, float]:
        """Return the weights after so many passes over the rows from `weights`, and the mean training loss."""
        ...


@runtime_checkable
class TeachableModel(Model, Protocol):
    """A classifier that can learn from what others make of rows."""

    def scores(self, weights: Vector, x: Any) -> NDArray[np.float64]:
        """Return the logits of each row less their mean [n, classes]: what its softmax gives is the probabilities."""
        ...

    def taught(self, temperature: float) -> GradientModel:
        """Return this model as it learns from class probabilities [n, classes], which are then its rows' labels.

        The loss of a row is T²·KL(label ‖ softmax(scores / T)) at the temperature T: Hinton, Vinyals and Dean,
        "Distilling the Knowledge in a Neural Network", 2015, Section 2.
        """
        ...


@runtime_checkable
class HessianModel(Model, Protocol):
    """A model with an exact Hessian."""

    l2: float

    def curvature(
        self, weights: Vector, rows: Rows
    ) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """Return these rows' summed loss, its gradient [p] and its Hessian [p, p], without the penalty."""
        ...

    def penalised(self) -> NDArray[np.bool_]:
        """Return which of the p weights the L2 penalty applies to (not the intercepts)."""
        ...

    def not_convex(self) -> str | None:
        """Return why Newton steps may lead nowhere after all, in a clause; None if the loss is convex."""
        ...


@runtime_checkable
class StatisticsModel(Model, Protocol):
    """A model that is solved from sums over rows."""

    def statistics(self, rows: Rows) -> Mapping[str, Wide | NDArray[np.int64]]:
        """Return the sums over these rows."""
        ...

    def solve(self, sums: Mapping[str, Any]) -> Vector:
        """Return the weights that all rows' sums determine."""
        ...
