"""What is hashed and signed: one value, one row of bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpact.core.errors import SecureError
from fedpact.secure.encoding import decode, digest, encode

leaves = st.integers(0, 2**64 - 1) | st.text(max_size=5) | st.binary(max_size=5)
values = st.lists(
    leaves | st.lists(leaves | st.lists(leaves, max_size=3).map(tuple), max_size=4).map(tuple), max_size=5
)


@given(values.map(tuple))
def test_parts_come_back(parts):
    assert decode(encode(*parts)) == parts


@given(values, values)
def test_different_parts_have_different_bytes(one, other):
    assert (encode(*one) == encode(*other)) == (one == other)


@given(st.binary(max_size=60))
def test_bytes_that_are_read_are_written_again_or_refused(data):
    try:
        parts = decode(data)
    except SecureError:
        return
    assert encode(*parts) == data


@given(values, st.data())
def test_bytes_that_are_cut_short_are_refused(parts, data):
    whole = encode(*parts, "end")
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    try:
        assert decode(cut) != (*parts, "end")
    except SecureError:
        pass


def test_the_encoding_is_what_it_was():
    assert encode("a", 258, b"\xff", ("b",)).hex() == (
        "73" "0000000000000001" "61"
        "69" "0000000000000102"
        "62" "0000000000000001" "ff"
        "6c" "0000000000000001" "73" "0000000000000001" "62"
    )  # fmt: skip
    # SHA-256 of nothing.
    assert digest().hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_part_that_announces_more_than_there_is_is_refused():
    with pytest.raises(SecureError, match="longer than the message"):
        decode(b"b" + (2**40).to_bytes(8, "big"))
    with pytest.raises(SecureError, match="longer than the message"):
        decode(b"l" + (2**40).to_bytes(8, "big"))


def test_deep_lists_are_refused():
    nested = b""
    for _ in range(50):
        nested = b"l" + (1).to_bytes(8, "big") + nested
    with pytest.raises(SecureError, match="longer than the message|cut short"):
        decode(nested)
