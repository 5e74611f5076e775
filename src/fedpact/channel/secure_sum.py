"""Secure aggregation: the server learns the sum of a cohort's updates and nothing else of them.

Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning", CCS 2017; Bell et al., "Secure
Single-Server Aggregation with (Poly)Logarithmic Overhead", CCS 2020 (sparse graphs of neighbours). The protocol itself
is in `fedpact.secure`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from fedpact.channel.mask import Mask, Opened, flattened, unflattened
from fedpact.channel.transform import RoundContext
from fedpact.core.messages import Integers, Update
from fedpact.core.settings import check_choice, check_counts, check_numbers
from fedpact.secure.masker import Masker
from fedpact.secure.parameters import Parameters
from fedpact.secure.ring import check_bits, packed_bytes
from fedpact.secure.server import PHASES
from fedpact.secure.simulation import SecureRound, SimulatedRoster

Graph = Literal["auto", "complete", "sparse"]

# On the complete graph a client masks with every other one: of more, that takes longer than training.
_COMPLETE = 100


@dataclass(frozen=True)
class SecureSum(Mask):
    """Mask every update so that only the sum over a cohort can be read, by the server or by anybody.

    The clients of a simulation carry out the protocol itself, message by message: keys, shares of secrets, masked
    updates, agreement on who is in the sum, and the opening of the masks. Weights and metrics are summed under the
    same masks. The server is told nothing else, but for who took part.

    Args:
        bits: updates are added modulo 2^bits: 16, 20, 24 or 32. Fewer are less to send, and coarser.
        graph: who masks with whom: all with all ("complete"), or each with as many as withstand the fractions below
            ("sparse"); "auto" is complete for up to 100 clients.
        corrupt: the fraction of clients that may work with the server, for a sparse graph.
        drop: the fraction that may drop out, for a sparse graph; a complete one withstands just under a third.
        minimum_cohort: the fewest clients whose sum is opened; on a sparse graph, of n clients, n − ⌊drop · n⌋ if that
            is more.
        max_weight: the largest weight that a client may have; None where all weigh 1.
        dropout: in a simulation, the probability that a client drops out, at a step of the protocol drawn at random.

    Raises:
        ConfigError: a setting is out of its range.
        SecureError: there is no ring of so many bits.
    """

    bits: int = 32
    graph: Graph = "auto"
    corrupt: float = 0.05
    drop: float = 0.1
    minimum_cohort: int = 3
    max_weight: float | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_counts(self, "bits", "minimum_cohort")
        check_bits(self.bits)
        check_choice(self, "graph", get_args(Graph))
        check_numbers(self, "corrupt", "drop", "dropout", below=1.0)
        check_numbers(self, "max_weight", positive=True, optional=True)

    def parameters(self, clients: int) -> Parameters:
        """Return the parameters of the protocol among so many clients.

        Raises:
            SecureError: there are too few, or no graph withstands the fractions.
        """
        if self.graph == "complete" or (self.graph == "auto" and clients <= _COMPLETE):
            return Parameters.complete(clients, minimum_cohort=self.minimum_cohort, bits=self.bits)
        made = Parameters.sparse(clients, corrupt=self.corrupt, drop=self.drop, bits=self.bits)
        return replace(made, minimum_cohort=max(made.minimum_cohort, self.minimum_cohort))

    def least(self, clients: int) -> int:
        """Return how many of so many clients are in a sum that is opened, at least."""
        parameters = self.parameters(clients)
        opening = parameters.threshold if parameters.neighbours is None else 0
        return max(opening, parameters.minimum_cohort)

    def colluding(self, clients: int) -> int:
        """Return how many of so many clients may work with the server.

        On the complete graph fewer than the threshold, and so few that two honest ones are left; on a sparse one the
        fraction that it was made for.
        """
        parameters = self.parameters(clients)
        if parameters.neighbours is not None:
            return int(self.corrupt * clients)
        return max(0, min(2 * parameters.threshold - clients - 1, clients - 2))

    def agree(
        self, ids: Sequence[str], context: RoundContext, digest: bytes
    ) -> tuple[Mapping[str, Masker], SecureRound]:
        """Have the clients exchange keys and shares of their secrets; return what each masks with.

        Raises:
            SecureError: too few are there.
        """
        absent = self._absent(ids, context) if self.dropout else {}
        round = SecureRound.agree(self._roster, ids, digest, self.parameters(len(ids)), absent)
        return {id: round.masker(id) for id in round.uploaders}, round

    @cached_property
    def _roster(self) -> SimulatedRoster:
        return SimulatedRoster()

    def _absent(self, ids: Sequence[str], context: RoundContext) -> dict[str, str]:
        generator = context.seed.child("dropout").generator()
        leaves, steps = (
            generator.random(len(ids)) < self.dropout,
            generator.integers(len(PHASES), size=len(ids)),
        )
        return {id: PHASES[step] for id, gone, step in zip(ids, leaves, steps, strict=True) if gone}

    def encode_integers(self, update: Update, context: RoundContext) -> Update:
        """Mask the update, its weight and its metrics.

        Raises:
            ClientError: the client has dropped out, in a simulation.
            UpdateError: a metric is NaN, infinite, or too large.
        """
        masker: Masker = self.secret_of(context)
        update = self.with_numbers(update, context.asked)
        assert update.integers is not None
        ring = flattened(update.integers).astype(np.uint32)
        masker.apply(ring)
        masked = unflattened(ring, update.integers)
        nbytes = packed_bytes(ring.size, self.bits)
        return replace(
            update, integers=replace(update.integers, arrays=masked, ring_bits=self.bits, nbytes=nbytes)
        )

    def traffic(
        self, held: SecureRound, sent: Mapping[str, int]
    ) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """Return the bytes of all messages of the protocol."""
        return held.report.download_bytes, {id: held.report.upload_bytes[id] for id in sent}

    def open(
        self, total: Integers, clients: Sequence[str], held: SecureRound, context: RoundContext
    ) -> Opened:
        """Have the clients that are left open the masks of the sum.

        Raises:
            SecureError: too few are left.
        """
        numbers = held.unmask(flattened(total).astype(np.uint32), clients).astype(np.int64)
        return self.read(numbers, total, len(clients), context.asked)
