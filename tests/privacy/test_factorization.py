import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpact.core.errors import CheckpointError, ConfigError
from fedpact.privacy.factorization import (
    BandedNoise,
    TreeNoise,
    coefficients,
    toeplitz_error,
    toeplitz_sensitivity,
    tree_error,
    tree_sensitivity,
)


def lower_toeplitz(column: np.ndarray) -> np.ndarray:
    n = len(column)
    return np.array([[column[i - j] if i >= j else 0.0 for j in range(n)] for i in range(n)])


def fenwick(rounds: int) -> np.ndarray:
    """Node t is the sum of the last lowbit(t) rounds."""
    nodes = np.zeros((rounds, rounds))
    for t in range(1, rounds + 1):
        nodes[t - 1, t - (t & -t) : t] = 1.0
    return nodes


def patterns(rounds: int, participations: int, separation: int) -> list[tuple[int, ...]]:
    return [
        pattern
        for size in range(1, participations + 1)
        for pattern in itertools.combinations(range(rounds), size)
        if all(b - a >= separation for a, b in itertools.pairwise(pattern))
    ]


def worst(matrix: np.ndarray, participations: int, separation: int) -> float:
    return max(
        float(np.linalg.norm(matrix[:, pattern].sum(axis=1)))
        for pattern in patterns(len(matrix), participations, separation)
    )


@pytest.mark.parametrize(("rounds", "norm"), [(16, 1.3942), (128, 1.6156), (1024, 1.8090)])
def test_norm_of_the_coefficients_is_the_published_one(rounds: int, norm: float) -> None:
    assert np.linalg.norm(coefficients(rounds)) == pytest.approx(norm, abs=5e-5)


def test_square_of_the_matrix_is_the_lower_triangle_of_ones() -> None:
    root = lower_toeplitz(coefficients(64))
    np.testing.assert_allclose(root @ root, np.tril(np.ones((64, 64))), atol=1e-12)


def test_prefix_sums_of_1024_rounds_have_the_errors_of_the_literature() -> None:
    independent, root, tree = toeplitz_error(1024, 1), toeplitz_error(1024), tree_error(1024)
    assert [round(independent, 1), round(root, 2), round(tree, 1)] == [22.6, 3.11, 7.4]


def test_eight_participations_of_1024_rounds_have_the_errors_of_the_literature() -> None:
    independent = toeplitz_error(1024, 1, participations=8, separation=128)
    assert round(independent, 1) == 64.0
    assert round(toeplitz_error(1024, participations=8, separation=128), 1) == 13.0


def test_independent_noise_is_better_for_who_takes_part_in_every_round() -> None:
    independent = toeplitz_error(1024, 1, participations=1024)
    assert [round(independent), round(toeplitz_error(1024, participations=1024))] == [724, 1405]


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(1, 4))
def test_banded_sensitivity_is_that_of_the_worst_unit_of_all(
    rounds: int, bands: int, participations: int, separation: int
) -> None:
    bands = min(bands, rounds)
    found = toeplitz_sensitivity(rounds, bands, participations, separation)
    matrix = lower_toeplitz(coefficients(rounds, bands))
    assert found == pytest.approx(worst(matrix, participations, separation), rel=1e-12)


@given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 4))
def test_tree_sensitivity_is_never_below_that_of_the_worst_unit(
    rounds: int, participations: int, separation: int
) -> None:
    exact = worst(fenwick(rounds), participations, separation)
    assert tree_sensitivity(rounds, participations, separation) >= exact - 1e-12


@given(st.integers(1, 200))
def test_tree_sensitivity_of_one_participation_is_exact(rounds: int) -> None:
    assert tree_sensitivity(rounds) == pytest.approx(worst(fenwick(rounds), 1, 1), rel=1e-12)


def test_tree_of_a_power_of_two_has_its_depth_as_squared_sensitivity() -> None:
    assert tree_sensitivity(1024) == pytest.approx(math.sqrt(11))


def test_banded_error_is_that_of_the_matrices() -> None:
    # sens(C)·‖A·C⁻¹‖_F/√n, with the matrices written out.
    root = lower_toeplitz(coefficients(40, 6))
    noise = np.tril(np.ones((40, 40))) @ np.linalg.inv(root)
    expected = worst(root, 2, 7) * np.linalg.norm(noise) / math.sqrt(40)
    assert toeplitz_error(40, 6, participations=2, separation=7) == pytest.approx(expected)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_banded_noise_is_the_inverse_matrix_times_independent_noise(
    rounds: int, bands: int, seed: int
) -> None:
    bands = min(bands, rounds)
    independent = np.random.default_rng(seed).normal(size=(rounds, 3))
    stream = BandedNoise(rounds, bands)
    streamed = np.array([stream.correlate(vector) for vector in independent])
    expected = np.linalg.solve(lower_toeplitz(coefficients(rounds, bands)), independent)
    np.testing.assert_allclose(streamed, expected, atol=1e-10)


@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_tree_noise_is_the_inverse_matrix_times_independent_noise(rounds: int, seed: int) -> None:
    independent = np.random.default_rng(seed).normal(size=(rounds, 3))
    stream = TreeNoise(rounds)
    streamed = np.array([stream.correlate(vector) for vector in independent])
    np.testing.assert_allclose(streamed, np.linalg.solve(fenwick(rounds), independent), atol=1e-10)


@pytest.mark.parametrize("make", [lambda: BandedNoise(20, 5), lambda: BandedNoise(20), lambda: TreeNoise(20)])
@pytest.mark.parametrize("stop", [0, 1, 7, 19])
def test_noise_goes_on_from_its_state_with_the_same_bits(make: type[TreeNoise], stop: int) -> None:
    independent = np.random.default_rng(1).normal(size=(20, 4))
    whole, begun, resumed = make(), make(), make()  # type: ignore[call-arg]
    expected = [whole.correlate(vector) for vector in independent]
    for vector in independent[:stop]:
        begun.correlate(vector)
    resumed.restore(begun.state())
    np.testing.assert_array_equal([resumed.correlate(v) for v in independent[stop:]], expected[stop:])


def test_noise_remembers_no_more_vectors_than_it_has_bands() -> None:
    stream = BandedNoise(1000, 4)
    for _ in range(1000):
        stream.correlate(np.ones(5))
    assert stream.state()["recent"].shape == (3, 5)


@pytest.mark.parametrize("stream", [BandedNoise(2, 2), TreeNoise(2)])
def test_more_rounds_than_were_accounted_for_are_refused(stream: TreeNoise) -> None:
    stream.correlate(np.zeros(1))
    stream.correlate(np.zeros(1))
    with pytest.raises(ConfigError, match="made for 2 rounds"):
        stream.correlate(np.zeros(1))


@pytest.mark.parametrize("stream", [BandedNoise(9, 3), TreeNoise(9)])
def test_noise_of_another_shape_is_refused(stream: TreeNoise) -> None:
    stream.correlate(np.zeros(4))
    with pytest.raises(ConfigError, match="shape"):
        stream.correlate(np.zeros(1))


def test_state_of_another_run_is_refused() -> None:
    stream = BandedNoise(9, 3)
    stream.correlate(np.zeros(4))
    with pytest.raises(CheckpointError, match="2 vectors instead of 4"):
        BandedNoise(9, 5).restore(stream.state())
    with pytest.raises(CheckpointError, match="nodes"):
        TreeNoise(9).restore(stream.state())


@pytest.mark.parametrize("bands", [0, 10])
def test_bands_that_are_not_in_the_run_are_refused(bands: int) -> None:
    with pytest.raises(ConfigError, match="must be 1 to 9"):
        BandedNoise(9, bands)
