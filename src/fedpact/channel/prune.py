"""Pruning: the global model becomes sparse on a schedule, and what is 0 is neither sent down nor up.

Zhu and Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model compression", 2017, equation 1;
whole units as in Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, by their L2 norm.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpact.channel.linear_map import check_changes
from fedpact.channel.selection import largest
from fedpact.channel.transform import (
    Kind,
    RoundContext,
    StageState,
    Transform,
    check_averages,
    check_may_change,
)
from fedpact.core.errors import ChannelError, ConfigError, suggest
from fedpact.core.messages import Aggregate, Task, Update
from fedpact.core.settings import check_counts, check_flags, check_numbers
from fedpact.core.vector import Entry, Layout, Vector

_MODEL = "model"


@dataclass(frozen=True)
class Prune(Transform):
    """Set the smallest weights of each matrix of the global model to 0, more of them from round to round.

    In round t, counted from 0, a share s(t) of each is 0: 0 before `start`, `sparsity` from `end` on, and between them
    s(t) = sparsity + (initial − sparsity)·(1 − (t − start) / (end − start))³, which changes every `every` rounds; one
    weight of each is left at least. Which they are follows from the model as the round begins. The model that a round
    with pruning ends with has exactly these zeros, so that the last one does too.

    Pruned are trained parameters of two axes or more, or all that have an axis where there is none of two. With
    `structured`, whole rows are: units of a layer or filters, those with the smallest L2 norm, in all arrays of two
    axes or more but the last, whose rows are what the model tells apart; one row of each is left at least.

    Clients are sent which weights are left, a bit for each weight or row, and those weights. They train the whole model
    from there, and send the changes of those that are left. All clients of a round leave out the same, so that sums may
    be masked. Behind it the arrays that are pruned have one axis.

    State, in a round alone: "kept", parameter → the bits of which weights or rows are left, packed.

    Args:
        sparsity: the share of zeros in the end, in (0, 1).
        start: the round that pruning begins with.
        end: the round from which on there is the whole of it; None for `start`, which is all at once.
        initial: the share in the round `start`, where that is before `end`; at most `sparsity`.
        every: how many rounds a share holds.
        structured: whether whole rows are pruned.
        skip: names of parameters that are not.

    Raises:
        ConfigError: a setting is out of its range.
    """

    sparsity: float
    start: int = 0
    end: int | None = None
    initial: float = 0.0
    every: int = 1
    structured: bool = False
    skip: tuple[str, ...] = ()

    kind: ClassVar[Kind] = "compress"

    def __post_init__(self) -> None:
        check_numbers(self, "sparsity", positive=True, below=1)
        check_numbers(self, "initial", at_most=self.sparsity)
        check_counts(self, "every")
        check_flags(self, "structured")
        for name in ("start", "end"):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= 0
            if not whole and not (name == "end" and value is None):
                raise ConfigError(f"Prune: {name} is {value}; it must be a round, 0 or more.")
        if self.end is not None and self.end < self.start:
            raise ConfigError(f"Prune: end is {self.end}, before start, which is {self.start}.")
        object.__setattr__(self, "skip", (self.skip,) if isinstance(self.skip, str) else tuple(self.skip))

    def sparsity_in(self, round: int) -> float:
        """Return the share of zeros in a round, counted from 0."""
        end = self.start if self.end is None else self.end
        if round < self.start:
            return 0.0
        if round >= end:
            return self.sparsity
        done = (round - self.start) // self.every * self.every / (end - self.start)
        return self.sparsity + (self.initial - self.sparsity) * (1 - done) ** 3

    def bound(self, before: float, state: StageState) -> float:
        """Return the bound before it: part of an update is no larger than all of it."""
        return before

    def check(self, before: Sequence[Transform], algorithm: Any, layout: Layout | None) -> None:
        """Refuse a server that does not add changes as they are, and a model of which nothing can be pruned."""
        check_averages(self, algorithm)
        check_may_change(self, algorithm)
        if not getattr(algorithm, "adds_means", False):
            raise ChannelError(
                "Prune needs a server that adds the mean change to the model as it is, or zeros would not stay zeros: "
                "train with FedAvg or FedProx, with server_lr=1 and the plain SGD for a server_optimizer."
            )
        for stage in before:
            if stage.kind == "download":
                name = type(stage).__name__
                raise ChannelError(f"{name} sends what Prune has left of the model; put Prune before {name}.")
        if layout is None:
            return
        names = [entry.name for entry in layout.entries if entry.role == "parameter"]
        for name in self.skip:
            if name not in names:
                raise ChannelError(
                    f'Prune: the model has no parameter "{name}" to skip.{suggest(name, names)}'
                )
        if not any(self._pruned(layout)):
            what = "matrix but the last" if self.structured else "parameter of an axis"
            raise ChannelError(
                f"Prune finds nothing to prune: the model has no {what}"
                f"{' that is not in skip' if self.skip else ''}; take Prune out of the channel."
            )

    def layout_behind(self, layout: Layout, state: StageState | None = None) -> Layout:
        if not state:
            return layout
        kept = self._kept(layout, state)
        return Layout(
            replace(entry, shape=(int(np.count_nonzero(kept[entry.name])),)) if entry.name in kept else entry
            for entry in layout.entries
        )

    def begin(self, task: Task, state: StageState) -> StageState:
        """Return which weights are left in the round.

        Raises:
            ChannelError: the task has arrays of another layout than the model.
        """
        model, share = task.arrays.get(_MODEL), self.sparsity_in(task.version)
        if not share or model is None:
            return {}
        for name, vector in task.arrays.items():
            if vector.layout != model.layout:
                raise ChannelError(
                    f'Prune goes with tasks of models alone, and "{name}" of this one is none.'
                )
        wide = model.widened()
        return {"kept": {e.name: self._left(wide[e.name], share) for e in self._pruned(wide.layout)}}

    def send(self, task: Task, context: RoundContext) -> Task:
        """Set what is pruned to 0; which that is, clients are told with the state, whose bytes are counted there."""
        if not context.state:
            return task
        # To take them out of the server's model when the round ends.
        context.scratch[_MODEL] = task.arrays[_MODEL]
        arrays, sent = {}, task.nbytes
        for name, vector in task.arrays.items():
            arrays[name] = vector.copy()
            for parameter, left in self._kept(vector.layout, context.state).items():
                array = arrays[name][parameter].reshape(-1)
                array[~left] = 0
                sent -= array.itemsize * (left.size - int(np.count_nonzero(left)))
        return replace(task, arrays=arrays, sent_bytes=sent)

    def encode(self, update: Update, context: RoundContext) -> Update:
        """Leave out what is pruned.

        Raises:
            ChannelError: the update is a whole model.
        """
        check_changes(self, update)
        if not context.state:
            return update
        averaged = dict(update.averaged)
        for name in context.layouts.keys() & averaged.keys():
            vector = averaged[name]
            kept = self._kept(vector.layout, context.state)
            averaged[name] = Vector.zeros(self.layout_behind(vector.layout, context.state))
            for parameter, array in averaged[name].items():
                values = vector[parameter]
                array[...] = values.reshape(-1)[kept[parameter]] if parameter in kept else values
        return replace(update, averaged=averaged)

    def decode(self, aggregate: Aggregate, context: RoundContext) -> Aggregate:
        """Put the changes in their places; what is pruned changes to 0."""
        if not context.state:
            return aggregate
        means = dict(aggregate.means)
        for name in context.layouts.keys() & means.keys():
            whole, kept = (
                Vector.zeros(context.layouts[name]),
                self._kept(context.layouts[name], context.state),
            )
            model = context.scratch[_MODEL].widened() if name == _MODEL else None
            for parameter, array in means[name].items():
                if parameter not in kept:
                    whole[parameter] = array
                    continue
                flat, left = whole[parameter].reshape(-1), kept[parameter]
                flat[left] = array
                if model is not None:
                    flat[~left] = -model[parameter].reshape(-1)[~left]
            means[name] = whole
        return replace(aggregate, means=means)

    def after(self, aggregate: Aggregate, context: RoundContext) -> StageState:
        """Return nothing: the next round finds what is left in the model."""
        return {}

    def _pruned(self, layout: Layout) -> Iterator[Entry]:
        arrays = [e for e in layout.entries if e.role == "parameter" and e.size]
        matrices = [e for e in arrays if len(e.shape) > 1]
        chosen = matrices[:-1] if self.structured else matrices or [e for e in arrays if e.shape]
        return (entry for entry in chosen if entry.name not in self.skip)

    def _left(self, weights: NDArray[np.floating], share: float) -> NDArray[np.uint8]:
        sizes = np.abs(weights.astype(np.float64))
        units = (
            np.linalg.norm(sizes.reshape(len(sizes), -1), axis=1) if self.structured else sizes.reshape(-1)
        )
        # Without any the array would let nothing through, and never learn again.
        return np.packbits(largest(units, max(1, units.size - round(share * units.size))))

    def _kept(self, layout: Layout, state: StageState) -> dict[str, NDArray[np.bool_]]:
        """Return parameter → which of its weights are left, all axes in one."""
        kept: Mapping[str, NDArray[np.uint8]] = state["kept"]
        masks = {}
        for entry in layout.entries:
            if entry.name in kept:
                units = entry.shape[0] if self.structured else entry.size
                left = np.unpackbits(kept[entry.name], count=units).view(np.bool_)
                masks[entry.name] = np.repeat(left, entry.size // units)
        return masks
