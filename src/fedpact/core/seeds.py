"""One seed, many streams: every random choice of a job is drawn from a named child of the job's seed."""

import hashlib
import operator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Seed:
    """A node in the tree of a job's random streams.

    A child is the SHA-256 of its parent and its name, so streams are independent of one another and of
    the order in which they are asked for. For choices that must be reproducible (shuffles, sampling,
    initial weights), never for noise, masks or keys.

    >>> a = Seed.of(7).child("round", 3, "client", "lyon", "shuffle")
    >>> int(a.generator().integers(100)) == int(a.generator().integers(100))
    True
    >>> a == Seed.of(7).child("round", 3, "client", "nice", "shuffle")
    False
    """

    key: bytes

    @classmethod
    def of(cls, value: int | str) -> "Seed":
        """Return the root of the tree for a job's seed."""
        return cls(hashlib.sha256(b"fedpact seed" + _encode(value)).digest())

    def child(self, *path: int | str) -> "Seed":
        """Return the stream with this path of names and numbers."""
        digest = hashlib.sha256(self.key)
        for part in path:
            digest.update(_encode(part))
        return Seed(digest.digest())

    def generator(self) -> np.random.Generator:
        """Return a fresh numpy generator at the start of this stream."""
        return np.random.Generator(np.random.PCG64(int.from_bytes(self.key[:16], "little")))

    def integer(self) -> int:
        """Return an integer in [0, 2**63), to seed a library that wants one."""
        return int.from_bytes(self.key[:8], "little") >> 1


def _encode(part: int | str) -> bytes:
    # The type and the length go in too, so that no two different paths spell the same bytes. `index` takes
    # numpy's integers for what they are.
    kind, text = (b"s", part) if isinstance(part, str) else (b"i", str(operator.index(part)))
    spelt = text.encode()
    return kind + len(spelt).to_bytes(4, "little") + spelt
