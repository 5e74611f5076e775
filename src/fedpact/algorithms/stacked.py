"""Local training of many clients side by side: the steps of `LocalSGD`, on arrays [clients, parameters].

Clients are sorted by their number of steps, so that those still training are always the first of them, and every
step is one operation on the first rows of each array. What a client computes is what it computes alone, up to the
rounding of sums that a library adds up in another order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.algorithms.local_sgd import LocalSGD, Plan, check_rows
from fedpact.algorithms.optimizers import init_slots
from fedpact.core.model import Array, StackableModel, StackedSession
from fedpact.core.rows import Rows
from fedpact.core.seeds import Seed, shuffled
from fedpact.core.stack import Stack
from fedpact.core.vector import Vector


@dataclass(frozen=True, eq=False)
class TrainedStack:
    """What local training of many clients gave, in the order in which they were trained.

    Args:
        order: the place of each in the sequence that was given [clients].
        models: the weights that they ended with.
        steps: the number of gradient steps that each took [clients].
        metrics: as of `Trained`, each [clients].
    """

    order: NDArray[np.int64]
    models: Stack
    steps: NDArray[np.int64]
    metrics: dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class _Group:
    """Clients with one number of rows: the steps that they take are the same."""

    first: int
    last: int
    plan: Plan
    seeds: Sequence[Seed]


def train_stacked(
    local: LocalSGD,
    model: StackableModel,
    start: Vector,
    rows: Sequence[Rows],
    round: int,
    seeds: Sequence[Seed],
    anchors: Mapping[str, Stack] | None = None,
) -> TrainedStack:
    """Train on many clients' rows, from the weights received.

    Args:
        local: the settings of local training.
        model: the model.
        start: the weights received.
        rows: each client's training rows.
        round: the round, for the rate schedule.
        seeds: of each client in this round.
        anchors: vectors of each client for `correct`, in the layout `start.layout.wide`.

    Raises:
        DataError: a client has no rows.
    """
    for client in rows:
        check_rows(client)
    plans = {n: local.plan(n) for n in {len(client) for client in rows}}
    sizes = np.array([len(client) for client in rows])
    totals = np.array([plans[n].total for n in sizes.tolist()])
    order = np.lexsort((sizes, -totals))
    seeds = [seeds[i] for i in order]
    session = model.stacked()
    session.load(start, [rows[i] for i in order], [seed.child("model") for seed in seeds])
    step = _stepping(
        local, session, start, {name: a.take(order) for name, a in (anchors or {}).items()}, round
    )
    shuffles = [seed.child("shuffle") for seed in seeds]
    batches = _Batches(local.shuffle, _groups([plans[n] for n in sizes[order].tolist()], shuffles))
    losses: list[tuple[NDArray[np.int64], Array]] = []
    for count in range(1, int(totals.max()) + 1):
        index, taken = batches.at(count - 1)
        losses.append((taken, step(index, taken, count)))
    loss, seen = np.zeros(len(rows)), np.zeros(len(rows))
    for taken, loss_of in losses:
        loss[: len(taken)] += as_numpy(loss_of).astype(np.float64) * taken
        seen[: len(taken)] += taken
    return TrainedStack(order, session.store(), totals[order], {"loss": loss, "rows": seen})


def gradients_stacked(
    model: StackableModel,
    start: Vector,
    rows: Sequence[Rows],
    index: Sequence[NDArray[np.int64]],
    seeds: Sequence[Seed],
) -> tuple[Stack, NDArray[np.float64]]:
    """Return the gradients of clients' mean losses at the same weights, and these losses [clients].

    The gradients are in the layout `start.layout.wide`.

    Args:
        model: the model.
        start: the weights.
        rows: each client's rows.
        index: which of them each takes.
        seeds: of each client, for dropout and the like.
    """
    session = model.stacked()
    session.load(start, rows, seeds)
    taken = np.array([len(chosen) for chosen in index])
    padded = np.zeros((len(rows), int(taken.max())), np.int64)
    for row, chosen in zip(padded, index, strict=True):
        row[: len(chosen)] = chosen
    losses = session.gradient(padded, taken)
    gradients = [as_numpy(gradient).copy() for gradient in session.gradients]
    return Stack(start.layout.wide, gradients), as_numpy(losses).astype(np.float64)


def _groups(plans: Sequence[Plan], seeds: Sequence[Seed]) -> list[_Group]:
    groups, first = [], 0
    for plan, same in groupby(plans):
        last = first + len(list(same))
        groups.append(_Group(first, last, plan, seeds[first:last]))
        first = last
    return groups


def as_numpy(array: Array) -> NDArray[Any]:
    """Return a numpy array or a tensor of any device as a numpy array."""
    return array if isinstance(array, np.ndarray) else array.cpu().numpy()


def _stepping(
    local: LocalSGD, session: StackedSession, start: Vector, anchors: Mapping[str, Stack], round: int
) -> Any:
    lr, weights, gradients = local.local_rate(round), session.weights, session.gradients
    parts: list[dict[str, Array]] = [{} for _ in weights]
    if local.corrects:
        every: dict[str, Stack | Vector] = {"start": start.widened(), **anchors}
        for name, vectors in every.items():
            for part, array in zip(parts, session.arrays(vectors), strict=True):
                part[name] = array
    slots = [init_slots(local.optimizer, array) for array in weights]

    def step(index: NDArray[np.int64], taken: NDArray[np.int64], count: int) -> Array:
        losses = session.gradient(index, taken)
        k = len(taken)
        training = [gradient[:k] for gradient in gradients]
        if local.max_grad_norm is not None:
            _clip(training, local.max_grad_norm)
        for array, gradient, slot, part in zip(weights, training, slots, parts, strict=True):
            if local.corrects:
                near = {name: anchor[:k] if anchor.ndim == 2 else anchor for name, anchor in part.items()}
                local.correct(gradient, array[:k], near)
            state = {name: values[:k] for name, values in slot.items()}
            local.optimizer.step(array[:k], gradient, state, count, lr)
        return losses

    return step


def _clip(gradients: Sequence[Array], max_norm: float) -> None:
    # A NaN or an infinity makes a NaN of its own client's weights alone, which is refused with its update.
    squares: Any = 0.0
    for gradient in gradients:
        wide = gradient.astype(np.float64) if isinstance(gradient, np.ndarray) else gradient.double()
        squares = squares + (wide * wide).sum(1)
    factors = max_norm / squares**0.5
    factors = factors.clip(max=1.0)
    for gradient in gradients:
        like = (
            factors.astype(gradient.dtype) if isinstance(gradient, np.ndarray) else factors.to(gradient.dtype)
        )
        gradient *= like[:, None]


class _Batches:
    """The rows of each step of many clients."""

    def __init__(self, shuffle: bool, groups: Sequence[_Group]) -> None:
        self._shuffle = shuffle
        self._groups = groups
        self._orders: dict[int, tuple[int, NDArray[np.int64]]] = {}

    def at(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows of those still training [k, b], and how many of them count for each [k]."""
        active = [group for group in self._groups if group.plan.total > step]
        chosen = [self._rows(group, step) for group in active]
        taken = np.concatenate([np.full(len(rows), rows.shape[1]) for rows in chosen])
        if len(chosen) == 1:
            return chosen[0], taken
        index = np.zeros((len(taken), int(taken.max())), np.int64)
        for group, rows in zip(active, chosen, strict=True):
            index[group.first : group.last, : rows.shape[1]] = rows
        return index, taken

    def _rows(self, group: _Group, step: int) -> NDArray[np.int64]:
        plan, clients = group.plan, group.last - group.first
        if plan.size == plan.rows:
            return np.broadcast_to(np.arange(plan.rows), (clients, plan.rows))
        epoch, place = divmod(step, plan.per_epoch)
        if not self._shuffle:
            rows = np.arange(plan.rows)[plan.batch(place)]
            return np.broadcast_to(rows, (clients, len(rows)))
        known = self._orders.get(group.first)
        if known is None or known[0] != epoch:
            known = epoch, shuffled(group.seeds, epoch, plan.rows)
            self._orders[group.first] = known
        return known[1][:, plan.batch(place)]
