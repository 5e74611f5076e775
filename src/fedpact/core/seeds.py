"""One seed, many streams: every random choice of a job is drawn from a named child of the job's seed."""

import hashlib
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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

    def children(self, name: str, parts: Iterable[int | str]) -> "list[Seed]":
        """Return `child(name, part)` for each of many parts, such as the clients of a cohort."""
        parent = hashlib.sha256(self.key)
        parent.update(_encode(name))
        seeds = []
        for part in parts:
            digest = parent.copy()
            digest.update(_encode(part))
            seeds.append(Seed(digest.digest()))
        return seeds

    def generator(self) -> np.random.Generator:
        """Return a fresh numpy generator at the start of this stream."""
        return np.random.Generator(np.random.PCG64(int.from_bytes(self.key[:16], "little")))

    def integer(self) -> int:
        """Return an integer in [0, 2**63), to seed a library that wants one."""
        return int.from_bytes(self.key[:8], "little") >> 1


def shuffled(seeds: Sequence[Seed], epoch: int, n: int) -> NDArray[np.int64]:
    """Return one random order of n rows for each stream [seeds, n], its own for every epoch.

    Rows are sorted by numbers that SplitMix64 gives them (Steele, Lea and Flood, "Fast splittable pseudorandom
    number generators", OOPSLA 2014), all streams in a few passes over one array: a cohort of thousands is shuffled
    in the time that its generators would take to be made.

    >>> sorted(shuffled([Seed.of(7)], epoch=0, n=5)[0].tolist())
    [0, 1, 2, 3, 4]
    """
    keys = np.frombuffer(b"".join([seed.key[:8] for seed in seeds]), "<u8")
    # SplitMix64's state after so many steps; each epoch takes the next n of them.
    steps = np.arange(epoch * n + 1, epoch * n + n + 1, dtype=np.uint64) * _GOLDEN
    numbers = keys[:, None] + steps
    for shift, factor in _MIXING:
        numbers ^= numbers >> shift
        numbers *= factor
    # The row takes the place of the lowest bits: what is sorted is then the order, and no two are equal.
    bits = np.uint64(max(1, (n - 1).bit_length()))
    numbers >>= bits
    numbers <<= bits
    numbers |= np.arange(n, dtype=np.uint64)
    numbers.sort(axis=1)
    numbers &= (np.uint64(1) << bits) - np.uint64(1)
    return numbers.view(np.int64)


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
# The last shift of SplitMix64 changes low bits alone, which the row replaces.
_MIXING = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))


def _encode(part: int | str) -> bytes:
    # The type and the length go in too, so that no two different paths spell the same bytes. `index` takes
    # numpy's integers for what they are.
    kind, text = (b"s", part) if isinstance(part, str) else (b"i", str(operator.index(part)))
    spelt = text.encode()
    return kind + len(spelt).to_bytes(4, "little") + spelt
