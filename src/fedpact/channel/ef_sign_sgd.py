"""Signs with a scale, and errors that are made up for: EF-signSGD.

Karimireddy et al., "Error Feedback Fixes SignSGD and other Gradient Compression Schemes", ICML 2019, Algorithm 1, with
one scale for each parameter array.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fedpact.channel.bits import bytes_of, pack_signs, unpack_signs
from fedpact.channel.linear_map import Floats, parameter_count
from fedpact.channel.packer import Packer, check_code, float32_above, pieces_of
from fedpact.channel.transform import Transform, check_steady
from fedpact.core.packed import Packed
from fedpact.core.seeds import Seed
from fedpact.core.settings import check_flags
from fedpact.core.vector import Layout


@dataclass(frozen=True)
class EFSignSGD(Packer):
    """Send one bit for each trained parameter, its sign, and the mean size of each parameter array (float32).

    A parameter counts as its sign times the mean size of its array; 0 as +. With error feedback a client keeps what
    this leaves of its update, e ← x + e − sent, and adds it to its next one.

    A client keeps "error.<averaged vector>", one array [d].

    Args:
        error_feedback: whether clients keep what did not get through. Without, training may not converge.

    Raises:
        ConfigError: error_feedback is neither True nor False.
    """

    error_feedback: bool = True

    remembers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_flags(self, "error_feedback")

    def check(self, before: Sequence[Transform], algorithm: Any, layout: Layout | None) -> None:
        """Refuse what every such stage does, and errors kept of places that change."""
        super().check(before, algorithm, layout)
        if self.error_feedback:
            check_steady(self, before)

    def pack_remembering(
        self, values: Floats, kept: Mapping[str, Floats], layout: Layout, seed: Seed, sender: str
    ) -> tuple[Packed, Mapping[str, Floats]]:
        if not self.error_feedback:
            return self.pack(values, layout, seed, sender), {}
        corrected = values + kept.get("error", 0)
        packed = self.pack(corrected, layout, seed, sender)
        corrected -= self.unpack(packed, seed, sender)
        return packed, {"error": corrected}

    def pack(self, values: Floats, layout: Layout, seed: Seed, sender: str) -> Packed:
        means = [np.mean(np.abs(values[piece]), dtype=np.float64) for piece in pieces_of(layout)]
        return Packed(layout, {"signs": pack_signs(values), "scales": float32_above(means, sender)})

    def unpack(self, packed: Packed, seed: Seed, sender: str) -> Floats:
        size, pieces = parameter_count(packed.layout), pieces_of(packed.layout)
        check_code(
            packed, sender, {"signs": (np.uint8, bytes_of(size, 1)), "scales": (np.float32, len(pieces))}
        )
        values = unpack_signs(packed.arrays["signs"], size).astype(np.float32)
        for piece, scale in zip(pieces, packed.arrays["scales"], strict=True):
            values[piece] *= scale
        return values
