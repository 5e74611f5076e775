"""Exact sums: the same bits whatever the order, and nothing that wraps, saturates or slips through."""

import functools
import math
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedpact.core.errors import ConfigError, UpdateError
from fedpact.core.exact import FixedPointSum, quantised_weight, quantised_weights
from fedpact.core.stack import Stack
from fedpact.core.vector import Entry, Layout, Vector
from fedpact.core.wide import Wide, wide_units

LAYOUT = Layout([Entry("a", (3,)), Entry("b", (2,), "float64"), Entry("c", (1,), role="buffer")])
LIMIT = 65536.0

values = hnp.arrays(np.float64, LAYOUT.size, elements=st.floats(-60000, 60000))
weights = st.one_of(st.integers(0, 1000), st.floats(0, 1000))
cohorts = st.lists(st.tuples(values, weights), min_size=1, max_size=8)


def vector_of(numbers, layout=LAYOUT):
    vector, offset = Vector.zeros(layout), 0
    for flat in vector.flats:
        flat[:] = numbers[offset : offset + flat.size]
        offset += flat.size
    return vector


def numbers_of(vector):
    return np.concatenate([flat.astype(np.float64) for flat in vector.flats])


def sum_of(cohort, total=8000.0, limit=LIMIT):
    sum_ = FixedPointSum(cohort[0][0].layout, limit, total)
    for vector, weight in cohort:
        sum_.add(vector, weight)
    return sum_


def same(a, b):
    return (
        a.integers.tobytes() == b.integers.tobytes()
        and (a.weight, a.count) == (b.weight, b.count)
        and (not a.weight or a.mean() == b.mean())
    )


@given(cohorts, st.randoms(use_true_random=False))
def test_sum_is_the_same_bits_for_any_order(cohort, random):
    cohort = [(vector_of(numbers), weight) for numbers, weight in cohort]
    shuffled = random.sample(cohort, len(cohort))
    assert same(sum_of(cohort), sum_of(shuffled))


@given(cohorts, st.randoms(use_true_random=False))
def test_partial_sums_merged_in_any_tree_are_the_same_bits(cohort, random):
    cohort = [(vector_of(numbers), weight) for numbers, weight in cohort]
    parts = [sum_of([member]) for member in cohort]
    while len(parts) > 1:
        left, right = (parts.pop(random.randrange(len(parts))) for _ in range(2))
        left.merge(right)
        parts.append(left)
    assert same(parts[0], sum_of(cohort))


@given(cohorts, st.tuples(values, weights))
def test_what_is_taken_back_leaves_the_bits_as_they_were(cohort, member):
    cohort = [(vector_of(numbers), weight) for numbers, weight in cohort]
    sum_ = sum_of(cohort, total=9000.0)
    vector = vector_of(member[0])
    sum_.add(vector, member[1])
    sum_.remove(vector, member[1])
    assert same(sum_, sum_of(cohort, total=9000.0))


@pytest.mark.parametrize("total", [20, 1e5])
def test_the_mean_is_that_of_float64_to_a_millionth(total):
    # Twenty clients, values of a model's usual sizes, weights that are not whole numbers.
    rng = np.random.default_rng(0)
    weights = rng.uniform(0.01, 1, 20) * total / 20
    numbers = rng.choice([-1, 1], (20, LAYOUT.size)) * 10.0 ** rng.uniform(-3, 2, (20, LAYOUT.size))
    vectors = [vector_of(row) for row in numbers]
    mean = numbers_of(sum_of(list(zip(vectors, weights, strict=True)), total=total).mean())
    rounded = np.array([numbers_of(vector) for vector in vectors])
    expected = [math.fsum(weights * column) / math.fsum(weights) for column in rounded.T]
    # Where terms cancel, what is small is the mean and not its error; float32 means keep 24 bits.
    size = [math.fsum(weights * np.abs(column)) / math.fsum(weights) for column in rounded.T]
    np.testing.assert_array_less(np.abs(mean - expected) / size, 1e-6)


def test_small_real_weights_count_as_they_are():
    # Σ w·x / Σ w = (0.0001·1 + 0.0003·3) / 0.0004 = 2.5.
    layout = Layout([Entry("x", (), "float64")])
    cohort = [(vector_of([1.0], layout), 0.0001), (vector_of([3.0], layout), 0.0003)]
    assert sum_of(cohort, total=1.0).mean()["x"] == pytest.approx(2.5, rel=1e-9)


@settings(max_examples=200)
@given(
    st.floats(2.0**-40, 2.0**21),
    st.lists(st.one_of(st.integers(1, 10**6), st.floats(2.0**-20, 1e6)), min_size=1, max_size=20),
    st.sampled_from([-1.0, 1.0]),
)
def test_nothing_overflows_when_all_reach_the_range_and_the_total(limit, weights, sign):
    layout = Layout([Entry("x", (4,), "float64")])
    vector = vector_of([sign * limit, -sign * limit, sign * limit, 0.0], layout)
    sum_ = FixedPointSum(layout, limit, math.fsum(weights))
    for weight in weights:
        sum_.add(vector, weight)
    exact = sum((Fraction(weight) for weight in weights), Fraction(0)) * Fraction(sign * limit)
    # Each term is a rounded product, rounded to an integer.
    tolerance = abs(exact) / 2**50 + Fraction(len(weights)) / Fraction(2.0**sum_.fraction_bits)
    for index, direction in enumerate([1, -1, 1, 0]):
        total = Fraction(int(sum_.integers[index])) / Fraction(2.0**sum_.fraction_bits)
        assert abs(total - direction * exact) <= tolerance


def test_one_integer_of_the_sum_uses_62_bits_and_no_more():
    layout = Layout([Entry("x", (1,), "float64")])
    sum_ = FixedPointSum(layout, 1024.0, 2.0**20)
    for _ in range(4):
        sum_.add(vector_of([1024.0], layout), 2.0**18)
    assert int(sum_.integers[0]) == 2**62
    assert sum_.mean()["x"][0] == 1024.0


def test_terms_are_rounded_to_the_nearest_integer():
    # With range and total 1 an integer stands for 2^-62.
    layout = Layout([Entry("x", (4,), "float64")])
    sum_ = FixedPointSum(layout, 1.0, 1.0)
    sum_.add(vector_of(np.array([0.75, -0.75, 0.25, 1.5]) * 2.0**-62, layout))
    assert sum_.integers.tolist() == [1, -1, 0, 2]


BAD = [math.nan, math.inf, -math.inf, 65537.0, -65536.5]


@pytest.mark.parametrize("value", BAD, ids=repr)
@pytest.mark.parametrize("index", [0, 65_535, 65_536, 150_000, 180_000])
def test_a_bad_value_is_refused_and_leaves_no_trace(value, index):
    # Two segments of more than one block each; the blocks before the bad one have been added by then.
    layout = Layout([Entry("w", (400, 400)), Entry("v", (50_000,), "float64")])
    rng = np.random.default_rng(1)
    first, second = (vector_of(rng.normal(size=layout.size), layout) for _ in range(2))
    sum_ = sum_of([(first, 3)], total=10)
    before = (sum_.integers.copy(), sum_.weight, sum_.count)
    flat, place = (second.flats[0], index) if index < 160_000 else (second.flats[1], index - 160_000)
    flat[place] = value
    name = rf"w\[{index // 400}, {index % 400}\]" if index < 160_000 else rf"v\[{index - 160_000}\]"
    with pytest.raises(UpdateError, match=rf'client "lyon": {name} is {value:g}'):
        sum_.add(second, 2, "lyon")
    assert (sum_.integers.tobytes(), sum_.weight, sum_.count) == (before[0].tobytes(), before[1], before[2])


def test_the_first_bad_value_is_the_one_named():
    layout = Layout([Entry("w", (200_000,))])
    vector = vector_of(np.zeros(layout.size), layout)
    vector["w"][[70_123, 140_000]] = [math.nan, math.inf]
    with pytest.raises(UpdateError, match=r"w\[70123\] is nan; .* client's rows"):
        FixedPointSum(layout, LIMIT, 1).add(vector)


def test_a_value_just_beyond_the_range_is_told_from_the_range():
    # The float32 nearest to 0.1 is 0.100000001: beyond a range of 0.1.
    layout = Layout([Entry("w", (1,))])
    with pytest.raises(
        UpdateError, match=r"is 0.100000001, outside the declared range of ±0.1; .*update_range"
    ):
        FixedPointSum(layout, 0.1, 1).add(vector_of([0.1], layout))
    FixedPointSum(layout, 0.1, 1).add(vector_of([np.nextafter(np.float32(0.1), np.float32(0))], layout))


def test_an_infinite_float32_is_refused_however_wide_the_range():
    layout = Layout([Entry("w", (1,))])
    with pytest.raises(UpdateError, match="is inf"):
        FixedPointSum(layout, 2.0**46, 1).add(vector_of([math.inf], layout))


@given(st.lists(st.one_of(st.floats(0, 10), st.floats(0, 1e-18)), min_size=1, max_size=10))
def test_weights_may_reach_the_total_as_it_was_rounded(weights):
    sum_ = FixedPointSum(LAYOUT, LIMIT, sum(weights))
    for weight in weights:
        sum_.add(Vector.zeros(LAYOUT), weight)
    assert sum_.count == len(weights)
    assert float(sum_.weight) == pytest.approx(sum(weights), rel=1e-12, abs=1e-18)


def test_weights_beyond_the_total_are_refused():
    sum_ = FixedPointSum(LAYOUT, LIMIT, 10)
    sum_.add(vector_of(np.ones(6)), 7)
    before = sum_.integers.copy()
    with pytest.raises(
        UpdateError, match=r'client "lyon" gave .* weight 4; with 7 added .* total of 10 declared'
    ):
        sum_.add(vector_of(np.ones(6)), 4, "lyon")
    np.testing.assert_array_equal(sum_.integers, before)
    sum_.add(vector_of(np.ones(6)), 3)
    np.testing.assert_array_equal(numbers_of(sum_.mean()), 1)


@pytest.mark.parametrize("weight", [math.nan, math.inf, -1, -0.5])
def test_a_weight_that_is_none_is_refused(weight):
    with pytest.raises(
        UpdateError, match=r'client "lyon" gave its update the weight .*; a weight is a finite'
    ):
        FixedPointSum(LAYOUT, LIMIT, 10).add(vector_of(np.ones(6)), weight, "lyon")


def test_a_weight_of_zero_adds_nothing_but_is_counted_and_looked_at():
    sum_ = sum_of([(vector_of(np.ones(6)), 2)], total=10)
    before = sum_.mean()
    sum_.add(vector_of(np.full(6, 5.0)), 0)
    assert (sum_.mean(), sum_.count) == (before, 2)
    with pytest.raises(UpdateError, match="is nan"):
        sum_.add(vector_of(np.full(6, math.nan)), 0)


def test_a_weight_too_small_to_count_is_one_of_zero():
    sum_ = sum_of([(vector_of(np.ones(6)), 5e-324), (vector_of(np.full(6, 3.0)), 1e-6)], total=1)
    np.testing.assert_allclose(numbers_of(sum_.mean()), 3, rtol=1e-6)
    with pytest.raises(UpdateError, match="no update with a positive weight"):
        sum_of([(vector_of(np.ones(6)), 5e-324)]).mean()


def test_there_is_no_mean_of_nothing():
    sum_ = FixedPointSum(LAYOUT, LIMIT, 10)
    sum_.add(vector_of(np.ones(6)), 0)
    with pytest.raises(UpdateError, match="no update with a positive weight"):
        sum_.mean()


def test_a_vector_of_another_layout_is_refused_by_the_array_that_differs():
    other = Layout([Entry("a", (4,)), Entry("b", (2,), "float64"), Entry("c", (1,), role="buffer")])
    with pytest.raises(
        UpdateError, match=r'client "lyon" sent other arrays .*"a" is a parameter of float32 \(4,\)'
    ):
        FixedPointSum(LAYOUT, LIMIT, 1).add(Vector.zeros(other), 1, "lyon")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int64", "bool"])
def test_dtypes_that_would_be_added_as_bits_or_cut_off_are_refused(dtype):
    layout = Layout([Entry("a", (1,)), Entry("b", (1,), dtype, "buffer")])
    with pytest.raises(UpdateError, match=rf'"b" is {dtype}; only float32 and float64 are averaged'):
        FixedPointSum(layout, LIMIT, 1)
    FixedPointSum(layout.wide, LIMIT, 1)


@pytest.mark.parametrize("limit", [0.0, -1.0, math.nan, math.inf, 1e-300, 1e300])
def test_a_range_that_no_sum_can_be_scaled_by_is_refused(limit):
    with pytest.raises(ConfigError, match="the declared range is"):
        FixedPointSum(LAYOUT, limit, 1)


@pytest.mark.parametrize(
    ("limit", "total", "widest"),
    [(2.0**60, 1, 46), (2.0**47, 0.5, 46), (65536.0, 2.0**31, 15), (3e13, 3, 44)],
)
def test_a_range_that_would_round_ordinary_changes_to_nothing_is_refused(limit, total, widest):
    with pytest.raises(ConfigError, match=rf"rounded to multiples of .* update_range of 2\^{widest} or less"):
        FixedPointSum(LAYOUT, limit, total)
    assert FixedPointSum(LAYOUT, 2.0**widest, total).fraction_bits >= 16


def test_the_steps_of_a_sum_are_at_most_what_the_widest_range_gives():
    # 2^62 / 2^46 = 2^16 steps to 1: 2^-17 is rounded to 0, half to even, and 2^-16 is kept.
    layout = Layout([Entry("x", (2,), "float64")])
    sum_ = FixedPointSum(layout, 2.0**46, 1)
    sum_.add(vector_of([2.0**-17, 2.0**-16], layout))
    np.testing.assert_array_equal(sum_.mean()["x"], [0, 2.0**-16])


@pytest.mark.parametrize("total", [-1.0, math.nan, math.inf])
def test_a_total_weight_that_is_none_is_refused(total):
    with pytest.raises(ConfigError, match="total of all weights"):
        FixedPointSum(LAYOUT, LIMIT, total)


def test_partial_sums_that_do_not_go_together_are_refused():
    one = sum_of([(vector_of(np.ones(6)), 6)], total=10)
    with pytest.raises(UpdateError, match="weigh 12 together, more than the total of 10"):
        one.merge(sum_of([(vector_of(np.ones(6)), 6)], total=10))
    with pytest.raises(UpdateError, match="different layouts or scales"):
        one.merge(FixedPointSum(LAYOUT, LIMIT, 1000))
    with pytest.raises(UpdateError, match="different layouts or scales"):
        one.merge(FixedPointSum(Layout([Entry("a", (6,))]), LIMIT, 10))
    assert same(one, sum_of([(vector_of(np.ones(6)), 6)], total=10))


def test_the_memory_is_one_accumulator_whatever_the_cohort():
    layout = Layout([Entry("w", (1_000_000,))])
    vector = vector_of(np.ones(layout.size), layout)
    sum_ = FixedPointSum(layout, LIMIT, 50)
    sum_.add(vector)
    tracemalloc.start()
    for _ in range(49):
        sum_.add(vector)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000
    assert sum_.count == 50


# Every sign, and every exponent from far below the resolution to the limit.
wide_values = st.builds(
    math.ldexp,
    st.floats(-1, 1, exclude_min=True, exclude_max=True),
    st.integers(-220, 99),
)
RESOLUTION = Fraction(1, 2**140)


def rounded(value):
    """Return a float's nearest multiple of 2^-140, in fractions."""
    return Fraction(round(Fraction(value) / RESOLUTION)) * RESOLUTION


@given(st.lists(wide_values, max_size=20))
def test_wide_numbers_are_exact_to_their_resolution(numbers):
    for exact, value in zip(Wide.of(numbers).exact(), numbers, strict=True):
        assert abs(exact - Fraction(value)) <= RESOLUTION / 2
        if Fraction(value) % RESOLUTION == 0:
            assert exact == Fraction(value)


@given(st.lists(wide_values, max_size=20))
def test_numbers_taken_one_by_one_are_the_same_integers(numbers):
    assert [wide_units(value) for value in numbers] == Wide.of(numbers).units()
    assert [wide_units(value) * RESOLUTION for value in numbers] == [rounded(value) for value in numbers]


@given(st.lists(wide_values, min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_wide_sums_are_exact_in_any_order_and_grouping(numbers, random):
    expected = sum((rounded(value) for value in numbers), Fraction(0))
    assert Wide.of(numbers).sum().exact() == [expected]
    parts = [Wide.of(value) for value in numbers]
    while len(parts) > 1:
        left, right = (parts.pop(random.randrange(len(parts))) for _ in range(2))
        parts.append(left + right)
    assert parts[0].exact() == [expected]


@given(st.lists(wide_values, min_size=1, max_size=30))
def test_wide_sums_as_floats_are_within_two_units_in_the_last_place(numbers):
    total = Wide.of(numbers).sum()
    (exact,), found = total.exact(), float(total.numbers())
    assert abs(Fraction(found) - exact) <= 2 * Fraction(math.ulp(float(exact)))


def test_wide_sums_keep_what_float64_loses():
    numbers = [2.0**98, 1.0, 2.0**-60, -(2.0**98)]
    assert Wide.of(numbers).sum().exact() == [1 + Fraction(1, 2**60)]
    assert float(Wide.of([0.1, -0.1]).sum().numbers()) == 0.0
    assert float(Wide.of([-1.0, 2.0**-60]).sum().numbers()) == -1.0 + 2.0**-60


def test_wide_sums_of_more_terms_than_a_limb_holds_are_exact():
    # Every term fills its second limb with 40 ones: 2^23 + 2^22 of them are more than an int64 holds.
    count, value = 3 << 22, 2.0**60 - 2.0**20
    terms = Wide(np.broadcast_to(Wide.of(value).limbs[:, None], (6, count)))
    assert terms.sum().exact() == [count * Fraction(value)]
    doubled = functools.reduce(lambda total, _: total + total, range(30), Wide.of([value, -value]))
    assert doubled.exact() == [2**30 * Fraction(value), -(2**30) * Fraction(value)]


def test_wide_sums_run_along_any_axis():
    numbers = np.arange(24.0).reshape(2, 3, 4) / 7
    for axis in (0, 1, 2, -1, -3):
        found = Wide.of(numbers).sum(axis=axis)
        assert found.shape == numbers.sum(axis=axis).shape
        np.testing.assert_allclose(found.numbers(), numbers.sum(axis=axis), rtol=1e-15)


def test_wide_sums_of_nothing_are_zero():
    assert Wide.of(np.zeros((0, 2))).sum().exact() == [0, 0]


def test_wide_numbers_can_be_compared_without_an_error():
    number = Wide.of([1.0, 2.0])
    assert number == number
    assert number != Wide.of([1.0, 2.0])
    assert len({number, number}) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2.0**99, -(2.0**99)])
def test_wide_refuses_what_it_cannot_hold_by_name(value):
    with pytest.raises(
        UpdateError, match=rf'client "\{{0\}}": loss is {value:g}; only finite'.replace("+", r"\+")
    ):
        Wide.of([1.0, value], 'client "{0}": loss')


def test_the_largest_wide_numbers_are_exact():
    largest = np.nextafter(2.0**99, 0)
    assert Wide.of([largest, -largest]).exact() == [Fraction(largest), -Fraction(largest)]


def stack_of(vectors, layout=LAYOUT):
    return Stack.of(vectors, layout)


def as_tensors(stack):
    torch = pytest.importorskip("torch")
    return Stack(stack.layout, [torch.from_numpy(flat.copy()) for flat in stack.flats])


def stacked_sum(cohort, tensors=False):
    sum_ = FixedPointSum(LAYOUT, LIMIT, 8000.0)
    stack = stack_of([vector for vector, _ in cohort])
    clients = [str(i) for i in range(len(cohort))]
    sum_.add_stack(as_tensors(stack) if tensors else stack, [weight for _, weight in cohort], clients)
    return sum_


@given(cohorts)
def test_a_stack_adds_the_bits_of_its_vectors_one_by_one(cohort):
    cohort = [(vector_of(numbers), weight) for numbers, weight in cohort]
    assert same(stacked_sum(cohort), sum_of(cohort))


@given(cohorts)
def test_a_stack_of_tensors_adds_the_same_bits(cohort):
    cohort = [(vector_of(numbers), weight) for numbers, weight in cohort]
    assert same(stacked_sum(cohort, tensors=True), sum_of(cohort))


@pytest.mark.parametrize("shape", [(3, 150_001), (200, 1000), (70_000, 2), (4, 0)])
def test_stacks_of_any_shape_add_the_bits_of_their_vectors(shape):
    # Wider and higher than the blocks in which they are added.
    clients, width = shape
    layout = Layout([Entry("w", (width,)), Entry("b", (1,))])
    rng = np.random.default_rng(0)
    flats = [rng.normal(size=(clients, n)).astype(np.float32) for n in (width + 1,)]
    stack, weights = Stack(layout, flats), rng.integers(1, 100, clients).tolist()
    one_by_one, stacked, on_a_device = (FixedPointSum(layout, LIMIT, sum(weights)) for _ in range(3))
    for vector, weight in zip(stack.rows(), weights, strict=True):
        one_by_one.add(vector, weight)
    stacked.add_stack(stack, weights, ["c"] * clients)
    assert same(stacked, one_by_one)
    on_a_device.add_stack(as_tensors(stack), weights, ["c"] * clients)
    assert same(on_a_device, one_by_one)


@pytest.mark.parametrize("tensors", [False, True])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 65537.0, -65537.0])
def test_who_cannot_be_added_from_a_stack_is_told_what_it_is_told_alone(bad, tensors):
    vectors = [vector_of(np.arange(LAYOUT.size) + i) for i in range(4)]
    vectors[1]["b"][1] = vectors[3]["c"][0] = bad
    stack = as_tensors(stack_of(vectors)) if tensors else stack_of(vectors)
    sum_ = FixedPointSum(LAYOUT, LIMIT, 100)
    refused = sum_.refusals(stack, ["ann", "bob", "cleo", "dan"])
    assert list(refused) == [1, 3]
    for place, client in ((1, "bob"), (3, "dan")):
        with pytest.raises(UpdateError) as alone:
            sum_.add(vectors[place], 1, client)
        assert str(refused[place]) == str(alone.value)


def test_a_limit_that_float32_cannot_hold_is_kept_in_a_stack():
    # The float32 next above 0.1 is beyond a range of 0.1, and would not be were that rounded to float32.
    layout = Layout([Entry("w", (1,))])
    stack = Stack(layout, [np.array([[0.1], [np.nextafter(np.float32(0.1), np.float32(0))]], np.float32)])
    for each in (stack, as_tensors(stack)):
        assert list(FixedPointSum(layout, 0.1, 10).refusals(each, ["a", "b"])) == [0]


def test_a_stack_that_is_refused_leaves_the_sum_as_it_was():
    vectors = [vector_of(np.arange(LAYOUT.size))] * 2
    sum_, other = FixedPointSum(LAYOUT, LIMIT, 10), Layout([Entry("a", (3,))])
    sum_.add(vectors[0], 4)
    before = sum_.integers.copy(), sum_.weight, sum_.count
    with pytest.raises(UpdateError, match="more than the total of 10"):
        sum_.add_stack(stack_of(vectors), [4, 4], ["a", "b"])
    with pytest.raises(UpdateError, match="a weight is a finite number"):
        sum_.add_stack(stack_of(vectors), [1, math.nan], ["a", "b"])
    with pytest.raises(UpdateError, match='client "a" sent other arrays'):
        sum_.add_stack(stack_of([Vector.zeros(other)], other), [1], ["a"])
    with pytest.raises(UpdateError, match='client "a" sent other arrays'):
        sum_.refusals(stack_of([Vector.zeros(other)], other), ["a"])
    assert (sum_.integers == before[0]).all()
    assert (sum_.weight, sum_.count) == before[1:]


@given(st.lists(weights, min_size=1, max_size=8))
def test_many_weights_enter_a_sum_as_each_alone(given_weights):
    terms, total = quantised_weights(given_weights, ["c"] * len(given_weights))
    alone = [quantised_weight(weight) for weight in given_weights]
    assert [Fraction(term) for term in terms.tolist()] == alone
    assert total == sum(alone)
