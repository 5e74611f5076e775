"""The one way in which anything is written that is hashed, signed or sent: no two values have the same bytes.

Each part is a letter for its type and eight bytes for its length, then its content: nothing is escaped, nothing is
optional, and what is read back is written as the same bytes again.
"""

import hashlib
import struct
from collections.abc import Sequence
from typing import TypeAlias

from fedpact.core.errors import SecureError

Part: TypeAlias = "int | str | bytes | Sequence[Part]"

_DEEPEST = 4
_HEAD = struct.Struct(">cQ").pack


def encode(*parts: Part) -> bytes:
    """Return the bytes of these parts: natural numbers below 2^64, text, bytes, and sequences of them.

    >>> encode("a", "b") == encode("ab")
    False
    >>> decode(encode("round", 3, [b"x", b""]))
    ('round', 3, (b'x', b''))
    """
    pieces: list[bytes] = []
    _write(parts, pieces)
    return b"".join(pieces)


def digest(*parts: Part) -> bytes:
    """Return the SHA-256 of these parts."""
    return hashlib.sha256(encode(*parts)).digest()


def decode(data: bytes) -> tuple[Part, ...]:
    """Return the parts that these bytes are of.

    Raises:
        SecureError: no parts are written like this.
    """
    view = memoryview(data)
    parts = []
    place = 0
    while place < len(view):
        part, place = _read(view, place, _DEEPEST)
        parts.append(part)
    return tuple(parts)


def _write(parts: Sequence[Part], pieces: list[bytes]) -> None:
    for part in parts:
        if isinstance(part, bytes):
            pieces.append(_HEAD(b"b", len(part)))
            pieces.append(part)
        elif isinstance(part, int):
            pieces.append(_HEAD(b"i", part))
        elif isinstance(part, str):
            text = part.encode()
            pieces.append(_HEAD(b"s", len(text)))
            pieces.append(text)
        else:
            pieces.append(_HEAD(b"l", len(part)))
            _write(part, pieces)


def _read(view: memoryview, place: int, depth: int) -> tuple[Part, int]:
    kind = bytes(view[place : place + 1])
    head = view[place + 1 : place + 9]
    if len(head) < 8:
        raise SecureError("a message ends in the middle of a part; it was cut short on its way.")
    number = int.from_bytes(head, "big")
    place += 9
    if kind == b"i":
        return number, place
    # Whatever a part announces, it is at least as many bytes as are there: nothing is reserved on its word.
    if number > len(view) - place or kind not in (b"b", b"s", b"l") or depth == 0:
        raise SecureError("a message holds a part that is longer than the message or of no known type.")
    if kind == b"l":
        inner = []
        for _ in range(number):
            part, place = _read(view, place, depth - 1)
            inner.append(part)
        return tuple(inner), place
    content = bytes(view[place : place + number])
    if kind == b"b":
        return content, place + number
    try:
        return content.decode(), place + number
    except UnicodeDecodeError:
        raise SecureError("a message holds text that is not UTF-8.") from None
