"""Claims about safetensors files, checked against the safetensors library."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from safetensors.numpy import load, save, save_file

from fedpact.store.tensors import TensorFile, TensorFileError, encode

DTYPES = ["float64", "float32", "float16", "bool"] + [
    f"{s}int{b}" for s in ("", "u") for b in (8, 16, 32, 64)
]

arrays = hnp.arrays(st.sampled_from(DTYPES), hnp.array_shapes(min_dims=0, min_side=0, max_side=4))
tensors = st.dictionaries(st.text(max_size=8).filter(lambda name: name != "__metadata__"), arrays, max_size=4)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tensors") / "file.safetensors"


def encoded(named: dict[str, NDArray[Any]], metadata: dict[str, str] | None = None) -> bytes:
    return b"".join(encode({name: (a.dtype.name, a) for name, a in named.items()}, metadata or {}))


def with_header(header: Any, payload: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + payload


def same(a: dict[str, NDArray[Any]], b: dict[str, NDArray[Any]]) -> bool:
    return a.keys() == b.keys() and all(
        (a[n].dtype, a[n].shape, a[n].tobytes()) == (b[n].dtype, b[n].shape, b[n].tobytes()) for n in a
    )


@given(tensors)
def test_library_reads_what_we_write(named: dict[str, NDArray[Any]]) -> None:
    assert same(load(encoded(named)), named)


@given(tensors)
def test_we_read_what_the_library_writes(path: Path, named: dict[str, NDArray[Any]]) -> None:
    path.write_bytes(save(named, {"note": "ünïcode"}))
    with TensorFile(path) as file:
        assert same(dict(file), named)
        assert file.metadata == {"note": "ünïcode"}


def test_bfloat16_is_written_under_its_own_name() -> None:
    data = b"".join(encode({"x": ("bfloat16", np.array([0x3F80], np.uint16))}, {}))
    ((name, tensor),) = safetensors.deserialize(data)  # type: ignore[no-untyped-call]
    assert (name, tensor["dtype"], bytes(tensor["data"])) == ("x", "BF16", b"\x80\x3f")


def test_every_array_starts_at_a_multiple_of_its_item_size() -> None:
    data = encoded({"a": np.zeros(3, np.int8), "b": np.zeros(1), "c": np.zeros(5, np.float16)})
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    assert length % 8 == 0
    assert header["b"]["data_offsets"][0] % 8 == header["c"]["data_offsets"][0] % 2 == 0


def test_array_that_is_a_view_of_another_is_written_as_it_looks(path: Path) -> None:
    table = np.arange(12.0).reshape(3, 4)
    path.write_bytes(encoded({"column": table[:, 1], "turned": table.T, "big": table.astype(">f8")}))
    with TensorFile(path) as file:
        assert file["column"].tolist() == [1, 5, 9]
        assert file["turned"].tolist() == table.T.tolist()
        assert file["big"].tolist() == table.tolist()


def test_dtype_without_a_place_in_the_format_is_refused() -> None:
    with pytest.raises(TensorFileError, match=r'no place for "x" of dtype complex128'):
        encoded({"x": np.zeros(1, complex)})


def test_file_with_any_byte_changed_is_refused_or_read_and_nothing_else(path: Path) -> None:
    data = encoded({"a": np.arange(3.0), "b": np.array(True)}, {"note": "text"})
    for i in range(len(data)):
        for mask in (0x01, 0x20, 0x80):
            path.write_bytes(data[:i] + bytes([data[i] ^ mask]) + data[i + 1 :])
            with suppress(TensorFileError), TensorFile(path) as file:
                dict(file)


def test_file_cut_anywhere_is_refused(path: Path) -> None:
    data = encoded({"a": np.arange(3.0)}, {"note": "text"})
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(TensorFileError, match="truncated"):
            TensorFile(path)


@given(st.binary(max_size=64))
def test_arbitrary_bytes_are_refused(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(TensorFileError):
        TensorFile(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 99) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)
descriptions = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "U8", "F8_E4M3", "I64"]) | json_values,
        "shape": st.lists(st.integers(-1, 2**70), max_size=3) | json_values,
        "data_offsets": st.lists(st.integers(-1, 2**70), min_size=2, max_size=2) | json_values,
    }
)


@settings(max_examples=300)
@given(st.dictionaries(st.text(max_size=3), descriptions | json_values, max_size=3), st.binary(max_size=16))
def test_arbitrary_headers_are_refused_or_read_and_nothing_else(
    path: Path, header: dict[str, Any], payload: bytes
) -> None:
    path.write_bytes(with_header(header, payload))
    with suppress(TensorFileError), TensorFile(path) as file:
        dict(file)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it ends after 0 bytes"),
        (b"A table, a,b,c\n1,2,3\n", "is no safetensors file"),
        ((2**63).to_bytes(8, "little") + b"{}", "it ends after 10 bytes"),
        (with_header(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "its header is not JSON"),
        (with_header(b"{\xff}"), "its header is not JSON"),
        (with_header({"__metadata__": {"a": 1}}), "its metadata are not texts"),
        (with_header({"a": {"dtype": "F32", "shape": [1]}}), 'does not describe "a"'),
        (
            with_header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}),
            "are not whole numbers",
        ),
        (with_header({"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}), 'holds "a" as F4'),
        (
            with_header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"1234"),
            "with its shape",
        ),
        (with_header({"a": {"dtype": "U8", "shape": [2], "data_offsets": [1, 3]}}, b"123"), "leave a gap"),
        (
            with_header({"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}}, b"123"),
            "header describes",
        ),
        (
            with_header(
                {
                    name: {"dtype": "U8", "shape": [2], "data_offsets": [i, i + 2]}
                    for i, name in enumerate("ab")
                },
                b"123",
            ),
            "overlap",
        ),
    ],
)
def test_damage_is_named(path: Path, data: bytes, reason: str) -> None:
    path.write_bytes(data)
    with pytest.raises(TensorFileError, match=reason):
        TensorFile(path)


def test_array_larger_than_the_file_is_refused_before_it_is_allocated(path: Path) -> None:
    size = 2**45
    path.write_bytes(with_header({"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}))
    with pytest.raises(TensorFileError, match="truncated"):
        TensorFile(path)


def test_empty_array_of_an_impossible_shape_is_refused(path: Path) -> None:
    path.write_bytes(with_header({"a": {"dtype": "U8", "shape": [0, 2**70], "data_offsets": [0, 0]}}))
    with TensorFile(path) as file, pytest.raises(TensorFileError, match="cannot have the shape"):
        file["a"]


def test_file_that_is_cut_after_it_was_opened_is_refused(path: Path) -> None:
    save_file({"a": np.zeros(4096)}, path)
    with TensorFile(path) as file:
        with path.open("r+b") as other:
            other.truncate(1000)
        with pytest.raises(TensorFileError, match="became shorter"):
            file["a"]


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TensorFileError, match="does not exist"):
        TensorFile(tmp_path / "none")
    with pytest.raises(TensorFileError, match="cannot be read: Is a directory"):
        TensorFile(tmp_path)
