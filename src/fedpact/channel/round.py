"""A channel in one round: what its stages may know, and the grid on which a cohort's vectors are summed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import numpy as np

from fedpact.channel.mask import Mask
from fedpact.channel.noise import Noise
from fedpact.channel.quantize import Quantize
from fedpact.channel.transform import RoundContext, StageState, Transform
from fedpact.core.errors import ChannelError
from fedpact.core.grid import Grid
from fedpact.core.vector import Layout, Vector

# Under noise the steps of the grid are this much smaller than the bound of an update: rounding then adds to what one
# client can change, of a million numbers, a millionth.
_NOISE_BITS = 30
_TOTAL_WEIGHT = 2.0**46
# By how much steps grow until a sum and its noise fit into a ring.
_COARSER = 1.0625


@dataclass(frozen=True, eq=False)
class ChannelRound:
    """A channel in one round: what all clients are told, and what some keep to themselves.

    Args:
        contexts: for each stage what it may know.
        expected: averaged vector → its layout as it arrives at the server; None for those of the task.
        dimension: how many numbers a client's averaged vectors have as they are summed;
        summed: and averaged vector → its layout then, those of the task and what stages count.
        secrets: client → what it masks with; taken out as it is used, which is once.
        held: what the server opens the sum with; it never leaves this process.
        states: for each stage what its server half keeps, as it was when the round began; it stays there too.
        seconds: what the server halves of the stages took, by name.
    """

    contexts: tuple[RoundContext, ...] = ()
    expected: Mapping[str, Layout] | None = None
    dimension: int = 0
    summed: Mapping[str, Layout] = field(default_factory=dict)
    secrets: dict[str, Any] = field(default_factory=dict)
    held: Any = None
    states: tuple[StageState, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)

    def note(self, name: str, seconds: float) -> None:
        """Note what a server half took."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    @property
    def told_bytes(self) -> int:
        """The bytes of what a client is told of the stages' states."""
        return sum(_nbytes(context.state) for context in self.contexts)

    @property
    def grid(self) -> Grid | None:
        """On which averaged vectors are summed; None where the sum chooses itself."""
        return self.contexts[-1].grid if self.contexts else None

    def __getstate__(self) -> dict[str, Any]:
        contexts = tuple(replace(context, scratch={}) for context in self.contexts)
        return {**vars(self), "contexts": contexts, "held": None, "states": ()}

    def of_server(self) -> tuple[RoundContext, ...]:
        """Return what the server halves may know."""
        return tuple(replace(c, state=state) for c, state in zip(self.contexts, self.states, strict=True))


def _nbytes(state: Any) -> int:
    if isinstance(state, Mapping):
        return sum(map(_nbytes, state.values()))
    if isinstance(state, list | tuple):
        return sum(map(_nbytes, state))
    if isinstance(state, Vector):
        return state.layout.nbytes
    return state.nbytes if isinstance(state, np.ndarray) else 8


def grid_of(
    stages: Sequence[Transform], contexts: Sequence[RoundContext], bound: float, dimension: int
) -> Grid | None:
    """Return the grid that updates are summed on; None where the sum chooses it itself.

    Args:
        stages: of the channel;
        contexts: and what they know of the round.
        bound: the L2 norm that no update exceeds behind them.
        dimension: how many numbers a client's averaged vectors have as they are summed.

    Raises:
        ChannelError: the sum does not fit into the ring that it is masked in.
    """
    mask = next((stage for stage in stages if isinstance(stage, Mask)), None)
    noise = next((stage for stage in stages if isinstance(stage, Noise)), None)
    quantize = next((stage for stage in stages if isinstance(stage, Quantize)), None)
    if not (mask or noise or quantize):
        return None
    limit, context = inf, contexts[-1]
    for stage, each in zip(stages, contexts, strict=True):
        limit = inf if stage.kind == "compress" else min(limit, stage.range_of(each.state))
    limit = min(limit, bound)
    # Under noise all weigh the same; else the weights of a cohort may add up to what leaves int64 room for levels.
    most = mask.most if mask else 1.0 if noise else _TOTAL_WEIGHT / max(1, context.asked)

    def fits(grid: Grid, ring: Mask) -> bool:
        """Whether the sum over a cohort, with its noise, stays below half of the ring."""
        spread = noise.most(replace(context, grid=grid), dimension) if noise else 0.0
        return grid.largest * context.asked + spread < 2 ** (ring.bits - 1)

    if quantize:
        grid = quantize.grid(limit, most)
    elif mask:
        grid = Grid.within(mask.bits, limit, context.asked, most)
        while not fits(grid, mask) and grid.largest > 1:
            grid = replace(grid, step=grid.step * _COARSER)
    else:
        grid = Grid.within(_NOISE_BITS + 1, limit, 1, most)
    if mask and not fits(grid, mask):
        raise ChannelError(
            f"the sum of {context.asked} clients and its noise does not fit into the {mask.bits} bits of "
            f"{type(mask).__name__}: set its bits higher, those of Quantize lower, or ask fewer clients."
        )
    return grid
