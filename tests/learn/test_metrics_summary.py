"""Metrics over clients: means, spread, and who is served worst."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpact.core.errors import ConfigError, DataError
from fedpact.learn.metrics import metrics, statistics, summarise

SIZES = {"lyon": 100, "nice": 300, "paris": 600}


def of(name, values):
    per_client = {client: {name: value} for client, value in zip(SIZES, values, strict=True)}
    return summarise(per_client, SIZES)[name]


def test_means_and_spread_are_those_of_numpy():
    values = [0.5, 0.75, 0.9]
    found = of("accuracy", values)
    assert found.mean == pytest.approx(np.mean(values), abs=1e-15)
    assert found.std == pytest.approx(np.std(values), abs=1e-15)
    assert found.weighted_mean == pytest.approx(np.average(values, weights=[100, 300, 600]), abs=1e-15)
    assert (found.clients, found.undefined) == (3, 0)


def test_accuracy_weighted_by_size_is_that_of_the_pooled_rows():
    generator = np.random.default_rng(1)
    rows = {client: (generator.integers(0, 2, n), generator.random(n)) for client, n in SIZES.items()}
    sums = {client: statistics("binary", *of_client) for client, of_client in rows.items()}
    pooled = {name: sum(of_client[name] for of_client in sums.values()) for name in sums["lyon"]}
    found = summarise({client: metrics("binary", s) for client, s in sums.items()}, SIZES)
    assert found["accuracy"].weighted_mean == pytest.approx(metrics("binary", pooled)["accuracy"], abs=1e-12)


def test_worst_is_the_smallest_accuracy_and_the_largest_loss():
    accuracy, loss = of("accuracy", [0.5, 0.7, 0.9]), of("log_loss", [0.5, 0.7, 0.9])
    assert (accuracy.worst_client, accuracy.worst) == ("lyon", 0.5)
    assert (loss.worst_client, loss.worst) == ("paris", 0.9)


def test_the_worst_bias_is_the_one_furthest_from_0():
    found = of("bias", [-2.0, 1.0, 0.0])
    assert (found.worst_client, found.worst) == ("lyon", -2.0)


def test_the_worst_of_equals_is_the_first_by_name():
    per_client = {client: {"accuracy": 0.5} for client in ("paris", "nice", "lyon")}
    assert summarise(per_client, SIZES)["accuracy"].worst_client == "lyon"


def test_clients_whose_metric_is_nan_or_missing_are_left_out_and_counted():
    per_client = {
        "lyon": {"accuracy": 1.0, "auc": math.nan},
        "nice": {"accuracy": 0.5},
        "paris": {"auc": 0.8},
    }
    found = summarise(per_client, SIZES)
    assert (found["auc"].mean, found["auc"].clients, found["auc"].undefined) == (0.8, 1, 2)
    assert found["accuracy"].weighted_mean == pytest.approx((100 * 1.0 + 300 * 0.5) / 400)
    assert (found["accuracy"].clients, found["accuracy"].undefined) == (2, 1)


def test_a_metric_that_no_client_has_is_nan_with_no_worst_client():
    found = of("auc", [math.nan] * 3)
    assert math.isnan(found.mean)
    assert math.isnan(found.weighted_mean)
    assert (found.worst_client, found.clients, found.undefined) == (None, 0, 3)


def test_clients_without_rows_have_no_weighted_mean():
    found = summarise({"lyon": {"accuracy": 0.5}}, {"lyon": 0})["accuracy"]
    assert math.isnan(found.weighted_mean)
    assert found.mean == 0.5


@settings(deadline=None)
@given(
    values=st.dictionaries(st.text("abc", max_size=3), st.floats(-1e6, 1e6), min_size=1, max_size=8),
    order=st.randoms(use_true_random=False),
)
def test_a_summary_is_the_same_bits_for_any_order_of_clients(values, order):
    per_client = {client: {"r2": value} for client, value in values.items()}
    shuffled = list(per_client.items())
    order.shuffle(shuffled)
    sizes = {client: 1 + len(client) for client in values}
    assert summarise(per_client, sizes) == summarise(dict(shuffled), sizes)


def test_metrics_come_in_one_order_whatever_that_of_the_clients():
    per_client = {"lyon": {"ece": 0.1, "accuracy": 0.9}, "nice": {"f1": 0.5}}
    assert list(summarise(per_client, SIZES)) == ["accuracy", "f1", "ece"]


def test_an_unknown_metric_names_the_nearest():
    with pytest.raises(ConfigError, match=r'"acc_uracy" is not a metric.*Did you mean "accuracy"'):
        of("acc_uracy", [0.5, 0.5, 0.5])


@pytest.mark.parametrize(("sizes", "says"), [({}, '"lyon" has metrics and no size'), ({"lyon": -1}, "-1")])
def test_a_client_without_a_size_is_refused(sizes, says):
    with pytest.raises(DataError, match=says):
        summarise({"lyon": {"accuracy": 0.5}}, sizes)
