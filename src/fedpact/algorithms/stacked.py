"""Local training of many clients side by side: the steps of `LocalSGD`, on arrays [clients, parameters].

Clients are sorted by their number of steps, so that those still training are always the first of them, and every
step is one operation on the first rows of each array. Those with equally many rows are next to one another: what a
step takes of them is worked out once for each such group. Their batches are computed together where they are of one
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
from fedpact.core.errors import ConfigError
from fedpact.core.model import Array, StackableModel, StackedSession, descends_together
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
        ConfigError: these settings are not for clients side by side.
    """
    if (why := local.unstackable()) is not None:
        raise ConfigError(f"{type(local).__name__} trains no clients side by side: {why}.")
    plan, counts, order = _groups(local, rows_of(clients))
    clients, seeds = _sorted(clients, order), _sorted(seeds, order)
    anchors = {name: stack.take(order) for name, stack in (anchors or {}).items()}
    session = model.stacked()
    session.load(start, clients, lambda: Seed.child_of_each(seeds, "model"))
    lr = local.local_rate(round)
    descending = session if local.plain and descends_together(session) else None
    step = None if descending else _stepping(local, session, start, anchors, lr)
    batches = _Batches(plan, counts, Seed.child_of_each(seeds, "shuffle") if local.shuffle else None)
    losses: list[tuple[Run, Array]] = []
    for count in range(1, int(plan.total[0]) + 1):
        orders, *groups = batches.at(count - 1)
        for run in _runs(session, orders, *groups):
            batch = run.first, run.index, run.sizes
            losses.append((run, descending.descend(*batch, lr) if descending else session.gradient(*batch)))
        if step:
            step(len(orders), count)
    loss, seen = np.zeros(len(clients)), np.zeros(len(clients))
    for run, means in losses:
        loss[run.places] += on_host(means).astype(np.float64) * run.sizes
        seen[run.places] += run.sizes
    changes = session.models().minus(start)
    rows, steps = np.repeat(plan.rows, counts), np.repeat(plan.total, counts)
    return TrainedStack(order, rows, changes, steps, {"loss": loss, "rows": seen})


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
    for run in _runs(session, index, np.zeros_like(sizes), sizes, rows_of(clients), np.ones_like(sizes)):
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


def _groups(local: LocalSGD, rows: NDArray[np.int64]) -> tuple[Plan, NDArray[np.int64], NDArray[np.int64]]:
    """Return the plan of each group as arrays, those with the most steps first, its size, and the order of clients."""
    kinds, which, counts = np.unique(rows, return_inverse=True, return_counts=True)
    plans = [local.plan(n) for n in kinds.tolist()]
    plan = Plan(*(np.array([getattr(each, f.name) for each in plans]) for f in fields(Plan)))
    order = np.lexsort((rows, -plan.total[which]))
    groups = np.lexsort((kinds, -plan.total))
    return _part(plan, groups), counts[groups], order


def _part(plan: Plan, groups: "NDArray[np.int64] | slice") -> Plan:
    return Plan(*(getattr(plan, f.name)[groups] for f in fields(Plan)))


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
    """Where the rows of each step are, of many clients in groups, those with the most steps first."""

    def __init__(self, plan: Plan, counts: NDArray[np.int64], seeds: Sequence[Seed] | None) -> None:
        self._plan = plan
        self._counts = counts
        self._seeds = seeds
        self._orders = np.tile(np.arange(plan.rows.max()), (counts.sum(), 1))

    def at(self, step: int) -> tuple[NDArray[np.int64], ...]:
        """Return what `_runs` takes of those still training.

        These are the clients' orders of rows [k, n], and for each of their groups where in them the batches start, how
        many rows a batch has and how many a client, and the number of clients.
        """
        training = slice(int(np.searchsorted(-self._plan.total, -step)))
        plan, counts = _part(self._plan, training), self._counts[training]
        epoch, place = np.divmod(step, plan.per_epoch)
        begin = (place == 0) & (plan.size < plan.rows)
        if self._seeds is not None and begin.any():
            self._shuffle(self._seeds, begin, epoch, plan.rows, counts)
        start, stop = plan.batch(place)
        return self._orders[: counts.sum()], start, stop - start, plan.rows, counts

    def _shuffle(
        self,
        seeds: Sequence[Seed],
        begin: NDArray[np.bool_],
        epoch: NDArray[np.int64],
        rows: NDArray[np.int64],
        counts: NDArray[np.int64],
    ) -> None:
        """Draw the orders of the groups that begin an epoch."""
        if len(begin) == 1:
            orders = shuffled(seeds[: counts[0]], epoch[0], rows[0])
            self._orders[: counts[0], : rows[0]] = orders
            return
        clients = np.flatnonzero(np.repeat(begin, counts))
        epochs, sizes = (np.repeat(each, counts)[clients] for each in (epoch, rows))
        orders = shuffled([seeds[i] for i in clients.tolist()], epochs, sizes)
        self._orders[clients, : orders.shape[1]] = orders


def _runs(
    session: StackedSession,
    orders: NDArray[np.int64],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    rows: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> Iterator[Run]:
    """Split clients into runs of one width each; all but their orders of rows is given for each group of them."""
    widths = session.widths(sizes)
    edges = (np.flatnonzero(np.diff(widths)) + 1).tolist()
    last = 0
    for begin, end in pairwise([0, *edges, len(sizes)]):
        groups, width = slice(begin, end), int(widths[begin])
        each, start, taken = counts[groups], starts[groups], sizes[groups]
        first, last = last, last + int(each.sum())
        filled = int(taken.min()) < width
        whole = not filled and (rows[groups] == width).all()
        together = not filled and (start == start[0]).all()
        start, taken = np.repeat(start, each), np.repeat(taken, each)
        if whole:
            yield Run(first, None, taken)
        elif together:
            yield Run(first, orders[first:last, start[0] : start[0] + width], taken)
        else:
            column = np.arange(width)
            # A row that counts fills the place of one that does not: what a loss makes of it is finite too.
            columns = start[:, None] + np.where(column < taken[:, None], column, 0)
            yield Run(first, np.take_along_axis(orders[first:last], columns, axis=1), taken)
