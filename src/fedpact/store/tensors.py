"""safetensors files, written and read array by array, so that a file never has to fit into memory twice.

The format: 8 bytes with the length of a JSON header, the header, the arrays' bytes without a gap
(https://huggingface.co/docs/safetensors). The safetensors library is not used, since it holds whole files in
memory, has no bfloat16 without torch, and changes how it wants its arrays from one version to the next.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from importlib import metadata as installed
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.vector import STORAGE, Entry
from fedpact.store.files import Chunk

# An array and the name of its dtype, which for bfloat16 is not the dtype of the numpy array.
Tensor = tuple[str, NDArray[Any]]

_DTYPES = STORAGE | {name: np.dtype(name) for name in ("uint16", "uint32", "uint64")}
_CODES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}
_NAMES = {code: name for name, code in _CODES.items()}
_METADATA = "__metadata__"


class TensorFileError(Exception):
    """A file that is no intact safetensors file: the predicate of a sentence about it."""


def encode(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> list[Chunk]:
    """Return a safetensors file in pieces: its length and header, then a view of each array.

    Raises:
        TensorFileError: a dtype has no place in the format, or a name is reserved.
    """
    header: dict[str, Any] = {_METADATA: dict(metadata)}
    views: list[Chunk] = []
    offset = 0
    # The widest first: then every array starts at a multiple of its own item size, as readers that map the
    # file into memory wish.
    for name, (dtype, array) in sorted(tensors.items(), key=lambda item: -item[1][1].itemsize):
        if dtype not in _CODES or name == _METADATA:
            raise TensorFileError(f'has no place for "{name}" of dtype {dtype}.')
        view = _bytes(array)
        header[name] = {
            "dtype": _CODES[dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + view.nbytes],
        }
        offset += view.nbytes
        views.append(view)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little") + text, *views]


def _bytes(array: NDArray[Any]) -> memoryview:
    little = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
    return little.reshape(-1).view(np.uint8).data


class TensorFile(Mapping[str, NDArray[Any]]):
    """An open safetensors file: each array is read when asked for. To be used in a `with` statement.

    Its sizes are checked against one another and against the file's before anything is allocated.

    Args:
        path: where it is.

    Attributes:
        start: the file's first bytes, up to and with the header.
        metadata: the texts in its header.
        entries: name → the array's name, shape and dtype.

    Raises:
        TensorFileError: there is no such file, or it is none, or it is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            self._file = open(path, "rb")  # noqa: SIM115
        except OSError as error:
            raise _unreadable(error) from None
        try:
            self._nbytes = os.fstat(self._file.fileno()).st_size
            self.start = self._read_start()
            self._read_header()
        except OSError as error:
            self._file.close()
            raise _unreadable(error) from None
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "TensorFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __getitem__(self, name: str) -> NDArray[Any]:
        entry = self.entries[name]
        try:
            array = np.empty(entry.shape, _DTYPES[entry.dtype].newbyteorder("<"))
        except (ValueError, OverflowError):
            raise TensorFileError(f'is damaged: "{name}" cannot have the shape {entry.shape}.') from None
        view = _bytes(array)
        try:
            self._file.seek(len(self.start) + self._offsets[name])
            count = self._file.readinto(view)
        except OSError as error:
            raise _unreadable(error) from None
        if count != view.nbytes:
            raise TensorFileError("became shorter while it was read.")
        return array.astype(array.dtype.newbyteorder("="), copy=False)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def payload(self, size: int = 1 << 20) -> Iterator[bytes]:
        """Iterate over the bytes behind the header."""
        try:
            self._file.seek(len(self.start))
            while chunk := self._file.read(size):
                yield chunk
        except OSError as error:
            raise _unreadable(error) from None

    def _read_start(self) -> bytes:
        begin = self._file.read(9)
        if len(begin) == 9 and begin[8:] != b"{":
            raise TensorFileError("is no safetensors file.")
        length = 8 + int.from_bytes(begin[:8], "little")
        if len(begin) < 9 or length > self._nbytes:
            raise TensorFileError(
                f"is truncated or damaged: it ends after {self._nbytes} bytes, in its header."
            )
        self._file.seek(0)
        return self._file.read(length)

    def _read_header(self) -> None:
        try:
            header = json.loads(str(self.start[8:], "utf-8"))
        except (ValueError, RecursionError):
            raise TensorFileError("is damaged: its header is not JSON.") from None
        texts = header.pop(_METADATA, {})
        if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
            raise TensorFileError("is damaged: its metadata are not texts.")
        self.metadata: dict[str, str] = texts
        self.entries: dict[str, Entry] = {}
        self._offsets: dict[str, int] = {}
        spans = []
        for name, description in header.items():
            dtype, shape, start, stop = _describe(name, description)
            if stop - start != math.prod(shape) * _DTYPES[dtype].itemsize:
                raise TensorFileError(f'is damaged: the size of "{name}" does not agree with its shape.')
            self.entries[name] = Entry(name, shape, dtype)
            self._offsets[name] = start
            spans.append((start, stop))
        self._check_spans(sorted(spans))

    def _check_spans(self, spans: list[tuple[int, int]]) -> None:
        end = 0
        for start, stop in spans:
            if start != end:
                raise TensorFileError("is damaged: its arrays overlap or leave a gap.")
            end = stop
        expected = len(self.start) + end
        if self._nbytes < expected:
            raise TensorFileError(f"is truncated: it has {self._nbytes} of {expected} bytes.")
        if self._nbytes > expected:
            raise TensorFileError(
                f"is damaged: it has {self._nbytes} bytes, and its header describes {expected}."
            )


def written_by() -> str:
    """Return the version of Fedpact that is writing, for the record."""
    try:
        return installed.version("fedpact")
    except installed.PackageNotFoundError:
        return "not installed"


def _describe(name: str, description: Any) -> tuple[str, tuple[int, ...], int, int]:
    try:
        code, shape, (start, stop) = (description[key] for key in ("dtype", "shape", "data_offsets"))
        numbers = [*shape, start, stop]
    except (TypeError, KeyError, ValueError):
        raise TensorFileError(f'is damaged: its header does not describe "{name}".') from None
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise TensorFileError(f'is damaged: the sizes of "{name}" are not whole numbers.')
    if not isinstance(code, str) or code not in _NAMES:
        raise TensorFileError(f'holds "{name}" as {code}, a dtype that cannot be read here.')
    return _NAMES[code], tuple(shape), start, stop


def _unreadable(error: OSError) -> TensorFileError:
    if isinstance(error, FileNotFoundError):
        return TensorFileError("does not exist.")
    return TensorFileError(f"cannot be read: {error.strerror or error}.")
