"""Statistics under a mask: the exact sums that an algorithm adds up, in a form that a mask can hide."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, cast

import numpy as np
from numpy.typing import NDArray

from fedpact.channel.channel import Channel
from fedpact.channel.mask import Mask
from fedpact.channel.transform import Transform
from fedpact.core.algorithm import Around, ClientState
from fedpact.core.errors import ChannelError
from fedpact.core.messages import Aggregate, Task, Update
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed
from fedpact.core.vector import Vector
from fedpact.engine.masked_evaluation import Whole
from fedpact.engine.work import Setting

_INT64_BITS = 64
_FEWEST_BITS = 4


@dataclass(frozen=True)
class MaskedSums(Around):
    """As another algorithm of sums, whose int64 statistics travel as limbs of few bits, averaged instead of summed.

    A sum over all clients of a limb is below half the ring, so the sums are the same bits as without a mask.

    Args:
        algorithm: whose clients send int64 statistics and nothing else.
        bits: of a limb.
    """

    bits: int

    releases: ClassVar[Literal["averaged", "summed"]] = "averaged"

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return the client's statistics as limbs.

        Raises:
            TypeError: the other algorithm's are no whole numbers.
        """
        update, kept = super().client(model, task, data, kept, seed)
        limbs = {
            name: self._limbs(np.asarray(array).astype(np.int64, casting="safe"))
            for name, array in update.summed.items()
        }
        return replace(update, averaged={"limbs": Vector.from_arrays(limbs)}, summed={}), kept

    def server(self, model: Any, state: Any, aggregate: Aggregate) -> Any:
        """Hand the sums to the other algorithm."""
        means = aggregate.means["limbs"]
        sums: dict[str, Any] = {
            entry.name: self._sum(np.rint(means[entry.name].astype(np.float64) * aggregate.weight))
            for entry in means.layout.entries
        }
        return super().server(model, state, replace(aggregate, means={}, sums=sums))

    def _limbs(self, integers: NDArray[np.int64]) -> NDArray[np.float64]:
        count = -(-_INT64_BITS // self.bits)
        low = [(integers >> self.bits * i) & ((1 << self.bits) - 1) for i in range(count - 1)]
        # The shift keeps the sign, so only the last limb can be negative.
        return np.stack([*low, integers >> self.bits * (count - 1)]).astype(np.float64)

    def _sum(self, limbs: NDArray[np.float64]) -> NDArray[np.int64]:
        total = np.zeros(limbs.shape[1:], np.int64)
        for i, limb in enumerate(limbs.astype(np.int64)):
            total += limb << self.bits * i
        return total


def hide_sums(mask: Mask, setting: Setting, task: Task) -> Setting:
    """Return how clients are asked for sums under a mask: the sums of all are those in clear, and all there is to see.

    What they are asked one by one they answer in clear.

    Args:
        mask: what hides each client's part. Nobody drops out on purpose, for sums of other rows do not go together.
        setting: an algorithm of sums, and its clients.
        task: its task.

    Raises:
        ChannelError: the ring is too small for so many clients.
    """
    if task.answers != "sum":
        return setting
    clients = len(setting.population.ids(0))
    # Of a limb's sum one bit is the sign.
    bits = min(32, mask.bits - 1 - max(1, clients).bit_length())
    if bits < _FEWEST_BITS:
        raise ChannelError(
            f"{clients} clients are too many for the {mask.bits} bits of {type(mask).__name__}; set them higher."
        )
    masked = MaskedSums(setting.algorithm, bits)
    undropped: Mask = replace(cast("Any", mask), dropout=0.0)
    channel = Channel((Whole(range=float(1 << bits), stochastic=False), undropped), masked)
    return replace(setting, algorithm=masked, channel=channel)


def check_channel(stages: Sequence[Transform]) -> Mask | None:
    """Return the mask of a channel for statistics; None where it is empty.

    Raises:
        ChannelError: a stage does something else than mask.
    """
    mask: Mask | None = None
    for stage in stages:
        name = type(stage).__name__
        if stage.kind == "noise":
            raise ChannelError(
                f"{name} cannot be put on the sums of a description: it finds exact numbers step by step, from counts "
                "that every step checks, and noise on them is not accounted for. Leave it out, and hide each client's "
                "own numbers with SecureSum; for noise that is accounted for, give fp.describe an epsilon."
            )
        if not isinstance(stage, Mask):
            raise ChannelError(
                f"{name} changes or packs vectors of a model, and a description is made of counts; take it out of the "
                "channel."
            )
        if mask is not None:
            raise ChannelError(
                f"updates are masked once; take {type(mask).__name__} or {name} out of the channel."
            )
        mask = stage
    return mask
