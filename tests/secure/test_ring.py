"""Signed integers mod 2^b, and their bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpact.core.errors import SecureError
from fedpact.secure.ring import BITS, from_ring, largest, pack, packed_bytes, to_ring, unpack

rings = st.sampled_from(BITS)


@st.composite
def integers(draw):
    bits = draw(rings)
    half = 1 << (bits - 1)
    return bits, draw(st.lists(st.integers(-half, half - 1), max_size=40))


@given(integers())
def test_integers_come_back(case):
    bits, values = case
    ring = to_ring(np.array(values, np.int64), bits)
    assert ring.tolist() == [value % (1 << bits) for value in values]
    assert from_ring(ring, bits).tolist() == values


@given(integers())
def test_bytes_come_back_and_have_no_gap(case):
    bits, values = case
    ring = to_ring(np.array(values, np.int64), bits)
    data = pack(ring, bits)
    assert len(data) == packed_bytes(len(values), bits) == -(-len(values) * bits // 8)
    # The number whose digits to the base 2^bits these are, least significant first.
    whole = sum(int(value) << (bits * i) for i, value in enumerate(ring))
    assert int.from_bytes(data, "little") == whole
    assert np.array_equal(unpack(data, len(values), bits), ring)


@given(integers(), st.integers(2, 9))
def test_sums_within_the_bound_do_not_wrap(case, clients):
    bits, _ = case
    most = largest(bits, clients)
    for sign in (1, -1):
        total = np.zeros(1, np.uint32)
        for _ in range(clients):
            total += to_ring(np.array([sign * most]), bits)
        total &= np.uint32((1 << bits) - 1)
        assert from_ring(total, bits).tolist() == [sign * most * clients]


@pytest.mark.parametrize("bits", BITS)
def test_a_number_that_does_not_fit_is_named(bits):
    half = 1 << (bits - 1)
    for value in (half, -half - 1):
        with pytest.raises(SecureError, match=f"number 1 of a vector is {value}"):
            to_ring(np.array([0, value, 0]), bits)


@pytest.mark.parametrize("bits", [0, 8, 31, 64])
def test_other_rings_are_refused(bits):
    with pytest.raises(SecureError, match=f"not {bits}"):
        to_ring(np.zeros(1, np.int64), bits)


@pytest.mark.parametrize("bits", BITS)
def test_bytes_of_another_size_are_refused(bits):
    data = pack(np.zeros(5, np.uint32), bits)
    for wrong in (data[:-1], data + b"\0"):
        with pytest.raises(SecureError, match="takes"):
            unpack(wrong, 5, bits)


def test_bits_that_belong_to_no_number_are_refused():
    data = pack(np.zeros(3, np.uint32), 20)
    with pytest.raises(SecureError, match="belong to no number"):
        unpack(data[:-1] + b"\xf0", 3, 20)
