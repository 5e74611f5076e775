"""Packed numbers: as many bits as they say, and back again; codes that others made are refused."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedpact.channel import elias
from fedpact.channel.bits import (
    bytes_of,
    pack_bits,
    pack_signs,
    pack_trits,
    unpack_bits,
    unpack_signs,
    unpack_trits,
)
from fedpact.channel.selection import largest


@given(st.integers(1, 16), st.data())
def test_numbers_of_so_many_bits_come_back_from_so_many_bytes(bits, data):
    numbers = data.draw(hnp.arrays(np.int64, st.integers(0, 50), elements=st.integers(0, 2**bits - 1)))
    packed = pack_bits(numbers, bits)
    assert packed.nbytes == bytes_of(numbers.size, bits) == -(-numbers.size * bits // 8)
    np.testing.assert_array_equal(unpack_bits(packed, bits, numbers.size), numbers)


def test_bits_are_those_that_python_writes_also_beyond_a_block():
    numbers = np.random.default_rng(0).integers(0, 8, 70_003)
    wanted = "".join(f"{n:03b}" for n in numbers.tolist())
    found = "".join(f"{byte:08b}" for byte in pack_bits(numbers, 3).tolist())
    assert found[: len(wanted)] == wanted
    np.testing.assert_array_equal(unpack_bits(pack_bits(numbers, 3), 3, numbers.size), numbers)


def test_a_sign_is_a_bit_and_zero_is_positive():
    packed = pack_signs(np.array([0.0, -1.0, 2.0, -0.0, -1e-300]))
    assert packed.tolist() == [0b10110000]
    assert unpack_signs(packed, 5).tolist() == [1, -1, 1, 1, -1]


@given(hnp.arrays(np.uint8, st.integers(0, 40), elements=st.integers(0, 2)))
def test_five_numbers_of_three_values_fit_a_byte(numbers):
    packed = pack_trits(numbers)
    assert packed.nbytes == -(-numbers.size // 5)
    np.testing.assert_array_equal(unpack_trits(packed, numbers.size), numbers)


def omega(number):
    """Elias's omega code by its definition: each group says how long the next one is."""
    code = "0"
    while number > 1:
        code = f"{number:b}" + code
        number = number.bit_length() - 1
    return code


@given(st.lists(st.integers(1, 2**32) | st.integers(1, 20), max_size=40))
def test_the_omega_code_is_that_of_its_definition_and_comes_back(numbers):
    packed = elias.encode(np.array(numbers, np.int64))
    wanted = "".join(map(omega, numbers))
    assert "".join(f"{byte:08b}" for byte in packed.tolist())[: len(wanted)] == wanted
    assert packed.size == -(-len(wanted) // 8)
    assert elias.decode(packed, len(numbers)).tolist() == numbers


def test_bytes_beyond_the_longest_codes_are_refused_before_anything_is_allocated():
    packed = np.zeros(1 << 22, np.uint8)
    tracemalloc.start()
    with pytest.raises(ValueError, match="not the codes"):
        elias.decode(packed, 10)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < packed.nbytes
    longest = elias.encode(np.full(10, 2**32))
    assert elias.decode(longest, 10).tolist() == [2**32] * 10


def test_codes_longer_than_a_block_come_back():
    numbers = np.random.default_rng(0).geometric(0.1, 100_000)
    np.testing.assert_array_equal(elias.decode(elias.encode(numbers), numbers.size), numbers)


@given(st.binary(max_size=60), st.integers(0, 600))
def test_bytes_of_anybody_are_so_many_numbers_or_refused(raw, count):
    packed = np.frombuffer(raw, np.uint8)
    try:
        numbers = elias.decode(packed, count)
    except ValueError:
        return
    assert numbers.size == count
    # Whoever wrote the codes that are read wrote these bits, but for those that fill the last byte.
    wanted = "".join(map(omega, numbers.tolist()))
    assert "".join(f"{byte:08b}" for byte in raw)[: len(wanted)] == wanted


@given(hnp.arrays(np.float64, st.integers(1, 30), elements=st.integers(-4, 4)), st.integers(0, 31))
def test_the_largest_are_those_of_a_stable_sort(values, k):
    wanted = np.zeros(values.size, bool)
    wanted[np.argsort(-values, kind="stable")[:k]] = True
    np.testing.assert_array_equal(largest(values, k), wanted)


@pytest.mark.parametrize("k", [0, 3, 5])
def test_of_equal_ones_the_first_are_taken(k):
    assert largest(np.ones(5), k).tolist() == [True] * k + [False] * (5 - k)
