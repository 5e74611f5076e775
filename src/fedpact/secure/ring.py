"""Signed integers as numbers mod 2^b, and those as bytes without a gap: b = 16, 20, 24 or 32 bits each."""

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import SecureError

BITS = (16, 20, 24, 32)


def check_bits(bits: int) -> None:
    """Raise SecureError unless vectors can be of so many bits a number."""
    if bits not in BITS:
        raise SecureError(f"a secure sum is over {', '.join(map(str, BITS))} bits a number, not {bits}.")


def largest(bits: int, clients: int) -> int:
    """Return the largest |integer| that each of so many clients may put in, so that their sum does not wrap.

    >>> largest(16, 10)
    3276
    """
    check_bits(bits)
    return ((1 << (bits - 1)) - 1) // clients


def to_ring(integers: NDArray[np.int64], bits: int) -> NDArray[np.uint32]:
    """Return signed integers mod 2^bits.

    Args:
        integers: int64 [parameters], each in [−2^(bits−1), 2^(bits−1)).
        bits: 16, 20, 24 or 32.

    Raises:
        SecureError: one is out of range; it would come back as another number.
    """
    check_bits(bits)
    half = 1 << (bits - 1)
    if integers.size and not (-half <= int(integers.min()) and int(integers.max()) < half):
        worst = int(np.argmax((integers < -half) | (integers >= half)))
        raise SecureError(
            f"number {worst} of a vector is {int(integers[worst])}, which does not fit into {bits} bits; clip more, "
            "use a smaller scale or more bits."
        )
    ring = integers.astype(np.uint32)
    reduce(ring, bits)
    return ring


def from_ring(ring: NDArray[np.uint32], bits: int) -> NDArray[np.int64]:
    """Return numbers mod 2^bits as the signed integers in [−2^(bits−1), 2^(bits−1)) that they stand for."""
    check_bits(bits)
    up = 32 - bits
    return ((ring << np.uint32(up)).view(np.int32) >> up).astype(np.int64)


def reduce(ring: NDArray[np.uint32], bits: int) -> None:
    """Take numbers mod 2^bits, in place."""
    if bits < 32:
        np.bitwise_and(ring, np.uint32((1 << bits) - 1), out=ring)


def packed_bytes(count: int, bits: int) -> int:
    """Return how many bytes `pack` makes of so many numbers.

    >>> packed_bytes(1_000_000, 20)
    2500000
    """
    check_bits(bits)
    return -(-count * bits // 8)


def pack(ring: NDArray[np.uint32], bits: int) -> bytes:
    """Return numbers mod 2^bits as bytes, the least significant first; at 20 bits, two in five bytes."""
    check_bits(bits)
    if bits == 32:
        return ring.astype("<u4", copy=False).tobytes()
    if bits == 16:
        return ring.astype("<u2").tobytes()
    if bits == 24:
        return np.ascontiguousarray(
            ring.astype("<u4", copy=False).view(np.uint8).reshape(-1, 4)[:, :3]
        ).tobytes()
    even = np.zeros(-(-ring.size // 2), np.uint64)
    even |= ring[0::2]
    even[: ring.size // 2] |= ring[1::2].astype(np.uint64) << np.uint64(20)
    five = even.astype("<u8", copy=False).view(np.uint8).reshape(-1, 8)[:, :5]
    return np.ascontiguousarray(five).tobytes()[: packed_bytes(ring.size, bits)]


def unpack(data: bytes, count: int, bits: int) -> NDArray[np.uint32]:
    """Return the numbers mod 2^bits that `pack` made these bytes of.

    Raises:
        SecureError: so many numbers take another number of bytes, or a bit is set that belongs to none.
    """
    if len(data) != packed_bytes(count, bits):
        raise SecureError(
            f"a vector of {count} numbers of {bits} bits takes {packed_bytes(count, bits)} bytes, not {len(data)}."
        )
    if bits == 32:
        return np.frombuffer(data, "<u4").astype(np.uint32)
    if bits == 16:
        return np.frombuffer(data, "<u2").astype(np.uint32)
    if bits == 24:
        four = np.zeros((count, 4), np.uint8)
        four[:, :3] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        return four.view("<u4").reshape(-1).astype(np.uint32, copy=False)
    pairs = -(-count // 2)
    eight = np.zeros((pairs, 8), np.uint8)
    eight[:, :5] = np.frombuffer(data.ljust(5 * pairs, b"\0"), np.uint8).reshape(-1, 5)
    both = eight.view("<u8").reshape(-1)
    ring = np.empty(2 * pairs, np.uint32)
    ring[0::2] = both & np.uint64(0xFFFFF)
    ring[1::2] = both >> np.uint64(20)
    if ring[count:].any():
        raise SecureError("a vector's last byte holds bits that belong to no number.")
    return ring[:count]
