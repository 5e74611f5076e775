"""Metrics computed from sums are those of scikit-learn over the pooled rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve as sk_calibration_curve

from fedpact.learn.metrics import (
    LARGER_IS_BETTER,
    calibration_curve,
    metrics,
    names,
    shapes,
    statistics,
)

COUNTS = {"count", "confusion", "scores", "calibration_rows", "calibration_hits"}
RANKED = {"auc", "auc_error", "average_precision", "average_precision_error"}

seeds = st.integers(0, 2**32 - 1)


def binary_rows(seed, n=500):
    generator = np.random.default_rng(seed)
    score = generator.random(n)
    return (generator.random(n) < 0.2 + 0.6 * score).astype(int), score


def multiclass_rows(seed, n_classes, n=500):
    generator = np.random.default_rng(seed)
    y = generator.integers(0, n_classes, n)
    logits = generator.normal(size=(n, n_classes)) + 1.5 * np.eye(n_classes)[y]
    return y, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def regression_rows(seed, n=500):
    generator = np.random.default_rng(seed)
    y = generator.normal(30.0, 5.0, n)
    return y, 0.8 * y + generator.normal(5.0, 2.0, n)


def rows_of(kind, n_classes, seed):
    if kind == "binary":
        return binary_rows(seed)
    return multiclass_rows(seed, n_classes) if kind == "multiclass" else regression_rows(seed)


def binary(y, score):
    return metrics("binary", statistics("binary", y, score))


def multiclass(y, score, n_classes):
    return metrics("multiclass", statistics("multiclass", y, score, n_classes))


def regression(y, predicted):
    return metrics("regression", statistics("regression", y, predicted))


@pytest.mark.parametrize(("kind", "n_classes"), [("binary", 2), ("multiclass", 4), ("regression", 2)])
@settings(max_examples=25, deadline=None)
@given(seed=seeds, cuts=st.lists(st.integers(0, 500), max_size=6).map(sorted))
def test_statistics_of_any_partition_add_up_to_those_of_all_rows(kind, n_classes, seed, cuts):
    y, score = rows_of(kind, n_classes, seed)
    whole = statistics(kind, y, score, n_classes)
    parts = [
        statistics(kind, y_part, score_part, n_classes)
        for y_part, score_part in zip(np.split(y, cuts), np.split(score, cuts), strict=True)
    ]
    for name, expected in whole.items():
        total = sum(part[name] for part in parts)
        if name in COUNTS:
            np.testing.assert_array_equal(total, expected)
        else:
            np.testing.assert_allclose(total, expected, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize(
    ("kind", "n_classes"), [("binary", 2), ("multiclass", 3), ("multiclass", 101), ("regression", 2)]
)
def test_statistics_are_float64_of_the_announced_shapes(kind, n_classes):
    found = statistics(kind, *rows_of(kind, n_classes, seed=1), n_classes)
    assert {name: array.shape for name, array in found.items()} == shapes(kind, n_classes)
    assert {array.dtype for array in found.values()} == {np.dtype(np.float64)}


@pytest.mark.parametrize(("kind", "n_classes"), [("binary", 2), ("multiclass", 4)])
def test_counts_are_whole_numbers(kind, n_classes):
    found = statistics(kind, *rows_of(kind, n_classes, seed=2), n_classes)
    assert all(np.all(found[name] == np.floor(found[name])) for name in COUNTS)
    assert found["scores"].sum() == 500 * (1 if kind == "binary" else n_classes)


@settings(max_examples=50, deadline=None)
@given(seed=seeds)
def test_binary_metrics_are_those_of_scikit_learn(seed):
    y, score = binary_rows(seed)
    predicted = (score > 0.5).astype(int)
    expected = {
        "accuracy": sk.accuracy_score(y, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(y, predicted),
        "precision": sk.precision_score(y, predicted),
        "recall": sk.recall_score(y, predicted),
        "f1": sk.f1_score(y, predicted),
        "mcc": sk.matthews_corrcoef(y, predicted),
        "log_loss": sk.log_loss(y, score),
        "brier": sk.brier_score_loss(y, score),
    }
    found = binary(y, score)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert found.keys() == expected.keys() | RANKED | {"ece"}


@pytest.mark.parametrize("n_classes", [2, 3, 10])
@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_multiclass_metrics_are_those_of_scikit_learn(n_classes, seed):
    y, score = multiclass_rows(seed, n_classes)
    predicted = score.argmax(axis=1)
    expected = {
        "accuracy": sk.accuracy_score(y, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(y, predicted),
        "f1": sk.f1_score(y, predicted, average="macro"),
        "f1_weighted": sk.f1_score(y, predicted, average="weighted"),
        "mcc": sk.matthews_corrcoef(y, predicted),
        "log_loss": sk.log_loss(y, score, labels=range(n_classes)),
    }
    found = multiclass(y, score, n_classes)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert found.keys() == expected.keys() | {"auc", "auc_error", "ece"}


@settings(max_examples=50, deadline=None)
@given(seed=seeds)
def test_regression_metrics_are_those_of_scikit_learn(seed):
    y, predicted = regression_rows(seed)
    expected = {
        "rmse": sk.root_mean_squared_error(y, predicted),
        "mse": sk.mean_squared_error(y, predicted),
        "mae": sk.mean_absolute_error(y, predicted),
        "r2": sk.r2_score(y, predicted),
        "bias": np.mean(predicted - y),
    }
    assert regression(y, predicted) == pytest.approx(expected, abs=1e-9)


def test_two_classes_are_judged_alike_as_binary_and_as_multiclass():
    y, score = binary_rows(seed=3)
    one, two = binary(y, score), multiclass(y, np.stack([1 - score, score], axis=1), 2)
    for name in ("accuracy", "balanced_accuracy", "mcc", "log_loss"):
        assert one[name] == pytest.approx(two[name], abs=1e-12)


def test_a_score_of_one_half_is_class_0_as_argmax_decides():
    assert binary([0, 1], [0.5, 0.5])["accuracy"] == 0.5
    assert binary([0, 0], [0.5, 0.5])["accuracy"] == 1.0
    assert multiclass([0, 0], [[0.5, 0.5], [0.5, 0.5]], 2)["accuracy"] == 1.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_loss_of_a_certain_mistake_is_clipped_by_the_dtype_as_in_scikit_learn(dtype):
    y, score = np.array([0, 1, 1]), np.array([1.0, 0.0, 0.75], dtype=dtype)
    assert binary(y, score)["log_loss"] == pytest.approx(sk.log_loss(y, score), rel=1e-6)


def test_labels_and_scores_may_be_lists_booleans_or_whole_floats():
    y, score = binary_rows(seed=4)
    expected = binary(y, score)
    assert binary(y.astype(bool), score) == expected
    assert binary(y.astype(np.float32), score) == expected
    assert binary(y.tolist(), score.tolist()) == expected


def test_perfect_scores_have_perfect_metrics():
    found = binary([0, 0, 1, 1], [0.0, 0.0, 1.0, 1.0])
    best = {name: float(LARGER_IS_BETTER[name]) for name in names("binary")}
    assert found == pytest.approx(best, abs=1e-15)


def test_perfect_predictions_have_an_r2_of_1():
    assert regression([1.0, 2.0, 4.0], [1.0, 2.0, 4.0]) == {"rmse": 0, "mse": 0, "mae": 0, "r2": 1, "bias": 0}


def test_predicting_the_mean_has_an_r2_of_0():
    assert regression([1.0, 2.0, 6.0], [3.0, 3.0, 3.0])["r2"] == pytest.approx(0.0, abs=1e-15)


def test_bias_is_predicted_minus_observed():
    assert regression([1.0, 2.0], [1.5, 3.5])["bias"] == 1.0


def test_precision_f1_and_mcc_are_0_where_there_are_positives_and_none_is_predicted():
    y, score = [0, 1, 1], [0.1, 0.2, 0.3]
    found = binary(y, score)
    assert (found["precision"], found["recall"], found["f1"], found["mcc"]) == (0.0, 0.0, 0.0, 0.0)
    assert sk.precision_score(y, [0, 0, 0], zero_division=0) == sk.matthews_corrcoef(y, [0, 0, 0]) == 0.0


def test_what_negatives_alone_cannot_tell_is_nan():
    found = binary([0, 0, 0], [0.1, 0.2, 0.3])
    undefined = {name for name, value in found.items() if np.isnan(value)}
    assert undefined == {"precision", "recall", "f1", "mcc"} | RANKED
    assert found["accuracy"] == found["balanced_accuracy"] == 1.0


def test_false_alarms_among_negatives_alone_have_a_precision_of_0():
    found = binary([0, 0, 0], [0.1, 0.2, 0.9])
    assert (found["precision"], found["f1"]) == (0.0, 0.0)
    assert np.isnan(found["recall"])


def test_positives_alone_have_an_average_precision_of_1_and_no_auc():
    found = binary([1, 1, 1], [0.1, 0.2, 0.9])
    assert (found["average_precision"], found["average_precision_error"]) == (1.0, 0.0)
    assert np.isnan(found["auc"])
    assert np.isnan(found["mcc"])


def test_a_class_that_does_not_occur_is_left_out_as_in_scikit_learn():
    y, score = multiclass_rows(seed=5, n_classes=3)
    score = np.insert(score, 1, 0.0, axis=1)
    y = np.where(y > 0, y + 1, y)
    predicted = score.argmax(axis=1)
    found = multiclass(y, score, 4)
    assert found["f1"] == pytest.approx(sk.f1_score(y, predicted, average="macro"), abs=1e-12)
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(y, predicted), abs=1e-12)
    assert np.isnan(found["auc"])


def test_a_class_predicted_without_having_rows_counts_as_in_scikit_learn():
    y, score = np.array([0, 0, 1]), np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8], [0.1, 0.8, 0.1]])
    found = multiclass(y, score, 3)
    assert found["f1"] == pytest.approx(sk.f1_score(y, [0, 2, 1], average="macro"), abs=1e-12)
    # Recall of class 0 is 1/2 and of class 1 is 1; class 2 has none.
    assert found["balanced_accuracy"] == 0.75


@pytest.mark.parametrize(("kind", "n_classes"), [("binary", 2), ("multiclass", 3), ("regression", 2)])
def test_no_rows_have_no_metrics(kind, n_classes):
    score = np.empty((0, n_classes)) if kind == "multiclass" else np.empty(0)
    nothing = statistics(kind, np.empty(0), score, n_classes)
    assert not any(array.any() for array in nothing.values())
    assert all(np.isnan(value) for value in metrics(kind, nothing).values())


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e9 + 0.1])
def test_r2_of_constant_targets_is_nan(constant):
    found = regression(np.full(1000, constant), np.full(1000, constant) + np.linspace(-1.0, 1.0, 1000))
    assert np.isnan(found["r2"])
    assert found["mae"] > 0


def test_r2_of_targets_far_from_0_keeps_its_digits():
    y, predicted = regression_rows(seed=6)
    # The mean is 2000 standard deviations: 1 - R² loses 2000² ≈ 4e6 of the 1e16 that a float64 resolves.
    assert regression(y + 1e4, predicted + 1e4)["r2"] == pytest.approx(sk.r2_score(y, predicted), abs=1e-8)


def test_the_calibration_curve_is_that_of_scikit_learn():
    # Scores on bin edges included: thirds are edges of 15 bins.
    generator = np.random.default_rng(7)
    score = np.concatenate([generator.random(500), np.repeat([0.0, 1 / 3, 2 / 3, 1.0], 20)])
    y = (generator.random(score.size) < score**2).astype(int)
    observed, predicted = sk_calibration_curve(y, score, n_bins=15)
    curve = calibration_curve(statistics("binary", y, score))
    np.testing.assert_allclose(curve.observed_share, observed, atol=1e-12)
    np.testing.assert_allclose(curve.mean_predicted, predicted, atol=1e-12)
    assert curve.rows.sum() == y.size


def test_ece_is_the_gap_of_the_calibration_curve_weighted_by_rows():
    y, score = binary_rows(seed=8)
    curve = calibration_curve(statistics("binary", y, score))
    gap = np.average(np.abs(curve.mean_predicted - curve.observed_share), weights=curve.rows)
    assert binary(y, score)["ece"] == pytest.approx(gap, abs=1e-12)


def test_ece_of_many_classes_is_that_of_the_predicted_class():
    y, score = multiclass_rows(seed=9, n_classes=3)
    right = (score.argmax(axis=1) == y).astype(int)
    assert multiclass(y, score, 3)["ece"] == pytest.approx(binary(right, score.max(axis=1))["ece"], abs=1e-12)


def test_ece_of_a_hand_calculation():
    # Bins (0.2, 4/15] and (14/15, 1]: 2 rows at 0.25 with one hit, 2 rows at 1.0 with one hit.
    # The gaps are |0.25 - 0.5| and |1 - 0.5|, each on half of the rows.
    assert binary([0, 1, 1, 0], [0.25, 0.25, 1.0, 1.0])["ece"] == pytest.approx(0.375, abs=1e-15)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_names_are_those_of_the_metrics_and_each_has_a_better_side(kind):
    found = metrics(kind, statistics(kind, *rows_of(kind, 2, seed=10)))
    assert names(kind) == tuple(found)
    assert set(names(kind)) <= LARGER_IS_BETTER.keys()
