"""Claims about what a statement says was told in clear: what was asked for, and nothing that was not."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

import fedpact as fp
from fedpact.channel.channel import Channel
from fedpact.engine.in_clear import told_in_clear
from fedpact.engine.in_process import InProcess
from fedpact.engine.parts import Parts
from fedpact.engine.population import InMemory
from fedpact.engine.preparing import prepare
from fedpact.engine.work import Rules

COLUMNS = "the names and kinds of each client's columns"
SHAPE = "the shape of each client's examples"
CLASSES = "which classes each client's training rows are of, and its rows held aside"
CATEGORIES = "the names of each client's categories"
WORDS = "the words in each client's texts"
HASHES = "hashes of each client's keys, of which the same are duplicates"
SUMS = "the sums that preparation was fitted from"
ALWAYS = {"who took part in which round", "when, and for how long", "each client's training loss"}
ROWS = "how many rows each client has"
TRAINED = "how many rows each client trains on"


def tables() -> list[fp.ClientData]:
    """Return two clients with a number, a category and a text, and the last row twice."""
    table = pd.DataFrame(
        {"age": [30.0, 40.0, 50.0, 50.0], "ward": ["a", "b", "a", "a"], "note": ["ill", "well", "ill", "ill"]}
    )
    return [fp.ClientData(id, fp.Rows(table, np.array([0, 0, 1, 1]))) for id in ("lyon", "nice")]


def arrays(*shape: int) -> list[fp.ClientData]:
    x = np.random.default_rng(0).integers(0, 255, size=(4, *shape)).astype(np.uint8)
    return [fp.ClientData(id, fp.Rows(x, np.array([0, 0, 0, 1]))) for id in ("lyon", "nice")]


def told(clients: list[fp.ClientData], *steps: Any, model: Any = None) -> set[str]:
    """Return what preparation and one round of averaging by numbers of rows tell."""
    parts = Parts.of(model or fp.models.Logistic(), fp.FedAvg(lr=0.1), list(steps), (), ())
    rules, seed = Rules(), fp.core.seeds.Seed.of(0)
    preparation = prepare(parts.model, parts.steps, InMemory(clients), InProcess(), rules, seed)
    phrases = told_in_clear(parts, Channel((), parts.algorithm), preparation, compared=False, evaluated=False)
    assert len(set(phrases)) == len(phrases)
    assert set(phrases) >= ALWAYS
    return set(phrases) - ALWAYS


def test_of_arrays_it_is_their_shape_and_of_no_column_a_name() -> None:
    assert told(arrays(3)) == {ROWS, SHAPE, CLASSES}


def test_of_images_it_is_their_shape_and_sums() -> None:
    assert told(arrays(1, 8, 8), fp.Normalize()) == {ROWS, SHAPE, CLASSES, SUMS}


@pytest.mark.parametrize(
    ("step", "named"),
    [
        (fp.OneHot(columns=["ward"]), {CATEGORIES}),
        (fp.OneHot(columns=["ward"], categories={"ward": ["a", "b"]}), set()),
        (fp.TargetEncode(columns=["ward"]), {CATEGORIES}),
        (fp.Impute("most_frequent", columns=["ward"], indicator=True), {CATEGORIES}),
        (fp.TfIdf(columns=["note"]), {WORDS}),
        (fp.TfIdf(columns=["note"], vocabulary=["ill", "well"]), set()),
        (fp.Standardize(columns=["age"]), set()),
    ],
    ids=repr,
)
def test_of_tables_it_is_what_steps_ask_each_client_for(step: Any, named: set[str]) -> None:
    others = [fp.OneHot(columns=["ward"], categories={"ward": ["a", "b"]}), fp.Drop(columns=["note"])]
    columns = getattr(step, "columns", ()) or ()
    kept = isinstance(step, fp.Impute)
    rest = [other for other in others if kept or not set(other.columns or ()) & set(columns)]
    assert told(tables(), step, *rest) == {ROWS, COLUMNS, CLASSES, SUMS} | named


def test_duplicates_that_are_looked_for_across_clients_tell_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDPACT_TEST_SECRET", "a secret of enough letters to be one")
    duplicates = fp.DropDuplicates(columns=["age"], across=True, secret="FEDPACT_TEST_SECRET")
    clients = tables()[:1] + [
        fp.ClientData("nice", fp.Rows(tables()[0].train.x.assign(age=[1.0, 2, 3, 4]), [0, 1, 0, 1]))
    ]
    rest = [fp.Drop(columns=["ward", "note"])]
    assert told(clients, duplicates, *rest) == {TRAINED, COLUMNS, CLASSES, SUMS, HASHES}
    assert HASHES not in told(clients, fp.DropDuplicates(columns=["age"]), *rest)


def test_numbers_to_predict_are_not_told() -> None:
    clients = [fp.ClientData("lyon", fp.Rows(np.ones((3, 1)), np.array([0.5, 1.5, 2.5])))]
    assert told(clients, model=fp.models.Linear()) == {ROWS, SHAPE}


def test_resampling_takes_no_sums_and_its_number_of_rows_tells_of_labels() -> None:
    balance = "what their number after resampling tells of the balance of a client's labels"
    assert told(arrays(3), fp.OverSample()) == {TRAINED, balance, SHAPE, CLASSES}
    counts = "how many training rows each client has of each class"
    assert told(arrays(3), fp.ExtraPasses()) == {TRAINED, balance, SHAPE, CLASSES, counts}
