"""Encrypted sums: the server adds ciphertexts that it cannot read, and the holder of the key decrypts their total.

CKKS (Cheon, Kim, Kim and Song, "Homomorphic Encryption for Arithmetic of Approximate Numbers", ASIACRYPT 2017), in
`fedpact.secure.ckks`. What is encrypted are integers, and its error is far below one half: totals are exact.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedpact.channel.mask import NUMBERS, Mask, Opened, drop_out, flattened, unflattened
from fedpact.channel.transform import RoundContext, Transform
from fedpact.core.errors import ChannelError, ClientError, ConfigError, SecureError, UpdateError
from fedpact.core.messages import Integers, Update
from fedpact.core.settings import check_choice, check_counts, check_numbers
from fedpact.core.vector import Layout
from fedpact.secure.ckks import CKKSKeys, CKKSParameters, CKKSPublic, Ciphertexts, add, decrypt, encrypt, scale
from fedpact.secure.ckks_ciphertexts import power_of_two
from fedpact.secure.ckks_keys import tenseal_library

WeightsAt = Literal["client", "server"]

# 28 bits above a number and its weight of 40 bits each; log2 q is 170, of the 218 that give 128-bit security.
_PARAMETERS = CKKSParameters(8192, (60, 50, 60), 40, limit=1.0)
# Standard deviation of the error of one decrypted number, in units of the largest, for each root of a client.
_ERROR = 2.0**-51
# So many standard deviations stay below a quarter, where a total is refused.
_DEVIATIONS = 12.0
_MOST_BITS = 44
_VECTORS = "vectors"


@dataclass(frozen=True)
class HomomorphicSum(Mask):
    """Encrypt every update so that only whoever holds the key can read the sum over a cohort.

    In a simulation the key holder is an object beside the server that makes the keys when the run begins; clients and
    server have the public key. A client sends one message and may then be gone. It takes about 15 times the bytes of
    float32, and `SecureSum` hides the same without a key that opens everything: this is for where clients cannot stay
    for several messages, or a regulation asks for it. It needs TenSEAL: `pip install "fedpact[he]"`.

    Args:
        bits: sums are integers below 2^(bits − 1) in size; a value is rounded to a 2^(bits − 1)th of what the whole
            cohort can add up to.
        weights: who multiplies an update by its weight: the "client" before it encrypts, or the "server", which knows
            the weights and multiplies ciphertexts, E(g)·w = E(g·w).
        minimum_cohort: the fewest clients whose sum the key holder decrypts.
        max_weight: the largest weight that a client may have; None where all weigh 1.
        dropout: in a simulation, the probability that a client drops out before it sends its update.

    Raises:
        ConfigError: a setting is out of its range, or the server is to multiply by weights that nothing bounds.
    """

    bits: int = 40
    weights: WeightsAt = "client"
    minimum_cohort: int = 3
    max_weight: float | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_counts(self, "bits", "minimum_cohort")
        check_choice(self, "weights", get_args(WeightsAt))
        check_numbers(self, "max_weight", positive=True, optional=True)
        check_numbers(self, "dropout", below=1.0)
        if not 16 <= self.bits <= _MOST_BITS:
            raise ConfigError(f"HomomorphicSum: bits is {self.bits}; it must be between 16 and {_MOST_BITS}.")
        if self.weighs and self.max_weight is None:
            raise ConfigError(
                'HomomorphicSum(weights="server") multiplies by the weights that clients announce, so it must know the '
                "most that one may have: set max_weight=10000, or leave weights out."
            )

    @property
    def weighs(self) -> bool:
        """Whether the server applies the weights, which it is then told."""
        return self.weights == "server"

    def check(self, before: Sequence[Transform], algorithm: Any, layout: Layout | None) -> None:
        """Require TenSEAL, besides what all masks require; the server multiplies no shares of noise.

        Raises:
            ChannelError: as for every mask, or the server would multiply noise that was made for the update as it is.
            DependencyError: TenSEAL is not installed.
        """
        super().check(before, algorithm, layout)
        tenseal_library()
        for stage in before:
            if self.weighs and stage.kind == "noise" and getattr(stage, "where", None) != "central":
                raise ChannelError(
                    f'HomomorphicSum(weights="server") would multiply the noise of {type(stage).__name__} with the '
                    'update; leave weights="server" out, or set where="central".'
                )

    def least(self, clients: int) -> int:
        """Return how many clients are in a sum that is decrypted, at least."""
        return min(self.minimum_cohort, clients)

    def colluding(self, clients: int) -> int:
        """Return how many of so many clients may work with the server: all but two, for they only encrypt."""
        return max(0, clients - 2)

    def seen(self) -> str:
        """Return what the server sees of updates, in a clause."""
        weight = " and its weight" if self.weighs else ""
        return f"each client's update{weight if self.weighs else ''} encrypted, and the decrypted sum over a cohort" \
            if not self.weighs else "each client's update encrypted, its weight, and the decrypted sum over a cohort"

    def trusted(self) -> str:
        """Return who could read a single update all the same."""
        return ""
