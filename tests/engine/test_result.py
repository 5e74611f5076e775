"""Claims about what a run gives: predictions for raw rows, tables that add up, and files that hold all of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, log_loss

import fedpact as fp
from fedpact.core.errors import CheckpointError, DataError, FedpactError, ModelError
from fedpact.store.modelfile import load_model, save_model
from tests.engine.runs import as_tables, contents, outcome, same_bits, two_classes

COLOURS = np.array(["red", "green", "blue"])


def people(count: int = 3, kind: str = "binary") -> list[fp.ClientData]:
    """Return clients with a column of text, a numeric column with gaps, and labels of a kind."""
    random = np.random.default_rng(1)

    def rows(n: int) -> fp.Rows:
        age, colour = random.normal(50, 10, n), random.integers(0, 3, n)
        score = age / 10 + colour + random.normal(size=n)
        labels = {
            "binary": np.where(score > 6, "ill", "well"),
            "multiclass": np.digitize(score, [5.5, 6.5]) * 10,
            "regression": score,
        }[kind]
        age[::7] = np.nan
        return fp.Rows(pd.DataFrame({"age": age, "colour": COLOURS[colour]}), labels)

    return [fp.ClientData(f"p{i}", rows(30 + i), rows(12)) for i in range(count)]


MODELS = {
    "binary": fp.models.Logistic(),
    "multiclass": fp.models.Softmax(),
    "regression": fp.models.Linear(),
}
STEPS = [fp.Impute("median"), fp.Standardize(), fp.OneHot()]


def trained(kind: str = "binary", **changed: Any) -> fp.Result:
    settings = {"algorithm": fp.FedAvg(lr=0.1), "preprocess": STEPS, "rounds": 3, **changed}
    return fp.train(MODELS[kind], people(kind=kind), **settings)


@pytest.fixture(scope="module")
def result() -> fp.Result:
    return trained()


RAW = pd.DataFrame({"age": [30.0, 70.0, np.nan], "colour": ["red", "blue", "green"]})


def test_predictions_are_the_labels_that_the_clients_use(result: fp.Result) -> None:
    assert set(result.predict(pd.concat([c.train.x for c in people()]))) == {"ill", "well"}


def test_columns_are_found_by_name_whatever_their_order(result: fp.Result) -> None:
    expected = result.predict_proba(RAW)
    assert same_bits(result.predict_proba(RAW[["colour", "age"]]), expected)
    assert same_bits(result.predict_proba(RAW.assign(note="x", other=1.0)), expected)


def test_index_of_the_rows_does_not_matter(result: fp.Result) -> None:
    turned = result.predict_proba(RAW.set_axis(["x", "y", "z"])[::-1])
    assert same_bits(turned[::-1].copy(), result.predict_proba(RAW))


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.csv.gz", "rows.parquet"])
def test_rows_may_be_in_a_file(name: str, result: fp.Result, tmp_path: Path) -> None:
    path = tmp_path / name
    if path.suffix == ".parquet":
        RAW.to_parquet(path)
    else:
        RAW.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    assert same_bits(result.predict_proba(path), result.predict_proba(RAW))
    assert list(result.predict(str(path))) == list(result.predict(RAW))


def test_missing_column_is_named(result: fp.Result) -> None:
    with pytest.raises(
        DataError, match=r'^the rows to predict: there is no column "age"\. Columns: colour\.$'
    ):
        result.predict(RAW[["colour"]])
    with pytest.raises(DataError, match=r'there is no column "age"\. Did you mean "Age"\?'):
        result.predict(RAW.rename(columns={"age": "Age"}))


def test_text_in_a_numeric_column_is_named_with_its_row(result: fp.Result) -> None:
    with pytest.raises(DataError, match=r'the rows to predict: column "age".*row 2'):
        result.predict(RAW.assign(age=[1, "old", 3]))


def test_missing_file_is_named(result: fp.Result, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the rows to predict: there is no file .*none\.csv"):
        result.predict(tmp_path / "none.csv")


def test_probabilities_are_those_of_both_classes_in_order(result: fp.Result) -> None:
    probabilities = result.predict_proba(RAW)
    assert probabilities.shape == (3, 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert list(result.predict(RAW)) == ["ill" if ill > 0.5 else "well" for ill in probabilities[:, 0]]


def test_probabilities_of_three_classes_have_a_column_for_each() -> None:
    result = trained("multiclass")
    probabilities = result.predict_proba(RAW)
    assert probabilities.shape == (3, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert list(result.predict(RAW)) == [10 * int(row.argmax()) for row in probabilities]


def test_regression_predicts_numbers_and_has_no_probabilities() -> None:
    result = trained("regression")
    assert result.predict(RAW).dtype == np.float64
    with pytest.raises(ModelError, match="a regression has no class probabilities; use predict"):
        result.predict_proba(RAW)


def test_arrays_are_predicted_for_a_model_of_arrays() -> None:
    clients = two_classes()
    result = fp.train(fp.models.Logistic(), clients, rounds=2)
    x = clients[0].train.x
    assert same_bits(result.predict_proba(x.tolist()), result.predict_proba(x))
    for wrong, said in [
        (x[:, :2], r"have shape \[2\]; the model is made for \[3\]"),
        (x[0], r"have shape \[\]"),
    ]:
        with pytest.raises(DataError, match=f"^the rows to predict: the examples {said}"):
            result.predict(wrong)
    x[1, 2] = np.nan
    with pytest.raises(DataError, match=r"the rows to predict: a value is missing.*first in row 2"):
        result.predict(x)


def test_prediction_of_no_rows_is_no_labels(result: fp.Result) -> None:
    assert len(result.predict(RAW[:0])) == 0
    assert result.predict_proba(RAW[:0]).shape == (0, 2)


def test_evaluation_is_that_of_the_pooled_test_rows(result: fp.Result) -> None:
    tests = [c.test for c in people() if c.test is not None]
    y = np.concatenate([rows.y for rows in tests if rows.y is not None])
    probabilities = result.predict_proba(pd.concat([rows.x for rows in tests]))
    assert result.evaluation is not None
    # Classes are in the order of their names, so that "well" is class 1.
    metrics = result.evaluation.metrics
    assert metrics["accuracy"] == accuracy_score(y == "well", probabilities[:, 1] > 0.5)
    assert metrics["log_loss"] == pytest.approx(log_loss(y == "well", probabilities[:, 1]), rel=1e-12)


def test_evaluation_of_a_client_is_that_of_its_own_rows(result: fp.Result) -> None:
    test = people()[1].test
    assert test is not None
    assert test.y is not None
    assert result.clients.loc["p1", "accuracy"] == accuracy_score(test.y, result.predict(test.x))


@pytest.mark.parametrize("kind", MODELS)
def test_saved_result_is_read_back_to_the_last_bit(kind: str, tmp_path: Path) -> None:
    result = trained(kind, evaluate_every=2)
    result.save(tmp_path)
    loaded = fp.Result.load(tmp_path)
    assert loaded.job == result.job
    assert same_bits(outcome(loaded), outcome(result))
    assert loaded.history["seconds"].tolist() == result.history["seconds"].tolist()
    assert loaded.history.dtypes.equals(result.history.dtypes)
    assert loaded.clients.dtypes.equals(result.clients.dtypes)
    assert same_bits(loaded.predict(RAW), result.predict(RAW))
    assert loaded.fitted.preparation == result.fitted.preparation


def test_result_that_is_saved_again_has_the_same_files(result: fp.Result, tmp_path: Path) -> None:
    result.save(tmp_path / "one")
    fp.Result.load(tmp_path / "one").save(tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize(
    "names",
    [
        ["1", "2", "3"],
        ["007", "08", "9e3"],
        ["NA", "nan", "None"],
        ["a,b", 'say "x"', "line\nbreak"],
        ["医院", "hôpital", " space "],
    ],
    ids=repr,
)
def test_clients_keep_their_names_in_a_saved_result(names: list[str], tmp_path: Path) -> None:
    clients = [fp.ClientData(name, c.train, c.test) for name, c in zip(names, two_classes(3), strict=True)]
    result = fp.train(fp.models.Logistic(), clients, rounds=1)
    result.save(tmp_path)
    loaded = fp.Result.load(tmp_path)
    assert list(loaded.clients.index) == sorted(names)
    assert same_bits(outcome(loaded), outcome(result))


def test_metric_that_is_not_defined_is_saved_as_such(tmp_path: Path) -> None:
    clients = [
        fp.ClientData(c.id, c.train, c.train.take(np.flatnonzero(c.train.y == 0))) for c in two_classes()
    ]
    result = fp.train(fp.models.Logistic(), clients, rounds=2)
    assert np.isnan(result.history["auc"]).all()
    result.save(tmp_path)
    assert same_bits(outcome(fp.Result.load(tmp_path)), outcome(result))


def test_run_folder_holds_the_result_and_the_model_file(result: fp.Result, tmp_path: Path) -> None:
    whole = trained(folder=tmp_path)
    assert same_bits(outcome(fp.Result.load(tmp_path)), outcome(result))
    assert same_bits(outcome(fp.Result.load(tmp_path)), outcome(whole))
    for place in (tmp_path / "model.safetensors", str(tmp_path)):
        assert same_bits(fp.Fitted.load(place).predict_proba(RAW), result.predict_proba(RAW))


def test_fitted_model_is_a_file_of_its_own(result: fp.Result, tmp_path: Path) -> None:
    result.fitted.save(tmp_path / "model.safetensors")
    loaded = fp.Fitted.load(tmp_path / "model.safetensors")
    assert same_bits(loaded.predict_proba(RAW), result.predict_proba(RAW))
    assert loaded.spec == result.job.model


def test_model_file_says_which_job_made_it(tmp_path: Path) -> None:
    result = trained(folder=tmp_path)
    _, metadata = load_model(tmp_path / "model.safetensors")
    assert metadata["job"] == result.job.digest
    assert metadata["model"] == result.job.model


def test_saved_model_is_evaluated_as_the_result_was(result: fp.Result, tmp_path: Path) -> None:
    result.save(tmp_path)
    assert result.evaluation is not None
    expected = result.evaluation.to_json()
    for model in (result, result.fitted, tmp_path / "model.safetensors", str(tmp_path)):
        assert fp.evaluate(model, people()).to_json() == expected
    assert fp.Result.load(tmp_path).evaluate(people()).to_json() == expected


def test_kept_checkpoint_is_the_model_of_its_round(tmp_path: Path) -> None:
    keep = fp.Keep(last=1, best="log_loss", each=2)
    whole = trained(folder=tmp_path, keep=keep, algorithm=fp.SCAFFOLD(lr=0.1))
    checkpoint = tmp_path / "checkpoints/round-00000002.safetensors"
    evaluation = fp.evaluate(checkpoint, people())
    assert evaluation.metrics["log_loss"] == whole.history["log_loss"][2]
    shorter = trained(rounds=2, algorithm=fp.SCAFFOLD(lr=0.1))
    loaded = fp.Fitted.load(str(checkpoint))
    assert loaded.weights == shorter.weights
    assert loaded.spec == shorter.fitted.spec
    assert same_bits(loaded.predict_proba(RAW), shorter.predict_proba(RAW))


def test_checkpoint_of_a_run_that_was_stopped_becomes_a_model_file(tmp_path: Path) -> None:
    def stop(record: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(folder=tmp_path / "run", on_round=stop)
    loaded = fp.Fitted.load(tmp_path / "run/checkpoints/round-00000001.safetensors")
    loaded.save(tmp_path / "model.safetensors")
    again = trained(rounds=2, initial=tmp_path / "model.safetensors")
    assert loaded.weights == trained(rounds=1).weights
    assert fp.Fitted.load(tmp_path / "model.safetensors").weights == loaded.weights
    assert again.weights != loaded.weights


def test_checkpoint_of_a_module_given_in_python_needs_the_module_with_its_frozen_values(
    tmp_path: Path,
) -> None:
    torch = pytest.importorskip("torch")

    def network(seed: int) -> Any:
        torch.manual_seed(seed)
        module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
        module[0].requires_grad_(False)
        return module

    whole = fp.train(network(0), two_classes(), rounds=1, folder=tmp_path)
    checkpoint = tmp_path / "checkpoints/round-00000001.safetensors"
    x = two_classes()[0].test.x
    assert same_bits(fp.Fitted.load(checkpoint, network(0)).predict_proba(x), whole.predict_proba(x))
    with pytest.raises(ModelError, match="give a module of the same architecture"):
        fp.Fitted.load(checkpoint)
    with pytest.raises(ModelError, match="has other frozen parameters than the run"):
        fp.Fitted.load(checkpoint, network(1))


def test_checkpoint_without_its_run_or_damaged_is_no_model(tmp_path: Path) -> None:
    trained(folder=tmp_path / "run")
    name = "round-00000003.safetensors"
    data = (tmp_path / "run/checkpoints" / name).read_bytes()
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=r"no job\.json\. Read it where its run saved it"):
        fp.Fitted.load(tmp_path / name)
    (tmp_path / "run/checkpoints" / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="is corrupt"):
        fp.Fitted.load(tmp_path / "run/checkpoints" / name)


def test_evaluation_needs_rows_held_aside(result: fp.Result) -> None:
    with pytest.raises(
        DataError, match="no client holds test rows aside, so there is nothing to evaluate on"
    ):
        fp.evaluate(result, [fp.ClientData(c.id, c.train) for c in people()])


def test_client_that_cannot_be_evaluated_is_named_and_left_out(result: fp.Result) -> None:
    clients = people()
    odd = fp.ClientData("odd", clients[0].train, fp.Rows(RAW, np.array(["ill", "dead", "well"])))
    evaluation = fp.evaluate(result, [*clients, odd])
    assert set(evaluation.rows) == {"p0", "p1", "p2"}
    assert evaluation.failures == {
        "odd": 'client "odd", test rows: the label in row 2 is of no class that the model knows (ill, well).'
    }


@pytest.mark.parametrize("name", ["model.safetensors", "result.json", "history.csv", "clients.csv"])
def test_result_without_one_of_its_files_is_refused(name: str, result: fp.Result, tmp_path: Path) -> None:
    result.save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ModelError, match=name):
        fp.Result.load(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "result.json", "history.csv", "clients.csv"])
@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"a,b\n1,2,3,4\n", b"\xff\xfe\x00"])
def test_result_with_a_damaged_file_is_refused(
    name: str, content: bytes, result: fp.Result, tmp_path: Path
) -> None:
    result.save(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=str(tmp_path)):
        fp.Result.load(tmp_path)


def test_empty_folder_holds_no_result(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r'holds no finished run: ".*result\.json" is missing'):
        fp.Result.load(tmp_path)


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"model": None, "preparation": None},
        {"model": {"name": "Nothing"}, "preparation": None},
        {"preparation": {"kind": "binary", "classes": [0, 1], "shape": [3], "pipeline": None}},
        {
            "model": {"name": "Nope"},
            "preparation": {"kind": "binary", "classes": [0, 1], "shape": [3], "pipeline": None},
        },
    ],
)
def test_model_file_without_what_belongs_to_a_model_is_refused(
    metadata: dict[str, Any], result: fp.Result, tmp_path: Path
) -> None:
    save_model(tmp_path / "model.safetensors", result.weights, metadata)
    with pytest.raises(ModelError, match=r'the model in ".*model\.safetensors" cannot be built'):
        fp.Fitted.load(tmp_path / "model.safetensors")


def test_model_file_is_refused_for_another_model(result: fp.Result, tmp_path: Path) -> None:
    result.fitted.save(tmp_path / "model.safetensors")
    with pytest.raises(
        ModelError, match="Softmax predicts three or more classes, but the labels are two classes"
    ):
        fp.Fitted.load(tmp_path / "model.safetensors", fp.models.Softmax())
    with pytest.raises(ModelError, match='it lacks "prior"'):
        fp.Fitted.load(tmp_path / "model.safetensors", fp.models.GaussianNB())


def test_result_cannot_be_saved_into_a_file(result: fp.Result, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FedpactError, match="file"):
        result.save(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_history_has_one_row_for_each_round() -> None:
    history = trained(rounds=5).history
    assert list(history.index) == [1, 2, 3, 4, 5]
    assert history.index.name == "round"
    assert history["train_loss"].notna().all()


def test_train_loss_of_the_first_round_is_the_log_of_the_number_of_classes() -> None:
    # From zeros, by one step over all rows, every class is equally likely.
    step = fp.FedAvg(lr=0.1, local_steps=1, batch_size=None)
    assert trained(algorithm=step).history["train_loss"].iloc[0] == pytest.approx(np.log(2))
    assert trained("multiclass", algorithm=step).history["train_loss"].iloc[0] == pytest.approx(np.log(3))


@pytest.mark.parametrize("algorithm", [fp.FedAvg(lr=0.1), fp.SCAFFOLD(lr=0.1)], ids=["FedAvg", "SCAFFOLD"])
@pytest.mark.parametrize("cohort", [None, 2])
def test_bytes_are_those_of_a_hand_count(algorithm: Any, cohort: int | None) -> None:
    result = fp.train(fp.models.Logistic(), two_classes(), algorithm=algorithm, cohort=cohort, rounds=3)
    asked = cohort or 4
    # Three coefficients and an intercept in float64; with SCAFFOLD a control variate beside the model, both ways.
    vectors = 1 if isinstance(algorithm, fp.FedAvg) and type(algorithm) is fp.FedAvg else 2
    down = asked * vectors * 4 * 8
    # The loss and the number of rows go up too, 8 bytes each.
    up = asked * (vectors * 4 * 8 + 2 * 8)
    assert result.history["download_bytes"].tolist() == [down] * 3
    assert result.history["upload_bytes"].tolist() == [up] * 3
    assert (result.download_bytes, result.upload_bytes) == (3 * down, 3 * up)


def test_bytes_of_a_newton_step_are_those_of_a_hand_count() -> None:
    result = fp.train(fp.models.Logistic(), two_classes(), algorithm=fp.Newton(), rounds=1)
    # Down four weights. Up a loss, four of a gradient, ten of half a Hessian and a count, and the two for the
    # record, 8 bytes each.
    assert result.download_bytes == 4 * 4 * 8
    assert result.upload_bytes == 4 * (1 + 4 + 10 + 1 + 2) * 8


def test_table_of_clients_adds_up_to_the_history() -> None:
    result = fp.train(fp.models.Logistic(), two_classes(5), cohort=3, rounds=6)
    clients, history = result.clients, result.history
    assert clients["rounds"].sum() == history["clients"].sum() == 18
    assert clients["upload_bytes"].sum() == history["upload_bytes"].sum()
    assert clients["failures"].sum() == history["failed"].sum() == 0
    assert 0 < clients["seconds"].sum() <= result.seconds
    assert clients["train_rows"].tolist() == [20, 23, 26, 29, 32]
    assert clients["test_rows"].tolist() == [5] * 5


def test_client_that_was_never_asked_is_in_the_table() -> None:
    result = fp.train(fp.models.Logistic(), two_classes(5), cohort=1, rounds=2)
    idle = result.clients[result.clients["rounds"] == 0]
    assert list(result.clients.index) == list("abcde")
    assert len(idle) >= 3
    assert (idle[["failures", "seconds", "upload_bytes"]] == 0).all(axis=None)
    assert idle["accuracy"].notna().all()


def test_model_is_the_arrays_by_their_names(result: fp.Result) -> None:
    model = result.model
    assert set(model) == {"coef", "intercept"}
    assert same_bits(model["coef"], result.weights["coef"])


def test_result_file_is_json_that_any_reader_takes(tmp_path: Path) -> None:
    clients = [
        fp.ClientData(c.id, c.train, c.train.take(np.flatnonzero(c.train.y == 0))) for c in two_classes()
    ]
    fp.train(fp.models.Logistic(), clients, rounds=1, folder=tmp_path)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    for name in ("result.json", "job.json", "preparation.json"):
        json.loads((tmp_path / name).read_text(), parse_constant=refuse)


def test_columns_of_a_table_are_the_names_of_the_features() -> None:
    result = fp.train(fp.models.Logistic(), as_tables(two_classes()), rounds=1)
    assert result.fitted.model.schema.features == ("p", "q", "r")
