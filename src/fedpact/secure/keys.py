"""Who a client is, and what two clients agree on: Ed25519 signatures, X25519 key agreement, HKDF-SHA256, AES-256-GCM.

RFC 8032, RFC 7748, RFC 5869; NIST SP 800-38D.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn, SupportsIndex, TypeAlias

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedpact.core.errors import SecureError, suggest
from fedpact.secure.encoding import digest
from fedpact.secure.shamir import secret

PUBLIC_BYTES = 32
SIGNATURE_BYTES = 64
TAG_BYTES = 16
# Every key that seals is derived for one message alone, so the nonce may be the same for all.
_NONCE = bytes(12)

Verify: TypeAlias = Callable[[bytes, bytes, bytes], bool]


class Secret:
    """What holds secrets: not shown when it is printed, and never pickled or copied."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: its secrets are not shown>"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise SecureError(
            f"a {type(self).__name__} holds secrets of one secure sum and is neither pickled nor copied: whoever had "
            "two of them could open what they hide. Make it where it is used."
        )


class Identity(Secret):
    """A client's long-lived signing key; its public half stands in the roster."""

    def __init__(self, private: bytes | None = None) -> None:
        """Take a key of 32 bytes that was kept, or draw a new one from the operating system."""
        self._key = (
            Ed25519PrivateKey.generate() if private is None else Ed25519PrivateKey.from_private_bytes(private)
        )
        self.public = self._key.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message, 64 bytes."""
        return self._key.sign(message)

    def private_bytes(self) -> bytes:
        """Return the key, 32 bytes, for its owner to keep."""
        return self._key.private_bytes_raw()


def verify(public: bytes, signature: bytes, message: bytes) -> bool:
    """Return whether this is the signature of a message by the owner of a public key."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


class KeyPair(Secret):
    """An X25519 key: two owners of such keys agree on a secret from each other's public halves.

    The private half is a number below Shamir's prime, so that shares of it can be made.
    """

    def __init__(self, private: bytes | None = None) -> None:
        """Take a private half of 32 bytes, or draw a new one from the operating system."""
        self.private = secret() if private is None else private
        self._key = X25519PrivateKey.from_private_bytes(self.private)
        self.public = self._key.public_key().public_bytes_raw()

    def agree(self, public: bytes, whose: str) -> bytes:
        """Return the secret, 32 bytes, that the owner of a public key has with this one.

        Raises:
            SecureError: the key is of a small group, so that the secret would be the same for everyone.
        """
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:
            raise SecureError(
                f'the public key of "{whose}" gives the same secret with every other key (a point of low order); '
                "the round is given up."
            ) from None


def derive(secret_bytes: bytes, purpose: bytes) -> bytes:
    """Return the key of 32 bytes that a secret has for one purpose (HKDF-SHA256, RFC 5869)."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose).derive(secret_bytes)


def seal(key: bytes, content: bytes, bound: bytes) -> bytes:
    """Return content encrypted under a key of its own, together with what it is bound to (AES-256-GCM)."""
    return AESGCM(key).encrypt(_NONCE, content, bound)


def unseal(key: bytes, sealed: bytes, bound: bytes) -> bytes | None:
    """Return what was sealed, or None where the key, what it was bound to or a byte of it is another."""
    try:
        return AESGCM(key).decrypt(_NONCE, sealed, bound)
    except InvalidTag:
        return None


@dataclass(frozen=True, eq=False)
class Roster:
    """Who may take part: client → public key of its identity, as its owners were told it and not by the server.

    Raises:
        SecureError: a key is not of 32 bytes, or two clients have the same.
    """

    keys: Mapping[str, bytes] = field(repr=False)

    def __post_init__(self) -> None:
        owners: dict[bytes, str] = {}
        for client, key in self.keys.items():
            if len(key) != PUBLIC_BYTES:
                raise SecureError(
                    f'the key of "{client}" on the roster has {len(key)} bytes, not {PUBLIC_BYTES}.'
                )
            other = owners.setdefault(key, client)
            if other != client:
                raise SecureError(
                    f'"{other}" and "{client}" have the same key on the roster: they are one client.'
                )

    def key(self, client: str) -> bytes:
        """Return a client's public key.

        Raises:
            SecureError: it is not on the roster.
        """
        try:
            return self.keys[client]
        except KeyError:
            raise SecureError(
                f'"{client}" is not on the roster of this secure sum.{suggest(client, self.keys)}'
            ) from None

    def digest(self, clients: Sequence[str]) -> bytes:
        """Return the SHA-256 of these clients and their keys.

        Raises:
            SecureError: one is not on the roster.
        """
        return digest("roster", [(client, self.key(client)) for client in clients])
