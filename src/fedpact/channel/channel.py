"""The channel: an ordered, checked chain of transforms between a client's update and the server's sum."""

import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from math import inf
from typing import Any

import numpy as np

from fedpact.channel.binding import binding
from fedpact.channel.mask import Mask
from fedpact.channel.noise import Noise
from fedpact.channel.quantile import COUNT
from fedpact.channel.quantize import Quantize
from fedpact.channel.round import ChannelRound, grid_of
from fedpact.channel.rules import check_order
from fedpact.channel.transform import RoundContext, StackTransform, StageState, Transform
from fedpact.core.accumulator import Accumulator
from fedpact.core.algorithm import ClientState
from fedpact.core.errors import ChannelError
from fedpact.core.grid import means_of
from fedpact.core.messages import Aggregate, Integers, Task, Update, Updates
from fedpact.core.seeds import Seed
from fedpact.core.vector import Layout
from fedpact.privacy.events import Mechanism

# Each draw is within the bound with a probability of 0.39 or more.
_DRAWS = 200


class Channel:
    """Stages in order: client halves first to last, server halves last to first.

    Checked when it is built, before any client is asked anything, and once more for the model's arrays where
    these are not known by then.

    Args:
        stages: the transforms.
        algorithm: the algorithm whose updates go through.
        layout: the model's; None as long as it is not known, or where there is no model.

    Raises:
        ChannelError: the stages do not go together, or not with this algorithm or model.
    """

    def __init__(self, stages: Sequence[Transform], algorithm: Any, layout: Layout | None = None) -> None:
        self.stages = tuple(stages)
        self._algorithm = algorithm
        check_order(self.stages)
        bound = limit = inf
        for place, stage in enumerate(self.stages):
            stage.check(self.stages[:place], algorithm, layout)
            if isinstance(stage, Noise | Mask | Quantize):
                stage.check_bounded(bound, limit)
            bound, limit = stage.bound(bound, {}), min(limit, stage.range_of({}))
            if stage.kind == "compress":
                limit = inf
        for stage in self.stages:
            if isinstance(stage, Noise):
                stage.check_whole(self.stages)

    @cached_property
    def mask(self) -> Mask | None:
        """The stage under which the server sees the sum alone."""
        return next((stage for stage in self.stages if isinstance(stage, Mask)), None)

    @cached_property
    def noise(self) -> Noise | None:
        """The stage that adds noise."""
        return next((stage for stage in self.stages if isinstance(stage, Noise)), None)

    @cached_property
    def _by_clients(self) -> bool:
        """Whether clients make their vectors integers themselves, instead of the server as it sums them."""
        return bool(self.mask) or any(
            isinstance(stage, Quantize) or (isinstance(stage, Noise) and stage.where != "central")
            for stage in self.stages
        )

    @cached_property
    def _packs(self) -> bool:
        """Whether clients send vectors in an encoding of their own."""
        return any(stage.kind == "pack" for stage in self.stages)

    @cached_property
    def _remembering(self) -> dict[int, str]:
        """Of the stages whose client halves keep something the place, and how the names of what they keep begin."""
        return {i: f"channel.{i}." for i, stage in enumerate(self.stages) if stage.remembers}

    def for_model(self, layout: Layout) -> "Channel":
        """Return the channel for a model of this layout.

        Raises:
            ChannelError: a stage cannot do its work with such a model.
        """
        return Channel(self.stages, self._algorithm, layout)

    def init(self, layouts: Mapping[str, Layout]) -> tuple[StageState, ...]:
        """Return what the stages' server halves keep before the first round.

        Args:
            layouts: array of the task → its layout.
        """
        states: list[StageState] = []
        layouts = {name: layout.wide for name, layout in layouts.items()}
        for stage in self.stages:
            states.append(stage.init(layouts))
            layouts = {name: stage.layout_behind(layout) for name, layout in layouts.items()}
        return tuple(states)

    def begin(
        self,
        task: Task,
        ids: Sequence[str],
        seed: Seed,
        states: Sequence[StageState] | None = None,
        cohort: float | None = None,
    ) -> ChannelRound:
        """Return the channel in one round; where sums are masked, the clients agree on their masks.

        Args:
            task: the task of the round.
            ids: the clients asked.
            seed: the channel's, in this round.
            states: what the stages' server halves keep; None for what they keep at first.
            cohort: how many clients a cohort has on average; None for as many as are asked.

        Raises:
            ChannelError: the task has buffers that nothing bounds, or the sum does not fit into its ring.
            SecureError: too few clients are there to agree on masks.
        """
        if not self.stages:
            return ChannelRound()
        if self.noise:
            # Once more where the model was not known before.
            for vector in task.arrays.values():
                self.noise.check(self.stages[: self.stages.index(self.noise)], self._algorithm, vector.layout)
        asked = len(ids)
        if states is None:
            states = self.init({name: vector.layout for name, vector in task.arrays.items()})
        states = [stage.begin(task, state) for stage, state in zip(self.stages, states, strict=True)]
        least = self.mask.least(asked) if self.mask else 1
        contexts, layouts, bound = [], _wide(task), inf
        for place, (stage, state) in enumerate(zip(self.stages, states, strict=True)):
            contexts.append(
                RoundContext(
                    round=task.version,
                    sensitivity=bound,
                    asked=asked,
                    cohort=asked if cohort is None else cohort,
                    least=least,
                    seed=seed.child("stage", place),
                    state=stage.told(state),
                    layouts=layouts,
                )
            )
            layouts = {name: stage.layout_behind(layout, state) for name, layout in layouts.items()}
            bound = stage.bound(bound, state)
        summed = layouts | {name: COUNT for stage in self.stages for name in stage.counts}
        dimension = sum(layout.size for layout in summed.values())
        grid = grid_of(self.stages, contexts, bound, dimension)
        contexts = [replace(context, grid=grid) for context in contexts]
        # Masks of clients that were given another task, or that encode otherwise, do not cancel.
        secrets, held = (
            self.mask.agree(ids, contexts[-1], binding(task, contexts)) if self.mask else ({}, None)
        )
        known = layouts if any(stage.kind == "compress" for stage in self.stages) else None
        return ChannelRound(
            tuple(contexts),
            known,
            dimension,
            summed,
            dict(secrets),
            held,
            tuple(states),
        )

    def send(self, task: Task, round: ChannelRound) -> Task:
        """Return the task as it goes down to the clients."""
        for stage, context in zip(self.stages, round.contexts, strict=True):
            task = stage.send(task, context)
        return task

    def encode(
        self, update: Update, round: ChannelRound, kept: ClientState, keeps: ClientState
    ) -> tuple[Update, ClientState]:
        """Return the update as it leaves the client, and what the client keeps.

        Args:
            update: what the algorithm made.
            round: the channel in this round.
            kept: what the client kept from its last round.
            keeps: what the algorithm has it keep from this one.

        Raises:
            UpdateError: the update is refused.
        """
        if not self.stages:
            return update, keeps
        notes: dict[str, float] = {}
        size = update.nbytes
        for place, (stage, context) in enumerate(zip(self.stages, round.contexts, strict=True)):
            start, prefix = time.perf_counter(), self._remembering.get(place)
            if prefix is None:
                update = stage.encode(update, context)
            else:
                memory: ClientState = {
                    n.removeprefix(prefix): v for n, v in kept.items() if n.startswith(prefix)
                }
                update, memory = stage.encode_remembering(update, memory, context)
                others = {n: v for n, v in keeps.items() if not n.startswith(prefix)}
                keeps = {**others, **{prefix + name: vector for name, vector in memory.items()}}
            notes[f"{_named(stage)}.seconds"] = time.perf_counter() - start
            notes[f"{_named(stage)}.bytes_in"], size = size, update.nbytes
            notes[f"{_named(stage)}.bytes_out"] = size
        if self._by_clients:
            update = self._as_integers(update, round, notes)
        return replace(update, notes={**update.notes, **notes}), keeps

    def _as_integers(self, update: Update, round: ChannelRound, notes: dict[str, float]) -> Update:
        update = replace(update, averaged={}, integers=self._rounded(update, round))
        for stage, context in zip(self.stages, round.contexts, strict=True):
            start = time.perf_counter()
            secret = round.secrets.pop(update.client, None) if isinstance(stage, Mask) else None
            update = stage.encode_integers(update, replace(context, secret=secret) if secret else context)
            notes[f"{_named(stage)}.seconds"] += time.perf_counter() - start
            if stage.kind in ("quantize", "mask"):
                notes[f"{_named(stage)}.bytes_out"] = update.nbytes
        return update

    def _rounded(self, update: Update, round: ChannelRound) -> Integers:
        grid, most, generator = round.grid, inf, None
        assert grid is not None
        weight = 1.0 if self.mask and self.mask.weighs else update.weight
        for stage, context in zip(self.stages, round.contexts, strict=True):
            if isinstance(stage, Quantize) and stage.stochastic:
                generator = context.seed.child("client", update.client).generator()
            elif isinstance(stage, Noise) and generator is not None:
                dimension = sum(vector.layout.size for vector in update.averaged.values())
                most = stage.integer_bound(grid, context.sensitivity, dimension)
        for _ in range(_DRAWS):
            integers = grid.integers(update.averaged, weight, update.client, generator)
            # Redrawn, so that the norm is within what the noise is made for (Kairouz, Liu and Steinke, 2021).
            if most == inf or _norm(integers) <= most:
                return integers
        raise ChannelError(
            f'the update of client "{update.client}" was rounded {_DRAWS} times, and its norm was never within what '
            "the noise is made for: a stage before the noise enlarges updates beyond the bound that it declares."
        )

    def encode_stack(self, updates: Updates, round: ChannelRound) -> Updates | None:
        """Return many clients' updates as they leave them, or None where they can only be encoded one at a time.

        Raises:
            UpdateError: a client's update is refused.
        """
        stages = [stage for stage in self.stages if isinstance(stage, StackTransform)]
        if len(stages) < len(self.stages) or self._by_clients:
            return None
        for stage, context in zip(stages, round.contexts, strict=True):
            start, size = time.perf_counter(), updates.nbytes
            updates = stage.encode_stack(updates, context)
            count = len(updates.clients)
            noted = {
                f"{_named(stage)}.seconds": time.perf_counter() - start,
                f"{_named(stage)}.bytes_in": float(size * count),
                f"{_named(stage)}.bytes_out": float(updates.nbytes * count),
            }
            updates = replace(updates, notes={**updates.notes, **noted})
        return updates

    def receive(self, update: Update, round: ChannelRound) -> Update:
        """Return an update as it is summed.

        Raises:
            UpdateError: it is not what a client's half of the channel makes.
        """
        if update.packed or update.integers is not None or self._packs:
            for stage, context in zip(reversed(self.stages), reversed(round.contexts), strict=True):
                update = stage.receive(update, context)
        return update

    def aggregate(self, sums: Accumulator, round: ChannelRound) -> tuple[Aggregate, tuple[StageState, ...]]:
        """Return a round's aggregate as the algorithm sees it, and what the stages' server halves keep.

        Raises:
            SecureError: too few clients are left for the sum to be opened.
        """
        aggregate = sums.aggregate() if round.grid is None else self._opened(sums, round)
        states = []
        for stage, context in zip(reversed(self.stages), reversed(round.of_server()), strict=True):
            start = time.perf_counter()
            aggregate, given = stage.decode(aggregate, context), aggregate
            states.append(stage.after(given, context))
            round.note(f"{_named(stage)}.server_seconds", time.perf_counter() - start)
        return aggregate, tuple(reversed(states))

    def of_nobody(self, sums: Accumulator, round: ChannelRound) -> None:
        """Make the sum over no client of an empty one: what is released of a cohort that nobody was drawn for."""
        assert round.grid is not None
        zeros = {name: np.zeros(layout.size, np.int64) for name, layout in round.summed.items()}
        sums.add_nothing(Integers(round.grid.step, zeros, round.summed))

    def mechanism(self, round: ChannelRound) -> Mechanism | None:
        """Return the noise of a round as accountants know it; None where none is added."""
        if not self.noise:
            return None
        return self.noise.mechanism(round.contexts[self.stages.index(self.noise)], round.dimension)

    @property
    def weighs_rows(self) -> bool:
        """Whether a client's update weighs as much as it has rows."""
        return getattr(self._algorithm, "weighting", "uniform") == "examples"

    def seen(self) -> str:
        """Return what the server sees of a client's update, in a clause."""
        how = (
            "with the client's own noise on it" if self.noise and self.noise.where == "local" else "as it is"
        )
        if self.mask:
            return self.mask.seen()
        packed = [
            type(stage).__name__
            for stage in self.stages
            if stage.kind in ("clip", "compress", "pack", "quantize")
        ]
        behind = f", behind {', '.join(packed)}" if packed else ""
        return f"each client's update {how}{behind}"

    def traffic(
        self, round: ChannelRound, sent: Mapping[str, int]
    ) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """Return client → the bytes that it was sent besides the task, and that it sent in all.

        Args:
            round: the channel in this round.
            sent: client → the bytes of its update.
        """
        return self.mask.traffic(round.held, sent) if self.mask else ({}, sent)

    def measured(self, notes: Mapping[str, float], clients: int, round: ChannelRound) -> dict[str, float]:
        """Return what the stages measured in a round: means over the clients, and what the server measured.

        Args:
            notes: what was measured at the clients, added up;
            clients: and at how many.
            round: the channel in this round.
        """
        measured = {name: total / clients for name, total in notes.items()} | round.seconds
        if self.noise and round.grid:
            place = self.stages.index(self.noise)
            dimension = round.dimension
            context = round.contexts[place]
            measured["noise.std"] = self.noise.std(context, dimension, clients)
            bound = self.noise.integer_bound(round.grid, context.sensitivity, dimension) * round.grid.step
            measured["noise.rounding_inflation"] = bound / context.sensitivity
        return measured

    def _opened(self, sums: Accumulator, round: ChannelRound) -> Aggregate:
        aggregate, total = sums.aggregate(means=False), sums.integers()
        if self.mask:
            start = time.perf_counter()
            opened = self.mask.open(total, sorted(sums.clients), round.held, round.contexts[-1])
            round.note(f"{_named(self.mask)}.server_seconds", time.perf_counter() - start)
            total = opened.integers
            aggregate = replace(aggregate, weight=opened.weight, metrics=opened.metrics, count=opened.count)
        for stage, context in zip(reversed(self.stages), reversed(round.of_server()), strict=True):
            start = time.perf_counter()
            total = stage.decode_integers(total, context)
            round.note(f"{_named(stage)}.server_seconds", time.perf_counter() - start)
        # With noise the mean must not depend on how many clients answered: one more or less would show.
        divisor = round.contexts[-1].cohort if self.noise else aggregate.weight
        return replace(aggregate, weight=divisor, means=means_of(total, divisor))


def _named(stage: Transform) -> str:
    """Return a stage's name as measurements have it: "secure_sum"."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(stage).__name__).lower()


def _norm(integers: Integers) -> float:
    return math.hypot(
        *(float(np.linalg.norm(array.astype(np.float64))) for array in integers.arrays.values())
    )


def _wide(task: Task) -> dict[str, Layout]:
    return {name: vector.layout.wide for name, vector in task.arrays.items()}
