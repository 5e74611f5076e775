"""What cannot be evaluated is refused with a sentence."""

import numpy as np
import pytest

from fedpact.core.errors import ConfigError, DataError, UpdateError
from fedpact.learn.metrics import calibration_curve, check_name, metrics, names, roc_curve, shapes, statistics

THIRDS = np.full((2, 3), 1 / 3)


@pytest.mark.parametrize(
    ("kind", "y", "score", "n_classes", "says"),
    [
        ("binary", [0, 1], [0.1, np.nan], 2, "y_score holds 1 NaN, the first in row 1"),
        ("binary", [0, 1], [0.1, 1.5], 2, r"outside \[0, 1\], the first in row 1.*sigmoid"),
        ("binary", [0, 1], [-np.inf, 0.5], 2, "outside"),
        ("binary", [0, 1], [0.1, 0.2, 0.3], 2, r"shape \[3\]; expected .*\[2\]"),
        ("binary", [0, 1], [[0.9, 0.1], [0.2, 0.8]], 2, "the probability of class 1"),
        ("binary", [[0], [1]], [0.1, 0.2], 2, "one label per row"),
        ("binary", [0, 2], [0.1, 0.2], 2, r"1 labels .* 0\.\.1, the first in row 1"),
        ("binary", [0, -1], [0.1, 0.2], 2, r"0\.\.1"),
        ("binary", [0, 0.5], [0.1, 0.2], 2, "whole numbers"),
        ("binary", [0, np.nan], [0.1, 0.2], 2, "whole numbers"),
        ("binary", ["no", "yes"], [0.1, 0.2], 2, "encode the classes"),
        ("binary", [0, 1], ["low", "high"], 2, "pass probabilities"),
        ("multiclass", [0, 3], THIRDS, 3, r"0\.\.2"),
        ("multiclass", [0, 1], THIRDS, 4, r"shape \[2, 3\]; expected .*\[2, 4\]"),
        ("multiclass", [0, 1], 2 * THIRDS, 3, "2 rows that do not sum to 1, the first is row 0"),
        ("multiclass", [0, 1], np.where(np.eye(2, 3), np.nan, THIRDS), 3, "2 NaN, the first in row 0"),
        ("regression", [1.0, 2.0], [1.0, np.inf], 2, "y_score holds 1 .* infinite, the first in row 1"),
        ("regression", [np.nan, 2.0], [1.0, 2.0], 2, "y_true holds 1"),
        ("regression", [1.0, 2.0], [1.0], 2, "2 rows and y_score has 1"),
        ("regression", [[1.0], [2.0]], [1.0, 2.0], 2, "one number per row"),
    ],
)
def test_rows_that_cannot_be_evaluated_are_refused(kind, y, score, n_classes, says):
    with pytest.raises(DataError, match=says):
        statistics(kind, y, score, n_classes)


def test_an_error_names_the_row_and_not_its_value():
    with pytest.raises(DataError) as refused:
        statistics("regression", [1.0, np.inf], [1.0, 987654.0])
    with pytest.raises(DataError) as also_refused:
        statistics("binary", [0, 987654], [0.5, 0.5])
    assert "987654" not in f"{refused.value} {also_refused.value}"


def test_a_float16_softmax_over_many_classes_is_accepted():
    logits = np.random.default_rng(1).normal(size=(200, 100))
    score = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float16)
    assert statistics("multiclass", np.zeros(200), score, 100)["count"] == 200


def test_a_misspelt_kind_names_the_nearest():
    with pytest.raises(ConfigError, match='Did you mean "binary"'):
        statistics("binery", [0], [0.5])


def test_a_misspelt_metric_names_the_nearest():
    with pytest.raises(ConfigError, match='Did you mean "accuracy"'):
        check_name("acuracy")


def test_a_metric_of_another_kind_is_refused():
    assert check_name("auc") == check_name("auc", "binary") == "auc"
    with pytest.raises(ConfigError, match=f'"auc" is not a metric of a regression.*{names("regression")[0]}'):
        check_name("auc", "regression")


@pytest.mark.parametrize(("kind", "n_classes"), [("binary", 3), ("multiclass", 1)])
def test_a_number_of_classes_that_the_kind_cannot_have_is_refused(kind, n_classes):
    with pytest.raises(ConfigError, match="classes"):
        shapes(kind, n_classes)


def test_sums_without_one_of_their_arrays_are_refused():
    sums = statistics("regression", [1.0], [1.0])
    del sums["error"]
    with pytest.raises(UpdateError, match='lack "error"'):
        metrics("regression", sums)


def test_sums_of_another_kind_are_refused():
    with pytest.raises(UpdateError, match=r'"scores" .* has shape'):
        metrics("multiclass", statistics("binary", [0, 1], [0.1, 0.9]))


def test_regression_has_no_curves():
    sums = statistics("regression", [1.0], [1.0])
    for curve in (roc_curve, calibration_curve):
        with pytest.raises(ConfigError, match=r"no .* curve"):
            curve(sums)
