"""What stages have in common that send a linear map of the trained parameters, the same for all clients of a round."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpact.channel.transform import (
    Kind,
    RoundContext,
    StageState,
    Transform,
    check_averages,
    check_may_change,
)
from fedpact.core.errors import ChannelError, ConfigError, UpdateError
from fedpact.core.messages import Aggregate, Update
from fedpact.core.seeds import Seed
from fedpact.core.settings import check_counts, check_numbers
from fedpact.core.vector import Entry, Layout, Vector

Floats = NDArray[np.floating]

# What rounding the results of a map of norm 1 to float32 may add to a norm, sixteen times as much.
ROUNDING = 1 + 2.0**-20
_NAME = "parameters"


class LinearMap(Transform, ABC):
    """A stage that sends A·x in the place of x, all trained parameters of an averaged vector as one flat array.

    Behind it a vector has one parameter array, "parameters", of the widest dtype among those before, and its buffers
    as they were. Averaged vectors that answer no array of the task, such as counts of earlier stages, pass as they are.

    A has norm at most 1, so that a bound before it holds behind it too, but for rounding. An update with a NaN or an
    infinity is refused by name (`UpdateError`).

    Attributes:
        whole_models: whether it may be given models, and not only changes of models or gradients.
    """

    kind: ClassVar[Kind] = "compress"
    whole_models: ClassVar[bool] = False

    @abstractmethod
    def size_behind(self, size: int) -> int:
        """Return how many numbers are sent in the place of so many parameters, 1 or more."""

    @abstractmethod
    def forward(self, values: Floats, seed: Seed) -> Floats:
        """Return A·x; values may not be written to."""

    @abstractmethod
    def backward(self, values: Floats, size: int, seed: Seed) -> Floats:
        """Return an estimate of x, of this size, from A·x; linear too."""

    def bound(self, before: float, state: StageState) -> float:
        return before * ROUNDING

    def check(self, before: Sequence[Transform], algorithm: Any, layout: Layout | None) -> None:
        check_averages(self, algorithm)
        check_may_change(self, algorithm)

    def layout_behind(self, layout: Layout, state: StageState | None = None) -> Layout:
        parameters = [segment for segment in layout.segments if segment.role == "parameter"]
        size = sum(segment.size for segment in parameters)
        if not size:
            return layout
        dtype = np.result_type(*(segment.dtype for segment in parameters)).name
        buffers = [entry for entry in layout.entries if entry.role == "buffer"]
        return Layout([Entry(_NAME, (self.size_behind(size),), dtype), *buffers])

    def encode(self, update: Update, context: RoundContext) -> Update:
        check_changes(self, update)
        averaged = dict(update.averaged)
        for name in context.layouts.keys() & averaged.keys():
            vector = averaged[name]
            check_finite(vector, update.client)
            if parameters_of(vector).size:
                sent = self.forward(parameters_of(vector), self.seed_of(name, context))
                averaged[name] = with_parameters(self.layout_behind(vector.layout), sent, vector)
        return replace(update, averaged=averaged)

    def decode(self, aggregate: Aggregate, context: RoundContext) -> Aggregate:
        means = dict(aggregate.means)
        for name, layout in context.layouts.items():
            if name in means and (size := parameter_count(layout)):
                values = self.backward(means[name][_NAME], size, self.seed_of(name, context))
                means[name] = with_parameters(layout, values, means[name])
        return replace(aggregate, means=means)

    def seed_of(self, name: str, context: RoundContext) -> Seed:
        """Return what the map of an averaged vector is drawn from."""
        return context.seed.child(name)


def check_changes(stage: LinearMap | Transform, update: Update) -> None:
    """Refuse whole models, unless the stage takes them.

    Raises:
        ChannelError: what a model lacks behind the stage would be zero.
    """
    if update.kind == "model" and not getattr(stage, "whole_models", False):
        raise ChannelError(
            f'{type(stage).__name__} keeps only part of what it is given, and client "{update.client}" sent a whole '
            'model; have clients send the change of the model instead (kind "delta").'
        )


def check_finite(vector: Vector, client: str) -> None:
    """Refuse what is no number, by name, before it is mixed with the rest.

    Raises:
        UpdateError: an element is NaN or infinite.
    """
    start = 0
    for flat in vector.flats:
        finite = np.isfinite(flat)
        if not finite.all():
            place = int(np.argmin(finite))
            raise UpdateError(
                f'client "{client}": {vector.layout.locate(start + place)} is {float(flat[place])}; lower the learning '
                "rate or look for such values in the client's rows."
            )
        start += flat.size


def check_amount(stage: Any) -> None:
    """Check that one of the settings `fraction` and `k` is given, a fraction in (0, 1] or a count.

    Raises:
        ConfigError: both or none is given, or it is out of its range.
    """
    if (stage.fraction is None) == (stage.k is None):
        name = type(stage).__name__
        raise ConfigError(
            f"{name}: give either fraction, the share of numbers to send, or k, their number: {name}(0.1) or "
            f"{name}(k=1000)."
        )
    check_numbers(stage, "fraction", positive=True, at_most=1, optional=True)
    check_counts(stage, "k", optional=True)


def amount_of(stage: Any, size: int) -> int:
    """Return how many of so many numbers are sent: at least one, and no more than there are."""
    return min(size, stage.k if stage.k is not None else max(1, round(stage.fraction * size)))


def parameter_count(layout: Layout) -> int:
    """Return the number of trained parameters."""
    return sum(segment.size for segment in layout.segments if segment.role == "parameter")


def parameters_of(vector: Vector) -> Floats:
    """Return the trained parameters as one flat array, a view where they are of one dtype."""
    pairs = zip(vector.flats, vector.layout.segments, strict=True)
    flats = [flat for flat, segment in pairs if segment.role == "parameter"]
    return flats[0] if len(flats) == 1 else np.concatenate([np.empty(0, np.float32), *flats])


def with_parameters(layout: Layout, values: Floats, buffers: Vector) -> Vector:
    """Return a vector of this layout with these parameters, and the buffers of another."""
    vector, start = Vector.zeros(layout), 0
    # What becomes infinite is refused where it is summed.
    with np.errstate(over="ignore"):
        for flat, segment in zip(vector.flats, layout.segments, strict=True):
            if segment.role == "parameter":
                flat[:] = values[start : start + flat.size]
                start += flat.size
    for entry in layout.entries:
        if entry.role == "buffer":
            vector[entry.name] = buffers[entry.name]
    return vector
