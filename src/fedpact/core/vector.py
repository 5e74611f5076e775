"""A model's arrays as one flat, contiguous buffer (Vector), and the names of its parts (Layout)."""

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ModelError, suggest

Role = Literal["parameter", "buffer"]

# numpy has no bfloat16: its bits are kept in a uint16 and widened where numbers are needed.
STORAGE: dict[str, np.dtype[Any]] = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(np.uint16),
    "int64": np.dtype(np.int64),
    "int32": np.dtype(np.int32),
    "int16": np.dtype(np.int16),
    "int8": np.dtype(np.int8),
    "uint8": np.dtype(np.uint8),
    "bool": np.dtype(np.bool_),
}
FLOATS = ("float64", "float32", "bfloat16", "float16")

# Segments start on a cache line, so that vector instructions never straddle two dtypes.
_ALIGNMENT = 64
# Of 64 Ki elements a float64 scratch array stays in the cache of one core.
_BLOCK = 1 << 16


@dataclass(frozen=True)
class Entry:
    """One named array of a model.

    Args:
        name: its name, as its library spells it ("layer1.weight").
        shape: its shape; () for a scalar.
        dtype: one of `STORAGE`.
        role: "parameter" (trained) or "buffer" (carried along, such as batch-norm statistics).
        aliases: other names of the same array (tied weights).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    role: Role = "parameter"
    aliases: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class Segment:
    """A run of entries of one role and dtype: one flat array of a Vector."""

    role: Role
    dtype: str
    start: int
    size: int
    entries: tuple[Entry, ...]

    @property
    def stop(self) -> int:
        """The offset, in bytes, behind the last element."""
        return self.start + self.size * STORAGE[self.dtype].itemsize


class Layout:
    """The names, shapes and dtypes of the views into a Vector.

    Entries are grouped by role and dtype, parameters first, so that all trained weights of one dtype are
    one flat array; within a group they keep the order given.

    >>> layout = Layout([Entry("weight", (2, 3)), Entry("steps", (), "int64", "buffer"), Entry("bias", (2,))])
    >>> [(s.dtype, s.size) for s in layout.segments]
    [('float32', 8), ('int64', 1)]

    Raises:
        ModelError: two entries share a name, or a dtype is unknown.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        groups: dict[tuple[Role, str], list[Entry]] = {}
        for entry in entries:
            if entry.dtype not in STORAGE:
                raise ModelError(
                    f'parameter "{entry.name}" has dtype {entry.dtype}, which cannot travel; use one of '
                    f"{', '.join(STORAGE)}.{suggest(entry.dtype, STORAGE)}"
                )
            groups.setdefault((entry.role, entry.dtype), []).append(entry)
        self._place([groups[key] for key in sorted(groups, key=lambda key: key[0] != "parameter")])

    def _place(self, groups: list[list[Entry]]) -> None:
        segments, places, offset = [], {}, 0
        for members in groups:
            first = members[0]
            offset = -(-offset // _ALIGNMENT) * _ALIGNMENT
            start = offset
            for entry in members:
                for name in (entry.name, *entry.aliases):
                    if name in places:
                        raise ModelError(f'two parameters are called "{name}"; every name must be unique.')
                    places[name] = (entry, offset)
                offset += entry.size * STORAGE[entry.dtype].itemsize
            size = sum(entry.size for entry in members)
            segments.append(Segment(first.role, first.dtype, start, size, tuple(members)))
        self.segments: tuple[Segment, ...] = tuple(segments)
        self.entries: tuple[Entry, ...] = tuple(e for segment in segments for e in segment.entries)
        self.size: int = sum(segment.size for segment in segments)
        self.nbytes: int = offset
        self._places: dict[str, tuple[Entry, int]] = places

    def place(self, name: str) -> tuple[Entry, int]:
        """Return the entry of this name (or alias) and its offset in bytes.

        Raises:
            ModelError: there is no such entry.
        """
        try:
            return self._places[name]
        except KeyError:
            raise ModelError(f'the model has no parameter "{name}".{suggest(name, self._places)}') from None

    def locate(self, index: int) -> str:
        """Return the name and position, such as "bias[3]", of the element with this index among all."""
        return _locate(self.entries, index)

    def difference(self, other: "Layout") -> str:
        """Return where another layout first differs from this one, in words."""
        mine, others = ({entry.name: entry for entry in layout.entries} for layout in (self, other))
        for name, entry in mine.items():
            if name not in others:
                return f'"{name}" is missing'
            if others[name] != entry:
                return f'"{name}" is {_spell(others[name])} instead of {_spell(entry)}'
        extra = next((name for name in others if name not in mine), None)
        return "the arrays are in another order" if extra is None else f'"{extra}" is one too many'

    @cached_property
    def wide(self) -> "Layout":
        """The layout of differences and means: float32 for floats of up to 32 bits, float64 for the rest.

        Its segments hold the same elements in the same order as this layout's. Integers are exact in it up
        to 2^53.
        """
        narrow = ("float32", "bfloat16", "float16")
        wide = Layout(())
        wide._place(
            [
                [
                    Entry(e.name, e.shape, "float32" if e.dtype in narrow else "float64", e.role, e.aliases)
                    for e in segment.entries
                ]
                for segment in self.segments
            ]
        )
        return wide

    def to_json(self) -> list[dict[str, Any]]:
        """Return the layout as plain data."""
        return [
            {
                "name": e.name,
                "shape": list(e.shape),
                "dtype": e.dtype,
                "role": e.role,
                "aliases": list(e.aliases),
            }
            for e in self.entries
        ]

    @classmethod
    def from_json(cls, entries: Iterable[Mapping[str, Any]]) -> "Layout":
        """Return the layout of a model that `to_json` wrote down; its `wide` is made anew from it."""
        return cls(
            Entry(e["name"], tuple(e["shape"]), e["dtype"], e["role"], tuple(e["aliases"])) for e in entries
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the layout, in hex: two models fit each other when these are equal."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        # By segments: `wide` may have two of one dtype, so that equal entries lie at other places.
        return self is other or (isinstance(other, Layout) and self.segments == other.segments)

    def __hash__(self) -> int:
        return hash(self.entries)

    def __repr__(self) -> str:
        return f"Layout({len(self.entries)} arrays, {self.size} elements, {self.nbytes} bytes)"


class Vector:
    """The arrays of a model in one flat buffer.

    `vector["layer1.weight"]` is a writable view of that array; `vector.flats` are the flat arrays, one per
    segment of the layout. bfloat16 arrays appear as their bits in uint16; `widened` gives numbers.

    >>> vector = Vector.zeros(Layout([Entry("weight", (2, 2)), Entry("bias", (2,))]))
    >>> vector["bias"] += 1
    >>> vector.flats[0]
    array([0., 0., 0., 0., 1., 1.], dtype=float32)
    """

    __slots__ = ("buffer", "flats", "layout")

    def __init__(self, layout: Layout, buffer: NDArray[np.uint8]) -> None:
        if buffer.nbytes != layout.nbytes:
            raise ModelError(f"the buffer has {buffer.nbytes} bytes; its layout needs {layout.nbytes}.")
        self.layout = layout
        self.buffer = buffer
        self.flats: tuple[NDArray[Any], ...] = tuple(
            buffer[segment.start : segment.stop].view(STORAGE[segment.dtype]) for segment in layout.segments
        )

    @classmethod
    def zeros(cls, layout: Layout) -> "Vector":
        """Return a vector of zeros."""
        return cls(layout, _aligned(np.zeros, layout.nbytes))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], layout: Layout | None = None) -> "Vector":
        """Return a vector with copies of these arrays; without a layout, one is made from them.

        Arrays of another dtype than the layout's are rounded to it; for bfloat16, uint16 arrays are its bits.

        Raises:
            ModelError: an array is missing, is not in the layout, has another shape, or holds a number that
                does not fit its dtype.
        """
        arrays = {name: np.asarray(array) for name, array in arrays.items()}
        if layout is None:
            layout = Layout(Entry(name, a.shape, a.dtype.name) for name, a in arrays.items())
        vector = cls.zeros(layout)
        for name in arrays:
            if name not in layout._places:
                raise ModelError(
                    f'there is no parameter "{name}" in this model.{suggest(name, layout._places)}'
                )
        for entry in layout.entries:
            given = next((given for given in (entry.name, *entry.aliases) if given in arrays), None)
            if given is None:
                raise ModelError(f'parameter "{entry.name}" is missing.{suggest(entry.name, arrays)}')
            array, view = arrays[given], vector[entry.name]
            if array.shape != entry.shape:
                raise ModelError(
                    f'parameter "{given}" has shape {array.shape}; the model needs {entry.shape}.'
                )
            if array.dtype == view.dtype:
                view[...] = array
            else:
                _assign(view.reshape(-1), entry.dtype, array.ravel(), (entry,))
        return vector

    def __getitem__(self, name: str) -> NDArray[Any]:
        entry, start = self.layout.place(name)
        dtype = STORAGE[entry.dtype]
        return self.buffer[start : start + entry.size * dtype.itemsize].view(dtype).reshape(entry.shape)

    def __setitem__(self, name: str, value: Any) -> None:
        self[name][...] = value

    def items(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Iterate over names and views."""
        return ((entry.name, self[entry.name]) for entry in self.layout.entries)

    def copy(self) -> "Vector":
        """Return a vector with its own copy of the buffer."""
        copy = _unwritten(self.layout)
        copy.buffer[:] = self.buffer
        return copy

    def copy_from(self, other: "Vector") -> None:
        """Overwrite this vector with another of the same layout."""
        self._check(other.layout)
        self.buffer[:] = other.buffer

    def widened(self) -> "Vector":
        """Return the same numbers in the layout `layout.wide`, where they can be computed with."""
        wide = _unwritten(self.layout.wide)
        for out, segment, flat in zip(wide.flats, self.layout.segments, self.flats, strict=True):
            out[:] = _numbers(flat, segment.dtype)
        return wide

    def minus(self, start: "Vector") -> "Vector":
        """Return this − start in the layout `layout.wide`: one subtraction per segment."""
        self._check(start.layout)
        difference = _unwritten(self.layout.wide)
        for out, segment, new, old in zip(
            difference.flats, self.layout.segments, self.flats, start.flats, strict=True
        ):
            np.subtract(_numbers(new, segment.dtype), _numbers(old, segment.dtype), out=out, dtype=out.dtype)
        return difference

    def plus(self, delta: "Vector") -> "Vector":
        """Return this + delta, rounded to this layout's dtypes; delta has the layout `layout.wide`.

        Integers are rounded to the nearest, half to even; a bool is true from one half on.

        Raises:
            ModelError: the layouts do not match, or a finite sum does not fit its dtype.
        """
        delta._check(self.layout.wide)
        total = _unwritten(self.layout)
        for out, segment, base, change in zip(
            total.flats, self.layout.segments, self.flats, delta.flats, strict=True
        ):
            start = _numbers(base, segment.dtype)
            try:
                with np.errstate(over="raise"):
                    numbers = np.add(start, change, dtype=change.dtype)
            except FloatingPointError:
                raise _sum_too_large(start, change, segment) from None
            _assign(out, segment.dtype, numbers, segment.entries)
        return total

    def narrowed(self, layout: Layout) -> "Vector":
        """Return these numbers rounded to another layout, whose `wide` is this one's layout.

        Raises:
            ModelError: the layouts do not match, or a finite number does not fit its dtype.
        """
        self._check(layout.wide)
        narrow = _unwritten(layout)
        for out, segment, flat in zip(narrow.flats, layout.segments, self.flats, strict=True):
            _assign(out, segment.dtype, flat, segment.entries)
        return narrow

    def norm(self, role: Role | None = None) -> float:
        """Return the L2 norm over all elements or those of a role, accumulated in float64; inf on overflow."""
        total = 0.0
        for flat, segment in zip(self.flats, self.layout.segments, strict=True):
            if role in (None, segment.role):
                total += float(squared_sum(flat, segment.dtype))
        return math.sqrt(total)

    def __eq__(self, other: object) -> bool:
        """Equal bits, not merely equal numbers."""
        return (
            isinstance(other, Vector)
            and self.layout == other.layout
            and all(a.tobytes() == b.tobytes() for a, b in zip(self.flats, other.flats, strict=True))
        )

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        # The flat arrays are views: taken one by one they would come back as copies of the buffer.
        return Vector, (self.layout, self.buffer)

    def __repr__(self) -> str:
        return f"Vector({self.layout!r})"

    def _check(self, layout: Layout) -> None:
        if self.layout != layout:
            raise ModelError(
                f"these two models do not fit: {self.layout.difference(layout)}; both sides must build the same "
                "architecture."
            )


def squared_sum(flats: NDArray[Any], dtype: str) -> NDArray[np.float64]:
    """Return the sum of squares over the last axis, accumulated in float64; inf on overflow.

    Args:
        flats: one flat array of a Vector, or several as rows.
        dtype: of their elements, one of `STORAGE`.
    """
    total = np.zeros(flats.shape[:-1])
    with np.errstate(over="ignore"):
        for start in range(0, flats.shape[-1], _BLOCK):
            block = _numbers(flats[..., start : start + _BLOCK], dtype)
            total += np.sum(np.square(block, dtype=np.float64), axis=-1)
    return total


def _aligned(allocate: Callable[[int, type[np.uint8]], NDArray[np.uint8]], nbytes: int) -> NDArray[np.uint8]:
    raw = allocate(nbytes + _ALIGNMENT, np.uint8)
    start = -raw.__array_interface__["data"][0] % _ALIGNMENT
    return raw[start : start + nbytes]


def _unwritten(layout: Layout) -> Vector:
    """Return a vector whose numbers are yet to be written; what lies between its segments is 0."""
    vector = Vector(layout, _aligned(np.empty, layout.nbytes))
    for before, behind in itertools.pairwise(layout.segments):
        vector.buffer[before.stop : behind.start] = 0
    return vector


def _numbers(flat: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Return the array as numbers that can be computed with; bfloat16 is the upper half of a float32."""
    if dtype == "bfloat16":
        return (flat.astype(np.uint32) << 16).view(np.float32)
    return flat


def _assign(out: NDArray[Any], dtype: str, numbers: NDArray[Any], entries: Sequence[Entry]) -> None:
    """Write numbers into an array of this dtype, rounding to nearest; the entries are for messages."""
    if dtype == "bfloat16":
        with np.errstate(over="ignore"):
            bits = numbers.astype(np.float32).view(np.uint32)
        # Round half to even on the 16 bits that are cut off; a NaN must stay one.
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        _check_held(numbers, (rounded & 0x7F80) != 0x7F80, dtype, entries)
        out[:] = np.where(np.isnan(numbers), (bits >> 16) | 0x40, rounded).astype(np.uint16)
    elif dtype == "bool":
        out[:] = numbers >= 0.5
    elif dtype in FLOATS:
        with np.errstate(over="ignore"):
            out[:] = numbers
        if out.itemsize < numbers.itemsize or numbers.dtype.kind != "f":
            _check_held(numbers, np.isfinite(out), dtype, entries)
    else:
        rounded = np.rint(numbers, dtype=np.float64)
        # As floats, in which 2^63 is exact and 2^63 − 1 is not.
        low, high = float(np.iinfo(out.dtype).min), float(np.iinfo(out.dtype).max) + 1.0
        fits = (rounded >= low) & (rounded < high)
        if not fits.all():
            raise _too_large(numbers, int(np.argmin(fits)), dtype, entries)
        out[:] = rounded


def _check_held(numbers: NDArray[Any], held: NDArray[np.bool_], dtype: str, entries: Sequence[Entry]) -> None:
    """Refuse a finite number that became infinite; a NaN or an infinity may stay what it is."""
    if not held.all():
        lost = np.isfinite(numbers) & ~held
        if lost.any():
            raise _too_large(numbers, int(np.argmax(lost)), dtype, entries)


def _sum_too_large(base: NDArray[Any], change: NDArray[Any], segment: Segment) -> ModelError:
    with np.errstate(over="ignore"):
        numbers = np.add(base, change, dtype=np.float64)
        held = np.isfinite(numbers.astype(change.dtype))
    lost = np.isfinite(base) & np.isfinite(change) & ~held
    return _too_large(numbers, int(np.argmax(lost)), segment.dtype, segment.entries)


def _too_large(numbers: NDArray[Any], index: int, dtype: str, entries: Sequence[Entry]) -> ModelError:
    return ModelError(
        f"{_locate(entries, index)} would be {float(numbers[index]):g}, which {dtype} cannot hold; lower the "
        "learning rate, or give it a wider dtype."
    )


def _locate(entries: Sequence[Entry], index: int) -> str:
    for entry in entries:
        if index < entry.size:
            place = np.unravel_index(index, entry.shape) if entry.shape else ()
            return entry.name + (f"[{', '.join(str(int(i)) for i in place)}]" if place else "")
        index -= entry.size
    raise IndexError(index)


def _spell(entry: Entry) -> str:
    aliases = f" also called {', '.join(entry.aliases)}" if entry.aliases else ""
    return f"a {entry.role} of {entry.dtype} {entry.shape}{aliases}"
