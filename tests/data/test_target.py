import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.preprocessing import TargetEncoder

import fedpact as fp
from fedpact.core import ClientData, Rows
from fedpact.core.errors import ConfigError, DataError
from fedpact.core.model import Kind
from fedpact.data.agree import Labels
from fedpact.data.preprocess import FitPipeline, Pipeline, Standardize
from fedpact.data.preprocess.target import FittedTargetEncode, TargetEncode
from fedpact.data.preprocess.target_sums import fold_of
from tests.data.test_preprocess import fit
from tests.data.test_preprocess_errors import message

KINDS: dict[str, Labels] = {
    "binary": Labels("binary", ("no", "yes")),
    "multiclass": Labels("multiclass", ("a", "b", "c")),
    "regression": Labels("regression"),
}


def orders(kind: Kind | str, rows: int = 60) -> Rows:
    """Rows of two columns of categories, one with gaps, and labels that depend on them."""
    draw = np.random.default_rng(11)
    city = draw.choice(["Ulm", "Bonn", "Köln", "Jena", "Gera"], rows, p=[0.5, 0.3, 0.1, 0.06, 0.04])
    code = draw.choice([3, 10, 7], rows)
    x = pd.DataFrame(
        {"city": pd.Series(city).mask(draw.random(rows) < 0.1), "size": draw.normal(size=rows), "code": code}
    )
    score = draw.normal(size=rows) + (city == "Ulm") + 0.3 * code
    if kind == "regression":
        return Rows(x, 1e6 + score)
    classes = np.array(KINDS[kind].classes)
    return Rows(x, classes[np.digitize(score, np.quantile(score, np.arange(1, len(classes)) / len(classes)))])


def dealt(rows: Rows, owners: NDArray[np.int64]) -> list[ClientData]:
    return [
        ClientData(f"client {owner}", rows.take(np.flatnonzero(owners == owner)))
        for owner in np.unique(owners)
    ]


def fitted(kind: str, clients: list[ClientData], **settings: Any) -> tuple[Pipeline, FittedTargetEncode]:
    step = TargetEncode(("city", "code"), **settings)
    pipeline = fit(FitPipeline((step,), KINDS[kind]), clients)
    (encoding,) = pipeline.steps
    assert isinstance(encoding, FittedTargetEncode)
    return pipeline, encoding


def pooled_encoder(
    kind: str, smooth: Any, rows: Rows, of: NDArray[np.bool_] | slice = slice(None)
) -> TargetEncoder:
    target = "continuous" if kind == "regression" else kind
    x = rows.x[["city", "code"]].astype(object)
    return TargetEncoder(smooth=smooth, target_type=target).fit(x[of], rows.y[of])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("smooth", ["auto", 0, 2.5])
def test_rows_to_predict_are_encoded_as_by_scikit_learn_on_the_pooled_rows(kind: str, smooth: Any) -> None:
    rows = orders(kind)
    pipeline, _ = fitted(kind, dealt(rows, np.arange(60) % 4), smooth=smooth)
    unseen = pd.DataFrame({"city": ["Rom", None], "size": [0.0, 0.0], "code": [99, 3]})
    asked = pd.concat([rows.x, unseen], ignore_index=True)
    expected = pooled_encoder(kind, smooth, rows).transform(asked[["city", "code"]].astype(object))
    made = pipeline.transform(asked).drop(columns="size").to_numpy()
    np.testing.assert_allclose(made, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("smooth", ["auto", 2.5])
def test_training_rows_are_encoded_as_by_scikit_learn_on_the_rows_of_the_other_folds(
    kind: str, smooth: Any
) -> None:
    rows, owners = orders(kind), np.arange(60) % 4
    pipeline, encoding = fitted(kind, dealt(rows, owners), smooth=smooth, folds=3)
    made, folds = np.zeros((60, len(pipeline.feature_names_out))), np.zeros(60, int)
    for owner in range(4):
        mine = np.flatnonzero(owners == owner)
        folds[mine] = fold_of(encoding.stream, f"client {owner}", mine.size, 3)
        made[mine] = pipeline.matrix(rows.take(mine).x, training_of=f"client {owner}")
    encoded = [name != "size" for name in pipeline.feature_names_out]
    for fold in range(3):
        others = pooled_encoder(kind, smooth, rows, folds != fold)
        expected = others.transform(rows.x[["city", "code"]].astype(object)[folds == fold])
        np.testing.assert_allclose(made[folds == fold][:, encoded], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=5, deadline=None)
@given(owners=st.lists(st.integers(0, 5), min_size=30, max_size=30))
def test_encodings_by_all_rows_are_the_same_bits_for_any_partition_of_the_rows(
    kind: str, owners: list[int]
) -> None:
    rows = orders(kind, 30)
    clients = dealt(rows, np.array(owners))
    _, spread = fitted(kind, clients)
    _, pooled = fitted(kind, [ClientData("all", rows)])
    for name, encodings in pooled.encodings.items():
        assert spread.encodings[name].categories == encodings.categories
        assert json.dumps(spread.encodings[name].numbers[0]) == json.dumps(encodings.numbers[0])


def test_encodings_of_folds_are_the_same_bits_for_any_order_of_the_clients() -> None:
    rows, owners = orders("binary"), np.arange(60) % 3
    clients = dealt(rows, owners)
    forth, back = fitted("binary", clients)[0], fitted("binary", clients[::-1])[0]
    assert forth.to_json() == back.to_json()


@pytest.mark.parametrize("rows", [0, 1, 4, 5, 12, 1000])
def test_folds_are_as_even_as_can_be(rows: int) -> None:
    sizes = np.bincount(fold_of("00" * 32, "a", rows, 5), minlength=5)
    assert sizes.sum() == rows
    assert sizes.max() - sizes.min() <= 1


def test_one_row_clients_are_of_different_folds() -> None:
    folds = [fold_of("00" * 32, f"client {i}", 1, 5)[0] for i in range(50)]
    assert set(folds) == set(range(5))


def test_training_rows_do_not_see_their_own_label() -> None:
    # A category of one row says nothing about it: without the row there is only the mean of all others.
    labels = np.array(["no", "yes"] * 20)
    rows = Rows(pd.DataFrame({"city": [f"c{i}" for i in range(40)], "code": 1}), labels)
    (client,) = dealt(rows, np.zeros(40, int))
    pipeline, _ = fitted("binary", [client], smooth=0)
    assert pipeline.transform(rows.x)["city"].tolist() == [0, 1] * 20
    encoded = pipeline.transform(rows.x, training_of=client.id)["city"]
    assert encoded.between(0.3, 0.7).all()


def test_steps_behind_are_fitted_to_the_training_rows_as_they_are_encoded() -> None:
    rows = orders("binary")
    (client,) = dealt(rows, np.zeros(60, int))
    steps = (TargetEncode(), Standardize())
    pipeline = fit(FitPipeline(steps, KINDS["binary"]), [client])
    made = pipeline.matrix(rows.x, training_of=client.id)
    np.testing.assert_allclose(made.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(made.std(axis=0), 1, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_rare_categories_are_encoded_as_unknown_ones(kind: str) -> None:
    rows = orders(kind)
    pipeline, encoding = fitted(kind, dealt(rows, np.arange(60) % 4), min_count=8)
    counts = rows.x["city"].value_counts()
    kept = [each for each in encoding.encodings["city"].categories if each is not None]
    assert kept == sorted(counts.index[counts >= 8])
    rare = pd.DataFrame({"city": [counts.index[counts < 8][0], "Rom"], "size": 0.0, "code": 3})
    first, second = pipeline.matrix(rare)
    assert first.tolist() == second.tolist()
    mean = (
        rows.y if kind == "regression" else (rows.y[:, None] == np.array(KINDS[kind].classes))[:, 1:2]
    ).mean(axis=0)
    assert np.isclose(pipeline.matrix(rare), mean, rtol=1e-12).any()


def test_columns_of_several_classes_are_named_after_them() -> None:
    pipeline, _ = fitted("multiclass", dealt(orders("multiclass"), np.arange(60) % 2))
    names = ("city:a", "city:b", "city:c", "size", "code:a", "code:b", "code:c")
    assert pipeline.feature_names_out == names


def test_declared_categories_are_asked_of_nobody() -> None:
    clients = dealt(orders("binary"), np.arange(60) % 2)
    asked = fitted("binary", clients)[1].encodings["code"]
    declared = fitted("binary", clients, categories={"city": ["Ulm"], "code": [3, 10, 7]})[1].encodings
    at = [asked.categories.index(each) for each in (3, 10, 7)]
    assert [declared["code"].numbers[0][i] for i in range(3)] == [asked.numbers[0][i] for i in at]
    assert declared["city"].categories == ("Ulm", None)


def test_test_rows_change_nothing() -> None:
    rows = orders("binary")
    with_tests = [
        ClientData(each.id, each.train, orders("binary", 20)) for each in dealt(rows, np.arange(60) % 2)
    ]
    alone = fitted("binary", dealt(rows, np.arange(60) % 2))[0]
    assert fitted("binary", with_tests)[0].to_json() == alone.to_json()


@pytest.mark.parametrize("kind", KINDS)
def test_saved_encodings_prepare_rows_to_the_same_bits(kind: str) -> None:
    rows = orders(kind)
    pipeline, _ = fitted(kind, dealt(rows, np.arange(60) % 2))
    loaded = Pipeline.from_json(json.loads(json.dumps(pipeline.to_json())))
    assert loaded == pipeline
    for whose in (None, "client 0"):
        assert (
            loaded.matrix(rows.x, training_of=whose).tobytes()
            == pipeline.matrix(rows.x, training_of=whose).tobytes()
        )


def test_model_is_trained_on_rows_encoded_out_of_fold_and_judged_on_the_others() -> None:
    rows = orders("binary")
    clients = fp.clients(
        {f"c{i}": (rows.take(np.arange(60)[i::3]).x, rows.y[i::3]) for i in range(3)}, test=0.25
    )
    result = fp.train(
        fp.models.Logistic(), clients, preprocess=[fp.TargetEncode()], algorithm=fp.FedAvg(lr=0.1), rounds=2
    )
    preparation = result.fitted.preparation
    assert preparation.pipeline is not None
    for client in clients:
        made = preparation.client(client, "float64")
        train = preparation.pipeline.matrix(client.train.x, training_of=client.id)
        assert made.train.x.tolist() == train.tolist() != preparation.pipeline.matrix(client.train.x).tolist()
        assert client.test is not None
        assert made.test is not None
        assert made.test.x.tolist() == preparation.pipeline.matrix(client.test.x).tolist()


def test_random_categories_do_not_look_like_labels() -> None:
    draw = np.random.default_rng(0)
    x = pd.DataFrame({"city": draw.integers(0, 200, 400).astype(str), "code": 0})
    rows = Rows(x, np.where(draw.random(400) < 0.5, "no", "yes"))
    pipeline, _ = fitted("binary", dealt(rows, np.zeros(400, int)), smooth=1)
    truth = (rows.y == "yes").astype(float)
    leaky = np.corrcoef(pipeline.transform(rows.x)["city"], truth)[0, 1]
    honest = np.corrcoef(pipeline.transform(rows.x, training_of="client 0")["city"], truth)[0, 1]
    assert leaky > 0.6
    assert abs(honest) < 0.15


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"folds": 1}, "folds is 1"),
        ({"smooth": "atuo"}, 'Did you mean "auto"?'),
        ({"smooth": -1.0}, "smooth is -1"),
        ({"min_count": 0}, "min_count is 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], said: str) -> None:
    assert said in message(ConfigError, TargetEncode, **settings)


def test_rows_without_labels_are_refused() -> None:
    said = message(
        ConfigError, fit, FitPipeline((TargetEncode(),)), dealt(orders("binary"), np.zeros(60, int))
    )
    assert said == "TargetEncode is fitted to labels, and these rows have none."


def test_arrays_of_labels_are_refused() -> None:
    algorithm = FitPipeline((TargetEncode(),), Labels("binary", (0, 1), (4,)))
    said = message(ConfigError, fit, algorithm, dealt(orders("binary"), np.zeros(60, int)))
    assert "one label for each row" in said


def test_single_row_has_no_others_to_be_encoded_by() -> None:
    said = message(DataError, fitted, "binary", dealt(orders("binary").take(np.array([0])), np.zeros(1, int)))
    assert "all rows are in one of 5 folds" in said
