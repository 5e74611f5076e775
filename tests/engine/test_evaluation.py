"""Evaluation: metrics over all clients' held-out rows, from sums, are those of the pooled predictions."""

import json
import math

import numpy as np
import pytest

import fedpact as fp
from fedpact.core.model import Schema
from fedpact.core.rows import ClientData, Rows
from fedpact.core.vector import Vector
from fedpact.engine.evaluation import Evaluation, evaluate_clients, judging
from fedpact.engine.in_process import InProcess
from fedpact.engine.population import InMemory, Prepared
from fedpact.learn.linear import Linear, Logistic, Softmax
from tests.federation import SEED

RNG = np.random.default_rng(0)
SIZES = {"lyon": 40, "nice": 7, "paris": 153}
FEATURES = 3
TRAIN = Rows(np.zeros((2, FEATURES)), np.zeros(2, np.int64))


def federation(labels):
    """Return clients with as many test rows as SIZES says and labels drawn by `labels(x)`."""
    clients = []
    for id, size in SIZES.items():
        x = RNG.normal(size=(size, FEATURES))
        clients.append(ClientData(id, TRAIN, Rows(x, labels(x))))
    return clients


def pooled(clients):
    tests = [client.test for client in clients if client.test is not None]
    return np.concatenate([rows.x for rows in tests]), np.concatenate([rows.y for rows in tests])


def evaluate(model, weights, population):
    population = InMemory(population) if isinstance(population, list) else population
    return evaluate_clients(InProcess(), judging(model, population, SEED), weights, 0)


def binary(x):
    return (x @ [1.0, -0.5, 0.2] + RNG.normal(size=len(x)) > 0.3).astype(np.int64)


def logistic():
    model = Logistic().build(Schema("binary", (FEATURES,), (0, 1)))
    return model, Vector.from_arrays({"coef": [0.8, -0.6, 0.1], "intercept": -0.25}, model.layout)


def test_metrics_of_two_classes_are_those_of_the_pooled_predictions():
    sk = pytest.importorskip("sklearn.metrics")
    clients, (model, weights) = federation(binary), logistic()
    x, y = pooled(clients)
    scores = 1 / (1 + np.exp(-(x @ [0.8, -0.6, 0.1] - 0.25)))
    predicted = scores > 0.5
    found = evaluate(model, weights, clients).metrics
    expected = {
        "accuracy": sk.accuracy_score(y, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(y, predicted),
        "precision": sk.precision_score(y, predicted),
        "recall": sk.recall_score(y, predicted),
        "f1": sk.f1_score(y, predicted),
        "mcc": sk.matthews_corrcoef(y, predicted),
        "log_loss": sk.log_loss(y, scores),
        "brier": sk.brier_score_loss(y, scores),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-12)
    assert abs(found["auc"] - sk.roc_auc_score(y, scores)) <= found["auc_error"] + 1e-12
    assert found["auc_error"] < 0.01
    ours, theirs = found["average_precision"], sk.average_precision_score(y, scores)
    assert abs(ours - theirs) <= found["average_precision_error"] + 1e-12


def test_metrics_of_many_classes_are_those_of_the_pooled_predictions():
    sk = pytest.importorskip("sklearn.metrics")
    coef, intercept = RNG.normal(size=(4, FEATURES)), RNG.normal(size=4)
    clients = federation(lambda x: np.argmax(x @ coef.T + RNG.normal(size=(len(x), 4)), axis=1))
    model = Softmax().build(Schema("multiclass", (FEATURES,), (0, 1, 2, 3)))
    weights = Vector.from_arrays({"coef": coef, "intercept": intercept}, model.layout)
    x, y = pooled(clients)
    scores = np.exp(x @ coef.T + intercept)
    scores /= scores.sum(axis=1, keepdims=True)
    predicted = scores.argmax(axis=1)
    found = evaluate(model, weights, clients).metrics
    expected = {
        "accuracy": sk.accuracy_score(y, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(y, predicted),
        "f1": sk.f1_score(y, predicted, average="macro"),
        "f1_weighted": sk.f1_score(y, predicted, average="weighted"),
        "mcc": sk.matthews_corrcoef(y, predicted),
        "log_loss": sk.log_loss(y, scores, labels=range(4)),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-12)
    assert abs(found["auc"] - sk.roc_auc_score(y, scores, multi_class="ovr")) <= found["auc_error"] + 1e-12


def test_metrics_of_numbers_are_those_of_the_pooled_predictions():
    sk = pytest.importorskip("sklearn.metrics")
    clients = federation(lambda x: x @ [3.0, 0.0, -1.0] + 100 + RNG.normal(size=len(x)))
    model = Linear().build(Schema("regression", (FEATURES,)))
    weights = Vector.from_arrays({"coef": [2.5, 0.1, -1.0], "intercept": 100.5}, model.layout)
    x, y = pooled(clients)
    predicted = x @ [2.5, 0.1, -1.0] + 100.5
    found = evaluate(model, weights, clients).metrics
    assert found["mse"] == pytest.approx(sk.mean_squared_error(y, predicted), rel=1e-12)
    assert found["rmse"] == pytest.approx(math.sqrt(sk.mean_squared_error(y, predicted)), rel=1e-12)
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(y, predicted), rel=1e-12)
    assert found["r2"] == pytest.approx(sk.r2_score(y, predicted), rel=1e-9)
    assert found["bias"] == pytest.approx(np.mean(predicted - y), rel=1e-9)


def test_a_clients_own_metrics_are_those_of_its_rows():
    sk = pytest.importorskip("sklearn.metrics")
    clients, (model, weights) = federation(binary), logistic()
    evaluation = evaluate(model, weights, clients)
    assert evaluation.rows == SIZES
    for client in clients:
        scores = model.predict(weights, client.test.x)
        own = evaluation.clients[client.id]
        assert own["accuracy"] == pytest.approx(sk.accuracy_score(client.test.y, scores > 0.5))
        assert own["log_loss"] == pytest.approx(sk.log_loss(client.test.y, scores, labels=[0, 1]))
    summary = evaluation.summary()["accuracy"]
    accuracies = [evaluation.clients[id]["accuracy"] for id in SIZES]
    assert summary.weighted_mean == pytest.approx(evaluation.metrics["accuracy"])
    assert summary.worst == min(accuracies)
    record = evaluation.record()
    assert record["accuracy_mean"] == pytest.approx(np.mean(accuracies))
    assert record["accuracy_worst"] == min(accuracies)
    assert record["accuracy"] == evaluation.metrics["accuracy"]


def test_the_order_of_the_clients_changes_no_bit():
    clients, (model, weights) = federation(binary), logistic()
    renamed = [ClientData(id, client.train, client.test) for id, client in zip("cab", clients, strict=True)]
    assert evaluate(model, weights, clients).metrics == evaluate(model, weights, renamed).metrics


def test_clients_that_hold_no_rows_aside_change_nothing():
    clients, (model, weights) = federation(binary), logistic()
    empty = Rows(np.zeros((0, FEATURES)), np.zeros(0, np.int64))
    more = [*clients, ClientData("without", TRAIN), ClientData("empty", TRAIN, empty)]
    evaluation = evaluate(model, weights, more)
    assert evaluation.metrics == evaluate(model, weights, clients).metrics
    assert (evaluation.rows, evaluation.failures) == (SIZES, {})


def test_there_is_no_evaluation_where_nobody_holds_rows_aside():
    model, weights = logistic()
    assert evaluate(model, weights, [ClientData("lyon", TRAIN), ClientData("nice", TRAIN)]) is None


def test_a_client_whose_rows_cannot_be_evaluated_is_recorded_and_left_out():
    clients, (model, weights) = federation(binary), logistic()
    bad = ClientData("bad", TRAIN, Rows(np.full((3, FEATURES), np.nan), np.ones(3, np.int64)))
    unlabelled = ClientData("unlabelled", TRAIN, Rows(np.ones((3, FEATURES))))
    evaluation = evaluate(model, weights, [*clients, bad, unlabelled])
    assert evaluation.metrics == evaluate(model, weights, clients).metrics
    assert evaluation.failures.keys() == {"bad", "unlabelled"}
    assert "NaN" in evaluation.failures["bad"]
    assert 'client "unlabelled": the test rows have no labels' in evaluation.failures["unlabelled"]


def test_a_client_whose_rows_cannot_be_loaded_is_recorded_and_left_out():
    clients, (model, weights) = federation(binary), logistic()

    def prepare(data):
        if data.id == "nice":
            raise OSError("the disk is gone")
        return data

    evaluation = evaluate(model, weights, Prepared(InMemory(clients), prepare))
    assert evaluation.failures == {"nice": "OSError: the disk is gone"}
    assert evaluation.rows.keys() == {"lyon", "paris"}


def test_failures_are_told_although_nobody_else_holds_rows_aside():
    model, weights = logistic()
    bad = ClientData("bad", TRAIN, Rows(np.full((3, FEATURES), np.nan), np.ones(3, np.int64)))
    evaluation = evaluate(model, weights, [bad, ClientData("lyon", TRAIN)])
    assert evaluation.failures.keys() == {"bad"}
    assert (evaluation.metrics, evaluation.clients) == ({}, {})


def test_an_evaluation_survives_json():
    clients, (model, weights) = federation(binary), logistic()
    one_class = ClientData("one", TRAIN, Rows(np.ones((2, FEATURES)), np.ones(2, np.int64)))
    evaluation = evaluate(model, weights, [*clients, one_class])
    # With one class there is no AUC, and JSON has no NaN.
    assert math.isnan(evaluation.clients["one"]["auc"])
    read = Evaluation.from_json(json.loads(json.dumps(evaluation.to_json(), allow_nan=False)))
    assert read.metrics == evaluation.metrics
    assert math.isnan(read.clients["one"]["auc"])
    assert read.clients["lyon"] == evaluation.clients["lyon"]
    assert (read.rows, read.failures) == (evaluation.rows, evaluation.failures)
    for name, array in evaluation.sums.items():
        np.testing.assert_array_equal(read.sums[name], array)


def test_an_evaluation_asks_as_many_clients_as_the_job_says_and_others_every_round():
    model, weights = logistic()
    clients = InMemory(federation(binary))
    setting = judging(model, clients, SEED, cohort=1)
    asked = [set(evaluate_clients(InProcess(), setting, weights, round).rows) for round in range(8)]
    assert {len(ids) for ids in asked} == {1}
    assert set.union(*asked) == {client.id for client in federation(binary) if client.test}


def test_a_run_evaluates_at_a_share_of_its_clients():
    clients = federation(binary)
    tested = sum(client.test is not None for client in clients)
    result = fp.train(fp.models.Logistic(), clients, rounds=2, evaluate_cohort=0.5, progress=False)
    assert len(result.evaluation.rows) == -(-tested // 2)
