"""What the stages have in common under which the server learns the sum of a cohort's updates and nothing else."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import inf
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpact.channel.transform import (
    Kind,
    RoundContext,
    StageState,
    Transform,
    check_averages,
    check_may_change,
)
from fedpact.core.errors import ChannelError, ClientError, UpdateError
from fedpact.core.grid import signed
from fedpact.core.messages import Integers, Update
from fedpact.core.vector import Layout

# Weight and metrics travel beside the vectors, under this name, as whole multiples of 2^-24.
NUMBERS = ""
_NUMBER_FRACTION_BITS = 24
# With an offset that makes them positive: so they are below 2^80, and their size below 2^55.
_NUMBER_BITS = 80
_OFFSET = 1 << (_NUMBER_BITS - 1)
_LARGEST_NUMBER = 2.0 ** (_NUMBER_BITS - 1 - _NUMBER_FRACTION_BITS)
_FEWEST_LIMB_BITS = 4


@dataclass(frozen=True, eq=False)
class Opened:
    """What the server learns of a cohort's updates.

    Args:
        integers: the sum of their vectors.
        weight: the sum of their weights.
        metrics: the sums of their metrics.
        count: how many updates are in the sums.
    """

    integers: Integers
    weight: float
    metrics: Mapping[str, float]
    count: int


class Mask(Transform, ABC):
    """A stage under which the server sees the sum alone; weights and metrics are summed with the vectors.

    Attributes:
        bits: integers are summed modulo 2^bits.
        dropout: in a simulation, the probability that a client drops out.
        max_weight: the largest weight that a client may have; None where all weigh 1.
    """

    kind: ClassVar[Kind] = "mask"
    bits: int
    dropout: float
    max_weight: float | None

    @property
    def weighs(self) -> bool:
        """Whether the server is told the weights and applies them, instead of the clients."""
        return False

    @property
    def most(self) -> float:
        """The largest weight of a client."""
        return 1.0 if self.max_weight is None else self.max_weight

    def bound(self, before: float, state: StageState) -> float:
        """Return the bound before it: what is summed is what was masked."""
        return before

    def check(self, before: Sequence[Transform], algorithm: Any, layout: Layout | None) -> None:
        """Require averaged updates whose weights are bounded."""
        check_averages(self, algorithm)
        check_may_change(self, algorithm)
        if getattr(algorithm, "weighting", "uniform") != "uniform" and self.max_weight is None:
            name = type(algorithm).__name__
            raise ChannelError(
                f"{type(self).__name__} hides how many rows a client has, so it must know the most that one may have: "
                f'write {type(self).__name__}(max_weight=10000), or set weighting="uniform" in {name}.'
            )

    def check_bounded(self, bound: float, limit: float) -> None:
        """Refuse to be where nothing says how large a value may be.

        Args:
            bound: the L2 norm that no update exceeds before it.
            limit: the size that no value exceeds.
        """
        if min(bound, limit) == inf:
            raise ChannelError(
                f"{type(self).__name__} adds integers of {self.bits} bits, so it must know how large a value can be: "
                "put Clip(1.0) or Quantize(bits=16, range=0.1) before it."
            )

    def dropouts(self, clients: int) -> int:
        """Return how many of so many clients may drop out of a sum that is opened."""
        return clients - self.least(clients)

    @abstractmethod
    def colluding(self, clients: int) -> int:
        """Return how many of so many clients may work with the server without its learning more than the sum."""

    def seen(self) -> str:
        """Return what the server sees of updates, in a clause."""
        return "the sum of a cohort's updates, weights and metrics, and of no client its own"

    def trusted(self) -> str | None:
        """Return who, besides the clients, could read a single update, in a sentence; None where nobody could."""
        return None

    def least(self, clients: int) -> int:
        """Return how many of so many clients are in a sum that is opened, at least."""
        return 1

    def traffic(self, held: Any, sent: Mapping[str, int]) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """Return client → the bytes that it was sent besides the task, and that it sent in all.

        Args:
            held: what `agree` gave the server.
            sent: client → the bytes of its update.
        """
        return {}, sent

    @abstractmethod
    def agree(
        self, ids: Sequence[str], context: RoundContext, digest: bytes
    ) -> tuple[Mapping[str, Any], Any]:
        """Return client → what it masks with, and what the server opens the sum with.

        Args:
            ids: the clients asked.
            context: of the round.
            digest: what names the task.
        """

    @abstractmethod
    def open(self, total: Integers, clients: Sequence[str], held: Any, context: RoundContext) -> Opened:
        """Return what the server learns.

        Args:
            total: the sum of the updates as they arrived.
            clients: whose they are.
            held: what `agree` gave the server.
            context: of the round.

        Raises:
            SecureError: too few clients are left.
        """

    def __getstate__(self) -> dict[str, Any]:
        # Keys stay in the process that they were made in.
        stage: Any = self
        return {field.name: getattr(self, field.name) for field in fields(stage)}

    def secret_of(self, context: RoundContext) -> Any:
        """Return what a client hides its update with.

        Raises:
            ClientError: it has none, for it has dropped out, in a simulation.
        """
        if context.secret is None:
            raise ClientError("dropped out before it sent its masked update, as the simulation asks for.")
        return context.secret

    def read(self, residues: NDArray[np.int64], total: Integers, count: int, clients: int) -> Opened:
        """Return what a sum says that was opened modulo 2^bits.

        Args:
            residues: as `flattened` puts them behind one another;
            total: in the sum as it arrived.
            count: how many updates are in it;
            clients: and how many were asked.
        """
        sums = {
            name: array if name == NUMBERS else signed(array, self.bits)
            for name, array in unflattened(residues, total).items()
        }
        return self.opened(replace(total, arrays=sums), count, clients)

    def with_numbers(self, update: Update, clients: int) -> Update:
        """Return an update whose weight and metrics have joined its integers.

        Raises:
            UpdateError: a number is NaN, infinite, or too large.
            ChannelError: something would be sent beside the mask.
        """
        assert update.integers is not None
        if update.summed or update.packed or update.answer is not None:
            raise ChannelError(
                f"{type(self).__name__} hides averaged vectors, weights and metrics; statistics and answers would be "
                f'sent in clear beside them, as client "{update.client}" was about to.'
            )
        values = {"weight": update.weight, **dict(sorted(update.metrics.items()))}
        limbs = [
            _limbs(value, f'client "{update.client}": {name}', self._limb_bits(clients))
            for name, value in values.items()
        ]
        arrays = {**update.integers.arrays, NUMBERS: np.concatenate(limbs)}
        integers = replace(update.integers, arrays=arrays, numbers=tuple(values))
        # The weight is under the mask now: the update itself no longer tells it.
        return replace(update, integers=integers, metrics={}, weight=0)

    def opened(self, total: Integers, count: int, clients: int) -> Opened:
        """Return what a sum of such updates says.

        Args:
            total: the sum, signed; of the numbers' limbs as they were added.
            count: how many updates are in it;
            clients: and how many were asked.
        """
        bits = self._limb_bits(clients)
        columns = total.arrays[NUMBERS].reshape(len(total.numbers), -1).tolist()
        sums = {
            name: (sum(limb << (bits * i) for i, limb in enumerate(limbs)) - count * _OFFSET)
            / 2**_NUMBER_FRACTION_BITS
            for name, limbs in zip(total.numbers, columns, strict=True)
        }
        arrays = {name: array for name, array in total.arrays.items() if name != NUMBERS}
        weight = sums.pop("weight")
        return Opened(replace(total, arrays=arrays, numbers=(), ring_bits=None), weight, sums, count)

    def _limb_bits(self, clients: int) -> int:
        """Return how many bits of a number are summed at a time, so that no sum leaves the ring."""
        bits = self.bits - clients.bit_length()
        if bits < _FEWEST_LIMB_BITS:
            raise ChannelError(
                f"{clients} clients are too many for the {self.bits} bits of {type(self).__name__}; set them higher."
            )
        return bits


def flattened(integers: Integers) -> NDArray[np.int64]:
    """Return an update's integers one vector behind the other, by name, and its numbers behind them."""
    return np.concatenate([integers.arrays[name] for name in _names(integers)])


def unflattened(flat: NDArray[Any], integers: Integers) -> dict[str, NDArray[np.int64]]:
    """Return the vectors and numbers that `flattened` put behind one another, in an update with such layouts."""
    names = _names(integers)
    places = np.cumsum([integers.layouts[name].size for name in names if name != NUMBERS])
    return dict(zip(names, np.split(flat, places), strict=True))


def drop_out(ids: Sequence[str], probability: float, context: RoundContext) -> set[str]:
    """Return the clients that drop out of a round of a simulation, each with this probability."""
    gone = context.seed.child("dropout").generator().random(len(ids)) < probability
    return {id for id, leaves in zip(ids, gone, strict=True) if leaves}


def _names(integers: Integers) -> list[str]:
    return [*sorted(integers.layouts), NUMBERS]


def _limbs(value: float, name: str, bits: int) -> NDArray[np.int64]:
    if not abs(value) < _LARGEST_NUMBER:
        raise UpdateError(
            f"{name} is {value:g}; only finite numbers below {_LARGEST_NUMBER:g} can be summed in secret."
        )
    whole = round(value * 2**_NUMBER_FRACTION_BITS) + _OFFSET
    mask = (1 << bits) - 1
    return np.array([(whole >> shift) & mask for shift in range(0, _NUMBER_BITS, bits)], np.int64)
