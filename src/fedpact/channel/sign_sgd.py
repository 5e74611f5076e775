"""SignSGD: each client sends the signs of its update, and the majority of them decides.

Bernstein et al., "signSGD: Compressed Optimisation for Non-Convex Problems", ICML 2018, Algorithm 3 (majority
vote).
"""

from dataclasses import dataclass, replace

import numpy as np

from fedpact.channel.bits import bytes_of, pack_signs, unpack_signs
from fedpact.channel.linear_map import Floats, parameter_count, parameters_of, with_parameters
from fedpact.channel.packer import Packer, check_code
from fedpact.channel.transform import RoundContext
from fedpact.core.messages import Aggregate
from fedpact.core.packed import Packed
from fedpact.core.seeds import Seed
from fedpact.core.settings import check_flags, check_numbers
from fedpact.core.vector import Layout


@dataclass(frozen=True)
class SignSGD(Packer):
    """Send one bit for each trained parameter: its sign.

    The mean that the algorithm is given is ±step for each parameter: the sign that the clients of the larger part of
    the weight sent, and 0 where both parts weigh the same. Without majority it is the weighted mean of ±step. A
    parameter that did not change is sent as +, for a bit has no third value.

    The sizes of updates are lost, so `step` is the learning rate; with FedSGD the algorithm's own multiplies it.

    Args:
        step: what a sign stands for, > 0.
        majority: whether the larger part decides; else the mean of signs is taken.

    Raises:
        ConfigError: a setting is out of its range.
    """

    step: float = 0.001
    majority: bool = True

    def __post_init__(self) -> None:
        check_numbers(self, "step", positive=True)
        check_flags(self, "majority")

    def pack(self, values: Floats, layout: Layout, seed: Seed, sender: str) -> Packed:
        return Packed(layout, {"signs": pack_signs(values)})

    def unpack(self, packed: Packed, seed: Seed, sender: str) -> Floats:
        size = parameter_count(packed.layout)
        check_code(packed, sender, {"signs": (np.uint8, bytes_of(size, 1))})
        # As whole numbers they are summed exactly, so that both parts of a tie are seen to weigh the same.
        return unpack_signs(packed.arrays["signs"], size).astype(np.float32)

    def decode(self, aggregate: Aggregate, context: RoundContext) -> Aggregate:
        means = dict(aggregate.means)
        for name in context.layouts.keys() & means.keys():
            mean = means[name]
            signs = parameters_of(mean)
            if signs.size:
                decided = np.sign(signs) if self.majority else signs
                means[name] = with_parameters(mean.layout, decided * self.step, mean)
        return replace(aggregate, means=means)
