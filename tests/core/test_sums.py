from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedpact.core import sums

# Every finite float64, the smallest (2^-1074) and the largest included.
FINITE = st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=30)


@given(FINITE)
def test_sum_is_exact_for_any_numbers(values: list[float]) -> None:
    assert sums.sum_in(sums.sum_of(np.array(values, float))) == sum(map(Fraction, values))


@given(FINITE)
def test_sum_of_squares_is_exact_for_any_numbers(values: list[float]) -> None:
    exact = sum(Fraction(value) ** 2 for value in values)
    assert sums.sum_of_squares_in(sums.sum_of_squares(np.array(values, float))) == exact


@given(FINITE, FINITE)
def test_digits_of_two_parts_add_up_to_the_sum_of_both(one: list[float], other: list[float]) -> None:
    added = sums.sum_of_squares(np.array(one, float)) + sums.sum_of_squares(np.array(other, float))
    assert sums.sum_of_squares_in(added) == sum(Fraction(value) ** 2 for value in one + other)


def test_sum_is_exact_over_several_blocks() -> None:
    # 200,000 times 0.1, whose float64 is 3602879701896397 / 2^55.
    values = np.full(200_000, 0.1)
    assert sums.sum_in(sums.sum_of(values)) == 200_000 * Fraction(3602879701896397, 1 << 55)


@given(st.fractions(min_value=0, max_value=10**30))
def test_square_root_squares_back(number: Fraction) -> None:
    assert sums.square_root(number) == pytest.approx(float(number) ** 0.5, rel=1e-15)


@pytest.mark.parametrize("root", [2.0**-1070, 3e-200, 7e200, 1.5e308])
def test_square_root_of_what_no_float_holds(root: float) -> None:
    assert sums.square_root(Fraction(root) ** 2) == root


def draws(what: str) -> NDArray[np.float64]:
    """Several blocks of numbers, of which some or most may be spread over more bits than are sliced."""
    random = np.random.default_rng(7)
    values = random.normal(3, 2, 20_000)
    if what == "a few far smaller":
        values[::100] *= 2.0 ** -random.integers(30, 1000, 200)
    elif what == "spread":
        values *= 2.0 ** random.integers(-500, 500, values.size)
    elif what == "tiny":
        values *= 2.0**-1060
    elif what == "huge":
        values *= 2.0**1000
    elif what == "whole":
        values = np.rint(values)
    elif what == "zeros":
        values[:] = 0
    elif what == "of one size":
        # Slices of the most that they can hold, all of one sign.
        values[:] = np.nextafter(2.0, 0)
    return values


@pytest.mark.parametrize(
    "what", ["alike", "a few far smaller", "spread", "tiny", "huge", "whole", "zeros", "of one size"]
)
def test_sums_of_many_blocks_are_exact(what: str) -> None:
    values = draws(what)
    units = [int(Fraction(value) * 2**1074) for value in values.tolist()]
    total, squares = sums.sums_of(values)
    assert sums.sum_in(total) == Fraction(sum(units), 2**1074)
    assert sums.sum_of_squares_in(squares) == Fraction(sum(unit * unit for unit in units), 2**2148)
    assert np.array_equal(total, sums.sum_of(values))
    assert np.array_equal(squares, sums.sum_of_squares(values))
