"""Columns are left out as they are where all rows are in one place."""

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_selection import VarianceThreshold, f_classif, f_regression
from sklearn.metrics import mutual_info_score

import fedpact as fp
from fedpact.core import ClientData, Rows
from fedpact.core.errors import ConfigError, DataError
from fedpact.data.agree import Labels
from fedpact.data.preprocess import FitPipeline, Pipeline
from fedpact.data.preprocess.drop_correlated import DropCorrelated
from fedpact.data.preprocess.low_variance import LowVariance
from fedpact.data.preprocess.scores import AnovaF, MutualInformation, RegressionF
from fedpact.data.preprocess.select_best import SelectBest
from tests.data.test_preprocess import fit, fit_steps, spread
from tests.data.test_preprocess_errors import message

LABELS = {
    "classes": Labels("multiclass", (0, 1, 2)),
    "numbers": Labels("regression"),
}
SCORES: dict[str, tuple[Any, str]] = {
    "f_classif": (AnovaF(("far", "near", "flat", "steps", "noise"), 3), "classes"),
    "f_regression": (RegressionF(("far", "near", "flat", "steps", "noise")), "numbers"),
    "of classes": (MutualInformation(("far", "near", "flat", "steps", "noise"), 3), "classes"),
    "of numbers": (MutualInformation(("far", "near", "flat", "steps", "noise"), 0), "numbers"),
}


def rows(kind: str, n: int = 60) -> Rows:
    """Rows of which some columns depend on the labels, one is constant and one far from 0."""
    draw = np.random.default_rng(5)
    truth = draw.normal(size=n)
    table = pd.DataFrame(
        {
            "far": 1e6 + truth + draw.normal(size=n),
            "near": 1e-6 * (truth + 0.1 * draw.normal(size=n)),
            "flat": np.full(n, 0.1),
            "steps": np.rint(truth + draw.normal(size=n)),
            "noise": draw.normal(size=n),
        }
    )
    return Rows(table, np.digitize(truth, [-0.5, 0.5]) if kind == "classes" else 100 * truth)


def dealt(of: Rows, owners: Any, kind: str) -> list[ClientData]:
    parts = [of.take(np.flatnonzero(np.asarray(owners) == owner)) for owner in np.unique(owners)]
    return [ClientData(f"client {i}", Rows(p.x, LABELS[kind].encode(p.y))) for i, p in enumerate(parts)]


def selected(step: Any, of: Rows, kind: str, owners: Any = None) -> Pipeline:
    clients = dealt(of, np.zeros(len(of)) if owners is None else owners, kind)
    pipeline = fit(FitPipeline((step,), LABELS[kind]), clients)
    assert isinstance(pipeline, Pipeline)
    return pipeline


@pytest.mark.parametrize("threshold", [0.0, 0.2, 1.0])
def test_low_variance_keeps_what_scikit_learn_keeps_of_the_pooled_rows(threshold: float) -> None:
    table = rows("classes").x
    table.loc[::7, "noise"] = np.nan
    pipeline = fit_steps([LowVariance(threshold)], *spread(table, np.arange(60) % 4))
    expected = VarianceThreshold(threshold).fit(table.to_numpy()).get_feature_names_out(table.columns)
    assert pipeline.feature_names_out == tuple(expected)


def test_low_variance_that_leaves_nothing_is_refused() -> None:
    table = pd.DataFrame({"a": [1.0, 1.0]})
    assert "LowVariance leaves no column" in message(DataError, fit_steps, [LowVariance()], table)


def test_of_correlated_columns_the_first_is_kept() -> None:
    draw = np.random.default_rng(6)
    a, c = draw.normal(size=(2, 200))
    # b is near to a and to d, d is far enough from a: b goes and d stays.
    b = a + 0.35 * c
    table = pd.DataFrame({"a": a, "b": b, "d": a + 0.7 * c, "minus": 5 - 1e-9 * a, "flat": 1.0})
    r = np.corrcoef(table[["a", "b", "d"]].to_numpy().T)
    assert (r > 0.9).tolist() == [[True, True, False], [True, True, True], [False, True, True]]
    pipeline = fit_steps([DropCorrelated(0.9)], *spread(table, np.arange(200) % 3))
    assert pipeline.feature_names_out == ("a", "d", "flat")


@settings(max_examples=8, deadline=None)
@given(owners=st.lists(st.integers(0, 5), min_size=30, max_size=30))
def test_correlations_are_judged_alike_for_any_partition_of_the_rows(owners: list[int]) -> None:
    draw = np.random.default_rng(14)
    table = pd.DataFrame(draw.normal(size=(30, 5)) @ draw.normal(size=(5, 5)), columns=list("abcde"))
    table = table.assign(
        flat=0.1, far=1.6e9 + table["a"], copies=4e200 * table["b"], tiny=1e-200 * table["c"]
    )
    found = fit_steps([DropCorrelated(0.999)], *spread(table, np.array(owners)))
    assert found.feature_names_out == ("a", "b", "c", "d", "e", "flat")


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_no_two_kept_columns_are_correlated_above_the_threshold(threshold: float) -> None:
    draw = np.random.default_rng(7)
    table = pd.DataFrame(
        draw.normal(size=(80, 12)) @ draw.normal(size=(12, 12)), columns=list("abcdefghijkl")
    )
    kept = list(fit_steps([DropCorrelated(threshold)], table).feature_names_out)
    r = table.corr().abs()
    assert (r.loc[kept, kept].to_numpy() - np.eye(len(kept))).max() <= threshold
    for name in table.columns.difference(kept):
        before = [each for each in kept if each < name]
        assert r.loc[name, before].max() > threshold


@pytest.mark.parametrize("name", ["f_classif", "f_regression"])
def test_f_is_scikit_learns_on_the_pooled_rows(name: str) -> None:
    score, kind = SCORES[name]
    of = rows(kind)
    found = fit(score, dealt(of, np.arange(60) % 4, kind))
    # A constant column has no F in scikit-learn: 0/0.
    some = [each for each in of.x if each != "flat"]
    function = f_classif if name == "f_classif" else f_regression
    expected, _ = function(of.x[some].to_numpy() - of.x[some].mean().to_numpy(), of.y)
    np.testing.assert_allclose([found[each] for each in some], expected, rtol=1e-9)
    assert found["flat"] == 0


@pytest.mark.parametrize("name", ["of classes", "of numbers"])
def test_mutual_information_is_scikit_learns_of_the_bins_of_the_pooled_rows(name: str) -> None:
    score, kind = SCORES[name]
    of = rows(kind)
    found = fit(score, dealt(of, np.arange(60) % 4, kind))

    def binned(values: Any) -> Any:
        return np.searchsorted(
            np.unique(np.quantile(values, np.linspace(0, 1, 11)[1:-1])), values, side="right"
        )

    labels = of.y if kind == "classes" else binned(of.y)
    for each, values in of.x.items():
        assert found[each] == pytest.approx(mutual_info_score(labels, binned(values)), abs=1e-12)


@pytest.mark.parametrize("name", SCORES)
@settings(max_examples=6, deadline=None)
@given(owners=st.lists(st.integers(0, 5), min_size=30, max_size=30))
def test_score_is_the_same_bits_for_any_partition_of_the_rows(name: str, owners: list[int]) -> None:
    score, kind = SCORES[name]
    of = rows(kind, 30)
    pooled = fit(score, dealt(of, np.zeros(30), kind))
    assert json.dumps(fit(score, dealt(of, owners, kind))) == json.dumps(pooled)


def test_the_k_best_columns_are_kept_in_their_order() -> None:
    of = rows("classes")
    step = SelectBest("f_classif", 2)
    expected = f_classif((of.x - of.x.mean()).drop(columns="flat"), of.y)[0]
    best = of.x.columns.drop("flat")[np.sort(np.argsort(expected)[-2:])]
    assert selected(step, of, "classes", np.arange(60) % 5).feature_names_out == tuple(best)


def test_of_equally_good_columns_the_first_are_kept() -> None:
    of = rows("numbers")
    twins = Rows(of.x[["near", "noise"]].assign(other=of.x["near"]), of.y)
    assert selected(SelectBest("f_regression", 1), twins, "numbers").feature_names_out == ("near",)


def test_column_that_tells_classes_apart_without_error_has_an_infinite_f() -> None:
    perfect = Rows(pd.DataFrame({"x": [1.0, 1.0, 2.0, 2.0]}), np.array([0, 0, 1, 1]))
    assert fit(AnovaF(("x",), 2), dealt(perfect, [0, 1, 0, 1], "classes"))["x"] == math.inf


def test_client_that_lacks_a_class_changes_nothing() -> None:
    of = rows("classes")
    by_class = fit(SCORES["f_classif"][0], dealt(of, of.y, "classes"))
    assert by_class == fit(SCORES["f_classif"][0], dealt(of, np.zeros(60), "classes"))


@pytest.mark.parametrize(
    ("settings", "kind", "said"),
    [
        ({"score": "f_clasif"}, "classes", 'Did you mean "f_classif"?'),
        ({"score": "f_classif"}, "numbers", 'give "f_regression"'),
        ({"score": "f_regression"}, "classes", 'give "f_classif"'),
        ({"k": 6}, "classes", "k is 6, and there are 5 numeric columns"),
        ({"k": 0}, "classes", "whole number, 1 or more"),
        ({"score": "mutual_information", "bins": 1}, "classes", "tells no values apart"),
    ],
)
def test_selection_that_cannot_be_is_refused(settings: Any, kind: str, said: str) -> None:
    refused = message(ConfigError, lambda: selected(SelectBest(**{"k": 2, **settings}), rows(kind), kind))
    assert said in refused


@pytest.mark.parametrize("step", [LowVariance(), DropCorrelated(), SelectBest("f_classif", 2)])
def test_test_rows_change_nothing(step: Any) -> None:
    of = rows("classes")
    train = Rows(of.x, LABELS["classes"].encode(of.y))
    alone = fit(FitPipeline((step,), LABELS["classes"]), [ClientData("a", train)])
    test = Rows(of.x * -1e9, train.y)
    assert fit(FitPipeline((step,), LABELS["classes"]), [ClientData("a", train, test)]) == alone


def test_saved_selection_leaves_out_the_same_columns() -> None:
    pipeline = selected(SelectBest("mutual_information", 3), rows("classes"), "classes")
    loaded = Pipeline.from_json(json.loads(json.dumps(pipeline.to_json())))
    assert loaded == pipeline
    assert len(loaded.feature_names_out) == 3


def test_job_selects_and_trains() -> None:
    steps = [fp.LowVariance(), fp.Standardize(), fp.DropCorrelated(0.95), fp.SelectBest("f_classif", k=5)]
    result = fp.train(
        fp.models.Logistic(),
        fp.datasets.breast_cancer(),
        preprocess=steps,
        algorithm=fp.FedAvg(lr=0.1),
        rounds=3,
    )
    assert result.evaluation is not None
    assert result.evaluation.metrics["accuracy"] > 0.85
