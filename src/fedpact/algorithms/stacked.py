"""Local training of many clients side by side: the steps of `LocalSGD`, on arrays [clients, parameters].

Clients are sorted by their number of steps, so that those still training are always the first of them, and every
step is one operation on the first rows of each array. Their batches are computed together where they are of one
size, or are filled up to one. What a client computes is what it computes alone, up to the rounding of sums that a
library adds up in another order.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.algorithms.local_sgd import LocalSGD, Plan, check_rows
from fedpact.algorithms.optimizers import init_slots
from fedpact.core.model import Array, DescendingStackedSession, StackableModel, StackedSession
from fedpact.core.rows import ClientData, ClientStack
from fedpact.core.seeds import Seed, shuffled
from fedpact.core.stack import Stack, doubles, is_numpy, on_host
from fedpact.core.vector import Vector


@dataclass(frozen=True, eq=False)
class TrainedStack:
    """What local training of many clients gave, in the order in which they were trained.

    Args:
        order: the place of each in the sequence that was given [clients].
        rows: the number of its rows [clients].
        changes: the weights that it ended with − those received, in the layout `layout.wide`.
        steps: the number of gradient steps that it took [clients].
        metrics: as of `Trained`, each [clients].
    """

    order: NDArray[np.int64]
    rows: NDArray[np.int64]
    changes: Stack
    steps: NDArray[np.int64]
    metrics: dict[str, NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Run:
    """Clients one after another whose batches are computed together: the arguments of `StackedSession.gradient`."""

    first: int
    index: NDArray[np.int64] | None
    sizes: NDArray[np.int64]

    @property
    def places(self) -> slice:
        """The places of the clients."""
        return slice(self.first, self.first + len(self.sizes))


def train_stacked(
    local: LocalSGD,
    model: StackableModel,
    start: Vector,
    clients: Sequence[ClientData],
    round: int,
    seeds: Sequence[Seed],
    anchors: Mapping[str, Stack] | None = None,
) -> TrainedStack:
    """Train on many clients' rows, from the weights received.

    Args:
        local: the settings of local training.
        model: the model.
        start: the weights received.
        clients: the clients.
        round: the round, for the rate schedule.
        seeds: of each client in this round.
        anchors: vectors of each client for `correct`, in the layout `start.layout.wide`.

    Raises:
        DataError: a client has no rows, or rows that do not fit the model.
    """
    rows = rows_of(clients)
    plan = _plan(local, rows)
    order = np.lexsort((rows, -plan.total))
    clients, seeds, plan = _sorted(clients, order), _sorted(seeds, order), _part(plan, order)
    anchors = {name: stack.take(order) for name, stack in (anchors or {}).items()}
    session = model.stacked()
    session.load(start, clients, lambda: Seed.child_of_each(seeds, "model"))
    lr = local.local_rate(round)
    descending = session if local.plain and isinstance(session, DescendingStackedSession) else None
    step = None if descending else _stepping(local, session, start, anchors, lr)
    batches = _Batches(plan, Seed.child_of_each(seeds, "shuffle") if local.shuffle else None)
    losses: list[tuple[Run, Array]] = []
    for count in range(1, int(plan.total[0]) + 1):
        orders, starts, sizes = batches.at(count - 1)
        for run in _runs(session, orders, starts, sizes, plan.rows):
            batch = run.first, run.index, run.sizes
            losses.append((run, descending.descend(*batch, lr) if descending else session.gradient(*batch)))
        if step:
            step(len(sizes), count)
    loss, seen = np.zeros(len(clients)), np.zeros(len(clients))
    for run, means in losses:
        loss[run.places] += on_host(means).astype(np.float64) * run.sizes
        seen[run.places] += run.sizes
    changes = session.models().minus(start)
    return TrainedStack(order, plan.rows, changes, plan.total, {"loss": loss, "rows": seen})


def gradients_stacked(
    model: StackableModel,
    start: Vector,
    clients: Sequence[ClientData],
    index: NDArray[np.int64],
    sizes: NDArray[np.int64],
    seeds: Sequence[Seed],
) -> tuple[Stack, NDArray[np.float64]]:
    """Return the gradients of clients' mean losses at the same weights, and these losses [clients].

    The gradients are in the layout `start.layout.wide`.

    Args:
        model: the model.
        start: the weights.
        clients: the clients.
        index: which of its rows each takes [clients, b].
        sizes: how many of them count, from the first [clients].
        seeds: of each client, for dropout and the like.
    """
    order = np.argsort(sizes, kind="stable")
    clients, index, sizes = _sorted(clients, order), index[order], sizes[order]
    session = model.stacked()
    session.load(start, clients, lambda: _sorted(seeds, order))
    losses = np.empty(len(clients))
    for run in _runs(session, index, np.zeros_like(sizes), sizes, rows_of(clients)):
        losses[run.places] = on_host(session.gradient(run.first, run.index, run.sizes))
    place = np.argsort(order)
    return session.slopes().take(place.tolist()), losses[place]


def rows_of(clients: Sequence[ClientData]) -> NDArray[np.int64]:
    """Return the number of rows of each client.

    Raises:
        DataError: one has none.
    """
    if isinstance(clients, ClientStack):
        return np.full(len(clients), clients.x.shape[1])
    rows = [client.train for client in clients]
    sizes = [len(each.x) for each in rows]
    check_rows(rows[sizes.index(min(sizes))])
    return np.array(sizes)


def ids_of(clients: Sequence[ClientData]) -> Sequence[str]:
    """Return the name of each client."""
    return clients.ids if isinstance(clients, ClientStack) else [client.id for client in clients]


def _sorted(items: Sequence[Any], order: NDArray[np.int64]) -> Sequence[Any]:
    if (order[1:] > order[:-1]).all():
        return items
    return [items[i] for i in order.tolist()]


def _plan(local: LocalSGD, rows: NDArray[np.int64]) -> Plan:
    """Return the steps of all clients as one plan of arrays."""
    kinds, which = np.unique(rows, return_inverse=True)
    plans = [local.plan(n) for n in kinds.tolist()]
    return Plan(*(np.array([getattr(plan, f.name) for plan in plans])[which] for f in fields(Plan)))


def _part(plan: Plan, clients: "NDArray[np.int64] | slice") -> Plan:
    return Plan(*(getattr(plan, f.name)[clients] for f in fields(Plan)))


def _stepping(
    local: LocalSGD, session: StackedSession, start: Vector, anchors: Mapping[str, Stack], lr: float
) -> Callable[[int, int], None]:
    """Return what takes a step with the first k clients, given k and the number of the step."""
    weights, gradients = session.weights, session.gradients
    parts: list[dict[str, Array]] = [{} for _ in weights]
    if local.corrects:
        every: dict[str, Stack | Vector] = {"start": start.widened(), **anchors}
        for name, vectors in every.items():
            for part, array in zip(parts, session.arrays(vectors), strict=True):
                part[name] = array
    slots = [init_slots(local.optimizer, array) for array in weights]

    def step(k: int, count: int) -> None:
        training = [gradient[:k] for gradient in gradients]
        if local.max_grad_norm is not None:
            _clip(training, local.max_grad_norm)
        for array, gradient, slot, part in zip(weights, training, slots, parts, strict=True):
            if local.corrects:
                near = {name: anchor[:k] if anchor.ndim == 2 else anchor for name, anchor in part.items()}
                local.correct(gradient, array[:k], near)
            state = {name: values[:k] for name, values in slot.items()}
            local.optimizer.step(array[:k], gradient, state, count, lr)

    return step


def _clip(gradients: Sequence[Array], max_norm: float) -> None:
    squares: Any = 0.0
    for gradient in gradients:
        wide = doubles(gradient)
        wide *= wide
        squares = squares + wide.sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        # A norm that is NaN or infinite makes NaN of its client's weights, which are refused with the update.
        factors = ((max_norm / squares**0.5).clip(max=1.0) + 0.0 * squares)[:, None]
    for gradient in gradients:
        gradient *= factors.astype(gradient.dtype) if is_numpy(gradient) else factors.to(gradient.dtype)


class _Batches:
    """Where the rows of each step are, of many clients, those with the most steps first."""

    def __init__(self, plan: Plan, seeds: Sequence[Seed] | None) -> None:
        self._plan = plan
        self._seeds = seeds
        self._orders = np.tile(np.arange(plan.rows.max()), (len(plan.rows), 1))

    def at(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return, of the k still training, the orders of rows [k, n], where in them batches start, and their sizes."""
        k = int(np.searchsorted(-self._plan.total, -step))
        plan = _part(self._plan, slice(k))
        epoch, place = np.divmod(step, plan.per_epoch)
        begin = np.flatnonzero((place == 0) & (plan.size < plan.rows))
        if self._seeds is not None and len(begin):
            seeds = [self._seeds[i] for i in begin.tolist()]
            orders = shuffled(seeds, epoch[begin], plan.rows[begin])
            self._orders[begin, : orders.shape[1]] = orders
        start, stop = plan.batch(place)
        return self._orders[:k], start, stop - start


def _runs(
    session: StackedSession,
    orders: NDArray[np.int64],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    rows: NDArray[np.int64],
) -> Iterator[Run]:
    """Split clients into runs of one width each."""
    widths = session.widths(sizes)
    edges = (np.flatnonzero(np.diff(widths)) + 1).tolist()
    for first, last in pairwise([0, *edges, len(sizes)]):
        part, width = slice(first, last), int(widths[first])
        start, taken = starts[part], sizes[part]
        filled = int(taken.min()) < width
        if not filled and (rows[part] == width).all():
            yield Run(first, None, taken)
        elif not filled and (start == start[0]).all():
            yield Run(first, orders[part, start[0] : start[0] + width], taken)
        else:
            column = np.arange(width)
            # A row that counts fills the place of one that does not: what a loss makes of it is finite too.
            columns = start[:, None] + np.where(column < taken[:, None], column, 0)
            yield Run(first, np.take_along_axis(orders[part], columns, axis=1), taken)
