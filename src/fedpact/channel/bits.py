"""Numbers of a few bits, side by side in bytes; and numbers of three values, five to a byte."""

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

# Of 64 Ki numbers the scratch arrays stay in the cache of one core; a multiple of 8, so that a block fills its bytes.
_BLOCK = 1 << 16
_TRITS = 5
_POWERS = np.array([1, 3, 9, 27, 81], np.uint8)
# The five digits of each byte.
_DIGITS = (np.arange(243, dtype=np.uint8)[:, None] // _POWERS % 3).astype(np.uint8)


def bytes_of(count: int, bits: int) -> int:
    """Return in how many bytes so many numbers of so many bits are packed."""
    return -(-count * bits // 8)


def pack_bits(numbers: NDArray[np.integer], bits: int) -> Bytes:
    """Return whole numbers in [0, 2^bits) in bits each, the highest first; bits is 1 to 16."""
    out = np.empty(bytes_of(numbers.size, bits), np.uint8)
    shifts = np.arange(bits - 1, -1, -1, dtype=np.uint16)
    for start in range(0, numbers.size, _BLOCK):
        block = numbers[start : start + _BLOCK].astype(np.uint16)
        packed = np.packbits((block[:, None] >> shifts).astype(np.uint8) & 1)
        out[start * bits // 8 : start * bits // 8 + packed.size] = packed
    return out


def unpack_bits(packed: Bytes, bits: int, count: int) -> NDArray[np.uint16]:
    """Return so many numbers that `pack_bits` packed."""
    out = np.empty(count, np.uint16)
    powers = (1 << np.arange(bits - 1, -1, -1)).astype(np.uint16)
    for start in range(0, count, _BLOCK):
        size = min(_BLOCK, count - start)
        part = packed[start * bits // 8 : bytes_of(start + size, bits)]
        out[start : start + size] = np.unpackbits(part, count=size * bits).reshape(size, bits) @ powers
    return out


def pack_signs(values: NDArray[np.floating]) -> Bytes:
    """Return a bit for each number: 1 where it is 0 or more."""
    return np.packbits(values >= 0)


def unpack_signs(packed: Bytes, count: int) -> NDArray[np.int8]:
    """Return so many signs, 1 or −1."""
    bits = np.unpackbits(packed, count=count).view(np.int8)
    return (2 * bits - 1).astype(np.int8)


def pack_trits(numbers: NDArray[np.integer]) -> Bytes:
    """Return whole numbers in [0, 3), five to a byte: 3^5 = 243."""
    padded = np.zeros(-(-numbers.size // _TRITS) * _TRITS, np.uint8)
    padded[: numbers.size] = numbers
    return (padded.reshape(-1, _TRITS) * _POWERS).sum(axis=1, dtype=np.uint8)


def unpack_trits(packed: Bytes, count: int) -> Bytes:
    """Return so many numbers that `pack_trits` packed; bytes must be below 243."""
    return _DIGITS[packed].reshape(-1)[:count]
