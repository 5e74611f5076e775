"""Encrypted sums: the server adds ciphertexts that it cannot read, and the holder of the key decrypts their total.

CKKS (Cheon, Kim, Kim and Song, "Homomorphic Encryption for Arithmetic of Approximate Numbers", ASIACRYPT 2017), in
`fedpact.secure.ckks`. What is encrypted are integers, and its error is far below one half: totals are exact.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedpact.channel.encrypted import ERROR, KeyHolder, Sent
from fedpact.channel.mask import NUMBERS, Mask, Opened, drop_out, flattened, unflattened
from fedpact.channel.transform import RoundContext, Transform
from fedpact.core.errors import ChannelError, ConfigError, SecureError, UpdateError
from fedpact.core.messages import Integers, Update
from fedpact.core.settings import check_choice, check_counts, check_numbers
from fedpact.core.vector import Layout
from fedpact.secure.ckks_ciphertexts import power_of_two
from fedpact.secure.ckks_keys import tenseal_library

WeightsAt = Literal["client", "server"]

_MOST_BITS = 44
# How many standard deviations of the error stay below a quarter.
_DEVIATIONS = 12.0
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
        weight = ", its weight" if self.weighs else ""
        return (
            f"each client's update encrypted{weight}, and the decrypted sum of a cohort's updates and metrics"
        )

    def trusted(self) -> str:
        """Return who could read a single update all the same, in a sentence."""
        return (
            "One party, apart from the server and the clients, holds the key: with the server it could read each "
            "update. That the server hands it nothing but sums, and weighs no client alone, is not proven."
        )

    def agree(
        self, ids: Sequence[str], context: RoundContext, digest: bytes
    ) -> tuple[Mapping[str, bytes], "_Round"]:
        """Return client → the public key, for those that do not drop out.

        Raises:
            SecureError: fewer are asked than the key holder decrypts a sum of.
            ChannelError: of so many, a sum of so many bits could be decrypted wrongly.
        """
        if len(ids) < self.minimum_cohort:
            raise SecureError(
                f"{len(ids)} clients are asked, and the key holder decrypts sums of {self.minimum_cohort} or more; ask "
                "more clients, or lower minimum_cohort."
            )
        if ERROR * _DEVIATIONS * math.sqrt(len(ids)) * 2.0**self.bits > 1 / 4:
            raise ChannelError(
                f"the sum of {len(ids)} clients in {self.bits} bits could be decrypted to the integer beside it; lower "
                "the bits of HomomorphicSum, or ask fewer clients."
            )
        holder = self._holder
        gone = drop_out(ids, self.dropout, context) if self.dropout else set()
        return {id: holder.public for id in ids if id not in gone}, _Round(holder, holder.introduced(ids))

    @cached_property
    def _holder(self) -> "KeyHolder":
        return KeyHolder(self.minimum_cohort)

    def encode_integers(self, update: Update, context: RoundContext) -> Update:
        """Encrypt the update, its weight and its metrics.

        Raises:
            ClientError: the client has dropped out, in a simulation.
            UpdateError: a metric is NaN, infinite, or too large.
        """
        public: bytes = self.secret_of(context)
        weight = update.weight if self.weighs else 0
        update = self.with_numbers(update, context.asked)
        assert update.integers is not None
        arrays: dict[str, Any] = {
            name: Sent.of(public, array, self._range(name, context))
            for name, array in self._parts(update.integers).items()
        }
        nbytes = sum(len(sent.data) for sent in arrays.values())
        integers = replace(update.integers, arrays=arrays, nbytes=nbytes)
        return replace(update, integers=integers, weight=weight)

    def receive(self, update: Update, context: RoundContext) -> Update:
        """Read what a client sent, and multiply it by its weight where the server does that.

        Raises:
            UpdateError: these are no such ciphertexts under this key, or the weight is not whole.
        """
        if update.integers is None:
            return update
        arrays: dict[str, Any] = {}
        parts: Mapping[str, Any] = update.integers.arrays
        for name, sent in parts.items():
            arrays[name] = sent.read()
            if name == _VECTORS and self.weighs:
                arrays[name] = arrays[name].times(*self._weight(update, context))
        return replace(update, integers=replace(update.integers, arrays=arrays))

    def traffic(self, held: "_Round", sent: Mapping[str, int]) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """Return the bytes of the key, to those that are asked for the first time, and of updates."""
        return held.told, sent

    def open(self, total: Integers, clients: Sequence[str], held: "_Round", context: RoundContext) -> Opened:
        """Have the key holder decrypt the sum.

        Raises:
            SecureError: too few clients are left, or what they sent does not add up to integers.
        """
        parts: Mapping[str, Any] = total.arrays
        sums = {
            name: held.holder.decrypt(part.to_bytes(), len(part), self._range(name, context), clients)
            for name, part in parts.items()
        }
        flat = np.concatenate([sums[name] for name in (_VECTORS, NUMBERS) if name in sums])
        return self.opened(replace(total, arrays=unflattened(flat, total)), len(clients), context.asked)

    def _parts(self, integers: Integers) -> dict[str, NDArray[np.int64]]:
        """Return what is encrypted together: all; or vectors apart from numbers, which the server does not weigh."""
        flat = flattened(integers)
        if not self.weighs:
            return {_VECTORS: flat}
        count = integers.arrays[NUMBERS].size
        return {_VECTORS: flat[:-count], NUMBERS: flat[-count:]}

    def _range(self, name: str, context: RoundContext) -> float:
        """Return the size that no integer of one client exceeds."""
        if name == _VECTORS and self.weighs:
            return 2.0**self.bits / self._total_weight(context)
        return 2.0 ** (self.bits - 1)

    def _total_weight(self, context: RoundContext) -> float:
        return power_of_two(context.asked * self.most)

    def _weight(self, update: Update, context: RoundContext) -> tuple[float, float]:
        if update.weight != int(update.weight):
            raise UpdateError(
                f'client "{update.client}" gave its update the weight {update.weight:g}; the server multiplies '
                'encrypted updates by whole weights alone: take HomomorphicSum(weights="client").'
            )
        return update.weight, self._total_weight(context)


@dataclass(frozen=True, eq=False)
class _Round:
    holder: KeyHolder
    told: Mapping[str, int]
