"""Claims about what cannot be carried out: each is an error that says what and where, and nothing is written."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import fedpact as fp
from fedpact.core.errors import (
    ChannelError,
    ConfigError,
    DataError,
    FedpactError,
    ModelError,
)
from fedpact.core.vector import Vector
from fedpact.store.modelfile import save_model
from tests.engine.runs import as_tables, contents, two_classes

Change = Callable[[fp.Rows], fp.Rows]


def refused(
    error: type[FedpactError],
    said: str,
    tmp_path: Path,
    model: Any = None,
    clients: Any = None,
    **settings: Any,
) -> None:
    """Check that a run is refused with this sentence, and that its folder stays as empty as it was."""
    with pytest.raises(error) as caught:
        fp.train(
            fp.models.Logistic() if model is None else model,
            two_classes() if clients is None else clients,
            folder=tmp_path / "run",
            **{"rounds": 2, **settings},
        )
    assert said in str(caught.value)
    assert type(caught.value) is error
    assert contents(tmp_path / "run") == {}


def with_rows(change: Change, which: str = "train", clients: list[fp.ClientData] | None = None) -> Any:
    """Return the clients, of whom "b" has changed training or test rows."""
    clients = clients or two_classes()
    b = clients[1]
    changed = replace(b, **{which: change(getattr(b, which))})
    return [clients[0], changed, *clients[2:]]


def at(row: int, value: Any, column: int | None = None) -> Change:
    """Return what puts a value into a row (counted from 1) of the labels, or of a column of the features."""

    def change(rows: fp.Rows) -> fp.Rows:
        here = np.arange(len(rows)) == row - 1
        if column is None:
            return fp.Rows(rows.x, np.where(here, value, rows.y))
        x = rows.x.copy()
        x[row - 1, column] = value
        return fp.Rows(x, rows.y)

    return change


def everywhere(change: Change) -> list[fp.ClientData]:
    return [fp.ClientData(c.id, change(c.train)) for c in two_classes()]


@pytest.mark.parametrize("which", ["train", "test"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_label_that_is_missing_or_infinite(which: str, value: float, tmp_path: Path) -> None:
    rows = "training" if which == "train" else "test"
    said = f'client "b", {rows} rows: the label is missing or infinite in 1 row(s), first in row 4'
    refused(DataError, said, tmp_path, clients=with_rows(at(4, value), which))


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, pd.NaT])
def test_text_label_that_is_missing(missing: Any, tmp_path: Path) -> None:
    def change(rows: fp.Rows) -> fp.Rows:
        labels = np.array(["well", "ill"], object)[rows.y]
        labels[2] = missing
        return fp.Rows(rows.x, labels)

    said = 'client "a", training rows: the label is missing or infinite in 1 row(s), first in row 3'
    refused(DataError, said, tmp_path, clients=everywhere(change))


@pytest.mark.parametrize("which", ["train", "test"])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_feature_that_is_missing_or_infinite(which: str, value: float, tmp_path: Path) -> None:
    rows = "training" if which == "train" else "test"
    said = f'client "b", {rows} rows: a value is missing, infinite or too large for float64 in 1 row(s), first in row 5'
    refused(DataError, said, tmp_path, clients=with_rows(at(5, value, column=1), which))


def test_cell_of_a_table_that_is_missing(tmp_path: Path) -> None:
    def change(rows: fp.Rows) -> fp.Rows:
        x = rows.x.copy()
        x.loc[4, "q"] = np.nan
        return fp.Rows(x, rows.y)

    said = 'client "b", training rows: column "q" still has 1 missing value(s); add Impute.'
    refused(DataError, said, tmp_path, clients=with_rows(change, clients=as_tables(two_classes())))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: fp.Rows(rows.x), "there are no labels."),
        (
            lambda rows: fp.Rows(rows.x, rows.y[:-1]),
            "there are 23 rows and labels of shape [22]; give one label",
        ),
        (lambda rows: fp.Rows(rows.x, np.append(rows.y, 1)), "there are 23 rows and labels of shape [24]"),
        (lambda rows: fp.Rows(rows.x, np.zeros((23, 0))), "there are 23 rows and labels of shape [23, 0]"),
        (lambda rows: fp.Rows(rows.x, rows.y.astype("M8[D]")), "the labels are of dtype datetime64[D]"),
        (
            lambda rows: fp.Rows(rows.x, rows.y.astype(complex)),
            "the labels are of dtype complex128; give numbers or",
        ),
        (
            lambda rows: fp.Rows(rows.x, rows.y.astype("S1")),
            "the labels are of dtype |S1; give numbers or text.",
        ),
        (
            lambda rows: fp.Rows(rows.x, np.where(np.arange(23) == 6, "x", rows.y.astype(object))),
            "the labels mix numbers and text: the first text is in row 7; give one kind.",
        ),
        (
            lambda rows: fp.Rows(rows.x.astype(str), rows.y),
            "the examples are an array of dtype <U32; give numbers",
        ),
        (
            lambda rows: fp.Rows(rows.x.astype(complex), rows.y),
            "the examples are an array of dtype complex128",
        ),
        (lambda rows: fp.Rows(rows.x.astype(object), rows.y), "the examples are an array of dtype object"),
    ],
)
def test_rows_of_the_wrong_form(change: Change, said: str, tmp_path: Path) -> None:
    refused(DataError, f'client "b", training rows: {said}', tmp_path, clients=with_rows(change))


def test_text_labels_in_the_test_rows_alone(tmp_path: Path) -> None:
    clients = with_rows(lambda rows: fp.Rows(rows.x, rows.y.astype(str)), "test")
    said = 'client "b", test rows: the labels are text, those of the training rows are numbers.'
    refused(DataError, said, tmp_path, clients=clients)


def test_text_labels_at_one_client_alone(tmp_path: Path) -> None:
    clients = [
        c if c.id != "c" else fp.ClientData("c", fp.Rows(c.train.x, c.train.y.astype(str)))
        for c in two_classes()
    ]
    said = 'the labels of client "a" are numbers, those of client "c" are not; give all clients labels of one kind.'
    refused(DataError, said, tmp_path, clients=clients)


def test_all_labels_the_same(tmp_path: Path) -> None:
    clients = everywhere(lambda rows: fp.Rows(rows.x, rows.y * 0 + 7))
    said = "all rows of all clients have the label 7; there is nothing to tell apart."
    refused(DataError, said, tmp_path, clients=clients)


def test_measured_labels_for_a_model_of_classes(tmp_path: Path) -> None:
    clients = with_rows(lambda rows: fp.Rows(rows.x, rows.y + 0.5))
    said = (
        'the labels of client "b" are continuous numbers, but classes are predicted; use a regression model.'
    )
    refused(DataError, said, tmp_path, clients=clients)


def test_text_labels_for_a_model_of_numbers(tmp_path: Path) -> None:
    clients = everywhere(lambda rows: fp.Rows(rows.x, np.array(["no", "yes"])[rows.y]))
    said = 'the labels of client "a" are no numbers, but a number is predicted.'
    refused(DataError, said, tmp_path, fp.models.Linear(), clients)


def test_model_for_another_number_of_classes(tmp_path: Path) -> None:
    three = everywhere(lambda rows: fp.Rows(rows.x, np.arange(len(rows)) % 3))
    said = "Logistic predicts two classes, but the labels are three or more classes; use Softmax."
    refused(ModelError, said, tmp_path, clients=three)
    said = "Softmax predicts three or more classes, but the labels are two classes; use Logistic."
    refused(ModelError, said, tmp_path, fp.models.Softmax())


def test_client_without_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match='client "b" has no training rows; leave it out'):
        fp.train(
            fp.models.Logistic(), with_rows(lambda rows: rows.take(np.arange(0))), folder=tmp_path / "run"
        )
    assert not (tmp_path / "run").exists()


def test_arrays_of_different_widths(tmp_path: Path) -> None:
    clients = with_rows(lambda rows: fp.Rows(rows.x[:, :2], rows.y))
    said = 'the examples of client "a" are arrays of shape (3,), those of client "b" arrays of shape (2,)'
    refused(DataError, said, tmp_path, clients=clients)


def test_test_rows_of_another_width(tmp_path: Path) -> None:
    clients = with_rows(lambda rows: fp.Rows(rows.x[:, :2], rows.y), "test")
    said = 'client "b", test rows: the examples have shape [2]; the model is made for [3].'
    refused(DataError, said, tmp_path, clients=clients)


def test_tables_beside_arrays(tmp_path: Path) -> None:
    clients = [*two_classes()[:2], *as_tables(two_classes())[2:]]
    said = 'the examples of client "a" are arrays of shape (3,), those of client "c" rows of a table'
    refused(DataError, said, tmp_path, clients=clients)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x.drop(columns="q"), r"b +q +is missing"),
        (lambda x: x.rename(columns={"q": "Q"}), r'b +q +is missing\. Did you mean "Q"\?'),
        (lambda x: x.assign(extra=1), r"b +extra +is missing at others"),
        (lambda x: x.assign(q="x"), r"b +q +text, where others have numbers"),
    ],
)
def test_tables_with_different_columns(
    change: Callable[[pd.DataFrame], pd.DataFrame], said: str, tmp_path: Path
) -> None:
    clients = with_rows(lambda rows: fp.Rows(change(rows.x), rows.y), clients=as_tables(two_classes()))
    with pytest.raises(DataError, match=said):
        fp.train(fp.models.Logistic(), clients, folder=tmp_path / "run")
    assert contents(tmp_path / "run") == {}


def test_test_rows_without_a_column(tmp_path: Path) -> None:
    clients = with_rows(
        lambda rows: fp.Rows(rows.x.drop(columns="q"), rows.y), "test", as_tables(two_classes())
    )
    said = 'client "b", test rows: there is no column "q". Columns: p, r.'
    refused(DataError, said, tmp_path, clients=clients)


def test_column_of_text_that_nothing_encodes(tmp_path: Path) -> None:
    clients = [
        fp.ClientData(c.id, fp.Rows(c.train.x.assign(q="x"), c.train.y)) for c in as_tables(two_classes())
    ]
    said = "no model can read what these columns hold; encode with OneHot, or leave out: q."
    refused(DataError, said, tmp_path, clients=clients)


def test_images_with_preprocessing(tmp_path: Path) -> None:
    clients = everywhere(lambda rows: fp.Rows(np.zeros((len(rows), 1, 8, 8)), rows.y))
    said = (
        "preprocess prepares tables, but these examples are arrays of shape (1, 8, 8); leave preprocess out."
    )
    refused(ConfigError, said, tmp_path, clients=clients, preprocess=fp.Standardize())


def test_images_for_a_model_of_flat_rows(tmp_path: Path) -> None:
    clients = everywhere(lambda rows: fp.Rows(np.zeros((len(rows), 8, 8)), rows.y))
    said = "Logistic needs flat rows of numbers; these examples have shape (8, 8)."
    refused(ModelError, said, tmp_path, clients=clients)


def test_step_for_a_column_that_is_not_there(tmp_path: Path) -> None:
    said = 'Standardize: there is no column "qq". Did you mean "q"?'
    clients = as_tables(two_classes())
    refused(ConfigError, said, tmp_path, clients=clients, preprocess=fp.Standardize(columns=("qq",)))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rounds": -1}, 'job setting "rounds" is -1'),
        ({"rounds": 0}, 'job setting "rounds" is 0'),
        ({"rounds": "ten"}, "job setting \"rounds\" is 'ten'"),
        ({"seed": 1.5}, 'job setting "seed" is 1.5'),
        ({"evaluate_every": -1}, 'job setting "evaluate_every" is -1'),
        ({"timeout_s": 0}, 'job setting "timeout_s" is 0'),
        ({"timeout_s": float("inf")}, 'job setting "timeout_s" is inf: numbers must be finite'),
        ({"update_range": float("nan")}, 'job setting "update_range" is nan: numbers must be finite'),
        ({"cohort": 0}, 'job setting "cohort" is 0: must be a whole number of clients, or a share in (0, 1]'),
        (
            {"cohort": 1.5},
            'job setting "cohort" is 1.5: must be a whole number of clients, or a share in (0, 1]',
        ),
        (
            {"quorum": -1},
            'job setting "quorum" is -1: must be a whole number of clients, or a share in (0, 1]',
        ),
    ],
)
def test_number_out_of_its_range(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        fp.train(fp.models.Logistic(), two_classes(), folder=tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_cohort_larger_than_the_population(tmp_path: Path) -> None:
    said = "the cohort is 9 clients, but there are only 4; ask for at most 4, or for a share such as 0.5."
    with pytest.raises(ConfigError, match=re.escape(said)):
        fp.train(fp.models.Logistic(), two_classes(), cohort=9, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_quorum_larger_than_the_population(tmp_path: Path) -> None:
    refused(ConfigError, "the quorum is 9 clients, but only 4 are asked in a round", tmp_path, quorum=9)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rouns": 3}, 'a job has no setting "rouns". Did you mean "rounds"?'),
        ({"Seed": 3}, 'a job has no setting "Seed". Did you mean "seed"?'),
        (
            {"algorithm": None, "algoritm": "FedAvg"},
            'a job has no setting "algoritm". Did you mean "algorithm"?',
        ),
        ({"algorithm": "FedAvgg"}, 'there is no algorithm "FedAvgg". Did you mean "FedAvg"?'),
        (
            {"algorithm": {"name": "FedAvg", "local_epoch": 2}},
            'no setting "local_epoch". Did you mean "local_epochs"?',
        ),
        (
            {"algorithm": {"name": "FedAvg", "lr": "fast"}},
            "algorithm FedAvg: \"lr\" is 'fast'; it must be float.",
        ),
        (
            {"algorithm": {"name": "FedAvg", "optimizer": {"name": "Addam"}}},
            'there is no optimiser, schedule or privacy "Addam". Did you mean "Adam"?',
        ),
        (
            {"algorithm": {"name": "FedAvg", "optimizer": {"name": "SGD", "momentun": 0.9}}},
            'optimiser, schedule or privacy SGD has no setting "momentun". Did you mean "momentum"?',
        ),
        ({"model": "Logistc"}, 'there is no model "Logistc". Did you mean "Logistic"?'),
        ({"model": {"name": "Logistic", "L2": 1}}, 'model Logistic has no setting "L2". Did you mean "l2"?'),
        (
            {"preprocess": "Standardise"},
            'there is no preprocessing step "Standardise". Did you mean "Standardize"?',
        ),
        ({"channel": ["Clp"]}, '"Clp". Did you mean "Clip"?'),
        (
            {"stop": [{"name": "Target", "metrc": 1}]},
            'stop rule Target has no setting "metrc". Did you mean "metric"?',
        ),
        (
            {"stop": [{"name": "Target", "metric": "acuracy", "value": 1}]},
            '"acuracy" is not a metric. Did you mean "accuracy"?',
        ),
    ],
)
def test_misspelt_name_in_a_job_suggests_the_right_one(settings: dict[str, Any], said: str) -> None:
    given = {"model": "Logistic", "algorithm": "FedAvg", "rounds": 1, **settings}
    with pytest.raises(ConfigError, match=re.escape(said)):
        fp.run(fp.Job.of({key: value for key, value in given.items() if value is not None}), two_classes())


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "the job names no data: add a [data] section, or give the clients in Python."),
        (
            {"nme": "heart"},
            'lacks a data set\'s name; or give clients and label, or table, by and label. Did you mean "name"?',
        ),
        ({"name": "hart"}, 'There is no data set "hart". Did you mean "heart"?'),
        (
            {"name": "breast_cancer", "sed": 1},
            'Data set "breast_cancer" has no option "sed". Did you mean "seed"?',
        ),
        ({"clients": {"a": "a.csv"}}, '[data] has clients, but no "label"; add it.'),
        ({"clients": "a.csv", "label": "y"}, "clients is 'a.csv'; give a file for each client, by its name."),
        ({"clients": {"a": "a.csv"}, "label": "y", "tst": 0.2}, 'has no setting "tst". Did you mean "test"?'),
        ({"table": "a.csv", "label": "y"}, '[data] has table, but no "by"; add it.'),
        (
            {"table": "a.csv", "by": "h", "label": "y", "colums": ["x"]},
            'no setting "colums". Did you mean "columns"?',
        ),
    ],
)
def test_data_section_that_names_no_clients(data: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        fp.run(fp.Job.of({"model": "Logistic", "algorithm": "FedAvg", "data": data}))


def test_data_section_with_a_file_that_is_not_there() -> None:
    data = {"clients": {"lyon": "none.csv"}, "label": "y"}
    with pytest.raises(DataError, match=r'Client "lyon": there is no file .*none\.csv'):
        fp.run(fp.Job.of({"model": "Logistic", "algorithm": "FedAvg", "data": data}))


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        (
            {"model": fp.models.Logistic},
            ModelError,
            "Logistic is a class; give an instance of it: Logistic(...).",
        ),
        ({"model": 3}, ModelError, "int is no model: give one of fp.models"),
        ({"algorithm": fp.FedAvg}, ConfigError, "FedAvg is a class; give an instance of it: FedAvg()."),
        (
            {"algorithm": fp.models.Logistic()},
            ConfigError,
            'Logistic is no algorithm: it has no "task". Known: Cyclic, FedAdagrad',
        ),
        ({"preprocess": [fp.FedAvg()]}, ConfigError, "FedAvg is no preprocessing step: it has no"),
        ({"stop": fp.Clip(1.0)}, ConfigError, 'Clip is no stop rule: it has no "reached"'),
        (
            {"algorithm": fp.Newton(), "model": fp.models.GaussianNB()},
            ModelError,
            "Newton needs a model with a Hess",
        ),
        ({"algorithm": fp.FedAvg(), "model": fp.models.GaussianNB()}, ModelError, "trains by gradients"),
        ({"algorithm": fp.OneShot()}, ModelError, "OneShot needs a model that is solved from sums"),
        ({"algorithm": fp.Newton(), "channel": fp.Clip(1.0)}, ChannelError, "Clip"),
    ],
)
def test_part_in_the_wrong_place(settings: dict[str, Any], error: Any, said: str, tmp_path: Path) -> None:
    model = settings.pop("model", fp.models.Logistic())
    with pytest.raises(error, match=re.escape(said)):
        fp.train(model, two_classes(), rounds=1, folder=tmp_path / "run", **settings)


@pytest.mark.parametrize(
    ("clients", "said"),
    [
        ([], "a federation needs at least one client"),
        ({"a": 1}, "clients must be a federation or a list of clients"),
        (["a", "b"], "clients must be a federation or a list of clients"),
        ([*two_classes(2), two_classes(1)[0]], 'two clients are called "a"; every name must be unique'),
    ],
)
def test_clients_that_are_none(clients: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        fp.train(fp.models.Logistic(), clients, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_initial_file_that_is_not_there(tmp_path: Path) -> None:
    refused(
        ModelError, 'weights file "none.safetensors" does not exist', tmp_path, initial="none.safetensors"
    )


def test_initial_file_of_another_shape(tmp_path: Path) -> None:
    wide = fp.train(fp.models.Logistic(), two_classes(width=4), rounds=1)
    wide.fitted.save(tmp_path / "wide.safetensors")
    said = 'has "coef" (4,); the model needs (3,)'
    refused(ModelError, said, tmp_path, initial=tmp_path / "wide.safetensors")


def test_initial_file_of_another_model(tmp_path: Path) -> None:
    other = fp.train(fp.models.GaussianNB(), two_classes(), rounds=1)
    other.fitted.save(tmp_path / "other.safetensors")
    said = 'does not fit this model: it lacks "coef" (3,)'
    refused(ModelError, said, tmp_path, initial=tmp_path / "other.safetensors")


def test_initial_file_with_missing_values(tmp_path: Path) -> None:
    weights = Vector.from_arrays({"coef": np.array([0.0, np.nan, 0.0]), "intercept": np.array(0.0)})
    save_model(tmp_path / "nan.safetensors", weights, {})
    said = '"coef" holds NaN or infinite values'
    refused(ModelError, said, tmp_path, initial=tmp_path / "nan.safetensors")


def test_initial_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("weights")
    refused(ModelError, "text.safetensors", tmp_path, initial=tmp_path / "text.safetensors")


def test_mistake_in_the_job_ends_the_run_in_the_first_round_instead_of_failing_every_client() -> None:
    with pytest.raises(ModelError, match="SCAFFOLD"):
        fp.train(fp.models.GaussianNB(), two_classes(), algorithm=fp.SCAFFOLD(lr=0.1))
