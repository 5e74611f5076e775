"""A shorter download: clients are sent the model in a few bits for each parameter, and the server keeps its own.

Dettmers et al., "8-bit Optimizers via Block-wise Quantization", ICLR 2022, section 2.1 (blocks with a scale of their
own), with evenly spaced levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpact.channel.bits import bytes_of, pack_bits, unpack_bits
from fedpact.channel.linear_map import Floats, parameters_of, with_parameters
from fedpact.channel.packer import float32_above
from fedpact.channel.transform import Kind, RoundContext, StageState, Transform, check_averages
from fedpact.core.errors import ConfigError
from fedpact.core.messages import Task, Updates
from fedpact.core.packed import Packed
from fedpact.core.settings import check_counts
from fedpact.core.vector import Layout, Vector

_MOST_BITS = 8


@dataclass(frozen=True)
class SendQuantized(Transform):
    """Send each array of the task to clients in bits for each trained parameter, and a float32 for each block of them.

    The parameters of a block are rounded to the nearest of the 2^bits − 1 evenly spaced numbers from −m to m, for m the
    largest size in it: the error is at most m / (2^bits − 2). All clients of a round train from the rounded model; the
    server adds what they learn to its own, so that errors do not add up. Buffers are sent whole.

    Zeros stay zeros. Where it is shorter to send a bit for each parameter that says whether it is 0, and only the
    others, they are sent so: behind `Prune`.

    It changes nothing on the way up, and stands anywhere in a channel, once.

    Args:
        bits: 2 to 8.
        block: how many successive parameters have a scale of their own.

    Raises:
        ConfigError: a setting is out of its range.
    """

    bits: int = 8
    block: int = 256

    kind: ClassVar[Kind] = "download"

    def __post_init__(self) -> None:
        check_counts(self, "bits", "block")
        if not 2 <= self.bits <= _MOST_BITS:
            raise ConfigError(f"SendQuantized: bits is {self.bits}; it must be 2 to {_MOST_BITS}.")

    def bound(self, before: float, state: StageState) -> float:
        """Return the bound before it."""
        return before

    def check(self, before: Sequence[Transform], algorithm: Any, layout: Layout | None) -> None:
        """Refuse algorithms whose clients send sums of statistics: of another model, these lead elsewhere."""
        check_averages(self, algorithm)

    def send(self, task: Task, context: RoundContext) -> Task:
        """Round the arrays, and count what is sent of them.

        Raises:
            UpdateError: a parameter is beyond the range of float32.
        """
        arrays, sent = {}, 0
        for name, vector in task.arrays.items():
            packed = self.pack(vector)
            arrays[name] = self.unpack(packed, vector)
            sent += packed.nbytes
        return replace(task, arrays=arrays, sent_bytes=sent)

    def encode_stack(self, updates: Updates, context: RoundContext) -> Updates:
        """Leave the updates as they are."""
        return updates

    def pack(self, vector: Vector) -> Packed:
        """Return what is sent of a vector."""
        layout = vector.layout
        buffers = {
            f"buffers.{place}": flat
            for place, (flat, segment) in enumerate(zip(vector.flats, layout.segments, strict=True))
            if segment.role == "buffer"
        }
        values = parameters_of(vector.widened())
        some = values != 0
        if not values.size:
            return Packed(layout, buffers)
        bitmap: dict[str, NDArray[Any]] = {}
        if 8 * bytes_of(values.size, 1) < self.bits * (values.size - np.count_nonzero(some)):
            bitmap, values = {"nonzero": np.packbits(some)}, values[some]
        scales = float32_above(np.maximum.reduceat(np.abs(values), self._starts(values.size)), "the model")
        units = self._largest / np.where(scales, scales, np.inf).astype(np.float64)
        levels = np.rint(values * self._spread(units, values.size)).astype(np.int64) + self._largest
        return Packed(layout, {**bitmap, "scales": scales, "levels": pack_bits(levels, self.bits), **buffers})

    def unpack(self, packed: Packed, buffers: Vector) -> Vector:
        """Return the vector that clients make of what they are sent, in the dtypes of the model.

        Args:
            packed: what is sent.
            buffers: a vector with the buffers.
        """
        wide = buffers.widened()
        size = parameters_of(wide).size
        if not size:
            return buffers
        values = np.zeros(size)
        some = (
            np.unpackbits(packed.arrays["nonzero"], count=size).view(np.bool_)
            if "nonzero" in packed.arrays
            else np.ones(size, np.bool_)
        )
        values[some] = self._values(packed, int(np.count_nonzero(some)))
        return with_parameters(wide.layout, values, wide).narrowed(packed.layout)

    def _values(self, packed: Packed, count: int) -> Floats:
        levels = unpack_bits(packed.arrays["levels"], self.bits, count).astype(np.int64) - self._largest
        return levels * self._spread(packed.arrays["scales"].astype(np.float64) / self._largest, count)

    @property
    def _largest(self) -> int:
        return (1 << (self.bits - 1)) - 1

    def _starts(self, size: int) -> NDArray[np.int64]:
        return np.arange(0, size, self.block)

    def _spread(self, of_blocks: NDArray[np.float64], size: int) -> NDArray[np.float64]:
        return np.repeat(of_blocks, self.block)[:size]
