"""Encrypted integers: what a client sends, what the server adds up, and the party that decrypts the sum."""

import gc
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import SecureError
from fedpact.secure.ckks import (
    Ciphertexts,
    CKKSKeys,
    CKKSParameters,
    CKKSPublic,
    add,
    decrypt,
    encrypt,
    scale,
)
from fedpact.secure.keys import Secret

# 28 bits above a number and its weight of 40 bits each; log2 q is 170, of the 218 that give 128-bit security.
_PARAMETERS = CKKSParameters(8192, (60, 50, 60), 40, limit=1.0)
# Of 400 KB each; a process of a simulation parses that of its run once.
_REMEMBERED = 2
# Bound of the standard deviation of a decrypted sum's error, in units of what one client's numbers may be, for the
# square root of a client.
ERROR = 2.0**-51


@dataclass(frozen=True, eq=False)
class Sent:
    """What a client sends: the bytes of an encrypted vector.

    Args:
        public: the public key, which the server has too.
        data: the bytes.
        size: of how many numbers.
    """

    public: bytes
    data: bytes
    size: int

    @classmethod
    def of(cls, public: bytes, integers: NDArray[np.int64], range: float) -> "Sent":
        """Return integers encrypted, in units of a size that none exceeds.

        Raises:
            UpdateError: one does.
        """
        return cls(public, encrypt(_parsed(public), integers / range).to_bytes(), integers.size)

    def __len__(self) -> int:
        return self.size

    def read(self) -> "Encrypted":
        """Return the ciphertexts.

        Raises:
            UpdateError: these are none under this key, or of another size.
        """
        return Encrypted(Ciphertexts.read(_parsed(self.public), self.data, self.size))


@dataclass(frozen=True, eq=False)
class Encrypted:
    """An encrypted vector at the server, which adds such up; between processes of a simulation it travels as bytes."""

    ciphertexts: Ciphertexts

    def __len__(self) -> int:
        return self.ciphertexts.size

    def __add__(self, other: "Encrypted") -> "Encrypted":
        return Encrypted(add(self.ciphertexts, other.ciphertexts))

    def times(self, weight: float, total_weight: float) -> "Encrypted":
        """Return it multiplied by a weight, of so much in all: E(g)·w = E(g·w).

        Raises:
            UpdateError: the weight is 0, or more than all weights together.
        """
        return Encrypted(scale(self.ciphertexts, weight, total_weight))

    def to_bytes(self) -> bytes:
        """Return its bytes."""
        return self.ciphertexts.to_bytes()

    def __reduce__(self) -> tuple[Callable[[bytes, bytes, int], "Encrypted"], tuple[bytes, bytes, int]]:
        return _read, (self.ciphertexts.public.data, self.to_bytes(), len(self))


class KeyHolder(Secret):
    """The party that alone has the secret key, and decrypts sums.

    Args:
        minimum_cohort: of how many clients at least; that a ciphertext is of so many, it is told and cannot see.

    Attributes:
        public: the public key, for clients and server.
    """

    def __init__(self, minimum_cohort: int) -> None:
        self._keys = CKKSKeys.generate(_PARAMETERS)
        self._minimum_cohort = minimum_cohort
        self._introduced: set[str] = set()
        self.public = self._keys.public()

    def introduced(self, ids: Iterable[str]) -> dict[str, int]:
        """Return client → the bytes of the public key, for those that have not had it before."""
        new = [id for id in ids if id not in self._introduced]
        self._introduced.update(new)
        return dict.fromkeys(new, len(self.public))

    def decrypt(self, data: bytes, size: int, range: float, clients: Sequence[str]) -> NDArray[np.int64]:
        """Return the integers of an encrypted sum [size].

        They are rounded, so that nothing of the error of decryption, which would tell about the key, is in them.

        Args:
            data: the sum as the server sends it.
            size: how many integers;
            range: and in which units.
            clients: whose updates are in it.

        Raises:
            SecureError: these are too few, or what was decrypted are no integers.
            UpdateError: these are no ciphertexts under this key, or what is in them is out of its range.
        """
        if len(clients) < self._minimum_cohort:
            raise SecureError(
                f"{len(clients)} clients sent their updates, and the key holder decrypts sums of "
                f"{self._minimum_cohort} or more; the round is given up."
            )
        numbers = decrypt(self._keys, data, size) * range
        integers = np.rint(numbers)
        if float(np.abs(numbers - integers).max(initial=0.0)) > 1 / 4:
            raise SecureError(
                "the encrypted sum does not decrypt to integers: a client sent something else than its update."
            )
        return integers.astype(np.int64)


def _parsed(public: bytes) -> CKKSPublic:
    process = os.getpid()
    if (process, public) not in _PARSED:
        mine = [key for key in _PARSED if key[0] == process]
        if len(mine) == _REMEMBERED:
            del _PARSED[mine[0]]
        _PARSED[process, public] = CKKSPublic(public)
    return _PARSED[process, public]


def _read(public: bytes, data: bytes, size: int) -> Encrypted:
    return Encrypted(Ciphertexts.read(_parsed(public), data, size))


# TenSEAL's keys have threads, which are not forked and which are waited for when a key is taken down: a forked process
# must take none of them down that it has inherited, neither from here nor from what only the garbage collector sees.
_PARSED: dict[tuple[int, bytes], CKKSPublic] = {}
os.register_at_fork(after_in_child=gc.freeze)
