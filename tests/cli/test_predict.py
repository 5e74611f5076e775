import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fedpact as fp
from fedpact.engine.result import Result
from tests.cli.terminal import call, process


def test_predictions_are_those_of_python(finished: Path, patients: Path) -> None:
    answers = pd.read_csv(io.StringIO(call("predict", finished, patients).stdout))
    expected = Result.load(finished).predict(pd.read_csv(patients))
    assert list(answers.columns) == ["row", "prediction"]
    assert answers["row"].tolist() == [1, 2, 3, 4, 5]
    np.testing.assert_array_equal(answers["prediction"], expected)


def test_model_file_serves_as_well_as_the_run_s_folder(finished: Path, patients: Path) -> None:
    by_folder = call("predict", finished, patients, "--proba").stdout
    assert call("predict", finished / "model.safetensors", patients, "--proba").stdout == by_folder


def test_probabilities_are_given_for_each_class_to_the_last_bit(finished: Path, patients: Path) -> None:
    answers = json.loads(call("predict", finished, patients, "--proba", "--json").stdout)
    expected = Result.load(finished).predict_proba(pd.read_csv(patients))
    found = [[each["probability of 0"], each["probability of 1"]] for each in answers["predictions"]]
    assert found == expected.tolist()
    assert answers["classes"] == [0, 1]
    assert answers["rows"] == 5


def test_answers_go_to_a_csv_or_parquet_file(finished: Path, patients: Path, tmp_path: Path) -> None:
    printed = call("predict", finished, patients).stdout
    for name in ("answers.csv", "answers.parquet"):
        ended = call("predict", finished, patients, "--out", tmp_path / name)
        assert ended.exit_code == 0
        assert str(tmp_path / name) in "".join(ended.stdout.split("\n"))
    assert (tmp_path / "answers.csv").read_text() == printed
    assert pd.read_parquet(tmp_path / "answers.parquet").to_csv(index=False) == printed


def test_out_with_json_tells_where_the_answers_are(finished: Path, patients: Path, tmp_path: Path) -> None:
    ended = call("predict", finished, patients, "--out", tmp_path / "a.csv", "--json")
    assert json.loads(ended.stdout) == {"rows": 5, "classes": [0, 1], "out": str(tmp_path / "a.csv")}


def test_rows_can_be_read_from_parquet(finished: Path, patients: Path, tmp_path: Path) -> None:
    pd.read_csv(patients).to_parquet(tmp_path / "patients.parquet")
    assert (
        call("predict", finished, tmp_path / "patients.parquet").stdout
        == call("predict", finished, patients).stdout
    )


def test_input_columns_stand_between_the_row_s_number_and_its_prediction(
    finished: Path, patients: Path
) -> None:
    answers = pd.read_csv(io.StringIO(call("predict", finished, patients, "--with-input").stdout))
    assert list(answers.columns) == ["row", *pd.read_csv(patients).columns, "prediction"]
    assert answers["ward"].tolist() == ["B"] * 5


def test_input_column_called_prediction_is_not_overwritten(finished: Path, patients: Path) -> None:
    pd.read_csv(patients).assign(prediction=7).to_csv(patients, index=False)
    ended = call("predict", finished, patients, "--with-input")
    assert ended.exit_code == 3
    assert '"prediction"' in ended.stderr


def test_missing_column_is_named(finished: Path, patients: Path) -> None:
    pd.read_csv(patients).drop(columns="mean radius").to_csv(patients, index=False)
    ended = process("predict", finished, patients)
    assert ended.returncode == 4
    assert "mean radius" in ended.stderr
    assert ended.stdout == ""


@pytest.mark.parametrize(
    ("model", "rows", "code"),
    [("nowhere", "patients", 5), ("finished", "nowhere.csv", 4), ("empty", "patients", 3)],
)
def test_what_is_not_there_is_named(
    finished: Path, patients: Path, tmp_path: Path, model: str, rows: str, code: int
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"finished": finished, "patients": patients}
    ended = call("predict", places.get(model, tmp_path / model), places.get(rows, tmp_path / rows))
    assert ended.exit_code == code
    assert model in ended.stderr or rows in ended.stderr


def test_empty_file_is_named(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("")
    ended = call("predict", finished, tmp_path / "empty.csv")
    assert ended.exit_code == 4
    assert ended.stderr.startswith("Error: The table to predict has no rows: ")
    assert "empty.csv" in ended.stderr


NUMBERS = "a,y\n" + "\n".join(f"{i % 3},{i % 3}.5" for i in range(12)) + "\n"


def test_probabilities_of_a_regression_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(NUMBERS)
    clients = fp.clients({"a": tmp_path / "a.csv"}, label="y")
    fp.train(fp.models.Linear(), clients, rounds=1, folder=tmp_path / "run")
    ended = call("predict", tmp_path / "run", tmp_path / "a.csv", "--proba")
    assert ended.exit_code == 3
    assert "leave out --proba" in ended.stderr


def test_torch_module_that_fails_on_the_rows_ends_with_8(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    (tmp_path / "tabled.py").write_text(
        "import torch\n"
        "class Tabled(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.values = torch.nn.Embedding(3, 1)\n"
        "    def forward(self, x):\n"
        "        return self.values(x[:, 0].long())\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "a.csv").write_text(NUMBERS)
    clients = fp.clients({"a": tmp_path / "a.csv"}, label="y")
    fp.train(fp.models.Torch("tabled:Tabled"), clients, rounds=1, folder=tmp_path / "run")
    (tmp_path / "new.csv").write_text("a\n7\n")
    ended = call("predict", tmp_path / "run", tmp_path / "new.csv")
    assert ended.exit_code == 8
    assert "the module fails on 1 row" in ended.stderr


def test_out_of_another_kind_is_refused(finished: Path, patients: Path, tmp_path: Path) -> None:
    ended = call("predict", finished, patients, "--out", tmp_path / "answers.xlsx")
    assert ended.exit_code == 3
    assert not (tmp_path / "answers.xlsx").exists()
