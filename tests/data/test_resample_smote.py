"""Claims about synthetic rows: they are imbalanced-learn's, and lie between rows of their class."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from imblearn import over_sampling
from numpy.typing import NDArray

import fedpact as fp
from fedpact.core.seeds import Seed

SEED = Seed.of(5)
NO_COUNTS = np.zeros(0, np.int64)
STEPS: list[tuple[Any, Any]] = [
    (fp.SMOTE(), over_sampling.SMOTE),
    (fp.SMOTE(kind="borderline-1"), over_sampling.BorderlineSMOTE),
    (fp.SMOTE(kind="borderline-2"), over_sampling.BorderlineSMOTE),
    (fp.ADASYN(), over_sampling.ADASYN),
]


def overlapping(common: int = 120, rare: int = 15, width: int = 3) -> tuple[NDArray[Any], NDArray[np.int64]]:
    random = np.random.default_rng(2)
    labels = np.repeat([0, 1], [common, rare])
    return random.normal(size=(common + rare, width)) + labels[:, None], labels


def made_by(step: Any, x: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[Any]:
    """Return the synthetic rows, having checked that the others are as they were."""
    examples, classes = step.resample(x, labels, NO_COUNTS, SEED)
    np.testing.assert_array_equal(examples[: len(x)], x)
    np.testing.assert_array_equal(classes[: len(x)], labels)
    assert examples.dtype == x.dtype
    return np.asarray(examples[len(x) :])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("step", "theirs"), STEPS)
def test_rows_are_those_of_imbalanced_learn_with_the_same_generator(
    step: Any, theirs: Any, dtype: Any
) -> None:
    x, labels = overlapping()
    x = x.astype(dtype)
    settings = {"random_state": np.random.RandomState(SEED.generator().bit_generator)}
    if theirs is over_sampling.BorderlineSMOTE:
        settings["kind"] = step.kind
    expected, _ = theirs(**settings).fit_resample(x, labels)
    made = made_by(step, x, labels)
    assert len(made) > 90
    np.testing.assert_array_equal(made, expected[len(x) :])


def test_rows_of_several_classes_are_those_of_imbalanced_learn() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [50, 9, 14])
    x = random.normal(size=(73, 4))
    generator = np.random.RandomState(SEED.generator().bit_generator)
    expected, classes = over_sampling.SMOTE(random_state=generator).fit_resample(x, labels)
    ours, ours_classes = fp.SMOTE().resample(x, labels, NO_COUNTS, SEED)
    np.testing.assert_array_equal(ours, expected)
    np.testing.assert_array_equal(ours_classes, classes)


@given(
    st.integers(2, 8), st.integers(9, 20), st.integers(0, 10**6), st.sampled_from(["regular", "borderline-1"])
)
def test_synthetic_rows_lie_on_segments_between_rows_of_their_class(
    rare: int, common: int, seed: int, kind: Any
) -> None:
    random = np.random.default_rng(seed)
    x, labels = random.normal(size=(rare + common, 2)), np.repeat([1, 0], [rare, common])
    for step in (fp.SMOTE(kind=kind), fp.ADASYN()):
        for point in made_by(step, x, labels):
            assert min(_off_segment(point, a, b) for a in x[:rare] for b in x[:rare]) < 1e-9


def _off_segment(point: NDArray[Any], a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return how much longer the way from a to b is by a point: 0 on the segment."""
    by = np.linalg.norm(point - a) + np.linalg.norm(b - point)
    return float(by - np.linalg.norm(b - a))


def test_ratio_is_of_the_commonest_class() -> None:
    x, labels = overlapping(120, 15)
    # int(0.5 · 120) − 15 rows are missing.
    assert len(made_by(fp.SMOTE(ratio=0.5), x, labels)) == 45


@pytest.mark.parametrize("step", [step for step, _ in STEPS])
def test_class_of_few_rows_has_fewer_neighbours(step: Any) -> None:
    x, labels = overlapping(30, 2)
    made = made_by(step, x, labels)
    if isinstance(step, fp.SMOTE) and step.kind != "borderline-2":
        # Of two rows, each has the other.
        assert all(_off_segment(point, x[-1], x[-2]) < 1e-9 for point in made)
    assert len(made) in (0, 28)


@pytest.mark.parametrize("step", [step for step, _ in STEPS])
def test_single_row_of_a_class_is_repeated(step: Any) -> None:
    x, labels = overlapping(12, 1)
    np.testing.assert_array_equal(made_by(step, x, labels), np.repeat(x[-1:], 11, axis=0))


@pytest.mark.parametrize("step", [step for step, _ in STEPS])
def test_smallest_client_with_two_classes_can_be_resampled(step: Any) -> None:
    x, labels = np.array([[0.0], [1.0], [2.0]]), np.array([0, 0, 1])
    np.testing.assert_array_equal(made_by(step, x, labels), [[2.0]])


@pytest.mark.parametrize("step", [fp.SMOTE(kind="borderline-1"), fp.SMOTE(kind="borderline-2"), fp.ADASYN()])
def test_classes_far_apart_have_no_row_in_danger_and_stay_as_they_are(step: Any) -> None:
    x, labels = overlapping(60, 20)
    assert len(made_by(step, x + 1000.0 * labels[:, None], labels)) == 0


def test_adasyn_of_so_few_that_all_round_to_none_makes_none() -> None:
    x, labels = overlapping(101, 100)
    assert len(made_by(fp.ADASYN(), x, labels)) == 0


def test_rows_that_are_all_the_same_can_be_resampled() -> None:
    labels = np.repeat([0, 1], [20, 4])
    for step, _ in STEPS:
        assert (made_by(step, np.ones((24, 2)), labels) == 1).all()
