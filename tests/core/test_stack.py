"""Stacks: every operation is that of each vector alone, on numpy's arrays and on tensors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedpact.core.errors import ModelError
from fedpact.core.stack import Stack, beside, on_host
from fedpact.core.vector import Entry, Layout, Vector

LAYOUT = Layout([Entry("w", (2, 2)), Entry("b", (3,), "float64"), Entry("mean", (2,), role="buffer")])
OTHER = Layout([Entry("w", (2, 2))])

floats = st.floats(-1e6, 1e6, width=32)
numbers = hnp.arrays(np.float64, st.tuples(st.integers(1, 6), st.just(LAYOUT.size)), elements=floats)


def vectors_of(rows, layout=LAYOUT):
    made = []
    for row in rows:
        vector, start = Vector.zeros(layout), 0
        for flat in vector.flats:
            flat[:] = row[start : start + flat.size]
            start += flat.size
        made.append(vector)
    return made


def as_tensors(stack):
    torch = pytest.importorskip("torch")
    return Stack(stack.layout, [torch.from_numpy(flat.copy()) for flat in stack.flats])


def same(a, b):
    return a.layout == b.layout and all(
        on_host(x).tobytes() == on_host(y).tobytes() for x, y in zip(a.flats, b.flats, strict=True)
    )


@given(numbers)
def test_vectors_come_back_from_a_stack_as_they_went_in(rows):
    vectors = vectors_of(rows)
    stack = Stack.of(vectors, LAYOUT)
    assert len(stack) == len(vectors)
    assert stack.rows() == vectors
    assert [stack.row(i) for i in range(len(vectors))] == vectors


def test_what_comes_back_is_a_copy():
    stack = Stack.of(vectors_of(np.ones((2, LAYOUT.size))), LAYOUT)
    stack.rows()[0]["w"] += 1
    stack.row(1)["w"] += 1
    assert stack.flats[0].max() == 1


@given(numbers, st.randoms(use_true_random=False))
def test_taking_some_clients_is_taking_their_vectors(rows, random):
    vectors = vectors_of(rows)
    chosen = [random.randrange(len(vectors)) for _ in range(4)]
    assert Stack.of(vectors, LAYOUT).take(chosen).rows() == [vectors[i] for i in chosen]


@given(numbers, hnp.arrays(np.float64, LAYOUT.size, elements=floats))
def test_a_difference_from_one_vector_is_that_of_each(rows, start):
    vectors, (start,) = vectors_of(rows), vectors_of([start])
    differences = Stack.of(vectors, LAYOUT).minus(start)
    assert differences.layout == LAYOUT.wide
    assert differences.rows() == [vector.minus(start) for vector in vectors]


@given(numbers)
def test_a_difference_from_a_stack_and_its_sum_are_taken_client_by_client(rows):
    stack, turned = (Stack.of(vectors_of(each), LAYOUT) for each in (rows, rows[::-1]))
    expected = [a.minus(b) for a, b in zip(stack.rows(), turned.rows(), strict=True)]
    assert stack.minus(turned).rows() == expected
    assert same(stack.plus(turned), turned.plus(stack))
    assert same(stack.plus(turned), stack.minus(turned.times(np.full(len(turned), -1.0))))


@given(numbers)
def test_norms_are_the_bits_of_each_vectors_norm(rows):
    stack = Stack.of(vectors_of(rows), LAYOUT)
    for role in (None, "parameter", "buffer"):
        assert stack.norms(role).tolist() == [vector.norm(role) for vector in stack.rows()]


def test_norms_of_long_vectors_are_the_bits_of_each_ones_norm():
    # Longer than the blocks in which they are summed.
    layout = Layout([Entry("w", (150_001,))])
    flat = np.random.default_rng(0).normal(size=(3, layout.size)).astype(np.float32)
    stack = Stack(layout, [flat])
    assert stack.norms().tolist() == [vector.norm() for vector in stack.rows()]


def test_norm_of_what_overflows_is_infinite():
    layout = Layout([Entry("w", (2,), "float64")])
    stack = Stack(layout, [np.array([[1e300, 1e300], [3.0, 4.0]])])
    assert stack.norms().tolist() == [np.inf, 5.0]


def test_factors_are_applied_in_float64_and_to_the_elements_of_a_role_alone():
    # 1e-46 is 0 in float32, and 1e30 · 1e-46 is not.
    stack = Stack.of(vectors_of(np.full((2, LAYOUT.size), 1e30)), LAYOUT)
    scaled = stack.times(np.array([1e-46, 2.0]), "parameter")
    assert scaled.flats[0][0] == pytest.approx(np.full(4, 1e-16), rel=1e-6)
    assert scaled.flats[1].tolist() == [[1e30 * 1e-46] * 3, [2e30] * 3]
    assert same(Stack(LAYOUT, [*scaled.flats[:2], stack.flats[2]]), scaled)


@given(numbers, st.floats(1e-9, 1e3))
def test_tensors_give_the_bits_of_numpys_arrays(rows, factor):
    stack = Stack.of(vectors_of(rows), LAYOUT)
    tensors, factors = as_tensors(stack), np.full(len(stack), factor)
    start = stack.row(0)
    assert same(tensors.minus(start), stack.minus(start))
    assert same(tensors.minus(stack), stack.minus(stack))
    assert same(tensors.plus(tensors), stack.plus(stack))
    assert same(tensors.times(factors), stack.times(factors))
    assert same(tensors.take([0, 0]), stack.take([0, 0]))
    assert tensors.rows() == stack.rows()
    assert tensors.norms("parameter") == pytest.approx(stack.norms("parameter"), rel=1e-14)


def test_a_stack_goes_where_another_one_is():
    torch = pytest.importorskip("torch")
    stack = Stack.of(vectors_of(np.ones((2, LAYOUT.size))), LAYOUT)
    tensors = stack.beside(as_tensors(stack))
    assert all(isinstance(flat, torch.Tensor) for flat in tensors.flats)
    assert all(isinstance(flat, np.ndarray) for flat in tensors.beside(stack).flats)
    assert same(tensors, stack)
    assert beside(np.arange(3), tensors.flats[0]).dtype == torch.int64


def test_what_does_not_fit_is_refused():
    stack = Stack.of(vectors_of(np.ones((2, LAYOUT.size))), LAYOUT)
    with pytest.raises(ModelError, match="cannot be stacked with"):
        Stack.of([Vector.zeros(OTHER)], LAYOUT)
    with pytest.raises(ModelError, match="cannot be taken from"):
        stack.minus(Vector.zeros(OTHER))
    with pytest.raises(ModelError, match="arrays of int64 cannot be stacked; float32 and float64 can"):
        Stack(Layout([Entry("steps", (), "int64")]), [])
