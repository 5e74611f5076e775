"""Rounding many numbers at once: the integers that numpy's rint gives, whichever way they are computed."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedpact.core.row_sums import rounded


def by_rint(numbers):
    return np.rint(numbers).astype(np.int64)


@given(st.lists(st.floats(-(2.0**61), 2.0**61), max_size=20))
def test_any_numbers_are_rounded_as_by_rint(numbers):
    array = np.array(numbers, np.float64)
    largest = float(np.abs(array).max(initial=0.0))
    np.testing.assert_array_equal(rounded(array.copy(), largest), by_rint(array))


def test_halves_go_to_the_even_integer_up_to_the_last_bit_of_the_fast_way():
    edge = 2.0**51
    halves = np.array(
        [0.5, 1.5, 2.5, -0.5, -1.5, -2.5, edge / 2 + 0.5, -edge / 2 - 0.5, edge - 0.5, 0.5 - edge]
    )
    assert rounded(halves.copy(), edge - 0.5).tolist() == by_rint(halves).tolist()
    assert rounded(halves.copy(), edge).tolist() == by_rint(halves).tolist()
