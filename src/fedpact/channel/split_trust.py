"""Sums over two servers that do not work together: one message from each client, and any of them may drop out.

Corrigan-Gibbs and Boneh, "Prio: Private, Robust, and Scalable Computation of Aggregate Statistics", NSDI 2017,
section 2. The messages and server B are in `fedpact.secure.split_trust`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.channel.mask import Mask, Opened, drop_out, flattened
from fedpact.channel.transform import RoundContext
from fedpact.core.errors import SecureError
from fedpact.core.messages import Integers, Update
from fedpact.core.settings import check_counts, check_numbers
from fedpact.secure.keys import Identity, KeyPair, Roster
from fedpact.secure.messages import MaskedVector
from fedpact.secure.ring import check_bits, reduce
from fedpact.secure.simulation import SimulatedRoster
from fedpact.secure.split_trust import SealedSeed, SeedRequest, ServerB, SplitRound, SplitShare, split

_MASKED = "masked"
_SEEDS = "seeds"


@dataclass(frozen=True)
class SplitTrust(Mask):
    """Split every update between two servers, of which one learns the sum over a cohort, and the other nothing.

    A client masks its update with a seed and sends one message: the masked update for server A, which trains the model,
    and the seed, sealed for server B. B adds up the masks of the clients that A names. The clients and servers of a
    simulation carry out the protocol itself. Weights and metrics are summed under the same masks.

    Args:
        bits: updates are added modulo 2^bits: 16, 20, 24 or 32. Fewer are less to send, and coarser.
        minimum_cohort: the fewest clients for whose sum server B adds up masks, at least 2.
        max_weight: the largest weight that a client may have; None where all weigh 1.
        dropout: in a simulation, the probability that a client drops out before it sends its update.

    Raises:
        ConfigError: a setting is out of its range.
        SecureError: there is no ring of so many bits.
    """

    bits: int = 32
    minimum_cohort: int = 3
    max_weight: float | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_counts(self, "bits", "minimum_cohort")
        check_bits(self.bits)
        check_numbers(self, "max_weight", positive=True, optional=True)
        check_numbers(self, "dropout", below=1.0)

    def least(self, clients: int) -> int:
        """Return how many of so many clients are in a sum that is opened, at least."""
        return min(self.minimum_cohort, clients)

    def colluding(self, clients: int) -> int:
        """Return how many of so many clients may work with one of the servers: all but two."""
        return max(0, clients - 2)

    def seen(self) -> str:
        """Return what the server sees of updates, in a clause."""
        return f"{super().seen()}; a second server sees masks alone"

    def trusted(self) -> str:
        """Return who could read a single update all the same, in a sentence."""
        return "The two servers together could read each update; either of them alone could not."

    def agree(
        self, ids: Sequence[str], context: RoundContext, digest: bytes
    ) -> tuple[Mapping[str, "Sender"], "_Round"]:
        """Return client → what it splits its update with, for those that do not drop out.

        Raises:
            SecureError: fewer are asked than a sum is opened of.
        """
        if len(ids) < self.minimum_cohort:
            raise SecureError(
                f"{len(ids)} clients are asked, and server B opens sums of {self.minimum_cohort} or more; ask more "
                "clients, or lower minimum_cohort."
            )
        clients = self._clients
        members = clients.members(ids, self.minimum_cohort)
        clients.rounds += 1
        number = clients.rounds
        round = SplitRound(clients.session, number, digest, self._pair.public, self.minimum_cohort, self.bits)
        roster = Roster({id: member.identity.public for id, member in members.items()})
        b = ServerB(roster, self._pair, self.minimum_cohort, number - 1, clients.verify)
        gone = drop_out(ids, self.dropout, context) if self.dropout else set()
        senders = {
            id: Sender(round, member.identity.private_bytes())
            for id, member in members.items()
            if id not in gone
        }
        return senders, _Round(round, roster, b)

    @cached_property
    def _clients(self) -> SimulatedRoster:
        return SimulatedRoster()

    @cached_property
    def _pair(self) -> KeyPair:
        return KeyPair()

    def encode_integers(self, update: Update, context: RoundContext) -> Update:
        """Split the update, its weight and its metrics into what the two servers are to have.

        Raises:
            ClientError: the client has dropped out, in a simulation.
            UpdateError: a metric is NaN, infinite, or too large.
        """
        sender: Sender = self.secret_of(context)
        update = self.with_numbers(update, context.asked)
        assert update.integers is not None
        share = sender.share(update.client, flattened(update.integers).astype(np.uint32))
        arrays: dict[str, Any] = {_MASKED: share.masked.vector(), _SEEDS: Seeds({update.client: share.seed})}
        integers = replace(update.integers, arrays=arrays, ring_bits=self.bits, nbytes=len(share.to_bytes()))
        return replace(update, integers=integers)

    def open(self, total: Integers, clients: Sequence[str], held: "_Round", context: RoundContext) -> Opened:
        """Have server B add up the masks of the sum.

        Raises:
            SecureError: too few clients are left, or a seed is not signed by its client.
        """
        parts: Mapping[str, Any] = total.arrays
        numbers = held.opened(parts[_MASKED], parts[_SEEDS], clients)
        return self.read(numbers, total, len(clients), context.asked)


@dataclass(frozen=True, eq=False)
class Sender:
    """What one simulated client splits its update with; it travels to worker processes of the simulation alone.

    Args:
        round: the round as the client knows it.
        private: its signing key.
    """

    round: SplitRound
    private: bytes = field(repr=False)

    def share(self, client: str, ring: NDArray[np.uint32]) -> SplitShare:
        """Return its one message, from its integers modulo 2^32."""
        return split(client, Identity(self.private), self.round, ring)


@dataclass(frozen=True, eq=False)
class Seeds:
    """The sealed seeds of the clients in a sum, gathered as the vectors are added."""

    of: Mapping[str, SealedSeed]

    def __len__(self) -> int:
        # However many clients, it stands beside one vector.
        return 1

    def __add__(self, other: "Seeds") -> "Seeds":
        return Seeds({**self.of, **other.of})


@dataclass(frozen=True, eq=False)
class _Round:
    round: SplitRound
    roster: Roster
    b: ServerB

    def opened(self, masked: NDArray[np.int64], seeds: Seeds, clients: Sequence[str]) -> NDArray[np.int64]:
        """Return the sum of the clients' integers modulo 2^bits, from server A's sum of masked ones."""
        if set(seeds.of) != set(clients):
            raise SecureError(
                "the seeds are not of the clients whose updates are in the sum; the round is given up."
            )
        request = SeedRequest(masked.size, tuple(seeds.of[id] for id in sorted(seeds.of)))
        masks = self.b.handle(self.round, SeedRequest.from_bytes(request.to_bytes()))
        total = (masked & np.int64(0xFFFFFFFF)).astype(np.uint32)
        total += MaskedVector.from_bytes(masks.to_bytes()).vector()
        reduce(total, self.round.bits)
        return total.astype(np.int64)
