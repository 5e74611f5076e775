"""AUC and average precision from histograms: within their own stated bound of scikit-learn's."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from fedpact.core.errors import ConfigError
from fedpact.learn.metrics import metrics, roc_curve, statistics

ROUNDING = 1e-12
BIN = 1 / 4096

# A fifth of a bin apart, these crowd into few bins and tie often; the plain floats do neither.
crowded = st.integers(0, 40).map(lambda step: 0.5 + step * BIN / 5)
scores = st.one_of(crowded, st.floats(0.0, 1.0), st.sampled_from([0.0, 1.0]))
labelled = st.lists(st.tuples(st.booleans(), scores), min_size=2, max_size=60).filter(
    lambda rows: len({label for label, _ in rows}) == 2
)


def binary(y, score):
    return metrics("binary", statistics("binary", y, score))


def within_bound(found, name, exact):
    return abs(found[name] - exact) <= found[f"{name}_error"] + ROUNDING


@settings(max_examples=300, deadline=None)
@given(rows=labelled)
def test_auc_and_average_precision_are_within_their_bounds(rows):
    y, score = map(np.array, zip(*rows, strict=True))
    found = binary(y, score)
    assert within_bound(found, "auc", sk.roc_auc_score(y, score))
    assert within_bound(found, "average_precision", sk.average_precision_score(y, score))


@settings(max_examples=100, deadline=None)
@given(rows=labelled)
def test_they_are_those_of_scores_rounded_to_bins(rows):
    y, score = map(np.array, zip(*rows, strict=True))
    rounded = np.minimum(np.floor(score * 4096), 4095)
    found = binary(y, score)
    assert found["auc"] == pytest.approx(sk.roc_auc_score(y, rounded), abs=ROUNDING)
    assert found["average_precision"] == pytest.approx(sk.average_precision_score(y, rounded), abs=ROUNDING)


def test_the_bounds_cover_every_order_and_every_tie_within_one_bin():
    # Two positives and two negatives at each of three places in a bin, below a negative and a positive of
    # another: 81 ways that one histogram may have come about.
    for places in itertools.product([0.1, 0.2, 0.3], repeat=4):
        y = [0, 1, *(0, 0, 1, 1)]
        score = [0.9, 0.8, *(0.5 + place * BIN for place in places)]
        found = binary(y, score)
        assert within_bound(found, "auc", sk.roc_auc_score(y, score))
        assert within_bound(found, "average_precision", sk.average_precision_score(y, score))


def test_the_auc_bound_is_reached_by_the_best_and_the_worst_order_in_one_bin():
    inside = 0.5 + BIN * np.array([0.1, 0.2, 0.3, 0.4])
    for y, exact in (([0, 0, 1, 1], 1.0), ([1, 1, 0, 0], 0.0)):
        found = binary(y, inside)
        assert sk.roc_auc_score(y, inside) == exact
        assert (found["auc"], found["auc_error"]) == (0.5, 0.5)


def test_the_average_precision_bound_is_reached_by_positives_tied_above_the_negatives_of_their_bin():
    # Ten negatives stand above a bin of ten positives and thirty negatives. Tied, the positives have a
    # precision of 10/20 each; one by one it is 1/11, 2/12, ... 10/20: orders without ties are not the best.
    y = np.repeat([0, 1, 0], [10, 10, 30])
    score = np.repeat([0.9, 0.5 + 0.2 * BIN, 0.5 + 0.1 * BIN], [10, 10, 30])
    found = binary(y, score)
    exact = sk.average_precision_score(y, score)
    assert exact == pytest.approx(0.5)
    assert found["average_precision"] + found["average_precision_error"] == pytest.approx(exact, abs=ROUNDING)


def test_the_average_precision_bound_is_nearly_reached_by_positives_below_the_negatives_of_their_bin():
    y = np.repeat([0, 0, 1], [1000, 10, 1000])
    score = np.concatenate(
        [np.full(1000, 0.9), np.full(10, 0.5 + 0.9 * BIN), 0.5 + np.linspace(0.1, 0.8, 1000) * BIN]
    )
    found = binary(y, score)
    exact = sk.average_precision_score(y, score)
    # Precision at the i-th positive is i / (i + 1010): on the mean about 1 - 1.01 ln(2.01 / 1.01).
    assert exact == pytest.approx(1 - 1.01 * np.log(2.01 / 1.01), abs=1e-3)
    assert found["average_precision"] - found["average_precision_error"] == pytest.approx(exact, abs=1e-7)


def test_scores_tied_throughout_have_the_auc_and_average_precision_of_chance():
    found = binary([0, 1, 0, 0], [0.3, 0.3, 0.3, 0.3])
    assert (found["auc"], found["average_precision"]) == (0.5, 0.25)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), prevalence=st.sampled_from([0.05, 0.5, 0.9]))
def test_the_bounds_are_below_a_thousandth_for_smooth_scores(seed, prevalence):
    generator = np.random.default_rng(seed)
    y = (generator.random(50_000) < prevalence).astype(int)
    score = 1 / (1 + np.exp(-generator.normal(1.5 * y - 0.75)))
    found = binary(y, score)
    assert 0 < found["auc_error"] < 1e-3
    assert 0 < found["average_precision_error"] < 1e-3
    assert within_bound(found, "auc", sk.roc_auc_score(y, score))
    assert within_bound(found, "average_precision", sk.average_precision_score(y, score))


@pytest.mark.parametrize("n_classes", [3, 10])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_macro_auc_is_within_its_bound(n_classes, seed):
    generator = np.random.default_rng(seed)
    y = np.arange(2000) % n_classes
    logits = generator.normal(size=(2000, n_classes)) + np.eye(n_classes)[y]
    score = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = metrics("multiclass", statistics("multiclass", y, score, n_classes))
    assert within_bound(found, "auc", sk.roc_auc_score(y, score, multi_class="ovr", average="macro"))
    assert found["auc_error"] < 5e-3


def test_more_than_a_hundred_classes_have_no_auc():
    y = np.arange(101)
    found = metrics("multiclass", statistics("multiclass", y, np.eye(101), 101))
    assert np.isnan(found["auc"])
    assert found["accuracy"] == 1.0


def test_the_roc_curve_runs_through_that_of_scikit_learn():
    generator = np.random.default_rng(1)
    score = generator.random(300)
    y = (generator.random(300) < score).astype(int)
    curve = roc_curve(statistics("binary", y, score))
    rounded = np.floor(score * 4096)
    fpr, tpr, _ = sk.roc_curve(y, rounded, drop_intermediate=False)
    found = set(zip(curve.fpr.tolist(), curve.tpr.tolist(), strict=True))
    assert found == set(zip(fpr.tolist(), tpr.tolist(), strict=True))
    assert np.trapezoid(curve.tpr, curve.fpr) == pytest.approx(sk.roc_auc_score(y, rounded), abs=ROUNDING)


def test_the_roc_curve_of_many_classes_is_that_of_the_named_one():
    generator = np.random.default_rng(2)
    y, score = generator.integers(0, 3, 300), generator.dirichlet(np.ones(3), 300)
    curve = roc_curve(statistics("multiclass", y, score, 3), label=2)
    exact = sk.roc_auc_score(y == 2, np.floor(score[:, 2] * 1024))
    assert np.trapezoid(curve.tpr, curve.fpr) == pytest.approx(exact, abs=ROUNDING)


@pytest.mark.parametrize(("kind", "label"), [("binary", 0), ("multiclass", None), ("multiclass", 3)])
def test_a_roc_curve_of_no_such_class_is_refused(kind, label):
    score = np.eye(3)[[0, 1, 2]] if kind == "multiclass" else [0.1, 0.2, 0.3]
    sums = statistics(kind, [0, 1, 1], score, 3 if kind == "multiclass" else 2)
    with pytest.raises(ConfigError, match="label"):
        roc_curve(sums, label)
