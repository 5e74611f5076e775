"""Claims about how raw rows become examples and labels: agreed on by all clients, applied to each alike."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fedpact as fp
from fedpact.core.errors import DataError, ModelError
from fedpact.core.seeds import Seed
from fedpact.data.agree import Labels, labels_of
from fedpact.engine.in_process import InProcess
from fedpact.engine.population import InMemory
from fedpact.engine.preparation import Preparation
from fedpact.engine.preparing import prepare
from fedpact.engine.work import Rules
from tests.engine.runs import as_tables, same_bits, two_classes


def prepared(clients: list[fp.ClientData], *steps: Any, model: Any = None) -> Preparation:
    rules = Rules(fatal=(DataError,))
    return prepare(model, steps, InMemory(clients), InProcess(), rules, Seed.of(0))


def labelled(*labels: Any, test: Any = None) -> list[fp.ClientData]:
    """Return a client for each list of labels, whose only feature is 0."""
    held_out = None if test is None else fp.Rows(np.zeros((len(test), 1)), np.asarray(test))
    return [
        fp.ClientData(chr(97 + i), fp.Rows(np.zeros((len(y), 1)), np.asarray(y)), held_out)
        for i, y in enumerate(labels)
    ]


@pytest.mark.parametrize(
    ("labels", "kind", "classes"),
    [
        ([[0, 1], [1, 1]], "binary", (0, 1)),
        ([[2, 1], [1, 3]], "multiclass", (1, 2, 3)),
        ([[1.0, 2.0], [2, 1]], "binary", (1, 2)),
        ([[True, False], [True, True]], "binary", (0, 1)),
        ([[True, False], [1.0, 0.0]], "binary", (0, 1)),
        ([["b", "a"], ["c", "c"]], "multiclass", ("a", "b", "c")),
        ([["10", "9"], ["9", "9"]], "binary", ("10", "9")),
        ([[0.5, 1.0], [1.0, 2.0]], "regression", ()),
        ([[0, 1], [0.25, 1.0]], "regression", ()),
        ([list(range(1001)), [0, 1]], "regression", ()),
        ([[-1, 1], [1, 1]], "binary", (-1, 1)),
    ],
)
def test_kind_and_classes_of_labels_are_told_from_all_clients(
    labels: Any, kind: str, classes: tuple[Any, ...]
) -> None:
    found = prepared(labelled(*labels)).labels
    assert found == Labels(kind, classes)
    assert [type(c) for c in found.classes] == [type(c) for c in classes]


def test_class_that_only_test_rows_have_is_a_class() -> None:
    assert prepared(labelled([0, 1], [1, 1], test=[2])).labels.classes == (0, 1, 2)


def test_model_that_predicts_numbers_makes_whole_labels_numbers() -> None:
    assert prepared(labelled([0, 1], [1, 5]), model=fp.models.Linear()).labels == Labels("regression")


@given(
    labels=st.lists(
        st.one_of(
            st.lists(st.integers(-9, 9), min_size=1),
            st.lists(st.integers(-9, 9).map(float), min_size=1),
            st.lists(st.booleans(), min_size=1),
        ),
        min_size=1,
        max_size=4,
    ).filter(lambda each: len({float(label) for labels in each for label in labels}) > 1)
)
def test_index_of_a_label_is_its_place_among_all_clients_labels(labels: list[list[Any]]) -> None:
    clients = labelled(*labels)
    found = prepared(clients).labels
    everything = sorted({float(label) for each in labels for label in each})
    for client, own in zip(clients, labels, strict=True):
        index = found.encode(labels_of(client.train))
        assert index.dtype == np.int64
        assert [everything[i] for i in index] == [float(label) for label in own]


def test_examples_of_arrays_keep_their_shape_and_get_the_dtype_of_the_model() -> None:
    images = np.arange(24, dtype=np.float64).reshape(2, 3, 4)
    client = fp.ClientData("a", fp.Rows(images, np.array([0, 1])))
    preparation = prepared([client])
    assert preparation.schema.shape == (3, 4)
    assert same_bits(preparation.client(client, "float32").train.x, images.astype(np.float32))


def test_narrower_floats_are_left_to_a_model_that_widens_them_itself() -> None:
    preparation = prepared(two_classes(2, 10, 3))
    x = np.array([[0.1, 0.2, 0.3]])
    given = {name: x.astype(name) for name in ("float16", "float32", "float64", "longdouble")}
    kept = {name: preparation.examples(x, "float64", narrower=True) for name, x in given.items()}
    assert [kept[name].dtype.name for name in given] == ["float16", "float32", "float64", "float64"]
    assert kept["float32"] is given["float32"]
    with pytest.raises(DataError, match=r"too large for float64 in 1 row\(s\), first in row 1"):
        preparation.examples(np.full((1, 3), np.inf, np.float32), "float64", narrower=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.bool_])
def test_whole_numbers_in_arrays_stay_as_they_are(dtype: Any) -> None:
    x = np.array([[0, 1], [1, 1]], dtype)
    client = fp.ClientData("a", fp.Rows(x, np.array([0, 1])))
    assert prepared([client]).client(client, "float32").train.x.dtype == dtype


def test_columns_of_a_table_are_a_matrix_without_any_step() -> None:
    clients = as_tables(two_classes())
    preparation = prepared(clients)
    train = preparation.client(clients[0], "float64").train
    assert preparation.schema.features == ("p", "q", "r")
    assert same_bits(train.x, np.ascontiguousarray(two_classes()[0].train.x))


def test_steps_are_those_of_scikit_learn_on_the_pooled_rows() -> None:
    clients = as_tables(two_classes())
    for client in clients:
        client.train.x.loc[::4, "q"] = np.nan
    preparation = prepared(clients, fp.Impute("median"), fp.Standardize())
    theirs = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    theirs.fit(pd.concat([c.train.x for c in clients]))
    for client in clients:
        ours = preparation.client(client, "float64")
        np.testing.assert_allclose(ours.train.x, theirs.transform(client.train.x), rtol=1e-12)
        assert client.test is not None
        assert ours.test is not None
        np.testing.assert_allclose(ours.test.x, theirs.transform(client.test.x), rtol=1e-12)


def test_arrays_with_two_dimensions_are_prepared_as_tables_are() -> None:
    arrays, tables = two_classes(), as_tables(two_classes())
    by_array, by_table = (prepared(clients, fp.Standardize()) for clients in (arrays, tables))
    assert by_array.schema.features == ("x0", "x1", "x2")
    for array, table in zip(arrays, tables, strict=True):
        ours, theirs = by_array.client(array, "float64"), by_table.client(table, "float64")
        assert same_bits(ours.train.x, theirs.train.x)


@pytest.mark.parametrize("table", [False, True])
def test_preparation_survives_json(table: bool) -> None:
    clients = as_tables(two_classes()) if table else two_classes()
    preparation = prepared(clients, *([fp.Impute(), fp.Standardize()] if table else []))
    again = Preparation.from_json(json.loads(json.dumps(preparation.to_json())))
    assert again == preparation
    assert same_bits(
        again.client(clients[0], "float64").train, preparation.client(clients[0], "float64").train
    )


def test_client_that_joins_later_is_prepared_by_what_was_fitted() -> None:
    preparation = prepared(two_classes(), fp.Standardize())
    shifted = fp.ClientData("z", fp.Rows(two_classes()[0].train.x + 100, two_classes()[0].train.y))
    assert preparation.client(shifted, "float64").train.x.mean() > 50


def test_predictions_stand_for_the_classes() -> None:
    binary = Preparation(Labels("binary", ("no", "yes")), (1,), None)
    assert binary.answers(np.array([0.2, 0.5, 0.8])).tolist() == ["no", "no", "yes"]
    three = Preparation(Labels("multiclass", (3, 5, 7)), (1,), None)
    assert three.answers(np.array([[0.1, 0.2, 0.7], [0.5, 0.5, 0.0]])).tolist() == [7, 3]
    numbers = Preparation(Labels("regression"), (1,), None)
    assert numbers.answers(np.array([1.5])).tolist() == [1.5]


def test_value_too_large_for_the_dtype_of_the_model_is_refused() -> None:
    clients = two_classes()
    clients[2].train.x[4, 1] = 1e300
    preparation = prepared(clients)
    assert preparation.client(clients[2], "float64").train.x.max() == 1e300
    with pytest.raises(
        DataError,
        match=r'client "c", training rows: a value is .* too large for float32 in 1 row\(s\), first in row 5',
    ):
        preparation.client(clients[2], "float32")


def test_naive_bayes_refuses_numbers_to_predict() -> None:
    with pytest.raises(ModelError, match="GaussianNB needs flat rows of numbers and labels that are classes"):
        fp.train(fp.models.GaussianNB(), labelled([0.5, 1.5], [2.5]))
