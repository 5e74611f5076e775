"""DRIVE: one bit for each parameter, the sign behind a random rotation, and one scale.

Vargaftik et al., "DRIVE: One-bit Distributed Mean Estimation", NeurIPS 2021, Algorithm 1, with the scale of least error
or the one that makes it unbiased.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedpact.channel.bits import bytes_of, pack_signs, unpack_signs
from fedpact.channel.linear_map import Floats, parameter_count
from fedpact.channel.packer import Packer, check_code, check_held
from fedpact.channel.rotation import rotated, rotated_back
from fedpact.core.packed import Packed
from fedpact.core.seeds import Seed
from fedpact.core.settings import check_flags
from fedpact.core.vector import Layout


@dataclass(frozen=True)
class Drive(Packer):
    """Send the signs of R·x, for R a rotation of the client's own in the round, and a scale S; x counts as S·R⁻¹·signs.

    Of d trained parameters in ⌈d / 8⌉ + 8 bytes, S = ‖x‖² / ‖R·x‖₁ makes the expectation x, with a squared error of
    (π/2 − 1)·‖x‖²; S = ‖R·x‖₁ / d makes the error of one client least, (1 − 2/π)·‖x‖², but not that of a mean of many.

    That is so of a uniformly random R and many parameters; the one here, of random signs and Hadamard matrices, comes
    as near as can be measured.

    Args:
        unbiased: whether the expectation is x.

    Raises:
        ConfigError: unbiased is neither True nor False.
    """

    unbiased: bool = True

    whole_models: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_flags(self, "unbiased")

    def pack(self, values: Floats, layout: Layout, seed: Seed, sender: str) -> Packed:
        with np.errstate(over="ignore", invalid="ignore"):
            turned = rotated(values, seed)
            total = float(np.abs(turned).sum())
            best = total / turned.size
            scale = float(turned @ turned) / total if self.unbiased and total else best
        check_held(scale, sender)
        return Packed(layout, {"signs": pack_signs(turned)}, {"scale": scale})

    def unpack(self, packed: Packed, seed: Seed, sender: str) -> Floats:
        size = parameter_count(packed.layout)
        check_code(packed, sender, {"signs": (np.uint8, bytes_of(size, 1))}, ("scale",))
        return rotated_back(unpack_signs(packed.arrays["signs"], size) * packed.numbers["scale"], seed)
