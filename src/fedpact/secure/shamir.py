"""Shares of a secret: any `threshold` of them give it back, and fewer say nothing about it.

Shamir, "How to share a secret", Communications of the ACM 22(11), 1979. Over the integers mod p = 2^256 − 189, so that
a secret of 32 bytes is one number. Python's integers take a time that depends on their value: what is shared here lives
for one round, and no one who could time it is told less than its result.
"""

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache

from fedpact.core.errors import SecureError

PRIME = 2**256 - 189
SECRET_BYTES = 32
_STEPS = 32


def secret() -> bytes:
    """Return a new secret: 32 bytes from the operating system, a number below p."""
    while True:
        drawn = os.urandom(SECRET_BYTES)
        if int.from_bytes(drawn, "big") < PRIME:
            return drawn


def split(value: bytes, threshold: int, points: Sequence[int]) -> list[bytes]:
    """Return a share of 32 bytes for each point: a random polynomial there whose value at 0 is the secret.

    Args:
        value: the secret, 32 bytes, below p.
        threshold: how many shares give it back, 1 or more.
        points: one for each holder: different, from 1 to p − 1.

    Raises:
        SecureError: the secret, the threshold or the points are none of these.
    """
    constant = _number(value)
    _check_points(points)
    if not 1 <= threshold <= len(points):
        raise SecureError(f"a threshold of {threshold} is not possible with {len(points)} shares.")
    falling = [_number(secret()) for _ in range(threshold - 1)]
    # Points are small, so a number grows slowly and need not be reduced in every step.
    blocks = [falling[i : i + _STEPS] for i in range(0, len(falling), _STEPS)]
    shares = []
    for x in points:
        y = 0
        for block in blocks:
            for coefficient in block:
                y = (y + coefficient) * x
            y %= PRIME
        shares.append(((y + constant) % PRIME).to_bytes(SECRET_BYTES, "big"))
    return shares


def combine(shares: Mapping[int, bytes]) -> bytes:
    """Return the secret that these shares, by their points, are of: exactly as many as its threshold, or more.

    Raises:
        SecureError: a share is not a number below p, or there is none.
    """
    if not shares:
        raise SecureError("a secret cannot be put together from no shares.")
    points = tuple(sorted(shares))
    _check_points(points)
    weights = _weights(points)
    total = sum(weight * _number(shares[x]) for weight, x in zip(weights, points, strict=True))
    return (total % PRIME).to_bytes(SECRET_BYTES, "big")


@lru_cache(maxsize=128)
def _weights(points: tuple[int, ...]) -> tuple[int, ...]:
    """Return Lagrange's coefficients at 0: on the complete graph they are the same for every secret of a round."""
    weights = []
    for x in points:
        above = below = 1
        for other in points:
            if other != x:
                above = above * other % PRIME
                below = below * (other - x) % PRIME
        weights.append(above * pow(below, -1, PRIME) % PRIME)
    return tuple(weights)


def _check_points(points: Sequence[int]) -> None:
    if len(set(points)) != len(points) or not all(0 < x < PRIME for x in points):
        raise SecureError("the points of shares are different and not 0, for the value at 0 is the secret.")


def _number(value: bytes) -> int:
    number = int.from_bytes(value, "big")
    if len(value) != SECRET_BYTES or number >= PRIME:
        raise SecureError(f"a secret or a share is {SECRET_BYTES} bytes, a number below 2^256 − 189.")
    return number
