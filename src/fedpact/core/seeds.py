"""One seed, many streams: every random choice of a job is drawn from a named child of the job's seed."""

import hashlib
import operator
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import overload

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
        return Seed(hashlib.sha256(self.key + b"".join(map(_encode, path))).digest())

    def children(self, name: str, parts: Iterable[int | str]) -> "Seeds":
        """Return `child(name, part)` for each of many parts, such as the clients of a cohort."""
        parent = self.key + _encode(name)
        return Seeds([hashlib.sha256(parent + _encode(part)).digest() for part in parts])

    @staticmethod
    def child_of_each(seeds: "Iterable[Seed]", *path: int | str) -> "Seeds":
        """Return `child(*path)` of each of many streams."""
        spelt = b"".join(map(_encode, path))
        return Seeds([hashlib.sha256(key + spelt).digest() for key in _keys(seeds)])

    def generator(self) -> np.random.Generator:
        """Return a fresh numpy generator at the start of this stream."""
        return np.random.Generator(np.random.PCG64(int.from_bytes(self.key[:16], "little")))

    def integer(self) -> int:
        """Return an integer in [0, 2**63), to seed a library that wants one."""
        return int.from_bytes(self.key[:8], "little") >> 1


class Seeds(Sequence[Seed]):
    """Many streams: a cohort's, of which most are drawn from together and only some by themselves.

    Args:
        keys: of each.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self.keys = keys

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, place: int) -> Seed: ...

    @overload
    def __getitem__(self, place: slice) -> "Seeds": ...

    def __getitem__(self, place: int | slice) -> "Seed | Seeds":
        return Seeds(self.keys[place]) if isinstance(place, slice) else Seed(self.keys[place])

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))


def _keys(seeds: Iterable[Seed]) -> Sequence[bytes]:
    return seeds.keys if isinstance(seeds, Seeds) else [seed.key for seed in seeds]


def shuffled(
    seeds: Sequence[Seed], epoch: int | NDArray[np.int64], n: int | NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return one random order of n rows for each stream [seeds, n], its own for every epoch.

    Rows are sorted by numbers that SplitMix64 gives them (Steele, Lea and Flood, "Fast splittable pseudorandom
    number generators", OOPSLA 2014), all streams in a few passes over one array: a cohort of thousands is shuffled
    in the time that its generators would take to be made.

    Args:
        seeds: the streams.
        epoch: the epoch, or that of each stream [seeds].
        n: the number of rows, or that of each stream [seeds]: each has its order at first and zeros behind it.

    >>> sorted(shuffled([Seed.of(7)], epoch=0, n=5)[0].tolist())
    [0, 1, 2, 3, 4]
    """
    # A key is four such numbers, of which the first is taken.
    keys = np.frombuffer(b"".join(_keys(seeds)), "<u8")[::4, None]
    epochs, sizes = (np.asarray(each, np.uint64).reshape(-1, 1) for each in (epoch, n))
    widest = int(sizes.max())
    places = np.arange(widest, dtype=np.uint64)
    # SplitMix64's state after so many steps; each epoch takes the next n of them.
    numbers = keys + (epochs * sizes + np.uint64(1) + places) * _GOLDEN
    for shift, factor in _MIXING:
        numbers ^= numbers >> shift
        numbers *= factor
    # The row takes the place of the lowest bits: what is sorted is then the order, and no two are equal.
    bits = np.maximum(np.frexp((sizes - np.uint64(1)).astype(np.float64))[1], 1).astype(np.uint64)
    numbers >>= bits
    numbers <<= bits
    numbers |= places
    behind = places >= sizes if len(sizes) > 1 else None
    if behind is not None:
        numbers[behind] = _LAST
    numbers.sort(axis=1)
    numbers &= (np.uint64(1) << bits) - np.uint64(1)
    if behind is not None:
        numbers[behind] = 0
    return numbers.view(np.int64)


def shuffle(seed: Seed, epoch: int, n: int) -> NDArray[np.int64]:
    """Return the order of n rows that `shuffled` gives a stream; of one stream alone this takes half the time."""
    places = np.arange(n, dtype=np.uint64)
    numbers = (places + np.uint64(epoch * n + 1)) * _GOLDEN
    numbers += np.uint64(int.from_bytes(seed.key[:8], "little"))
    for shift, factor in _MIXING:
        numbers ^= numbers >> shift
        numbers *= factor
    mask = np.uint64((1 << max(1, (n - 1).bit_length())) - 1)
    numbers &= ~mask
    numbers |= places
    numbers.sort()
    numbers &= mask
    return numbers.view(np.int64)


_LAST = np.iinfo(np.uint64).max
_LENGTH = struct.Struct("<I")
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
# The last shift of SplitMix64 changes low bits alone, which the row replaces.
_MIXING = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))


def _encode(part: int | str) -> bytes:
    # The type and the length go in too, so that no two different paths spell the same bytes. `index` takes
    # numpy's integers for what they are.
    kind, text = (b"s", part) if isinstance(part, str) else (b"i", str(operator.index(part)))
    spelt = text.encode()
    return kind + _LENGTH.pack(len(spelt)) + spelt
