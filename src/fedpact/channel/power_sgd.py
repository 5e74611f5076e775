"""Low-rank compression of each matrix of an update, by a power iteration that goes on from round to round.

Vogels, Karimireddy and Jaggi, "PowerSGD: Practical Low-Rank Gradient Compression for Distributed Optimization", NeurIPS
2019, Algorithms 1 and 2; one half of a step a round, alternating, as in Vogels, Karimireddy and Jaggi, "Practical
Low-Rank Communication Compression in Decentralized Deep Learning" (PowerGossip), NeurIPS 2020.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpact.channel.linear_map import ROUNDING, check_changes, check_finite
from fedpact.channel.transform import (
    Kind,
    RoundContext,
    StageState,
    Transform,
    check_averages,
    check_may_change,
    check_steady,
)
from fedpact.core.algorithm import ClientState
from fedpact.core.messages import Aggregate, Update
from fedpact.core.settings import check_counts, check_flags
from fedpact.core.vector import Entry, Layout, Vector

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class PowerSGD(Transform):
    """Send each matrix M [m, n] of an update as M·Q [m, rank] in one round and as Mᵀ·P [n, rank] in the next.

    A matrix is a trained parameter of two axes or more, the later ones taken together, of which it saves something:
    rank · (m + n) < m · n. Other parameters, buffers, and averaged vectors that answer no array of the task are sent
    whole.

    Q and P are orthonormal and the same for all clients, so that sums of what is sent are exact: the mean is
    (mean of M·Q)·Qᵀ, and P·(mean of Mᵀ·P)ᵀ in the other half. The basis of a round is an orthonormal basis of the mean
    of the round before; the first Q is drawn from the first round's seed.

    With error feedback a client keeps what did not get through, E = M − (M·Q)·Qᵀ (or M − P·Pᵀ·M) with what rounding
    took, and adds it to its next M; then nothing bounds what it sends.

    State: "left" (whether it is the turn of P) and "bases", averaged vector → parameter → float64 [n or m, rank]. It
    goes down to the clients. A client keeps "error.<averaged vector>", the matrices E.

    Args:
        rank: the columns of Q and P.
        error_feedback: whether clients keep what did not get through.

    Raises:
        ConfigError: the rank is no whole number of 1 or more, or error_feedback is neither True nor False.
    """

    rank: int = 2
    error_feedback: bool = True

    kind: ClassVar[Kind] = "compress"
    remembers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_counts(self, "rank")
        check_flags(self, "error_feedback")

    def bound(self, before: float, state: StageState) -> float:
        """Return the bound before it, without error feedback; with it nothing bounds the errors that add up."""
        return inf if self.error_feedback else before * ROUNDING

    def check(self, before: Sequence[Transform], algorithm: Any, layout: Layout | None) -> None:
        check_averages(self, algorithm)
        check_may_change(self, algorithm)
        if self.error_feedback:
            check_steady(self, before)

    def layout_behind(self, layout: Layout, state: StageState | None = None) -> Layout:
        """Return the layout behind this stage in a round that began with this state; in the first round without one."""
        left = _is_left(state or {})
        entries = []
        for entry in layout.entries:
            shape = self._shape(entry)
            if shape is None:
                entries.append(entry)
            else:
                entries.append(Entry(entry.name, (shape[left], self.rank), entry.dtype))
        return Layout(entries)

    def encode_remembering(
        self, update: Update, memory: ClientState, context: RoundContext
    ) -> tuple[Update, ClientState]:
        """Compress the matrices, and what was left of them.

        Raises:
            UpdateError: an element is NaN or infinite; it would stay in what the client keeps.
            ChannelError: the update is a whole model.
        """
        check_changes(self, update)
        averaged, errors = dict(update.averaged), dict[str, Vector]()
        for name in context.layouts.keys() & averaged.keys():
            vector = averaged[name]
            check_finite(vector, update.client)
            kept = f"error.{name}"
            averaged[name], error = self._sent(name, vector, memory.get(kept), context)
            if self.error_feedback:
                errors[kept] = error
        return replace(update, averaged=averaged), errors

    def _sent(
        self, name: str, vector: Vector, error: Vector | None, context: RoundContext
    ) -> tuple[Vector, Vector]:
        """Return what is sent of a vector, and what is left of its matrices."""
        left = _is_left(context.state)
        sent = Vector.zeros(self.layout_behind(vector.layout, context.state))
        rest = Vector.zeros(self._matrices(vector.layout))
        for entry in vector.layout.entries:
            shape = self._shape(entry)
            if shape is None:
                sent[entry.name] = vector[entry.name]
                continue
            matrix = vector[entry.name].reshape(shape).astype(np.float64)
            if error is not None and self.error_feedback:
                matrix += error[entry.name].reshape(shape)
            basis = self._basis(name, entry, context)
            sent[entry.name] = matrix.T @ basis if left else matrix @ basis
            rest[entry.name] = (matrix - _matrix(sent[entry.name], basis, left)).reshape(entry.shape)
        return sent, rest

    def decode(self, aggregate: Aggregate, context: RoundContext) -> Aggregate:
        left, means = _is_left(context.state), dict(aggregate.means)
        for name in context.layouts.keys() & means.keys():
            mean, whole = means[name], Vector.zeros(context.layouts[name])
            for entry in whole.layout.entries:
                values: NDArray[Any] = mean[entry.name]
                if self._shape(entry) is not None:
                    values = _matrix(values, self._basis(name, entry, context), left)
                whole[entry.name] = values.reshape(entry.shape)
            means[name] = whole
        return replace(aggregate, means=means)

    def after(self, aggregate: Aggregate, context: RoundContext) -> StageState:
        """Return the bases of the other half: of the columns of the means."""
        bases: dict[str, Mapping[str, Matrix]] = {}
        for name in sorted(context.layouts.keys() & aggregate.means.keys()):
            mean = aggregate.means[name]
            bases[name] = {
                entry.name: _orthonormal(mean[entry.name])
                for entry in self._matrices(context.layouts[name]).entries
            }
        return {"left": not _is_left(context.state), "bases": bases}

    def _basis(self, name: str, entry: Entry, context: RoundContext) -> Matrix:
        if "bases" in context.state:
            basis: Matrix = context.state["bases"][name][entry.name]
            return basis
        shape = self._shape(entry)
        assert shape is not None
        generator = context.seed.child(name, entry.name).generator()
        return _orthonormal(generator.standard_normal((shape[1], self.rank)))

    def _shape(self, entry: Entry) -> tuple[int, int] | None:
        """Return the rows and columns of a matrix; None of what is sent whole."""
        if entry.role == "buffer" or len(entry.shape) < 2 or not entry.size:
            return None
        rows, columns = entry.shape[0], entry.size // entry.shape[0]
        return (rows, columns) if self.rank * (rows + columns) < rows * columns else None

    def _matrices(self, layout: Layout) -> Layout:
        return Layout(entry for entry in layout.entries if self._shape(entry) is not None)


def _is_left(state: StageState) -> bool:
    return bool(state.get("left", False))


def _matrix(sent: NDArray[Any], basis: Matrix, left: bool) -> Matrix:
    return basis @ sent.T if left else sent @ basis.T


def _orthonormal(columns: NDArray[Any]) -> Matrix:
    return np.ascontiguousarray(np.linalg.qr(columns.astype(np.float64))[0])
