"""What stages have in common that give each client's trained parameters an encoding of their own."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpact.channel.linear_map import (
    Floats,
    check_changes,
    check_finite,
    parameter_count,
    parameters_of,
)
from fedpact.channel.transform import Kind, RoundContext, Transform, check_averages, check_may_change
from fedpact.core.algorithm import ClientState
from fedpact.core.errors import UpdateError
from fedpact.core.messages import Update
from fedpact.core.packed import Packed
from fedpact.core.seeds import Seed
from fedpact.core.vector import STORAGE, Layout, Segment, Vector

_BUFFERS = "buffers."
_NAME = "parameters"


class Packer(Transform, ABC):
    """A stage that sends a code in the place of the trained parameters of each averaged vector, as one flat array.

    Buffers are sent whole: a counter of batches would not survive. Averaged vectors that answer no array of the task,
    such as counts of earlier stages, pass as they are. An update with a NaN or an infinity is refused by name
    (`UpdateError`).

    The server undoes the code for each client before it sums, so it stands in a channel without noise or masks.

    Attributes:
        whole_models: whether it may be given models, and not only changes of models or gradients.
    """

    kind: ClassVar[Kind] = "pack"
    whole_models: ClassVar[bool] = False

    @abstractmethod
    def pack(self, values: Floats, layout: Layout, seed: Seed, sender: str) -> Packed:
        """Return the code of the parameters.

        Args:
            values: the parameters [d], d ≥ 1; they may not be written to.
            layout: of the vector that they are from.
            seed: of this client's vector in this round, the same at the server.
            sender: the client and the vector, for messages.

        Raises:
            UpdateError: the code cannot hold the values.
        """

    @abstractmethod
    def unpack(self, packed: Packed, seed: Seed, sender: str) -> Floats:
        """Return the parameters [d] that a code stands for.

        Raises:
            UpdateError: it is no code that `pack` makes.
        """

    def check(self, before: Sequence[Transform], algorithm: Any, layout: Layout | None) -> None:
        check_averages(self, algorithm)
        check_may_change(self, algorithm)

    def encode(self, update: Update, context: RoundContext) -> Update:
        return self.encode_remembering(update, {}, context)[0]

    def encode_remembering(
        self, update: Update, memory: ClientState, context: RoundContext
    ) -> tuple[Update, ClientState]:
        """Pack the vectors.

        Raises:
            UpdateError: a number is NaN, infinite, or too large for the code.
            ChannelError: the update is a whole model, of which the code keeps only part.
        """
        check_changes(self, update)
        averaged, packed, keeps = dict(update.averaged), dict(update.packed), dict[str, Vector]()
        for name in sorted(context.layouts.keys() & averaged.keys()):
            vector, seed = averaged[name], _seed(update, name, context)
            check_finite(vector, update.client)
            values = parameters_of(vector)
            if not values.size:
                continue
            before = {
                n.removesuffix(f".{name}"): v[_NAME] for n, v in memory.items() if n.endswith(f".{name}")
            }
            code, after = self.pack_remembering(values, before, vector.layout, seed, _sender(update, name))
            keeps |= {f"{n}.{name}": Vector.from_arrays({_NAME: array}) for n, array in after.items()}
            packed[name] = replace(code, arrays={**code.arrays, **_buffers(vector)})
            del averaged[name]
        return replace(update, averaged=averaged, packed=packed), keeps

    def pack_remembering(
        self, values: Floats, kept: Mapping[str, Floats], layout: Layout, seed: Seed, sender: str
    ) -> tuple[Packed, Mapping[str, Floats]]:
        """Return the code of the parameters, and what the client keeps for its next round: arrays [d] by name.

        Args:
            values: as in `pack`.
            kept: what the client kept from its last round.
            layout: as in `pack`.
            seed: as in `pack`.
            sender: as in `pack`.
        """
        return self.pack(values, layout, seed, sender), {}

    def receive(self, update: Update, context: RoundContext) -> Update:
        """Unpack the vectors.

        Raises:
            UpdateError: what arrived is not what a client half makes.
        """
        averaged = dict(update.averaged)
        for name, layout in context.layouts.items():
            if name in averaged and parameter_count(layout):
                raise UpdateError(
                    f"{_sender(update, name)} came as it is, where {type(self).__name__} packs it."
                )
        for name, packed in update.packed.items():
            sender = _sender(update, name)
            check_expected(packed, context.layouts.get(name), sender)
            own = {n: array for n, array in packed.arrays.items() if not n.startswith(_BUFFERS)}
            buffers = replace(
                packed, arrays={n: a for n, a in packed.arrays.items() if n not in own}, numbers={}
            )
            # What is so large that it overflows is refused where it is summed.
            with np.errstate(over="ignore", invalid="ignore"):
                values = self.unpack(replace(packed, arrays=own), _seed(update, name, context), sender)
                averaged[name] = _vector(values, buffers, sender)
        return replace(update, averaged=averaged, packed={})


def check_expected(packed: Packed, layout: Layout | None, sender: str) -> None:
    """Refuse a packed vector that the round knows nothing of, or of another layout.

    Raises:
        UpdateError: it is such a one.
    """
    if layout is None or packed.layout != layout:
        raise UpdateError(f"{sender} came packed, with other arrays than the round expects.")


def check_code(
    packed: Packed, sender: str, arrays: Mapping[str, tuple[Any, int | None]], numbers: tuple[str, ...] = ()
) -> None:
    """Refuse a code of other parts than a stage makes.

    Args:
        packed: the code.
        sender: the client and the vector, for messages.
        arrays: name → the dtype and the size; None for a size that varies.
        numbers: the names of its numbers.

    Raises:
        UpdateError: a part is missing, one too many, of another dtype or size, or NaN or infinite.
    """
    if packed.arrays.keys() != arrays.keys() or packed.numbers.keys() != set(numbers):
        raise UpdateError(
            f"{sender} came as {_names(packed.arrays, packed.numbers)}; this round's code has "
            f"{_names(arrays, numbers)}."
        )
    for name, (dtype, size) in arrays.items():
        array = packed.arrays[name]
        if array.dtype != dtype or array.ndim != 1 or size not in (None, array.size):
            wanted = "" if size is None else f" ({size},)"
            raise UpdateError(
                f'{sender}: "{name}" came as {array.dtype} {array.shape}; it has to be {np.dtype(dtype)}{wanted}.'
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise UpdateError(f'{sender}: "{name}" came with values that are NaN or infinite.')
    for name in numbers:
        if not np.isfinite(packed.numbers[name]):
            raise UpdateError(f'{sender}: "{name}" came as {packed.numbers[name]}.')


def pieces_of(layout: Layout) -> list[slice]:
    """Return where each trained parameter of one element or more lies among all of them as one flat array."""
    pieces, start = [], 0
    for segment in layout.segments:
        if segment.role == "parameter":
            for entry in segment.entries:
                if entry.size:
                    pieces.append(slice(start, start + entry.size))
                start += entry.size
    return pieces


def check_held(number: float, sender: str) -> None:
    """Refuse a number of a code that has overflowed.

    Raises:
        UpdateError: it is infinite or NaN.
    """
    if not np.isfinite(number):
        raise UpdateError(f"{sender} is too large for its norm to be a float64; lower the learning rate.")


def float32_above(numbers: Any, sender: str) -> NDArray[np.float32]:
    """Return the least float32 that are not below numbers, which are 0 or more.

    Raises:
        UpdateError: a number is larger than any.
    """
    wide = np.asarray(numbers, np.float64)
    with np.errstate(over="ignore"):
        short = wide.astype(np.float32)
        short = np.where(short < wide, np.nextafter(short, np.float32(np.inf)), short)
    if not np.isfinite(short).all():
        raise UpdateError(f"{sender} is larger than its code can hold, 3.4e38; lower the learning rate.")
    return short


def _seed(update: Update, name: str, context: RoundContext) -> Seed:
    return context.seed.child("client", update.client, name)


def _sender(update: Update, name: str) -> str:
    return f'client "{update.client}": "{name}"'


def _names(*parts: Any) -> str:
    return ", ".join(f'"{name}"' for part in parts for name in sorted(part)) or "nothing"


def _buffers_in(layout: Layout) -> list[tuple[int, Segment]]:
    return [(i, segment) for i, segment in enumerate(layout.segments) if segment.role == "buffer"]


def _buffers(vector: Vector) -> dict[str, NDArray[Any]]:
    return {f"{_BUFFERS}{place}": vector.flats[place] for place, _ in _buffers_in(vector.layout)}


def _vector(values: Floats, buffers: Packed, sender: str) -> Vector:
    """Return a vector of these parameters, and of buffers as they were sent."""
    layout = buffers.layout
    wanted = {f"{_BUFFERS}{i}": (STORAGE[s.dtype], s.size) for i, s in _buffers_in(layout)}
    check_code(buffers, sender, wanted)
    vector, start = Vector.zeros(layout), 0
    for place, (flat, segment) in enumerate(zip(vector.flats, layout.segments, strict=True)):
        if segment.role == "buffer":
            flat[:] = buffers.arrays[f"{_BUFFERS}{place}"]
        else:
            flat[:] = values[start : start + flat.size]
            start += flat.size
    return vector
