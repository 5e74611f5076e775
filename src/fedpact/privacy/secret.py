"""Secret randomness, of which noise is made: AES-256 in counter mode over the operating system's entropy.

NIST SP 800-38A, section 6.5 (counter mode); NIST SP 800-90A, section 10.2.1 (a generator made of it).
"""

import os
import threading
import weakref
from typing import Any, NoReturn

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError

# What counter mode encrypts to give its bare key stream, in pieces that stay in a core's cache.
_ZEROS = memoryview(bytes(1 << 16))

# 2^22 blocks of one key are told from random ones with an advantage below 2^-85: blocks never repeat, random
# ones would, with probability n²/2^129. A new key also ends what a stolen old one gives away.
_BYTES_PER_KEY = 1 << 26


class SecretStream:
    """An endless stream of secret bytes that nobody can ask for a second time.

    There is no seed: the keys, 32 bytes each, come from `os.urandom`, a new one for every 64 MiB, and are neither
    kept beside the cipher nor shown. Threads may share a stream. After a fork the child's has another key. Never
    for a choice that must be reproducible: that is what `fedpact.core.seeds.Seed` is for.
    """

    def __init__(self) -> None:
        self._renew()
        _streams.add(self)

    def fill(self, out: NDArray[Any]) -> None:
        """Overwrite an array of integers with uniform random bits.

        Args:
            out: contiguous (C order), writeable, of any shape and integer dtype.

        Raises:
            ConfigError: the array is none of that.
        """
        if out.dtype.kind not in "iu" or not out.flags.c_contiguous or not out.flags.writeable:
            raise ConfigError(
                f"SecretStream.fill was given an array of {out.dtype} "
                f"({'' if out.flags.c_contiguous else 'not '}contiguous, "
                f"{'' if out.flags.writeable else 'not '}writeable); give it a contiguous and writeable array of "
                "integers."
            )
        target = out.reshape(-1).view(np.uint8).data
        with self._lock:
            for start in range(0, len(target), len(_ZEROS)):
                piece = target[start : start + len(_ZEROS)]
                if len(piece) > self._bytes_left:
                    self._rekey(os.urandom(32))
                self._cipher.update_into(_ZEROS[: len(piece)], piece)
                self._bytes_left -= len(piece)

    def words(self, n: int) -> NDArray[np.uint64]:
        """Return n independent uniform 64-bit words [n]."""
        out = np.empty(n, np.uint64)
        self.fill(out)
        return out

    def __reduce__(self) -> NoReturn:
        raise ConfigError(
            "A stream of secret randomness cannot be pickled or copied: whoever has the copy can take the noise off "
            "again. Call secret_stream() in the process that draws."
        )

    def _renew(self) -> None:
        # In the child of a fork the old lock may be held by a thread that did not come along.
        self._lock = threading.Lock()
        self._rekey(os.urandom(32))

    def _rekey(self, key: bytes, first_block: bytes = bytes(16)) -> None:
        self._cipher = Cipher(AES(key), CTR(first_block)).encryptor()
        self._bytes_left = _BYTES_PER_KEY


_streams: weakref.WeakSet[SecretStream] = weakref.WeakSet()


def _renew_all() -> None:
    for stream in list(_streams):
        stream._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)

_of_this_process = SecretStream()


def secret_stream() -> SecretStream:
    """Return this process's stream; any thread may draw from it."""
    return _of_this_process
