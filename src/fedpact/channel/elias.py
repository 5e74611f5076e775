"""Elias's omega code: whole numbers in few bits where small ones are frequent.

Elias, "Universal codeword sets and representations of the integers", IEEE Transactions on Information Theory 1975: the
recursive coding of QSGD (see `fedpact.channel.qsgd`).
"""

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Whole = NDArray[np.int64]

# A number has as many bits at most, so that its code fits into 64, which is 8 bytes.
_MOST_BITS = 33
_MOST_BYTES = 8
# So many bits at a time are looked at as places where a code may begin.
_BLOCK = 1 << 18


def encode(numbers: Whole) -> Bytes:
    """Return the codes of whole numbers in [1, 2^32], one after the other.

    >>> np.unpackbits(encode(np.array([1, 2, 16])))[:15]
    array([0, 1, 0, 0, 1, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0], dtype=uint8)
    """
    codes, lengths = np.zeros(numbers.size, np.uint64), np.ones(numbers.size, np.int64)
    places, left = np.arange(numbers.size), numbers
    while True:
        places, left = places[left > 1], left[left > 1]
        if not places.size:
            break
        codes[places] |= left.astype(np.uint64) << lengths[places].astype(np.uint64)
        # Of a number n = m · 2^e with m in [½, 1), e is how many bits it has.
        sizes = np.frexp(left)[1].astype(np.int64)
        lengths[places] += sizes
        left = sizes - 1
    bits = np.zeros(int(lengths.sum()), np.uint8)
    starts = np.cumsum(lengths) - lengths
    places, depth = np.arange(numbers.size), 0
    while places.size:
        shifts = (lengths[places] - 1 - depth).astype(np.uint64)
        bits[starts[places] + depth] = (codes[places] >> shifts) & np.uint64(1)
        depth += 1
        places = places[lengths[places] > depth]
    return np.packbits(bits)


def decode(packed: Bytes, count: int) -> Whole:
    """Return so many numbers that `encode` coded.

    Raises:
        ValueError: the bytes hold fewer codes, more than them, or none of ours.
    """
    total = 8 * packed.size
    # Before anything is allocated: each number takes a bit at least.
    if not count <= total <= 8 * _MOST_BYTES * count:
        raise ValueError("these are not the codes of so many numbers")
    words, found, place = _words(packed), 0, 0
    numbers = np.empty(count, np.int64)
    while found < count and place < total:
        start = place
        values, lengths = _codes(words, start, min(_BLOCK, total - start))
        at: list[int] = []
        steps = lengths.tolist()
        while found + len(at) < count and place - start < len(steps) and steps[place - start]:
            at.append(place - start)
            place += steps[place - start]
        if not at:
            break
        numbers[found : found + len(at)] = values[at]
        found += len(at)
    if found < count or -(-place // 8) != packed.size:
        raise ValueError("these are not the codes of so many numbers")
    return numbers


def _codes(words: NDArray[np.uint64], start: int, size: int) -> tuple[Whole, Whole]:
    """Return the numbers whose codes begin at each of some bits, and the codes' lengths; 0 where none does."""
    values, lengths = np.ones(size, np.int64), np.zeros(size, np.int64)
    places, ends = np.arange(size), np.arange(start, start + size)
    while places.size:
        # The bits from each of the places on, 57 of them or more, as the highest of 64.
        windows = words[ends >> 3] << (ends & 7).astype(np.uint64)
        more = windows >> np.uint64(63) == 1
        lengths[places[~more]] = ends[~more] + 1 - start - places[~more]
        places, ends, windows = places[more], ends[more], windows[more]
        widths = values[places] + 1
        fits = widths <= _MOST_BITS
        # What fits in no number of ours is no code: its length stays 0.
        places, ends, windows, widths = places[fits], ends[fits], windows[fits], widths[fits]
        values[places] = windows >> (64 - widths).astype(np.uint64)
        ends = ends + widths
        inside = ends < 8 * words.size
        places, ends = places[inside], ends[inside]
    return values, lengths


def _words(packed: Bytes) -> NDArray[np.uint64]:
    """Return the eight bytes from each of some bytes on as one number, with zeros behind the last."""
    padded = np.pad(packed, (0, 7)).astype(np.uint64)
    words = np.zeros(packed.size, np.uint64)
    for byte in range(8):
        words |= padded[byte : byte + packed.size] << np.uint64(56 - 8 * byte)
    return words
