"""Top-k sparsification: each client's largest changes now, the others once they have added up.

Stich, Cordonnier and Jaggi, "Sparsified SGD with Memory", NeurIPS 2018, Algorithm 1; Karimireddy et al., "Error
Feedback Fixes SignSGD and other Gradient Compression Schemes", ICML 2019, Algorithm 2. With momentum: Lin et al., "Deep
Gradient Compression", ICLR 2018 (momentum correction and factor masking).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fedpact.channel.linear_map import Floats, amount_of, check_amount, parameter_count
from fedpact.channel.packer import Packer, check_code
from fedpact.channel.selection import largest
from fedpact.channel.transform import Transform, check_steady
from fedpact.core.errors import ChannelError, ConfigError, UpdateError
from fedpact.core.packed import Packed
from fedpact.core.seeds import Seed
from fedpact.core.settings import check_flags, check_numbers
from fedpact.core.vector import Layout

_MOST = 1 << 32


@dataclass(frozen=True)
class TopK(Packer):
    """Send the k largest of the d trained parameters of each averaged vector, by size; the others count as 0.

    Sent are their places (uint32, ascending) and their values (float32): 8·k bytes. Of equal ones the first are taken.

    With error feedback a client keeps what it did not send, e, and sends of its next x the largest of x + e. With
    momentum m too, it is u ← m·u + x that is added to e, and u is set to 0 where e was sent, so that what is sent late
    is not carried on by a momentum that is out of date.

    A client keeps "error.<averaged vector>" and "momentum.<averaged vector>", each one array [d].

    Args:
        fraction: k / d, in (0, 1]. Give this or k.
        k: how many to send; d where it has no more.
        error_feedback: whether clients keep what they did not send. Without, training may not converge.
        momentum: m, in [0, 1); it takes error feedback.

    Raises:
        ConfigError: not one of `fraction` and `k` is given, or a setting is out of its range.
    """

    fraction: float | None = None
    k: int | None = None
    error_feedback: bool = True
    momentum: float = 0.0

    remembers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_amount(self)
        check_flags(self, "error_feedback")
        check_numbers(self, "momentum", below=1)
        if self.momentum and not self.error_feedback:
            raise ConfigError(
                "TopK: momentum is that of what clients keep; set error_feedback=True, or give momentum to local "
                "training instead."
            )

    def check(self, before: Sequence[Transform], algorithm: Any, layout: Layout | None) -> None:
        """Refuse what every such stage does, errors kept of places that change, and more than 2^32 parameters."""
        super().check(before, algorithm, layout)
        if self.error_feedback:
            check_steady(self, before)
        if layout is not None and parameter_count(layout) > _MOST:
            raise ChannelError(
                f"TopK sends places as uint32, and the model has more than {_MOST} parameters."
            )

    def pack_remembering(
        self, values: Floats, kept: Mapping[str, Floats], layout: Layout, seed: Seed, sender: str
    ) -> tuple[Packed, Mapping[str, Floats]]:
        if not self.error_feedback:
            return self.pack(values, layout, seed, sender), {}
        speed = values + values.dtype.type(self.momentum) * kept["momentum"] if "momentum" in kept else values
        error = speed + kept.get("error", 0)
        packed = self.pack(error, layout, seed, sender)
        chosen = packed.arrays["indices"]
        error[chosen] -= packed.arrays["values"]
        if not self.momentum:
            return packed, {"error": error}
        speed = speed.copy()
        speed[chosen] = 0
        return packed, {"error": error, "momentum": speed}

    def pack(self, values: Floats, layout: Layout, seed: Seed, sender: str) -> Packed:
        chosen = np.flatnonzero(largest(np.abs(values), amount_of(self, values.size)))
        with np.errstate(over="ignore"):
            sent = values[chosen].astype(np.float32)
        if not np.isfinite(sent).all():
            raise UpdateError(
                f"{sender} has values beyond those of float32, 3.4e38; lower the learning rate."
            )
        return Packed(layout, {"indices": chosen.astype(np.uint32), "values": sent})

    def unpack(self, packed: Packed, seed: Seed, sender: str) -> Floats:
        size = parameter_count(packed.layout)
        k = amount_of(self, size)
        check_code(packed, sender, {"indices": (np.uint32, k), "values": (np.float32, k)})
        indices = packed.arrays["indices"].astype(np.int64)
        if indices[-1] >= size or not (np.diff(indices) > 0).all():
            raise UpdateError(f"{sender} came with places that do not ascend from 0 to below {size}.")
        values = np.zeros(size, np.float32)
        values[indices] = packed.arrays["values"]
        return values
