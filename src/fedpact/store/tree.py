"""Plain serialisation of an algorithm's state: a JSON tree, and beside it the arrays by name.

In the tree None, bool, int, str, finite floats and lists stand for themselves; everything else is an object
with one key, its tag. What a class is comes from the code, never from the file.
"""

import dataclasses
import math
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import CheckpointError, suggest
from fedpact.core.vector import Entry, Layout, Vector

_PLAIN = (type(None), bool, int, str)
_ARRAYS = frozenset({"bool", "float16", "float32", "float64"}).union(
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
)
# safetensors keeps this name for itself.
_RESERVED = "__metadata__"


def pack(value: Any) -> tuple[Any, dict[str, NDArray[Any]]]:
    """Return a value as a tree that JSON can hold exactly, and its arrays by the path where they stood.

    A value is None, a bool, int, float, str, bytes, numpy array or number, Vector or Layout, or a list,
    tuple, mapping with str keys, or dataclass of these. The arrays are views, not copies.

    Raises:
        CheckpointError: a value is of another type; its path is named.
    """
    packer = _Packer()
    tree = packer.pack(value, "")
    return {"layouts": packer.layouts, "value": tree}, packer.arrays


def unpack(tree: Any, arrays: Mapping[str, NDArray[Any]], like: Any = None) -> Any:
    """Return the value that `pack` took apart: the same bits and types, with a dict for any mapping.

    Args:
        tree: the tree.
        arrays: the arrays by name; they are copied.
        like: a freshly built value of the same structure. It gives the dataclasses; the annotations of their
            fields give those that a fresh value does not hold yet. Where it holds something other than None,
            the value must be None or of the same kind, dtype, shape and layout; but a list, tuple or mapping
            may hold more or less, and an axis of length 0 may have any length.

    Raises:
        CheckpointError: the value is not like `like`, or the tree is damaged; the path is named.
    """
    try:
        layouts = [_layout(description) for description in tree["layouts"]]
        root = tree["value"]
    except Exception:
        # What a damaged description makes of Entry and Layout has no end of kinds.
        raise CheckpointError("the layouts of the vectors are damaged.") from None
    return _Unpacker(layouts, arrays).unpack(root, like, (), "")


class _Packer:
    def __init__(self) -> None:
        self.arrays: dict[str, NDArray[Any]] = {}
        self.layouts: list[Any] = []
        self._seen: dict[int, tuple[int, Layout]] = {}
        self._indexes: dict[Layout, int] = {}

    def pack(self, value: Any, path: str) -> Any:
        if type(value) in _PLAIN:
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"float": repr(value)}
        if type(value) is list:
            return self._items(value, path)
        if type(value) is tuple:
            return {"tuple": self._items(value, path)}
        if isinstance(value, Mapping):
            return {"dict": self._mapping(value, path)}
        if type(value) is bytes:
            return {"bytes": value.hex()}
        if isinstance(value, Vector):
            return {"vector": [self._layout(value.layout), self._array(value.buffer, path)]}
        if isinstance(value, Layout):
            return {"layout": self._layout(value)}
        if isinstance(value, np.generic) and value.dtype.name in _ARRAYS:
            return {"number": [value.dtype.name, _little(value).tobytes().hex()]}
        if type(value) is np.ndarray:
            # A sum over an array in Fortran's order may end in other bits than one over its copy in C's.
            if value.flags.f_contiguous and not value.flags.c_contiguous:
                return {"transposed": self._array(value.T, path)}
            return {"array": self._array(value, path)}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            return {"dataclass": [type(value).__qualname__, self._mapping(fields, path)]}
        raise CheckpointError(
            f"{path or 'the value'}: a {type(value).__name__} cannot be saved; a state holds dataclasses, "
            "vectors, arrays, numbers, text and containers of these."
        )

    def _items(self, values: Iterable[Any], path: str) -> list[Any]:
        return [self.pack(value, _below(path, i)) for i, value in enumerate(values)]

    def _mapping(self, values: Mapping[Any, Any], path: str) -> dict[str, Any]:
        for key in values:
            if type(key) is not str:
                raise CheckpointError(f"{path or 'the value'}: the key {key!r} cannot be saved; use text.")
        return {key: self.pack(value, _below(path, key)) for key, value in values.items()}

    def _array(self, array: NDArray[Any], path: str) -> str:
        if array.dtype.name not in _ARRAYS:
            raise CheckpointError(
                f"{path or 'the value'}: an array of dtype {array.dtype} cannot be saved; "
                "make it one of numbers, or a list."
            )
        name = path or "value"
        while name in self.arrays or name == _RESERVED:
            name += "'"
        self.arrays[name] = array
        return name

    def _layout(self, layout: Layout) -> int:
        if id(layout) not in self._seen:
            index = self._indexes.setdefault(layout, len(self.layouts))
            if index == len(self.layouts):
                # `Layout.wide` may have two segments of one dtype, which its entries alone do not tell.
                sizes = [len(segment.entries) for segment in layout.segments]
                self.layouts.append({"entries": layout.to_json(), "segments": sizes})
            # The layout is kept as well, so that no later one is given its id.
            self._seen[id(layout)] = (index, layout)
        return self._seen[id(layout)][0]


class _Unpacker:
    def __init__(self, layouts: list[Layout], arrays: Mapping[str, NDArray[Any]]) -> None:
        self._layouts = layouts
        self._arrays = arrays

    def unpack(self, node: Any, like: Any, classes: tuple[type, ...], path: str) -> Any:
        """Return the node's value; `classes` are the dataclasses that the annotations allow in this place."""
        if isinstance(node, dict) and "dataclass" in node:
            return self._dataclass(node, like, classes, path)
        if isinstance(node, list):
            value: Any = self._items(node, like, classes, path)
        elif isinstance(node, dict):
            value = self._tagged(node, like, classes, path)
        elif type(node) in (*_PLAIN, float):
            value = node
        else:
            raise _damaged(path)
        _check(value, like, path)
        return value

    def _tagged(self, node: dict[str, Any], like: Any, classes: tuple[type, ...], path: str) -> Any:
        decoders: dict[str, Callable[[Any], Any]] = {
            "float": float,
            "bytes": bytes.fromhex,
            "tuple": lambda body: tuple(self._items(body, like, classes, path)),
            "dict": lambda body: self._mapping(body, like, classes, path),
            "array": lambda body: self._arrays[body].copy(),
            "transposed": lambda body: self._arrays[body].copy().T,
            "number": lambda body: _number(*body),
            "layout": lambda body: self._layouts[body],
            "vector": lambda body: self._vector(*body),
        }
        try:
            ((tag, body),) = node.items()
            return decoders[tag](body)
        except (LookupError, TypeError, ValueError, AttributeError):
            raise _damaged(path) from None

    def _items(self, nodes: list[Any], like: Any, classes: tuple[type, ...], path: str) -> list[Any]:
        templates = like if isinstance(like, list | tuple) else ()
        return [
            self.unpack(node, templates[i] if i < len(templates) else None, classes, _below(path, i))
            for i, node in enumerate(nodes)
        ]

    def _mapping(
        self, nodes: Mapping[str, Any], like: Any, classes: tuple[type, ...], path: str
    ) -> dict[str, Any]:
        templates = like if isinstance(like, Mapping) else {}
        return {
            key: self.unpack(node, templates.get(key), classes, _below(path, key))
            for key, node in nodes.items()
        }

    def _vector(self, layout: int, name: str) -> Vector:
        vector = Vector.zeros(self._layouts[layout])
        buffer = self._arrays[name]
        if buffer.dtype != np.uint8 or buffer.shape != vector.buffer.shape:
            raise ValueError
        vector.buffer[:] = buffer
        return vector

    def _dataclass(self, node: dict[str, Any], like: Any, classes: tuple[type, ...], path: str) -> Any:
        try:
            name, nodes = node["dataclass"]
            saved = list(nodes.keys())
        except (TypeError, ValueError, AttributeError):
            raise _damaged(path) from None
        built = () if like is None or not dataclasses.is_dataclass(like) else (type(like),)
        cls = next((cls for cls in (*built, *classes) if cls.__qualname__ == name), None)
        if cls is None:
            if like is None:
                raise CheckpointError(
                    f"{path or 'the value'}: a {name} was saved, and what that is is not known here."
                )
            raise _mismatch(path, f"a {name}", _kind(like))
        fields = [field.name for field in dataclasses.fields(cls)]
        for field in saved:
            if field not in fields:
                raise CheckpointError(
                    f'{_below(path, field)}: {name} has no field "{field}" here.{suggest(field, fields)}'
                )
        for field in fields:
            if field not in saved:
                raise CheckpointError(f"{_below(path, field)}: this field of {name} was not saved.")
        template = like if type(like) is cls else None
        hints = _hints(cls)
        # Not through the constructor: what it derives or rounds was already derived when the state was made.
        value = object.__new__(cls)
        for field in fields:
            inner = self.unpack(
                nodes[field], getattr(template, field, None), hints.get(field, ()), _below(path, field)
            )
            object.__setattr__(value, field, inner)
        return value


def _check(value: Any, like: Any, path: str) -> None:
    if value is None or like is None:
        return
    if _kind(value) != _kind(like):
        raise _mismatch(path, _kind(value), _kind(like))
    if isinstance(value, np.ndarray):
        fits = len(value.shape) == len(like.shape) and all(
            wanted in (0, length) for length, wanted in zip(value.shape, like.shape, strict=True)
        )
        if not fits or value.dtype.name != like.dtype.name:
            raise _mismatch(path, f"{value.dtype} {value.shape}", f"{like.dtype} {like.shape}")
    if isinstance(value, Vector):
        _check_layout(value.layout, like.layout, path)
    if isinstance(value, Layout):
        _check_layout(value, like, path)


def _check_layout(saved: Layout, wanted: Layout, path: str) -> None:
    if saved != wanted:
        raise CheckpointError(f"{path or 'the value'}: as saved, {wanted.difference(saved)}.")


def _kind(value: Any) -> str:
    kinds: tuple[tuple[Any, str], ...] = (
        ((bool, np.bool_), "a bool"),
        ((int, float, np.generic), "a number"),
        (str, "text"),
        (bytes, "bytes"),
        (list, "a list"),
        (tuple, "a tuple"),
        (Mapping, "a dict"),
        (np.ndarray, "an array"),
        (Vector, "a vector"),
        (Layout, "a layout"),
    )
    return next((kind for types, kind in kinds if isinstance(value, types)), f"a {type(value).__qualname__}")


def _hints(cls: type) -> dict[str, tuple[type, ...]]:
    try:
        hints = typing.get_type_hints(cls)
    except (NameError, AttributeError):
        # An annotation that only type checkers import.
        return {}
    return {name: _dataclasses(hint) for name, hint in hints.items()}


def _dataclasses(hint: Any) -> tuple[type, ...]:
    """Return the dataclasses that an annotation mentions, within containers and unions too."""
    inner = tuple(cls for argument in typing.get_args(hint) for cls in _dataclasses(argument))
    cls = typing.get_origin(hint) or hint
    return (cls, *inner) if isinstance(cls, type) and dataclasses.is_dataclass(cls) else inner


def _little(value: np.generic) -> NDArray[Any]:
    return np.asarray(value, value.dtype.newbyteorder("<"))


def _number(dtype: str, digits: str) -> np.generic:
    if dtype not in _ARRAYS:
        raise ValueError
    (number,) = np.frombuffer(bytes.fromhex(digits), np.dtype(dtype).newbyteorder("<")).astype(dtype)
    return typing.cast(np.generic, number)


def _layout(description: Mapping[str, Any]) -> Layout:
    entries = iter(
        Entry(e["name"], tuple(e["shape"]), e["dtype"], e["role"], tuple(e["aliases"]))
        for e in description["entries"]
    )
    groups = [[next(entries) for _ in range(size)] for size in description["segments"]]
    layout = Layout(())
    layout._place(groups)
    return layout


def _below(path: str, key: str | int) -> str:
    return f"{path}.{key}" if path else str(key)


def _mismatch(path: str, saved: str, wanted: str) -> CheckpointError:
    return CheckpointError(f"{path or 'the value'}: {saved} was saved; this job has {wanted} there.")


def _damaged(path: str) -> CheckpointError:
    return CheckpointError(f"{path or 'the value'}: what was saved there is damaged.")
