"""TernGrad: each parameter is sent as −1, 0 or 1, at random so that the mean is right.

Wen et al., "TernGrad: Ternary Gradients to Reduce Communication in Distributed Deep Learning", NeurIPS 2017, with
its scale for each layer and its clipping.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedpact.channel.bits import pack_trits, unpack_trits
from fedpact.channel.linear_map import Floats, parameter_count
from fedpact.channel.packer import Packer, check_code, float32_above, pieces_of
from fedpact.core.errors import UpdateError
from fedpact.core.packed import Packed
from fedpact.core.seeds import Seed
from fedpact.core.settings import check_numbers
from fedpact.core.vector import Layout


@dataclass(frozen=True)
class TernGrad(Packer):
    """Send s·sign(x)·b for each trained parameter x, b = 1 with probability |x| / s, else 0; five of them in a byte.

    s is the largest |x| of the parameter's array (float32). Values beyond `clip` standard deviations of their array
    are clipped first, which makes s, and so the variance, smaller; without clipping the expectation is x exactly.
    Deviations are those from 0, the mean that the paper takes for granted: a lone number is not clipped.

    Args:
        clip: in standard deviations, > 0, the paper's 2.5; None for no clipping.

    Raises:
        ConfigError: clip is not a positive number.
    """

    clip: float | None = 2.5

    whole_models: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_numbers(self, "clip", positive=True, optional=True)

    def pack(self, values: Floats, layout: Layout, seed: Seed, sender: str) -> Packed:
        numbers, pieces = values.astype(np.float64), pieces_of(layout)
        scales = np.empty(len(pieces), np.float32)
        for place, piece in enumerate(pieces):
            part = numbers[piece]
            if self.clip is not None:
                with np.errstate(over="ignore"):
                    most = self.clip * float(np.sqrt(np.mean(np.square(part))))
                np.clip(part, -most, most, out=part)
            scales[place] = float32_above(np.abs(part).max(), sender)
            if scales[place]:
                part /= np.float64(scales[place])
        chosen = seed.generator().random(numbers.size) < np.abs(numbers)
        return Packed(layout, {"trits": pack_trits(1 + np.sign(numbers) * chosen), "scales": scales})

    def unpack(self, packed: Packed, seed: Seed, sender: str) -> Floats:
        size, pieces = parameter_count(packed.layout), pieces_of(packed.layout)
        check_code(packed, sender, {"trits": (np.uint8, -(-size // 5)), "scales": (np.float32, len(pieces))})
        if packed.arrays["trits"].max() >= 3**5:
            raise UpdateError(f"{sender} came with bytes that are no five numbers of three values.")
        values = unpack_trits(packed.arrays["trits"], size).astype(np.float32) - 1
        for piece, scale in zip(pieces, packed.arrays["scales"], strict=True):
            values[piece] *= scale
        return values
