"""QSGD: parameters are rounded at random to so many levels of their bucket's norm.

Alistarh et al., "QSGD: Communication-Efficient SGD via Gradient Quantization and Encoding", NeurIPS 2017: the
quantisation of Lemma 3.1, its buckets and its Elias coding.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedpact.channel import elias
from fedpact.channel.bits import bytes_of, pack_bits, pack_signs, unpack_bits, unpack_signs
from fedpact.channel.linear_map import Floats, parameter_count
from fedpact.channel.packer import Packer, check_code, float32_above
from fedpact.core.errors import ConfigError, UpdateError
from fedpact.core.packed import Packed
from fedpact.core.seeds import Seed
from fedpact.core.settings import check_choice, check_counts
from fedpact.core.vector import Layout

Coding = Literal["fixed", "elias"]
_MOST_LEVELS = (1 << 15) - 1


@dataclass(frozen=True)
class QSGD(Packer):
    """Send ‖v‖·sign(x)·l / levels for each trained parameter x of a bucket v, with l a whole number from 0 to levels.

    levels·|x| / ‖v‖ is rounded up or down at random so that the expectation is x; the squared error expected is at most
    min(n / levels², √n / levels)·‖v‖² in a bucket of n. Norms are sent as float32.

    Args:
        levels: s in the paper, 1 to 32767.
        bucket: n, how many successive parameters have a norm of their own; None for one bucket of all.
        coding: "fixed" for ⌈log₂(2·levels + 1)⌉ bits each, or "elias" for the gaps between those that are not 0, their
            signs and their l, gaps and l in Elias's omega code: shorter where most are 0.

    Raises:
        ConfigError: a setting is out of its range.
    """

    levels: int = 7
    bucket: int | None = 512
    coding: Coding = "fixed"

    whole_models: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_counts(self, "levels")
        if self.levels > _MOST_LEVELS:
            raise ConfigError(
                f"QSGD: levels is {self.levels}; it must be at most {_MOST_LEVELS}, which is 16 bits."
            )
        check_counts(self, "bucket", optional=True)
        check_choice(self, "coding", get_args(Coding))

    @property
    def bits(self) -> int:
        """The bits of a parameter in the fixed coding."""
        return (2 * self.levels).bit_length()

    def pack(self, values: Floats, layout: Layout, seed: Seed, sender: str) -> Packed:
        starts = self._starts(values.size)
        with np.errstate(over="ignore"):
            norms = np.sqrt(np.add.reduceat(np.square(values, dtype=np.float64), starts))
        scales = float32_above(norms, sender)
        units = self.levels / np.where(scales, scales, np.inf).astype(np.float64)
        ratios = np.abs(values) * self._spread(units, values.size)
        ratios += seed.generator().random(values.size)
        sizes = np.minimum(ratios.astype(np.int64), self.levels)
        if self.coding == "fixed":
            symbols = np.where(values < 0, -sizes, sizes) + self.levels
            return Packed(layout, {"scales": scales, "levels": pack_bits(symbols, self.bits)})
        places = np.flatnonzero(sizes)
        code: dict[str, NDArray[Any]] = {
            "scales": scales,
            "gaps": elias.encode(np.diff(places, prepend=-1)),
            "signs": pack_signs(values[places]),
            "levels": elias.encode(sizes[places]),
        }
        return Packed(layout, code, {"count": float(places.size)})

    def unpack(self, packed: Packed, seed: Seed, sender: str) -> Floats:
        size = parameter_count(packed.layout)
        scales = (np.float32, self._starts(size).size)
        if self.coding == "fixed":
            levels = (np.uint8, bytes_of(size, self.bits))
            check_code(packed, sender, {"scales": scales, "levels": levels})
            symbols = unpack_bits(packed.arrays["levels"], self.bits, size).astype(np.int64) - self.levels
        else:
            symbols = self._decoded(packed, scales, size, sender)
        if np.abs(symbols).max() > self.levels:
            raise UpdateError(f"{sender} came with more levels than {self.levels}.")
        units = packed.arrays["scales"].astype(np.float64) / self.levels
        return symbols * self._spread(units, size)

    def _decoded(self, packed: Packed, scales: tuple[Any, int], size: int, sender: str) -> NDArray[np.int64]:
        count = packed.numbers.get("count", 0.0)
        if not (0 <= count <= size and count == int(count)):
            raise UpdateError(f"{sender} came with a count of {count:g} numbers, of {size} that there are.")
        k = int(count)
        sent: dict[str, tuple[Any, int | None]] = {"gaps": (np.uint8, None), "levels": (np.uint8, None)}
        check_code(
            packed, sender, {**sent, "scales": scales, "signs": (np.uint8, bytes_of(k, 1))}, ("count",)
        )
        try:
            gaps, sizes = (elias.decode(packed.arrays[name], k) for name in ("gaps", "levels"))
        except ValueError as error:
            raise UpdateError(f"{sender} came with bytes that are no code: {error}.") from None
        # Gaps are 1 to 2^33, and of those that fit there are no more than places.
        places = np.cumsum(gaps) - 1
        if k and (gaps.max() > size or places[-1] >= size):
            raise UpdateError(f"{sender} came with places beyond its {size} parameters.")
        symbols = np.zeros(size, np.int64)
        symbols[places] = sizes * unpack_signs(packed.arrays["signs"], k)
        return symbols

    def _starts(self, size: int) -> NDArray[np.int64]:
        return np.arange(0, size, self.bucket or size)

    def _spread(self, of_buckets: NDArray[np.float64], size: int) -> NDArray[np.float64]:
        return np.repeat(of_buckets, self.bucket or size)[:size]
