"""The checks and the writing of what messages consist of: names, numbers, positions, bytes of a known size."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from fedpact.core.errors import SecureError

_LONGEST_NAME = 256


def check_natural(value: object, what: str) -> None:
    """Raise SecureError unless this is a whole number that eight bytes hold."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**64:
        raise SecureError(f"{what} is {value!r}; it is a whole number from 0 to 2^64 − 1.")


def check_bytes(value: object, size: int, what: str) -> None:
    """Raise SecureError unless these are so many bytes."""
    if not isinstance(value, bytes) or len(value) != size:
        given = f"{len(value)} bytes" if isinstance(value, bytes) else type(value).__name__
        raise SecureError(f"{what} has {size} bytes; this is {given}.")


def check_name(value: object) -> None:
    """Raise SecureError unless this can be a client's name."""
    if not isinstance(value, str) or not 0 < len(value.encode()) <= _LONGEST_NAME:
        raise SecureError(
            f"a client's name is text of 1 to {_LONGEST_NAME} bytes; this is {str(value)[:80]!r}."
        )


def check_increasing(values: Sequence[Any], what: str) -> None:
    """Raise SecureError unless each value is above the one before it."""
    if not isinstance(values, tuple | list) or any(a >= b for a, b in pairwise(values)):
        raise SecureError(f"{what} must be sorted, and no one in it twice; the round is given up.")


def check_pairs(pairs: tuple[tuple[int, bytes], ...], size: int, what: str) -> None:
    """Raise SecureError unless these are increasing positions, each with so many bytes."""
    check_increasing([position for position, _ in pairs], f"those whom {what} belongs to")
    for position, content in pairs:
        if not 0 <= position < 2**32:
            raise SecureError(f"there is no position {position} among the clients.")
        check_bytes(content, size, what)


def write_positions(positions: Sequence[int]) -> bytes:
    """Return positions as four bytes each."""
    return b"".join(position.to_bytes(4, "big") for position in positions)


def read_positions(written: bytes) -> tuple[int, ...]:
    """Return the positions that `write_positions` wrote."""
    if len(written) % 4:
        raise SecureError("positions of clients have four bytes each.")
    return tuple(np.frombuffer(written, ">u4").tolist())


def write_pairs(pairs: Sequence[tuple[int, bytes]]) -> tuple[bytes, bytes]:
    """Return positions, and what belongs to them, end to end."""
    return write_positions([p for p, _ in pairs]), b"".join(content for _, content in pairs)


def read_pairs(positions: bytes, contents: bytes, size: int) -> tuple[tuple[int, bytes], ...]:
    """Return the pairs that `write_pairs` wrote, each with so many bytes."""
    places = read_positions(positions)
    check_bytes(contents, size * len(places), "what belongs to these positions")
    return tuple(zip(places, read_each(contents, size), strict=True))


def read_each(contents: bytes, size: int) -> tuple[bytes, ...]:
    """Return the pieces of so many bytes that were written end to end."""
    check_bytes(contents, len(contents) // size * size, "a row of pieces")
    return tuple(contents[start : start + size] for start in range(0, len(contents), size))
