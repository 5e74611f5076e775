"""Claims about drawing by blocks: the tables are whole numbers that bound what they stand for, and no float decides."""

import decimal
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpact.privacy import discrete_gaussian, discrete_laplace, skellam
from fedpact.privacy.blocks import DIGITS, BlockSampler, _alias_table

SAMPLERS = {
    "gaussian 0.3": discrete_gaussian._sampler(0.3),
    "gaussian 20": discrete_gaussian._sampler(20.0),
    "gaussian 1234.5": discrete_gaussian._sampler(1234.5),
    "gaussian 2^40": discrete_gaussian._sampler(2.0**40),
    "laplace 3": discrete_laplace._sampler(3.0),
    "laplace 2^40": discrete_laplace._sampler(2.0**40),
    "skellam 1e-6": skellam._sampler(1e-6),
    "skellam 50": skellam._sampler(50.0),
    "skellam 1e5": skellam._sampler(1e5),
    "skellam 2^80": skellam._sampler(2.0**80),
}
each_sampler = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS.keys())


def acceptance(sampler: BlockSampler, integer: int, block: int) -> Decimal:
    """Return the probability that an integer is kept once it was proposed."""
    weight = sampler._weight(abs(integer)) / sampler._weight(0)
    return weight * Decimal(sampler._unit) / sampler._numbers[block]


def ends(sampler: BlockSampler, block: int) -> list[int]:
    first = (block - sampler._half) << sampler._shift
    return [first, first + (1 << sampler._shift) - 1]


@given(st.lists(st.integers(0, 2**60), min_size=1, max_size=40))
def test_alias_table_gives_every_index_exactly_its_share(numbers: list[int]) -> None:
    numbers[0] += 2**64 - sum(numbers)
    thresholds, aliases = _alias_table(numbers)
    columns = len(thresholds)
    shares = [Fraction(0)] * columns
    for column, (threshold, alias) in enumerate(zip(thresholds.tolist(), aliases.tolist(), strict=True)):
        shares[column] += Fraction(threshold, columns)
        shares[alias] += Fraction(2**64 - threshold, columns)
    assert shares == [*numbers, *[0] * (columns - len(numbers))]


@each_sampler
def test_numbers_of_the_blocks_use_every_word(sampler: BlockSampler) -> None:
    assert sum(sampler._numbers) == 2**64


@each_sampler
def test_no_integer_weighs_more_than_its_block_allows(sampler: BlockSampler) -> None:
    with decimal.localcontext(DIGITS):
        for block in range(0, 2 * sampler._half, 7):
            assert max(acceptance(sampler, k, block) for k in ends(sampler, block)) <= 1


@each_sampler
def test_what_is_accepted_at_once_is_accepted_surely(sampler: BlockSampler) -> None:
    with decimal.localcontext(DIGITS):
        for block in range(0, 2 * sampler._half, 7):
            least = min(acceptance(sampler, k, block) for k in ends(sampler, block))
            assert Decimal(int(sampler._surely_accepted[block])) <= least * 2**64


@each_sampler
def test_float_weights_are_right_to_2_to_the_minus_42(sampler: BlockSampler) -> None:
    with decimal.localcontext(DIGITS):
        for block in range(0, 2 * sampler._half, 31):
            k = ends(sampler, block)[0]
            exact = sampler._weight(abs(k)) / sampler._weight(0)
            if exact > Decimal(2) ** -132:
                logarithm = float(sampler._log_weight(np.array([k]))[0])
                assert abs(Decimal(logarithm) - exact.ln()) < Decimal(2) ** -42


@each_sampler
def test_integers_that_are_never_drawn_have_a_mass_below_2_to_the_minus_130(sampler: BlockSampler) -> None:
    beyond = sampler._half << sampler._shift
    with decimal.localcontext(DIGITS):
        # The weights fall at least geometrically with the ratio of these two, a block apart.
        first, next_ = (sampler._weight(beyond + (i << sampler._shift)) for i in (0, 1))
        tail = 2 * first * 2**sampler._shift / (1 - next_ / first) if first else Decimal(0)
        total = sampler._weight(0) * Decimal(2**64) / Decimal(sampler._unit) * 2**sampler._shift
        # Half of all words at least are accepted, so the total of the weights is at least half of the numbers'.
        assert tail / (total / 4) < Decimal(2) ** -130


def coins_at(sampler: BlockSampler, integer: int, block: int) -> tuple[int, float]:
    with decimal.localcontext(DIGITS):
        exact = acceptance(sampler, integer, block) * 2**64
        return int(exact), float(exact % 1)


def close_call(sampler: BlockSampler) -> tuple[int, int]:
    """Return an integer that is accepted often but not always, and its block."""
    block = sampler._half + sampler._half // 20
    return ends(sampler, block)[1], block


@pytest.mark.parametrize("name", ["gaussian 1234.5", "laplace 2^40", "skellam 1e5"])
def test_decision_is_right_where_a_float_cannot_tell(name: str) -> None:
    sampler = SAMPLERS[name]
    integer, block = close_call(sampler)
    coin, _ = coins_at(sampler, integer, block)
    # One in 2^64 apart: as floats the three coins are the same number.
    coins = np.array([coin - 1, coin + 1] * 50, np.uint64)
    accepted = sampler._accepted(np.full(100, integer), np.full(100, block), coins)
    assert accepted.tolist() == [True, False] * 50


def test_coin_that_is_too_coarse_is_refined_by_fair_bits() -> None:
    sampler = SAMPLERS["gaussian 1234.5"]
    integer, block = close_call(sampler)
    coin, share = coins_at(sampler, integer, block)
    accepted = sum(sampler._settle(integer, block, coin) for _ in range(4000))
    assert 0.01 < share < 0.99
    assert abs(accepted - 4000 * share) < 7 * (4000 * share * (1 - share)) ** 0.5


@pytest.mark.parametrize("n", [0, 1, 7, (1 << 13) - 1, 1 << 13, (1 << 13) + 1, 50_001])
def test_as_many_are_drawn_as_were_asked_for(n: int) -> None:
    drawn: Any = SAMPLERS["gaussian 2^40"].draw(n)
    assert drawn.shape == (n,)
    assert drawn.dtype == np.int64
    assert np.count_nonzero(drawn) == n
