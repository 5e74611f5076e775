"""Secure sums with two servers that do not work together: one message from each client, and any of them may drop out.

A client draws a seed, sends x − PRG(seed) to server A and the seed, sealed for server B, along with it. A adds up what
came, B the masks of the seeds of the same clients, and their sum is that of the vectors. Either server alone sees
uniform numbers; both together see every vector. A learns the sum.

Corrigan-Gibbs and Boneh, "Prio: Private, Robust, and Scalable Computation of Aggregate Statistics", NSDI 2017,
section 2 (additive sharing; without its proofs that a vector is in range).
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import SecureError
from fedpact.secure import ring
from fedpact.secure.encoding import Part, decode, digest, encode
from fedpact.secure.keys import (
    PUBLIC_BYTES,
    SIGNATURE_BYTES,
    TAG_BYTES,
    Identity,
    KeyPair,
    Roster,
    Secret,
    Verify,
    derive,
    seal,
    unseal,
    verify,
)
from fedpact.secure.messages import MaskedVector
from fedpact.secure.prg import KEY_BYTES, add_masks
from fedpact.secure.wire import check_bytes, check_increasing, check_name, check_natural

_VERSION = "fedpact split trust 1"
_SEALED_BYTES = KEY_BYTES + TAG_BYTES


@dataclass(frozen=True)
class SplitRound:
    """What a client and both servers must agree on; who has another one opens nothing.

    Args:
        session: the run that the round belongs to, 32 bytes.
        round: its number in the session; the servers open increasing ones alone.
        context: the hash of the model that the clients were given, how they encode their vectors.
        key: server B's public key, X25519, as the client was told it and not by server A.
        minimum_cohort: the fewest clients whose sum is opened, at least 2.
        bits: numbers are added mod 2^bits: 16, 20, 24 or 32.

    Raises:
        SecureError: one of these is none.
    """

    session: bytes
    round: int
    context: bytes
    key: bytes
    minimum_cohort: int = 5
    bits: int = 32

    def __post_init__(self) -> None:
        check_bytes(self.session, 32, "a session's name")
        check_natural(self.round, "a round")
        check_bytes(self.key, PUBLIC_BYTES, "a public key")
        ring.check_bits(self.bits)
        if self.minimum_cohort < 2:
            raise SecureError("a smallest cohort below 2 is not possible, for a sum of one hides nothing.")

    def digest(self) -> bytes:
        """Return the SHA-256 of all this."""
        return digest(
            _VERSION,
            self.session,
            self.round,
            digest(self.context),
            self.key,
            self.minimum_cohort,
            self.bits,
        )


@dataclass(frozen=True)
class SealedSeed:
    """For server B, through server A: a client's seed, sealed, signed by the client.

    Args:
        client: whose.
        key: an X25519 public key that was made for this message.
        box: 48 bytes.
        signature: Ed25519, of all this and the round.
    """

    client: str
    key: bytes
    box: bytes
    signature: bytes

    def __post_init__(self) -> None:
        check_name(self.client)
        check_bytes(self.key, PUBLIC_BYTES, "a public key")
        check_bytes(self.box, _SEALED_BYTES, "a sealed seed")
        check_bytes(self.signature, SIGNATURE_BYTES, "a signature")

    def check(self, round: SplitRound, roster: Roster, verify: Verify = verify) -> None:
        """Check that the client made it for this round.

        Raises:
            SecureError: it is not on the roster, or its signature is of something else.
        """
        statement = _statement(round, self.client, self.key, self.box)
        if not verify(roster.key(self.client), self.signature, statement):
            raise SecureError(f'the seed from "{self.client}" is not signed by it for this round and model.')

    def parts(self) -> tuple[Part, ...]:
        """Return its content, as `encode` takes it."""
        return self.client, self.key, self.box, self.signature


@dataclass(frozen=True)
class SplitShare:
    """What a client sends to server A: its vector less the mask of a seed, and the seed for server B."""

    kind: ClassVar[str] = "split share"
    masked: MaskedVector
    seed: SealedSeed = field(repr=False)

    def to_bytes(self) -> bytes:
        """Return it as bytes."""
        return encode(self.kind, self.masked.parts(), self.seed.parts())

    @classmethod
    def from_bytes(cls, data: bytes) -> "SplitShare":
        """Return the share that these bytes are of.

        Raises:
            SecureError: they are of none.
        """
        parts: tuple[Any, ...] = decode(data)
        if len(parts) != 3 or parts[0] != cls.kind:
            raise SecureError("this is no client's share of a sum over two servers.")
        try:
            return cls(MaskedVector(*parts[1]), SealedSeed(*parts[2]))
        except TypeError:
            raise SecureError("a client's share has other parts than such a share has.") from None


@dataclass(frozen=True)
class SeedRequest:
    """From server A to server B: the seeds of those whose vectors are in A's sum, sorted by client."""

    kind: ClassVar[str] = "seed request"
    count: int
    seeds: tuple[SealedSeed, ...]

    def __post_init__(self) -> None:
        check_natural(self.count, "a number of parameters")
        check_increasing([seed.client for seed in self.seeds], "the list of seeds")

    def to_bytes(self) -> bytes:
        """Return it as bytes."""
        return encode(self.kind, self.count, tuple(seed.parts() for seed in self.seeds))

    @classmethod
    def from_bytes(cls, data: bytes) -> "SeedRequest":
        """Return the request that these bytes are of.

        Raises:
            SecureError: they are of none.
        """
        parts: tuple[Any, ...] = decode(data)
        if len(parts) != 3 or parts[0] != cls.kind:
            raise SecureError("this is no request for the masks of a sum over two servers.")
        try:
            return cls(parts[1], tuple(SealedSeed(*seed) for seed in parts[2]))
        except TypeError:
            raise SecureError("a request for masks has other parts than such a request has.") from None


def split(client: str, identity: Identity, round: SplitRound, vector: NDArray[np.uint32]) -> SplitShare:
    """Return the one message that a client sends in a round.

    Args:
        client: its name on the roster.
        identity: its signing key.
        round: as this client knows it, with the model that it was given.
        vector: uint32 [parameters], each below 2^bits.

    Raises:
        SecureError: server B's key is of a small group, or the vector is not one row of uint32.
    """
    seed = os.urandom(KEY_BYTES)
    masked = vector.copy()
    add_masks(masked, [], [_mask_key(round, client, seed)])
    ring.reduce(masked, round.bits)
    pair = KeyPair()
    label = _label(round, client, pair.public)
    box = seal(derive(pair.agree(round.key, "server B"), label), seed, label)
    signature = identity.sign(_statement(round, client, pair.public, box))
    return SplitShare(MaskedVector.of(masked, round.bits), SealedSeed(client, pair.public, box, signature))


class ServerA:
    """The server that the clients send to, and that learns the sum.

    Args:
        round: which.
        roster: who may take part.
        verify: checks a signature.
    """

    def __init__(self, round: SplitRound, roster: Roster, verify: Verify = verify) -> None:
        self._round, self._roster, self._verify = round, roster, verify
        self._seeds: dict[str, SealedSeed] = {}
        self._total: NDArray[np.uint32] | None = None

    def receive(self, client: str, share: SplitShare) -> None:
        """Add a client's share; the transport has made sure that it is this client's.

        Raises:
            SecureError: it is not one of this round by this client, or the second one.
        """
        if share.seed.client != client or client in self._seeds:
            raise SecureError(f'"{client}" sent a share for another client, or a second one.')
        if share.masked.bits != self._round.bits:
            raise SecureError(
                f'"{client}" sent numbers of {share.masked.bits} bits; here they have {self._round.bits}.'
            )
        share.seed.check(self._round, self._roster, self._verify)
        vector = share.masked.vector()
        if self._total is None:
            self._total = np.zeros_like(vector)
        if vector.shape != self._total.shape:
            raise SecureError(f"a vector of {vector.size} numbers came; the others have {self._total.size}.")
        self._total += vector
        self._seeds[client] = share.seed

    def request(self) -> SeedRequest:
        """Return what to ask server B.

        Raises:
            SecureError: too few clients have sent a share.
        """
        _check_cohort(len(self._seeds), self._round)
        count = 0 if self._total is None else self._total.size
        return SeedRequest(count, tuple(self._seeds[client] for client in sorted(self._seeds)))

    def result(self, masks: MaskedVector) -> NDArray[np.uint32]:
        """Return the sum of the clients' vectors mod 2^bits, with the sum of their masks from server B.

        Raises:
            SecureError: the masks are of another size.
        """
        if self._total is None or masks.bits != self._round.bits or masks.count != self._total.size:
            raise SecureError("the masks from server B are not of the vectors that are in the sum.")
        total = self._total + masks.vector()
        ring.reduce(total, self._round.bits)
        return total


class ServerB(Secret):
    """The server that opens seeds, and only ever sees those and sums of masks.

    It serves one session and answers once in each of its rounds: the masks of two sets of clients would tell A the
    difference of two sums.

    Args:
        roster: who may take part, as this server was told by its owners and not by server A.
        pair: its key.
        minimum_cohort: the smallest cohort that it answers for, whatever server A says.
        last_round: the last round that it answered for, which its operator keeps over restarts; −1 for none.
        verify: checks a signature.
        largest: the most parameters that it makes masks of, whatever server A says.
    """

    def __init__(
        self,
        roster: Roster,
        pair: KeyPair | None = None,
        minimum_cohort: int = 5,
        last_round: int = -1,
        verify: Verify = verify,
        largest: int = 1 << 30,
    ) -> None:
        self._roster, self._verify = roster, verify
        self._pair = pair or KeyPair()
        self._largest = largest
        self.minimum_cohort = minimum_cohort
        self.last_round = last_round

    @property
    def public(self) -> bytes:
        """Its public key, which every client must know."""
        return self._pair.public

    def handle(self, round: SplitRound, request: SeedRequest) -> MaskedVector:
        """Return the sum of the masks of the clients in a request.

        Args:
            round: as this server knows it.
            request: of server A.

        Raises:
            SecureError: the round is not later than the last one, the cohort is too small, the vector too large, or a
                seed is not of a client for this round.
        """
        if request.count > self._largest:
            raise SecureError(
                f"masks of {request.count} parameters were asked for; this server makes them of up to {self._largest}."
            )
        if round.round <= self.last_round or round.key != self.public:
            raise SecureError(
                f"masks of round {round.round} were asked for; this server has answered for round {self.last_round}, "
                "answers once for each, and only for rounds with its own key."
            )
        _check_cohort(len(request.seeds), round, self.minimum_cohort)
        keys = [self._mask_key(round, seed) for seed in request.seeds]
        self.last_round = round.round
        total = np.zeros(request.count, np.uint32)
        add_masks(total, keys)
        ring.reduce(total, round.bits)
        return MaskedVector.of(total, round.bits)

    def _mask_key(self, round: SplitRound, sealed: SealedSeed) -> bytes:
        sealed.check(round, self._roster, self._verify)
        label = _label(round, sealed.client, sealed.key)
        seed = unseal(derive(self._pair.agree(sealed.key, sealed.client), label), sealed.box, label)
        if seed is None:
            raise SecureError(f'the seed from "{sealed.client}" was not sealed for this server.')
        return _mask_key(round, sealed.client, seed)


def total_of(round: SplitRound, shares: Iterable[SplitShare], a: ServerA, b: ServerB) -> NDArray[np.uint32]:
    """Return the sum of some clients' vectors, passing every message through both servers as bytes."""
    for share in shares:
        a.receive(share.seed.client, SplitShare.from_bytes(share.to_bytes()))
    return a.result(b.handle(round, SeedRequest.from_bytes(a.request().to_bytes())))


def _check_cohort(count: int, round: SplitRound, least: int = 0) -> None:
    needed = max(round.minimum_cohort, least)
    if count < needed:
        raise SecureError(f"{count} clients sent a share and {needed} are needed; the round is given up.")


def _mask_key(round: SplitRound, client: str, seed: bytes) -> bytes:
    return derive(seed, encode("mask", round.digest(), client))


def _label(round: SplitRound, client: str, key: bytes) -> bytes:
    return encode("seed", round.digest(), client, key)


def _statement(round: SplitRound, client: str, key: bytes, box: bytes) -> bytes:
    return encode("split", round.digest(), client, key, box)
