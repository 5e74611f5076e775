"""Messages: what is written is read, and nothing else is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpact.core.errors import SecureError
from fedpact.secure.encoding import encode
from fedpact.secure.messages import (
    Consistency,
    Delivery,
    Invitation,
    KeyList,
    Keys,
    MaskedVector,
    SealedShares,
    Survivors,
    UnmaskRequest,
    UnmaskShares,
    decode_message,
)
from fedpact.secure.parameters import Parameters


def keys(i):
    return Keys(f"c{i}", bytes([i, 0]) * 16, bytes([i, 1]) * 16, bytes([i]) * 64)


EXAMPLES = (
    Invitation(bytes(32), 3, Parameters.complete(5), ("a", "b", "c", "d", "é")),
    Invitation(bytes(32), 2**64 - 1, Parameters(5, 3, 2, 3, 20), ("a", "b", "c", "d", "e")),
    keys(1),
    KeyList((keys(1), keys(2), keys(3))),
    KeyList(()),
    SealedShares(bytes(32), (bytes(80), b"\1" * 80)),
    Delivery(((0, bytes(80)), (2**32 - 1, b"\1" * 80))),
    MaskedVector.of(np.arange(7, dtype=np.uint32), 20),
    Survivors((0, 3, 70_000)),
    Consistency(bytes(64)),
    UnmaskRequest(((1, bytes(64)), (4, b"\2" * 64))),
    UnmaskShares((bytes(32), b"\3" * 32)),
)


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: message.kind)
def test_message_comes_back(message):
    data = message.to_bytes()
    assert decode_message(data) == message
    assert type(message).from_bytes(data) == message


@given(st.sampled_from(EXAMPLES), st.data())
def test_changed_bytes_are_another_message_or_none(message, data):
    whole = bytearray(message.to_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = decode_message(bytes(whole))
    except SecureError:
        return
    assert read.to_bytes() == bytes(whole)


@given(st.sampled_from(EXAMPLES), st.data())
def test_parts_of_another_type_are_another_message_or_none(message, data):
    odd = st.sampled_from([0, 7, "", "abc", b"", bytes(32), (), ("a", "b"), ((1, 2), (3,))])
    parts = list(message.parts())
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.integers(0, len(parts)))
        parts[place : place + data.draw(st.integers(0, 1))] = [data.draw(odd)]
    written = encode(message.kind, *parts)
    try:
        read = decode_message(written)
    except SecureError:
        return
    assert read.to_bytes() == written


@given(st.binary(max_size=80))
def test_any_bytes_are_a_message_or_refused(data):
    try:
        read = decode_message(data)
    except SecureError:
        return
    assert read.to_bytes() == data


def test_another_kind_is_refused_by_name():
    with pytest.raises(SecureError, match='"keys" was expected; "survivors" came'):
        Keys.from_bytes(Survivors((1,)).to_bytes())


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Keys("", bytes(32), bytes(32), bytes(64)), "name"),
        (lambda: Keys("x" * 257, bytes(32), bytes(32), bytes(64)), "name"),
        (lambda: Keys("a", bytes(31), bytes(32), bytes(64)), "public key has 32 bytes; this is 31"),
        (lambda: Keys("a", bytes(32), "x" * 32, bytes(64)), "this is str"),
        (lambda: Keys("a", bytes(32), bytes(32), bytes(63)), "signature has 64"),
        (lambda: KeyList((keys(2), keys(1))), "sorted"),
        (lambda: KeyList((keys(1), keys(1))), "no one in it twice"),
        (lambda: Invitation(bytes(3), 1, Parameters.complete(5), tuple("abcde")), "session"),
        (lambda: Invitation(bytes(32), -1, Parameters.complete(5), tuple("abcde")), "round is -1"),
        (lambda: Invitation(bytes(32), 1, Parameters.complete(5), tuple("abcd")), "4 clients are invited"),
        (lambda: Invitation(bytes(32), 1, Parameters.complete(5), tuple("abcdd")), "twice"),
        (lambda: Invitation(bytes(32), 1, Parameters.complete(5), "abcde"), "sorted"),
        (lambda: Delivery(((0, bytes(79)),)), "80 bytes"),
        (lambda: Delivery(((1, bytes(80)), (1, bytes(80)))), "twice"),
        (lambda: Delivery(((2**32, bytes(80)),)), "no position"),
        (lambda: MaskedVector(20, 3, bytes(7)), "has 8 bytes; this is 7"),
        (lambda: MaskedVector(18, 4, bytes(9)), "not 18"),
        (lambda: Survivors((3, 2)), "sorted"),
        (lambda: Consistency(b""), "64 bytes"),
        (lambda: UnmaskShares((bytes(33),)), "32 bytes"),
    ],
)
def test_a_message_that_cannot_be_is_refused(make, match):
    with pytest.raises(SecureError, match=match):
        make()
