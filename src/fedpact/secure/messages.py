"""What clients and server of a secure sum send each other, and their bytes.

A message is checked when it is made and so when it is read: sizes, order, ranges. Whether its content is true is for
the receiver to find out. Clients stand in messages by their position among the sorted clients whose keys are there.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import SecureError
from fedpact.secure import ring
from fedpact.secure.encoding import Part, decode, digest, encode
from fedpact.secure.keys import PUBLIC_BYTES, SIGNATURE_BYTES, TAG_BYTES
from fedpact.secure.parameters import Parameters
from fedpact.secure.shamir import SECRET_BYTES
from fedpact.secure.wire import (
    check_bytes,
    check_increasing,
    check_name,
    check_natural,
    check_pairs,
    read_each,
    read_pairs,
    read_positions,
    write_pairs,
    write_positions,
)

_DIGEST_BYTES = 32
SEALED_BYTES = 2 * SECRET_BYTES + TAG_BYTES

M = TypeVar("M", bound="Message")


class Message(ABC):
    """One message of the protocol."""

    kind: ClassVar[str]

    @abstractmethod
    def parts(self) -> tuple[Part, ...]:
        """Return its content, as `encode` takes it."""

    @classmethod
    @abstractmethod
    def from_parts(cls: type[M], parts: tuple[Any, ...]) -> M:
        """Return the message with this content."""

    def to_bytes(self) -> bytes:
        """Return it as bytes: the same for the same message, always."""
        return encode(self.kind, *self.parts())

    @classmethod
    def from_bytes(cls: type[M], data: bytes) -> M:
        """Return the message that these bytes are of.

        Raises:
            SecureError: they are of no such message.
        """
        message = decode_message(data)
        if not isinstance(message, cls):
            raise SecureError(f'a message "{cls.kind}" was expected; "{message.kind}" came.')
        return message


def decode_message(data: bytes) -> Message:
    """Return the message that these bytes are of, of whatever kind.

    Raises:
        SecureError: they are of none.
    """
    kind, *parts = decode(data) or ("",)
    known = next((known for known in _KINDS if known.kind == kind), None)
    if known is None:
        raise SecureError("this is no message of a secure sum.")
    try:
        return known.from_parts(tuple(parts))
    except (TypeError, ValueError, AttributeError):
        raise SecureError(f'a message "{known.kind}" has other parts than such a message has.') from None


@dataclass(frozen=True)
class Invitation(Message):
    """R0, to all: which round this is, who is asked, and with which parameters.

    Args:
        session: the run that the round belongs to, 32 bytes.
        round: its number in the session; every client takes part in increasing ones alone.
        parameters: those of this round.
        cohort: who is invited, sorted.
    """

    kind: ClassVar[str] = "invitation"
    session: bytes
    round: int
    parameters: Parameters
    cohort: tuple[str, ...]

    def __post_init__(self) -> None:
        check_bytes(self.session, _DIGEST_BYTES, "a session's name")
        check_natural(self.round, "a round")
        for client in self.cohort:
            check_name(client)
        check_increasing(self.cohort, "the cohort")
        if len(self.cohort) != self.parameters.clients:
            raise SecureError(
                f"{len(self.cohort)} clients are invited with parameters for {self.parameters.clients}."
            )

    def parts(self) -> tuple[Part, ...]:
        return self.session, self.round, self.parameters.parts(), self.cohort

    @classmethod
    def from_parts(cls, parts: tuple[Any, ...]) -> "Invitation":
        session, number, (clients, threshold, neighbours, least, bits), cohort = parts
        for value in (clients, threshold, neighbours, least, bits):
            check_natural(value, "a parameter")
        return cls(session, number, Parameters(clients, threshold, neighbours or None, least, bits), cohort)


@dataclass(frozen=True)
class Keys(Message):
    """R1, from a client: its two public keys, signed.

    Args:
        client: whose.
        channel: what shares for it are sealed with, X25519.
        mask: what masks with it are made of, X25519, of this round alone.
        signature: Ed25519, of all this and the round.
    """

    kind: ClassVar[str] = "keys"
    client: str
    channel: bytes
    mask: bytes
    signature: bytes

    def __post_init__(self) -> None:
        check_name(self.client)
        check_bytes(self.channel, PUBLIC_BYTES, "a public key")
        check_bytes(self.mask, PUBLIC_BYTES, "a public key")
        check_bytes(self.signature, SIGNATURE_BYTES, "a signature")

    def parts(self) -> tuple[Part, ...]:
        return self.client, self.channel, self.mask, self.signature

    @classmethod
    def from_parts(cls, parts: tuple[Any, ...]) -> "Keys":
        return cls(*parts)


@dataclass(frozen=True)
class KeyList(Message):
    """R1, to all: the keys of everyone who sent some, sorted by client; no key occurs twice."""

    kind: ClassVar[str] = "key list"
    keys: tuple[Keys, ...]

    def __post_init__(self) -> None:
        check_increasing([keys.client for keys in self.keys], "the list of keys")
        publics = [public for keys in self.keys for public in (keys.channel, keys.mask)]
        if len(set(publics)) != len(publics):
            raise SecureError("a public key occurs twice in the list of keys; the round is given up.")

    @cached_property
    def digest(self) -> bytes:
        """The SHA-256 of the list."""
        return digest(self.kind, *self.parts())

    def __hash__(self) -> int:
        return hash(self.digest)

    def parts(self) -> tuple[Part, ...]:
        return tuple(keys.parts() for keys in self.keys)

    @classmethod
    def from_parts(cls, parts: tuple[Any, ...]) -> "KeyList":
        return cls(tuple(Keys.from_parts(keys) for keys in parts))


@dataclass(frozen=True)
class SealedShares(Message):
    """R2, from a client: for each neighbour its shares of the two secrets, sealed; and a hash of the first.

    Args:
        commitment: a hash that tells whether the self mask's secret was put together rightly.
        boxes: 80 bytes for each neighbour, in the order of their positions.
    """

    kind: ClassVar[str] = "sealed shares"
    commitment: bytes
    boxes: tuple[bytes, ...] = field(repr=False)

    def __post_init__(self) -> None:
        check_bytes(self.commitment, _DIGEST_BYTES, "a commitment")
        for box in self.boxes:
            check_bytes(box, SEALED_BYTES, "a box of shares")

    def parts(self) -> tuple[Part, ...]:
        return self.commitment, b"".join(self.boxes)

    @classmethod
    def from_parts(cls, parts: tuple[Any, ...]) -> "SealedShares":
        commitment, boxes = parts
        return cls(commitment, read_each(boxes, SEALED_BYTES))


@dataclass(frozen=True)
class Delivery(Message):
    """R2, to one client: what its neighbours have sealed for it.

    Args:
        boxes: (position of the sender, 80 bytes), sorted.
    """

    kind: ClassVar[str] = "delivery"
    boxes: tuple[tuple[int, bytes], ...] = field(repr=False)

    def __post_init__(self) -> None:
        check_pairs(self.boxes, SEALED_BYTES, "a box of shares")

    def parts(self) -> tuple[Part, ...]:
        return write_pairs(self.boxes)

    @classmethod
    def from_parts(cls, parts: tuple[Any, ...]) -> "Delivery":
        positions, boxes = parts
        return cls(read_pairs(positions, boxes, SEALED_BYTES))


@dataclass(frozen=True)
class MaskedVector(Message):
    """R3, from a client: its vector under all its masks, mod 2^bits, without a gap between numbers."""

    kind: ClassVar[str] = "masked vector"
    bits: int
    count: int
    packed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        check_natural(self.count, "a number of parameters")
        ring.check_bits(self.bits)
        check_bytes(self.packed, ring.packed_bytes(self.count, self.bits), "a masked vector")

    @classmethod
    def of(cls, vector: NDArray[np.uint32], bits: int) -> "MaskedVector":
        """Return the message with these numbers mod 2^bits."""
        return cls(bits, vector.size, ring.pack(vector, bits))

    def vector(self) -> NDArray[np.uint32]:
        """Return the numbers: uint32 [count]."""
        return ring.unpack(self.packed, self.count, self.bits)

    def parts(self) -> tuple[Part, ...]:
        return self.bits, self.count, self.packed

    @classmethod
    def from_parts(cls, parts: tuple[Any, ...]) -> "MaskedVector":
        return cls(*parts)


@dataclass(frozen=True)
class Survivors(Message):
    """R4, to those who uploaded: their positions, sorted."""

    kind: ClassVar[str] = "survivors"
    positions: tuple[int, ...]

    def __post_init__(self) -> None:
        check_increasing(self.positions, "the survivors")

    def parts(self) -> tuple[Part, ...]:
        return (write_positions(self.positions),)

    @classmethod
    def from_parts(cls, parts: tuple[Any, ...]) -> "Survivors":
        (positions,) = parts
        return cls(read_positions(positions))


@dataclass(frozen=True)
class Consistency(Message):
    """R4, from a client: its signature of the survivors that it was told."""

    kind: ClassVar[str] = "consistency"
    signature: bytes

    def __post_init__(self) -> None:
        check_bytes(self.signature, SIGNATURE_BYTES, "a signature")

    def parts(self) -> tuple[Part, ...]:
        return (self.signature,)

    @classmethod
    def from_parts(cls, parts: tuple[Any, ...]) -> "Consistency":
        return cls(*parts)


@dataclass(frozen=True)
class UnmaskRequest(Message):
    """R5, to a client: signatures of the same survivors by enough holders of shares around it.

    Args:
        signatures: (position of the signer, 64 bytes), sorted.
    """

    kind: ClassVar[str] = "unmask request"
    signatures: tuple[tuple[int, bytes], ...]

    def __post_init__(self) -> None:
        check_pairs(self.signatures, SIGNATURE_BYTES, "a signature")

    def parts(self) -> tuple[Part, ...]:
        return write_pairs(self.signatures)

    @classmethod
    def from_parts(cls, parts: tuple[Any, ...]) -> "UnmaskRequest":
        positions, signatures = parts
        return cls(read_pairs(positions, signatures, SIGNATURE_BYTES))


@dataclass(frozen=True)
class UnmaskShares(Message):
    """R5, from a client: one share for each client whose shares it holds.

    Args:
        shares: 32 bytes for each of them and for itself, in the order of their positions: of the self mask's secret of
            a survivor, of the mask key of one who dropped out.
    """

    kind: ClassVar[str] = "unmask shares"
    shares: tuple[bytes, ...] = field(repr=False)

    def __post_init__(self) -> None:
        for share in self.shares:
            check_bytes(share, SECRET_BYTES, "a share")

    def parts(self) -> tuple[Part, ...]:
        return (b"".join(self.shares),)

    @classmethod
    def from_parts(cls, parts: tuple[Any, ...]) -> "UnmaskShares":
        (shares,) = parts
        return cls(read_each(shares, SECRET_BYTES))


_KINDS: tuple[type[Message], ...] = (
    Invitation,
    Keys,
    KeyList,
    SealedShares,
    Delivery,
    MaskedVector,
    Survivors,
    Consistency,
    UnmaskRequest,
    UnmaskShares,
)
