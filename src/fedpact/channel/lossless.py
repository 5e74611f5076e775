"""Lossless compression: the bytes of floats, sorted by significance, through Zstandard.

Alted, "Why Modern CPUs Are Starving and What Can Be Done About It", Computing in Science & Engineering 2010 (the
shuffle of Blosc); Collet and Kucherawy, "Zstandard Compression and the 'application/zstd' Media Type", RFC 8878.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpact.channel.packer import check_code, check_expected
from fedpact.channel.transform import Kind, RoundContext, Transform, check_averages
from fedpact.core.errors import ConfigError, UpdateError
from fedpact.core.messages import Update
from fedpact.core.packed import Packed
from fedpact.core.settings import check_counts
from fedpact.core.vector import Layout, Vector

_MOST_LEVEL = 22


@dataclass(frozen=True)
class Lossless(Transform):
    """Send averaged vectors compressed, to arrive with exactly their bits.

    First bytes of all numbers, then second ones, and so on: signs and exponents are alike and become short, the rest is
    noise. Of float32 weights about 84 % is left. It is worth its time on slow networks.

    Averaged vectors that answer no array of the task, such as counts of earlier stages, pass as they are.

    Args:
        level: Zstandard's, 1 (fastest) to 22 (shortest).

    Raises:
        ConfigError: the level is none of these.
    """

    level: int = 1

    kind: ClassVar[Kind] = "pack"

    def __post_init__(self) -> None:
        check_counts(self, "level")
        if self.level > _MOST_LEVEL:
            raise ConfigError(f"Lossless: level is {self.level}; it must be at most {_MOST_LEVEL}.")

    def check(self, before: Sequence[Transform], algorithm: Any, layout: Layout | None) -> None:
        """Refuse sums of statistics. Clients may build on what they sent: it arrives as it was."""
        check_averages(self, algorithm)

    def encode(self, update: Update, context: RoundContext) -> Update:
        averaged, packed = dict(update.averaged), dict(update.packed)
        for name in sorted(context.layouts.keys() & averaged.keys()):
            vector = averaged.pop(name)
            arrays = {str(place): self._packed(flat) for place, flat in enumerate(vector.flats)}
            packed[name] = Packed(vector.layout, arrays)
        return replace(update, averaged=averaged, packed=packed)

    def receive(self, update: Update, context: RoundContext) -> Update:
        """Unpack the vectors.

        Raises:
            UpdateError: what arrived is not what a client half makes.
        """
        averaged = dict(update.averaged)
        for name, packed in update.packed.items():
            sender = f'client "{update.client}": "{name}"'
            check_expected(packed, context.layouts.get(name), sender)
            vector = Vector.zeros(packed.layout)
            check_code(packed, sender, {str(place): (np.uint8, None) for place in range(len(vector.flats))})
            for place, flat in enumerate(vector.flats):
                flat.view(np.uint8)[:] = _unpacked(packed.arrays[str(place)], flat, sender)
            averaged[name] = vector
        return replace(update, averaged=averaged, packed={})

    def _packed(self, flat: NDArray[Any]) -> NDArray[np.uint8]:
        import zstandard

        shuffled = np.ascontiguousarray(flat.view(np.uint8).reshape(-1, flat.itemsize).T)
        return np.frombuffer(zstandard.ZstdCompressor(level=self.level).compress(shuffled.data), np.uint8)


def _unpacked(packed: NDArray[np.uint8], like: NDArray[Any], sender: str) -> NDArray[np.uint8]:
    import zstandard

    try:
        # Before anything is allocated: a few bytes may say that they hold gigabytes.
        declared = zstandard.get_frame_parameters(packed.data).content_size
        if declared == like.nbytes:
            raw = zstandard.ZstdDecompressor().decompress(
                packed.data, max_output_size=like.nbytes, allow_extra_data=False
            )
            return np.frombuffer(raw, np.uint8).reshape(like.itemsize, -1).T.reshape(-1)
    except zstandard.ZstdError as error:
        raise UpdateError(f"{sender} came as bytes that Zstandard cannot read: {error}.") from None
    raise UpdateError(f"{sender} came as {declared} bytes compressed; its layout has {like.nbytes}.")
