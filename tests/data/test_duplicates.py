"""Of rows that are the same one is kept, inside a client and across clients."""

import hashlib
import hmac
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

import fedpact as fp
from fedpact.core import Accumulator, ClientData, Rows, Seed
from fedpact.core.errors import ConfigError, DataError
from fedpact.data.preprocess import FitPipeline, Impute, OneHot, Pipeline, Standardize
from fedpact.data.preprocess.duplicates import DropDuplicates
from fedpact.data.preprocess.estimate import Estimating
from fedpact.data.preprocess.shared_keys import SharedKeys
from tests.data.test_preprocess import fit, fit_steps
from tests.data.test_preprocess_errors import TABLE, message

SECRET = "FEDPACT_DUPLICATES_SECRET"
# Anna is at a and b, Boris at b (twice) and c, Chen everywhere.
VISITS = {
    "c": pd.DataFrame({"patient": ["Chen", "Boris", "Dora"], "x": [1.0, 2.0, 3.0]}),
    "a": pd.DataFrame({"patient": ["Anna", "Chen", None], "x": [4.0, 5.0, 6.0]}),
    "b": pd.DataFrame(
        {"patient": ["Boris", "Boris", "Anna", "Chen", None], "x": [7.0, 8.0, 9.0, 10.0, 11.0]}
    ),
}
ACROSS = DropDuplicates(["patient"], leave_out=True, across=True)


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET, "known to clients alone")


def visits() -> list[ClientData]:
    return [ClientData(id, Rows(table)) for id, table in VISITS.items()]


def test_first_row_of_a_key_is_kept_as_by_pandas() -> None:
    table = pd.DataFrame(
        {"id": ["p", "q", "p", None, None, "r"], "x": [1.0, 2.0, 1.0, np.nan, np.nan, 2.0], "y": range(6)}
    )
    for by in (["id"], ["id", "x"], ["x"], None):
        pipeline = fit_steps([DropDuplicates(by), Impute("constant", "none"), OneHot()], table)
        frame, places = pipeline.selected(table)
        assert places.tolist() == table.drop_duplicates(by).index.tolist()
        assert len(frame) == len(places)


def test_key_can_be_left_out_behind_the_step() -> None:
    table = pd.DataFrame({"id": ["p", "q", "p"], "x": [1.0, 2.0, 3.0]})
    pipeline = fit_steps([DropDuplicates(["id"], leave_out=True), Standardize()], table)
    assert pipeline.feature_names_out == ("x",)
    assert pipeline.to_json()["steps"][-1]["mean"] == {"x": 1.5}
    assert len(pipeline.matrix(table)) == 3
    assert Pipeline.from_json(json.loads(json.dumps(pipeline.to_json()))) == pipeline


def test_duplicates_need_a_key_that_is_there() -> None:
    assert "name the columns of the key" in message(ConfigError, DropDuplicates, [])
    assert 'Did you mean "age"?' in message(ConfigError, fit_steps, [DropDuplicates(["aeg"])], TABLE)


@pytest.mark.usefixtures("secret")
def test_key_of_several_clients_is_kept_by_the_first_of_their_names() -> None:
    pipeline = fit(FitPipeline((ACROSS, Standardize())), visits())
    kept = {id: pipeline.selected(table, training_of=id)[1].tolist() for id, table in VISITS.items()}
    assert kept == {"a": [0, 1, 2], "b": [0, 4], "c": [2]}
    # The mean of 4, 5, 6, 7, 11 and 3: later steps are fitted to the rows that are kept.
    assert pipeline.to_json()["steps"][-1]["mean"] == {"x": 6.0}


@pytest.mark.usefixtures("secret")
def test_order_and_number_of_rows_and_clients_make_no_difference_to_which_client_keeps_a_key() -> None:
    again = [ClientData(each.id, Rows(each.train.x[::-1].reset_index(drop=True))) for each in visits()[::-1]]
    assert fit(FitPipeline((ACROSS,)), again) == fit(FitPipeline((ACROSS,)), visits())


@pytest.mark.usefixtures("secret")
def test_rows_of_tests_and_predictions_are_not_compared_with_other_clients() -> None:
    pipeline = fit(FitPipeline((ACROSS,)), visits())
    assert pipeline.selected(VISITS["b"])[1].tolist() == [0, 2, 3, 4]
    assert len(pipeline.matrix(VISITS["b"])) == 5


@pytest.mark.usefixtures("secret")
def test_no_key_leaves_a_client_and_another_secret_hashes_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    estimate = SharedKeys(("patient",), SECRET)
    task = estimate.task(Estimating())
    assert task is not None

    def answer() -> Any:
        return estimate.client(None, task, visits()[2], {}, Seed.of(0))[0].answer

    sent = answer()
    assert len(sent["keys"]) == 3
    assert sent["keys"] == sorted(sent["keys"])
    assert not any(name in json.dumps(sent) for name in ("Anna", "Boris", "Chen", "known to clients"))
    # HMAC-SHA256 of the key as JSON.
    expected = hmac.digest(b"known to clients alone", b'["Anna"]', hashlib.sha256).hex()
    assert expected in sent["keys"]
    monkeypatch.setenv(SECRET, "another secret of clients")
    assert not set(answer()["keys"]) & set(sent["keys"])


@pytest.mark.usefixtures("secret")
def test_model_holds_neither_keys_nor_hashes_of_them() -> None:
    (step,) = fit(FitPipeline((ACROSS,)), visits()).to_json()["steps"]
    assert {client: (of, len(places)) for client, (of, places) in step["elsewhere"].items()} == {
        "a": (2, 0),
        "b": (3, 2),
        "c": (3, 2),
    }
    pipeline = fit(FitPipeline((ACROSS,)), visits())
    assert Pipeline.from_json(json.loads(json.dumps(pipeline.to_json()))) == pipeline


def test_client_without_a_secret_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET, "short")
    said = message(ConfigError, fit, FitPipeline((ACROSS,)), visits())
    assert f"environment variable {SECRET} has none of 16 characters or more" in said


def test_clients_with_different_secrets_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    estimate = SharedKeys(("patient",), SECRET)
    state = estimate.init(None, Seed.of(0))
    task = estimate.task(state)
    assert task is not None
    total = Accumulator(task, 65536, 3, 3)
    for i, client in enumerate(visits()):
        monkeypatch.setenv(SECRET, f"the secret of client {max(i, 1)}")
        total.add(estimate.client(None, task, client, {}, Seed.of(0))[0])
    said = message(DataError, estimate.server, None, state, total.aggregate())
    assert 'clients "a" and "b" have different secrets' in said


@pytest.mark.usefixtures("secret")
def test_other_rows_than_were_compared_are_refused() -> None:
    pipeline = fit(FitPipeline((ACROSS,)), visits())
    said = message(DataError, pipeline.selected, VISITS["b"][:3], "b")
    assert "compared 3 different keys of the training rows, and now there are 2" in said


def test_secret_is_named_and_never_given() -> None:
    assert "not the secret itself" in message(
        ConfigError, DropDuplicates, ["id"], secret="pa$$word of clients"
    )


@pytest.mark.usefixtures("secret")
def test_job_trains_on_each_patient_once() -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(size=60)
    table = pd.DataFrame({"patient": [f"p{i}" for i in range(60)], "x": x})
    # Of the 20 patients that both have, b has wrong labels.
    rows = {
        "a": Rows(table[:40], (x[:40] > 0).astype(int)),
        "b": Rows(
            table[20:].reset_index(drop=True),
            np.where(np.arange(40) < 20, x[20:] < 0, x[20:] > 0).astype(int),
        ),
    }
    clients = [ClientData(id, each, Rows(table, (x > 0).astype(int))) for id, each in rows.items()]
    step = fp.DropDuplicates(["patient"], leave_out=True, across=True)
    result = fp.train(
        fp.models.Logistic(), clients, preprocess=[step], algorithm=fp.FedAvg(lr=1.0), rounds=10
    )
    assert result.evaluation is not None
    assert result.evaluation.metrics["accuracy"] > 0.95
