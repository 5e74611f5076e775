"""Local training: what a client of the gradient family does between receiving a model and answering.

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017,
ClientUpdate in Algorithm 1.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedpact.algorithms import PARTS
from fedpact.algorithms.optimizers import SGD, Optimizer, init_slots
from fedpact.algorithms.record_dp import RecordPrivacy, check_beside, no_gradients, private_steps
from fedpact.algorithms.schedules import Constant, Schedule
from fedpact.core.errors import ClientError, ConfigError, DataError, ModelError
from fedpact.core.model import (
    Array,
    Batch,
    FittingModel,
    GradientModel,
    Session,
    arranges,
    descends,
    gives_gradients,
)
from fedpact.core.rows import Rows
from fedpact.core.seeds import Seed, shuffle
from fedpact.core.settings import check_choice, check_counts, check_numbers, check_part
from fedpact.core.vector import Layout, Vector
from fedpact.privacy.events import Release

Weighting = Literal["examples", "uniform"]

# Writes the gradient of a batch to a session's `gradients`, and returns the loss.
Differentiate = Callable[[Batch], Array]

_PLAIN = SGD()
# Of 256 Ki elements a copy in float64 takes 2 MiB.
_BLOCK = 1 << 18


@dataclass(frozen=True)
class Trained:
    """What local training gave.

    Args:
        start: the weights received.
        change: the weights it ended with − start, in the layout `start.layout.wide`.
        steps: the number of gradient steps taken.
        metrics: summable numbers for the record: the loss summed over the rows seen, and their count; none of a
            private training.
    """

    start: Vector
    change: Vector
    steps: int
    metrics: dict[str, float]

    @property
    def model(self) -> Vector:
        """The weights received + their change: those it ended with, but for rounding."""
        return self.start.plus(self.change)


@dataclass(frozen=True, kw_only=True)
class LocalSGD:
    """The settings of local training.

    Args:
        lr: the clients' learning rate.
        local_steps: gradient steps a round; or
        local_epochs: passes over the client's rows a round. One of the two; one epoch if neither is given.
        batch_size: rows a step; None for all of them. The last batch of an epoch has the rest; where that is a
            single row, it and the batch before share their rows: 33 rows in batches of 32 are 17 and 16.
        optimizer: how a step is taken; its state starts anew every round.
        lr_schedule: multiplies lr, by round.
        max_grad_norm: scale a larger gradient down to this L2 norm; None for no limit.
        shuffle: draw a new order of the rows for every epoch; else take them as they lie.
        weighting: weigh updates by the client's "examples", or all the same ("uniform").
        dp: how single records are kept private, such as `RecordDP(norm=1.0, noise_multiplier=1.1)`; None for not. A
            batch then has batch_size rows on average, each drawn by a coin of its own.

    Raises:
        ConfigError: a setting is out of range, both steps and epochs are given, or dp is and settings that would have
            no effect beside it.
    """

    lr: float = 0.01
    local_steps: int | None = None
    local_epochs: int | None = None
    batch_size: int | None = 32
    optimizer: Optimizer = field(default_factory=SGD)
    lr_schedule: Schedule = field(default_factory=Constant)
    max_grad_norm: float | None = None
    shuffle: bool = True
    weighting: Weighting = "examples"
    dp: RecordPrivacy | None = None

    def __post_init__(self) -> None:
        check_numbers(self, "lr")
        check_counts(self, "local_steps", "local_epochs", "batch_size", optional=True)
        if self.local_steps is not None and self.local_epochs is not None:
            raise ConfigError(f"{type(self).__name__}: give local_steps or local_epochs, not both.")
        check_part(self, "optimizer", Optimizer, PARTS)
        check_part(self, "lr_schedule", Schedule, PARTS)
        check_numbers(self, "max_grad_norm", positive=True, optional=True)
        check_choice(self, "weighting", get_args(Weighting))
        if self.dp is not None:
            check_part(self, "dp", RecordPrivacy, PARTS)
            check_beside(type(self).__name__, self.max_grad_norm, self.shuffle)

    def correct(self, gradient: Array, weights: Array, anchors: Mapping[str, Array]) -> None:
        """Correct a step's gradient in place: all that most algorithms of the family change.

        Elementwise on flat arrays, so that one client's vector and a cohort's `[clients, parameters]` read alike.

        Args:
            gradient: the gradient of the loss at `weights`.
            weights: the client's present weights.
            anchors: "start", the weights received; and the vectors that `local_training` was given.
        """

    def local_rate(self, round: int) -> float:
        """Return the clients' learning rate in this round."""
        # A schedule of one's own may give a numpy scalar, which would promote float32 weights.
        return float(self.lr * self.lr_schedule.factor(round))

    def local_training(
        self,
        model: Any,
        start: Vector,
        rows: Rows,
        round: int,
        seed: Seed,
        anchors: Mapping[str, Vector] | None = None,
    ) -> Trained:
        """Train on one client's rows, from the weights received.

        Args:
            model: a GradientModel, or a FittingModel that trains by its own means.
            start: the weights received.
            rows: the client's training rows.
            round: the round, for the rate schedule.
            seed: of this client in this round.
            anchors: vectors in the layout `start.layout.wide` for `correct`.

        Raises:
            ModelError: the algorithm needs gradients that the model does not give, or has settings that a
                model which trains by its own means would not heed.
            DataError: there are no rows.
            ClientError: a gradient that `max_grad_norm` is to bound is NaN or infinite.
        """
        check_rows(rows)
        if gives_gradients(model):
            return self._descend(model, start, rows, round, seed, anchors or {})
        if self.dp is not None:
            raise no_gradients(type(model).__name__)
        if not isinstance(model, FittingModel):
            raise ModelError(
                f"{type(self).__name__} trains by gradients; {type(model).__name__} has none. Use OneShot."
            )
        self._check_fits(type(model).__name__)
        epochs = self.local_epochs or 1
        fitted, loss = model.fit(start, rows, epochs, seed)
        seen = epochs * len(rows)
        return Trained(start, fitted.minus(start), seen, {"loss": loss * seen, "rows": seen})

    def _check_fits(self, model: str) -> None:
        """Refuse what has no effect on a model that trains by its own means."""
        if type(self).correct is not LocalSGD.correct:
            raise ModelError(
                f"{type(self).__name__} corrects gradients, but {model} trains by its own means; use FedAvg or a "
                "server optimiser on top of it."
            )
        own = ("lr", "lr_schedule", "local_steps", "batch_size", "optimizer", "max_grad_norm", "shuffle")
        set_here = [name for name in own if getattr(self, name) != getattr(LocalSGD(), name)]
        if set_here:
            raise ModelError(
                f"{model} trains by its own means, so {', '.join(set_here)} of {type(self).__name__} would have no "
                "effect: set such things on the estimator, and local_epochs here."
            )

    def _descend(
        self,
        model: GradientModel,
        start: Vector,
        rows: Rows,
        round: int,
        seed: Seed,
        anchors: Mapping[str, Vector],
    ) -> Trained:
        session = model.session()
        session.load(start)
        if self.dp is not None:
            plan = self.plan(len(rows))
            differentiate, batches = private_steps(self.dp, session, rows, plan.size, plan.total)
        else:
            session.bind(rows, seed.child("model"))
            differentiate = session.gradient
            batches = self._batches(session, len(rows), seed.child("shuffle"))
        step = self._stepping(session, differentiate, start, anchors, self.local_rate(round))
        count, loss_sum, seen = 0, 0.0, 0
        for index, size in batches:
            count += 1
            loss_sum += step(index, count) * size
            seen += size
        metrics = {"loss": float(loss_sum), "rows": seen} if self.dp is None else {}
        return Trained(start, session.change(start), count, metrics)

    def record_release(self, n: int, rounds: int) -> Release | None:
        """Return what a client with n rows releases about one of them in so many rounds; None without `dp`."""
        if self.dp is None:
            return None
        plan = self.plan(n)
        return self.dp.release(plan.size / n, plan.total * rounds)

    def unstackable(self) -> str | None:
        """Return why clients cannot be trained side by side, in a clause; None if they can."""
        return None if self.dp is None else "with dp every client draws batches of its own, of any size"

    @property
    def corrects(self) -> bool:
        """Whether `correct` does anything."""
        return type(self).correct is not LocalSGD.correct

    @property
    def plain(self) -> bool:
        """Whether a step is −lr · the gradient and nothing else."""
        return not (self.corrects or self.dp or self.max_grad_norm is not None) and self.optimizer == _PLAIN

    def _stepping(
        self,
        session: Session,
        differentiate: Differentiate,
        start: Vector,
        anchors: Mapping[str, Vector],
        lr: float,
    ) -> "Callable[[Batch, int], Array]":
        """Return what takes a step on some rows, given the number of the step, and returns the loss."""
        if self.plain and descends(session):
            return lambda index, count: session.descend(index, lr)
        weights, gradients = session.weights, session.gradients
        parts: list[dict[str, Array]] = [{} for _ in weights]
        if self.corrects:
            for name, vector in {"start": start.widened(), **anchors}.items():
                for part, array in zip(parts, session.arrays(vector), strict=True):
                    part[name] = array
        slots = [init_slots(self.optimizer, array) for array in weights]

        def step(index: Batch, count: int) -> Array:
            loss = differentiate(index)
            if self.max_grad_norm is not None:
                _clip(gradients, self.max_grad_norm)
            for array, gradient, slot, part in zip(weights, gradients, slots, parts, strict=True):
                if self.corrects:
                    self.correct(gradient, array, part)
                self.optimizer.step(array, gradient, slot, count, lr)
            return loss

        return step

    def plan(self, n: int) -> "Plan":
        """Return the steps of a client with n rows."""
        size = n if self.batch_size is None else min(self.batch_size, n)
        per_epoch = -(-n // size)
        total = self.local_steps if self.local_steps is not None else (self.local_epochs or 1) * per_epoch
        # Batch norm cannot take a lone last row: the batch before it then lends it half of its own.
        return Plan(n, size, per_epoch, total, lent=(size - 1) // 2 if n % size == 1 else 0)

    def _batches(self, session: Session, n: int, seed: Seed) -> Iterator[tuple[Batch, int]]:
        """Yield the rows of each step, and how many they are."""
        plan = self.plan(n)
        if plan.size == n:
            yield from [(None, n)] * plan.total
            return
        batches = [plan.batch(place) for place in range(min(plan.total, plan.per_epoch))]
        order = np.arange(n)
        for step in range(plan.total):
            epoch, place = divmod(step, plan.per_epoch)
            if place == 0 and self.shuffle:
                order = shuffle(seed, epoch, n)
                if arranges(session):
                    session.arrange(order)
            start, stop = batches[place]
            yield slice(start, stop) if arranges(session) else order[start:stop], stop - start


# A number; or an array with one for each of many clients.
Count = Any


@dataclass(frozen=True)
class Plan:
    """The steps of a client's local training, or of many clients'.

    Args:
        rows: the number of its rows.
        size: rows a step, but for the last step of an epoch.
        per_epoch: steps an epoch.
        total: steps a round.
        lent: rows that the last batch of an epoch takes over from the batch before.
    """

    rows: Count
    size: Count
    per_epoch: Count
    total: Count
    lent: Count

    def batch(self, place: Count) -> tuple[Count, Count]:
        """Return where the rows of a step begin and end in the order of its epoch.

        Args:
            place: the step's place in its epoch, 0 for the first.
        """
        last = self.per_epoch - 1
        start = place * self.size - self.lent * (place == last)
        stop = (place + 1) * self.size - self.lent * (place == last - 1)
        return start, stop - (stop > self.rows) * (stop - self.rows)


def gradient_of(session: Session, layout: Layout) -> Vector:
    """Return the gradient that a session has computed, in the layout `layout.wide`; 0 for buffers."""
    gradient = Vector.zeros(layout.wide)
    computed = iter(session.gradients)
    for segment, flat in zip(layout.segments, gradient.flats, strict=True):
        if segment.role == "parameter":
            flat[:] = _as_numpy(next(computed))
    return gradient


def _as_numpy(array: Array) -> NDArray[np.floating[Any]]:
    if isinstance(array, np.ndarray):
        return array
    # numpy has no bfloat16.
    return (array.float() if array.dtype.itemsize < 4 else array).cpu().numpy()


def check_rows(rows: Rows) -> None:
    """Refuse to train on nothing.

    Raises:
        DataError: there are no rows.
    """
    if not len(rows):
        raise DataError("there are no training rows; leave this client out, or give it some.")


def _clip(gradients: Sequence[Array], max_norm: float) -> None:
    norm = _norm(gradients)
    if not math.isfinite(norm):
        raise ClientError(
            f"the norm of the gradient is {norm:g}; lower the learning rate, or look for NaN, infinite or huge "
            "values in the client's rows."
        )
    if norm > max_norm:
        for gradient in gradients:
            gradient *= max_norm / norm


def _norm(gradients: Sequence[Array]) -> float:
    """Return the L2 norm of flat arrays, accumulated in float64: in half precision 256² overflows already."""
    total: Any = 0.0
    for gradient in gradients:
        for start in range(0, len(gradient), _BLOCK):
            block = gradient[start : start + _BLOCK]
            wide = block.astype(np.float64) if isinstance(block, np.ndarray) else block.double()
            # Of a tensor the sum stays on its device until the last of the blocks.
            total = total + (wide * wide).sum()
    return math.sqrt(total)
