"""Three banks with federated encoding and scaling against scikit-learn's pipeline on all their rows."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")
# The example is a folder of scripts that import one another by name.
sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "default_credit"))
import default_credit as example

import fedpact as fp

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("FEDPACT_DATA", "/nonexistent"))
for folder in ("fate_unifed", "default_credit_raw"):
    if not (DATA / folder).is_dir():
        pytest.skip(f"FEDPACT_DATA holds no {folder}", allow_module_level=True)

# scikit-learn's encoder says so each time that it meets a category of the test rows alone.
pytestmark = pytest.mark.filterwarnings("ignore:Found unknown categories:UserWarning")

three_encodings = pytest.mark.parametrize("encoding", example.ENCODINGS.values(), ids=list(example.ENCODINGS))


@three_encodings
def test_coefficients_are_those_of_scikit_learn_s_pipeline_on_all_rows(encoding: example.Encoding) -> None:
    federated = example.train(example.banks(), encoding)
    pooled = example.pooled(example.BANKS, encoding)
    assert federated.weights["coef"].size == pooled[-1].coef_.size
    assert example.greatest_difference(federated, pooled) < 1e-6


@three_encodings
def test_coefficients_are_those_of_one_client_with_all_rows(encoding: example.Encoding) -> None:
    federated = example.train(example.banks(), encoding)
    alone = example.train([example.banks().pooled()], encoding)
    assert federated.weights.flats[0] == pytest.approx(alone.weights.flats[0], abs=1e-6)


@three_encodings
def test_preparation_is_the_same_bits_as_that_of_one_client_with_all_rows(encoding: example.Encoding) -> None:
    federated = example.train(example.banks(), encoding).fitted.preparation.pipeline
    alone = example.train([example.banks().pooled()], encoding).fitted.preparation.pipeline
    assert json.dumps(federated.to_json()) == json.dumps(alone.to_json())


def test_a_code_that_one_bank_alone_has_gets_a_column_at_all_of_them() -> None:
    assert [8 in set(example.rows(name).x["PAY_4"]) for name in example.BANKS] == [True, False, False]
    result = example.train(example.banks(), example.ENCODINGS["traits and repayment one-hot"])
    assert "PAY_4=8" in result.fitted.preparation.pipeline.transform(example.rows("host_1").x).columns


def test_predictions_for_the_given_test_rows_are_those_of_scikit_learn_s_pipeline() -> None:
    test = example.rows("test")
    for encoding in example.ENCODINGS.values():
        federated = example.train(example.banks(), encoding).predict_proba(test.x)
        pooled = example.pooled(example.BANKS, encoding).predict_proba(test.x)
        assert federated == pytest.approx(pooled, abs=1e-9)


def test_codes_as_numbers_give_the_auc_of_the_files_as_fate_scaled_them() -> None:
    # A regression does not mind a column's unit, but for the penalty.
    clients = [
        fp.ClientData(name, fp.Rows(scaled.drop(columns="y").reset_index(drop=True), scaled["y"].to_numpy()))
        for name, scaled in ((name, example.share(name)) for name in example.BANKS)
    ]
    given = example.train(clients, example.Encoding())
    recorded = example.train(example.banks(), example.Encoding())
    test = example.share("test").drop(columns="y").reset_index(drop=True)
    assert given.predict_proba(test) == pytest.approx(
        recorded.predict_proba(example.rows("test").x), abs=1e-4
    )


@pytest.mark.parametrize("name", [*example.BANKS, "test"])
def test_recorded_rows_are_those_of_the_scenario_s_file(name: str) -> None:
    share, rows = example.share(name), example.rows(name)
    np.testing.assert_array_equal(share["y"], rows.y)
    for scaled, column in (("x13", "LIMIT_BAL"), ("x15", "EDUCATION"), ("x0", "PAY_6"), ("x12", "PAY_AMT6")):
        assert np.corrcoef(share[scaled], rows.x[column])[0, 1] == pytest.approx(1, abs=1e-9), column


def test_encoding_repayment_codes_raises_the_auc_by_four_points() -> None:
    numbers, _, one_hot = (
        example.auc(example.train(example.banks(), encoding)) for encoding in example.ENCODINGS.values()
    )
    assert numbers == pytest.approx(0.730, abs=2e-3)
    assert one_hot > numbers + 0.038


def test_the_page_shows_what_the_example_prints() -> None:
    folder = ROOT / "examples" / "default_credit"
    printed = subprocess.run([sys.executable, folder], capture_output=True, text=True, check=True).stdout
    assert len(lines_of(printed)) == 6
    page = lines_of((ROOT / "docs" / "default-credit.md").read_text(encoding="utf-8"))
    for (label, shown), (printed_label, figures) in zip(page, lines_of(printed), strict=True):
        assert label == printed_label
        assert shown == pytest.approx(figures, abs=2e-4)


def lines_of(text: str) -> list[tuple[str, list[float]]]:
    """Of every line of the table, what was prepared how, and the two areas."""
    found = re.findall(r"^\| (\d \| .*? \| \d+) \| (0\.\d{4}) \| (0\.\d{4}) \|", text, re.MULTILINE)
    return [(label, [float(federated), float(pooled)]) for label, federated, pooled in found]
