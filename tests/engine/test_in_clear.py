"""Claims about what a statement says was told in clear: what was asked for, and nothing that was not."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

import fedpact as fp
from fedpact.channel.channel import Channel
from fedpact.core.seeds import Seed
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


def tables(column: str) -> list[fp.ClientData]:
    """Return two clients with one column each, of a number, a category or a text."""
    values = {
        "age": [30.0, 40.0, 50.0, 60.0],
        "ward": ["a", "b", "a", None],
        "note": ["ill", "well", "ill", ""],
    }
    x = pd.DataFrame({column: values[column]})
    return [fp.ClientData(id, fp.Rows(x, np.array([0, 0, 1, 1]))) for id in ("lyon", "nice")]


def arrays(*shape: int) -> list[fp.ClientData]:
    x = np.random.default_rng(0).integers(0, 255, size=(4, *shape)).astype(np.uint8)
    return [fp.ClientData(id, fp.Rows(x, np.array([0, 0, 0, 1]))) for id in ("lyon", "nice")]


def told(clients: list[fp.ClientData], *steps: Any, model: Any = None) -> set[str]:
    """Return what preparation and one round of averaging by numbers of rows tell."""
    parts = Parts.of(model or fp.models.Logistic(), fp.FedAvg(lr=0.1), list(steps), (), ())
    rules, seed = Rules(), Seed.of(0)
    preparation = prepare(parts.model, parts.steps, InMemory(clients), InProcess(), rules, seed)
    phrases = told_in_clear(parts, Channel((), parts.algorithm), preparation, compared=False, evaluated=False)
    assert len(set(phrases)) == len(phrases)
    assert set(phrases) >= ALWAYS
    return set(phrases) - ALWAYS


def test_of_arrays_it_is_their_shape_and_of_no_column_a_name() -> None:
    assert told(arrays(3)) == {ROWS, SHAPE, CLASSES}


def test_of_images_it_is_their_shape_and_sums() -> None:
    assert told(arrays(1, 8, 8), fp.NormalizeImages()) == {ROWS, SHAPE, CLASSES, SUMS}


WARDS = {"ward": ["a", "b"]}


@pytest.mark.parametrize(
    ("column", "steps", "named"),
    [
        ("age", [fp.Standardize()], set()),
        ("ward", [fp.OneHot()], {CATEGORIES}),
        ("ward", [fp.OneHot(categories=WARDS)], set()),
        ("ward", [fp.TargetEncode()], {CATEGORIES}),
        ("ward", [fp.TargetEncode(categories=WARDS)], set()),
        ("ward", [fp.Impute("most_frequent", indicator=True), fp.OneHot(categories=WARDS)], {CATEGORIES}),
        ("note", [fp.TfIdf(["note"])], set()),
        ("note", [fp.TfIdf(["note"], vocabulary="agreed")], {WORDS}),
        ("note", [fp.TfIdf(["note"], vocabulary=["ill", "well"])], set()),
    ],
    ids=str,
)
def test_of_tables_it_is_what_steps_ask_each_client_for(
    column: str, steps: list[Any], named: set[str]
) -> None:
    assert told(tables(column), *steps) == {ROWS, COLUMNS, CLASSES, SUMS} | named


def test_duplicates_that_are_looked_for_across_clients_tell_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDPACT_TEST_SECRET", "a secret of enough letters to be one")
    across = fp.DropDuplicates(by=["age"], across=True, secret="FEDPACT_TEST_SECRET")
    lyon, nice = tables("age")
    others = nice.train.x.assign(age=[30.0, 55.0, 65.0, 75.0])
    clients = [lyon, fp.ClientData("nice", fp.Rows(others, nice.train.y))]
    assert told(clients, across) == {TRAINED, COLUMNS, CLASSES, SUMS, HASHES}
    assert told(clients, fp.DropDuplicates(by=["age"])) == {TRAINED, COLUMNS, CLASSES, SUMS}


def test_numbers_to_predict_are_not_told() -> None:
    clients = [fp.ClientData("lyon", fp.Rows(np.ones((3, 1)), np.array([0.5, 1.5, 2.5])))]
    assert told(clients, model=fp.models.Linear()) == {ROWS, SHAPE}


def test_resampling_takes_no_sums_and_its_number_of_rows_tells_of_labels() -> None:
    balance = "what their number after resampling tells of the balance of a client's labels"
    assert told(arrays(3), fp.OverSample()) == {TRAINED, balance, SHAPE, CLASSES}
    counts = "how many training rows each client has of each class"
    assert told(arrays(3), fp.ExtraPasses()) == {TRAINED, balance, SHAPE, CLASSES, counts}
