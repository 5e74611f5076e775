"""Weights of classes in whole runs: from counts over all clients, whoever runs them; what they do for a rare class."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import linear_model, metrics

import fedpact as fp
from fedpact.core.errors import ConfigError, DataError
from fedpact.core.seeds import Seed
from fedpact.engine.in_process import InProcess
from fedpact.engine.population import InMemory
from fedpact.engine.preparation import Preparation
from fedpact.engine.preparing import prepare
from fedpact.engine.work import Rules
from tests.engine.runs import outcome

BALANCED = fp.models.Logistic(0.01, class_weight="balanced")
DIGITS = 1e-6


def rare_class(count: int = 5, rows: int = 200, share: float = 0.04, seed: int = 0) -> list[fp.ClientData]:
    """Return clients of which the first has hardly a row of the rare class, and half of the others' rows to test on."""
    random = np.random.default_rng(seed)
    clients = []
    for place in range(count):
        y = (random.random(rows) < (0.005 if place == 0 else share)).astype(np.int64)
        x = random.normal(size=(rows, 3)) + 1.2 * y[:, None]
        half = rows // 2
        clients.append(
            fp.ClientData(chr(97 + place), fp.Rows(x[:half], y[:half]), fp.Rows(x[half:], y[half:]))
        )
    return clients


def pooled(clients: list[fp.ClientData]) -> fp.Rows:
    x, y = (np.concatenate([getattr(client.train, name) for client in clients]) for name in "xy")
    return fp.Rows(x, y)


def prepared(model: Any, clients: Any, *steps: Any) -> Preparation:
    population = InMemory(clients) if isinstance(clients, list) else clients
    return prepare(model, steps, population, InProcess(), Rules(fatal=(DataError,)), Seed.of(0))


def coefficients(result: fp.Result) -> NDArray[np.float64]:
    return np.append(result.weights["coef"], result.weights["intercept"])


@settings(max_examples=15)
@given(labels=st.lists(st.lists(st.sampled_from(["no", "yes", "maybe"]), min_size=1), min_size=1, max_size=5))
def test_classes_are_counted_over_all_clients(labels: list[list[str]]) -> None:
    clients = [
        fp.ClientData(str(i), fp.Rows(np.zeros((len(y), 1)), np.array(y))) for i, y in enumerate(labels)
    ]
    together = np.concatenate(labels)
    if len(set(together)) < 2:
        return
    found = prepared(
        BALANCED if len(set(together)) == 2 else fp.models.Softmax(class_weight="balanced"), clients
    )
    classes, counts = np.unique(together, return_counts=True)
    assert (found.schema.classes, found.schema.class_counts) == (tuple(classes), tuple(counts))
    assert Preparation.from_json(json.loads(json.dumps(found.to_json()))).schema == found.schema


def test_nobody_is_asked_for_counts_that_no_model_needs() -> None:
    for model in (fp.models.Logistic(), fp.models.Logistic(class_weight={0: 1, 1: 5}), None):
        assert prepared(model, rare_class()).schema.class_counts == ()


def test_test_rows_change_no_count() -> None:
    clients = rare_class()
    without = [fp.ClientData(client.id, client.train) for client in clients]
    assert prepared(BALANCED, clients).class_counts == prepared(BALANCED, without).class_counts


def test_labels_at_every_position_are_each_counted() -> None:
    labels = np.array([[0, 1, 1], [2, 1, 0]])
    clients = [fp.ClientData(id, fp.Rows(np.zeros((2, 3)), labels)) for id in "ab"]
    assert prepared(fp.models.Softmax(class_weight="balanced"), clients).class_counts == (4, 6, 2)


def test_rows_that_a_step_leaves_out_are_not_counted() -> None:
    table = pd.DataFrame({"age": [1.0, 2.0, -7.0, 4.0, 1.0]})
    clients = [fp.ClientData(id, fp.Rows(table, np.array([0, 1, 1, 0, 0]))) for id in "ab"]
    found = prepared(BALANCED, clients, fp.Clean(ranges={"age": (0, 10)}, drop=True))
    assert found.class_counts == (6, 2)


def test_a_class_weighs_by_the_rows_that_are_trained_on() -> None:
    # Of the rare class there are 3 of 12 rows, and each is visited three times: 9 and 9.
    y = np.array([0] * 9 + [1] * 3)
    clients = [fp.ClientData("a", fp.Rows(np.arange(12.0)[:, None], y))]
    assert prepared(BALANCED, clients, fp.ExtraPasses()).class_counts == (9, 9)


def test_rows_to_test_on_are_not_prepared_for_it() -> None:
    table = pd.DataFrame({"age": [1.0, 2.0, 3.0]})
    labels = np.array([0, 0, 1])
    unknown = fp.Rows(pd.DataFrame({"size": [1.0]}), np.array([0]))
    found = prepared(BALANCED, [fp.ClientData("a", fp.Rows(table, labels), unknown)], fp.OverSample())
    assert found.class_counts == (2, 2)


@pytest.mark.parametrize("steps", [[], [fp.OverSample()], [fp.ExtraPasses()]], ids=str)
def test_weights_take_one_question_more(steps: list[Any]) -> None:
    class Noting(InProcess):
        asked = 0

        def ask(self, *work: Any) -> None:
            self.asked += 1
            super().ask(*work)

    plain, weighed = Noting(), Noting()
    for model, engine in ((fp.models.Logistic(), plain), (BALANCED, weighed)):
        prepare(model, steps, InMemory(rare_class()), engine, Rules(fatal=(DataError,)), Seed.of(0))
    assert weighed.asked == plain.asked + 1


def test_every_client_is_asked_where_one_stands_for_all() -> None:
    x, y = np.zeros((4, 10, 2)), np.array([[0] * 10, [0] * 10, [1] * 10, [0] * 9 + [1]])
    assert prepared(BALANCED, fp.populations.arrays(x, y)).class_counts == (29, 11)


def test_newton_finds_the_pooled_model_though_a_client_has_one_class_alone() -> None:
    whole = pooled(rare_class())
    order = np.argsort(whole.y, kind="stable")
    clients = [
        fp.ClientData(id, whole.take(part))
        for id, part in zip("abc", np.split(order, [300, 480]), strict=True)
    ]
    assert [len(np.unique(client.train.y)) for client in clients] == [1, 2, 1]
    found = coefficients(fp.train(BALANCED, clients, algorithm=fp.Newton(), rounds=20))
    theirs = linear_model.LogisticRegression(
        C=1 / (len(whole) * 0.01), class_weight="balanced", tol=1e-12, max_iter=10**5
    ).fit(whole.x, whole.y)
    np.testing.assert_allclose(found, np.append(theirs.coef_, theirs.intercept_), atol=DIGITS)


def test_weights_from_each_clients_own_counts_would_give_another_model() -> None:
    clients = rare_class()
    found = coefficients(fp.train(BALANCED, clients, algorithm=fp.Newton(), rounds=20))
    whole = pooled(clients)
    own = []
    for client in clients:
        counts = np.bincount(client.train.y, minlength=2)
        own.append(len(client.train) / (2 * np.maximum(counts, 1))[client.train.y])
    weights = np.concatenate(own)
    theirs = linear_model.LogisticRegression(C=1 / (len(whole) * 0.01), tol=1e-12, max_iter=10**5).fit(
        whole.x, whole.y, sample_weight=weights
    )
    assert np.abs(found - np.append(theirs.coef_, theirs.intercept_)).max() > 0.1


def recall(result: fp.Result, clients: list[fp.ClientData]) -> float:
    y = np.concatenate([client.test.y for client in clients if client.test])
    x = np.concatenate([client.test.x for client in clients if client.test])
    return float(metrics.recall_score(y, result.predict(x)))


@pytest.mark.parametrize(
    "algorithm", [fp.Newton(), fp.FedAvg(lr=0.5, local_epochs=2, batch_size=20)], ids=["Newton", "FedAvg"]
)
def test_a_rare_class_is_found_where_it_weighs_as_much_as_the_other(algorithm: Any) -> None:
    clients = rare_class()
    plain = fp.train(fp.models.Logistic(0.01), clients, algorithm=algorithm, rounds=10)
    weighed = fp.train(BALANCED, clients, algorithm=algorithm, rounds=10)
    assert recall(plain, clients) < 0.3
    assert recall(weighed, clients) > recall(plain, clients) + 0.4


@pytest.mark.parametrize("loss", [None, fp.Focal(2.0)], ids=["log loss", "focal loss"])
@pytest.mark.parametrize("kind", ["Logistic", "Torch"])
def test_workers_give_the_bits_of_one_process_and_many_at_once_nearly_so(kind: str, loss: Any) -> None:
    if kind == "Torch":
        torch = pytest.importorskip("torch")
        torch.manual_seed(0)
        model: Any = fp.models.Torch(torch.nn.Linear(3, 2), loss, class_weight="balanced")
    else:
        model = fp.models.Logistic(class_weight="balanced", loss=loss)
    algorithm = fp.FedAvg(lr=0.2, local_epochs=2, batch_size=16)
    found = {}
    for engine in ("in_process", "workers", "batched"):
        workers = 2 if engine == "workers" else None
        found[engine] = fp.train(
            model, rare_class(), algorithm=algorithm, rounds=3, engine=engine, workers=workers
        )
    assert found["workers"].weights == found["in_process"].weights
    for one, other in zip(found["batched"].weights.flats, found["in_process"].weights.flats, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert "many" in found["batched"].engine or "batch" in found["batched"].engine


def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(tmp_path: Path) -> None:
    job: dict[str, Any] = {"algorithm": fp.FedAvg(lr=0.2, local_epochs=1, batch_size=16), "rounds": 4}

    def stop(record: Any) -> None:
        if record["round"] == 2:
            raise KeyboardInterrupt

    whole = fp.train(BALANCED, rare_class(), **job)
    with pytest.raises(KeyboardInterrupt):
        fp.train(BALANCED, rare_class(), **job, folder=tmp_path, on_round=stop)
    resumed = fp.train(BALANCED, rare_class(), **job, folder=tmp_path, resume=True)
    assert outcome(resumed)["weights"] == outcome(whole)["weights"]


def test_the_training_loss_is_the_weighted_one() -> None:
    # At weights of 0 each row's log loss is log 2, and the mean balanced weight over all rows is 1.
    first = fp.train(BALANCED, rare_class(), algorithm=fp.Newton(), rounds=1).history
    assert first["train_loss"].iloc[0] == pytest.approx(np.log(2), rel=1e-12)
    triple = fp.models.Logistic(class_weight={0: 3, 1: 3})
    first = fp.train(triple, rare_class(), algorithm=fp.Newton(), rounds=1).history
    assert first["train_loss"].iloc[0] == pytest.approx(3 * np.log(2), rel=1e-12)


def test_the_statement_says_that_classes_were_counted() -> None:
    told = "how many training rows each client has of each class"
    assert told in fp.train(BALANCED, rare_class(), rounds=1).privacy.in_clear
    assert told not in fp.train(fp.models.Logistic(), rare_class(), rounds=1).privacy.in_clear


def test_under_a_mask_the_counts_are_the_same_and_a_clients_own_are_not_told() -> None:
    stages = [fp.Clip(10.0), fp.SecureSum(max_weight=1000)]
    masked = fp.train(BALANCED, rare_class(), rounds=1, channel=stages)
    assert masked.fitted.preparation.class_counts == tuple(np.bincount(pooled(rare_class()).y))
    assert "how many training rows there are of each class" in masked.privacy.in_clear


def test_a_class_that_nobody_trains_on_is_named() -> None:
    clients = [
        fp.ClientData(
            "a", fp.Rows(np.zeros((3, 1)), np.array([0, 1, 0])), fp.Rows(np.zeros((1, 1)), np.array([2]))
        )
    ]
    with pytest.raises(DataError, match='no client has a training row of class "2"'):
        fp.train(fp.models.Softmax(class_weight="balanced"), clients, rounds=1)


def test_numbers_to_predict_have_no_classes_to_weigh() -> None:
    torch = pytest.importorskip("torch")
    clients = [fp.ClientData("a", fp.Rows(np.ones((4, 2), np.float32), np.array([0.5, 1.5, 2.5, 3.5])))]
    with pytest.raises(ConfigError, match="these are numbers to predict; leave it out"):
        fp.train(fp.models.Torch(torch.nn.Linear(2, 1), class_weight="balanced"), clients, rounds=1)


def test_clients_with_models_of_their_own_are_counted_for_these_too() -> None:
    public = np.random.default_rng(0).normal(size=(30, 3))
    algorithm = fp.FedDF(public=public, models={"a": BALANCED}, lr=0.1, local_steps=5, server_steps=5)
    result = fp.train(fp.models.Logistic(), rare_class(3), algorithm=algorithm, rounds=2)
    assert result.fitted.preparation.class_counts == tuple(np.bincount(pooled(rare_class(3)).y))


def test_a_saved_model_with_weights_and_a_focal_loss_predicts_as_before(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    model = fp.models.Torch(
        "torch.nn:Linear",
        fp.Focal(1.0),
        options={"in_features": 3, "out_features": 2},
        class_weight="balanced",
    )
    clients = rare_class()
    result = fp.train(model, clients, algorithm=fp.FedAvg(lr=0.1), rounds=2, folder=tmp_path)
    x = pooled(clients).x
    for code in (None, torch.nn.Linear(3, 2)):
        loaded = fp.Fitted.load(tmp_path / "model.safetensors", code)
        np.testing.assert_array_equal(loaded.predict_proba(x), result.fitted.predict_proba(x))
