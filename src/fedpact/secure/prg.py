"""Masks: AES-256 in counter mode expands a key of 32 bytes to as many words as a vector has.

Every key is used for one mask alone, so the counter starts at 0 for each.
"""

from collections.abc import Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

from fedpact.core.errors import SecureError

KEY_BYTES = 32
_WORDS = 1 << 16
# What is encrypted to get the keystream itself.
_ZEROS = bytes(4 * _WORDS)
_BLOCK_BYTES = 16


def expand(key: bytes, count: int) -> NDArray[np.uint32]:
    """Return the mask of a key: `count` words of 32 uniform bits."""
    mask = np.zeros(count, np.uint32)
    add_masks(mask, [key])
    return mask


def add_masks(ring: NDArray[np.uint32], plus: Sequence[bytes], minus: Sequence[bytes] = ()) -> None:
    """Add the masks of some keys to a vector and subtract those of others, in place, mod 2^32.

    A vector mod 2^b with b < 32 is reduced by its caller, once.

    Args:
        ring: uint32 [parameters], contiguous.
        plus: keys of 32 bytes.
        minus: keys of 32 bytes.

    Raises:
        SecureError: the vector is not one contiguous row of uint32, or a key is not of 32 bytes.
    """
    check_vector(ring)
    streams = [(_keystream(key), np.add) for key in plus] + [(_keystream(key), np.subtract) for key in minus]
    # A chunk of the vector, the zeros and the keystream stay in the cache of one core together.
    room = bytearray(min(4 * ring.size, len(_ZEROS)) + _BLOCK_BYTES - 1)
    for start in range(0, ring.size, _WORDS):
        chunk = ring[start : start + _WORDS]
        zeros = _ZEROS if chunk.size == _WORDS else _ZEROS[: chunk.nbytes]
        words = np.frombuffer(room, "<u4", chunk.size)
        for stream, combine in streams:
            stream.update_into(zeros, room)
            combine(chunk, words, out=chunk)


def check_vector(ring: NDArray[np.uint32]) -> None:
    """Raise SecureError unless this is one contiguous, writable row of uint32."""
    if ring.dtype != np.uint32 or ring.ndim != 1 or not ring.flags.c_contiguous or not ring.flags.writeable:
        raise SecureError(
            f"a mask is added to one contiguous, writable row of uint32, not to {ring.dtype} of shape {ring.shape}; "
            "encode the values with `to_ring`."
        )


def _keystream(key: bytes) -> CipherContext:
    if len(key) != KEY_BYTES:
        raise SecureError(f"a mask's key has {KEY_BYTES} bytes, not {len(key)}.")
    return Cipher(AES(key), CTR(bytes(_BLOCK_BYTES))).encryptor()
