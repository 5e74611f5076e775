"""The heart centres with their missing values against scikit-learn's imputation and regression of all rows."""

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression

# The example is a folder of scripts that import one another by name.
sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "heart"))
import heart_missing as example
from flamby_heart import CENTRES, SEEDS

import fedpact as fp

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("FEDPACT_DATA", "/nonexistent"))
if not (DATA / "heart_disease_4centres").is_dir():
    pytest.skip("FEDPACT_DATA holds no heart_disease_4centres", allow_module_level=True)

CLIENTS = example.centres(42, ())
TRAIN = fp.Federation(CLIENTS).pooled().train


@pytest.fixture(scope="module")
def federated() -> fp.Result:
    return example.train(CLIENTS, fp.Newton(), 25, 0)


@cache
def newton(without: tuple[str, ...]) -> pd.DataFrame:
    return example.over_seeds(without, example.federated(fp.Newton()))


def steps(result: fp.Result) -> list:
    return result.fitted.preparation.pipeline.to_json()["steps"]


def test_all_920_patients_take_part(federated: fp.Result) -> None:
    assert sum(len(each.train) + len(each.test) for each in CLIENTS) == 920
    assert federated.clients["train_rows"].sum() == len(TRAIN) == 689


def test_three_features_are_missing_in_most_rows_outside_cleveland() -> None:
    share = example.missing().drop(columns="Cleveland").loc[list(example.RARELY_RECORDED)].mean(axis=1)
    assert (share > 0.4).all()


def test_gaps_are_filled_as_scikit_learn_fills_them_with_all_rows_in_one_table(federated: fp.Result) -> None:
    medians, modes = steps(federated)[:2]
    numbers, words = list(medians["numeric"]), list(modes["category"])
    assert sorted([*numbers, *words]) == sorted(TRAIN.x.columns)
    by_median = SimpleImputer(strategy="median").fit(TRAIN.x[numbers])
    assert list(medians["numeric"].values()) == by_median.statistics_.tolist()
    text = TRAIN.x[words].astype(object).where(TRAIN.x[words].notna(), np.nan)
    by_mode = SimpleImputer(strategy="most_frequent").fit(text)
    assert list(modes["category"].values()) == by_mode.statistics_.tolist()


def test_coefficients_are_those_of_scikit_learn_on_all_rows(federated: fp.Result) -> None:
    medians, modes = steps(federated)[:2]
    table = TRAIN.x.fillna({**medians["numeric"], **modes["category"]})
    table = pd.get_dummies(table, columns=list(modes["category"]), prefix_sep="=", drop_first=True).astype(
        float
    )
    table = (table - table.mean()) / table.std(ddof=0)
    pooled = LogisticRegression(C=1 / (len(table) * example.L2), solver="newton-cholesky", tol=1e-12)
    pooled.fit(table, TRAIN.y)
    names = federated.fitted.preparation.pipeline.transform(TRAIN.x).columns
    expected = pd.Series(pooled.coef_[0], index=table.columns)[list(names)]
    assert federated.weights["coef"] == pytest.approx(expected.to_numpy(), abs=1e-6)
    assert federated.weights["intercept"] == pytest.approx(pooled.intercept_[0], abs=1e-6)


def test_preparation_is_the_same_bits_as_that_of_one_client_with_all_rows(federated: fp.Result) -> None:
    pooled = example.train([fp.Federation(CLIENTS).pooled()], fp.Newton(), 25, 0)
    assert steps(federated) == steps(pooled)
    assert federated.weights.flats[0] == pytest.approx(pooled.weights.flats[0], abs=1e-9)


@pytest.mark.parametrize("without", [example.RARELY_RECORDED, ()], ids=["ten features", "thirteen features"])
def test_no_centre_s_own_model_serves_all_centres_as_well_as_the_federation_s(
    without: tuple[str, ...],
) -> None:
    together = newton(without).mean(axis=1)
    for centre in CENTRES:
        assert together.mean() > example.over_seeds(without, example.alone(centre)).mean(axis=1).mean() + 0.02


def test_no_model_is_better_in_switzerland_than_to_call_everybody_ill() -> None:
    everybody = example.over_seeds((), example.without_a_model)["Switzerland"]
    assert everybody.mean() == pytest.approx(29 / 31)
    assert example.over_seeds((), example.alone("Switzerland"))["Switzerland"].mean() < everybody.mean()
    assert newton(())["Switzerland"].mean() < everybody.mean()


def test_features_that_are_seldom_recorded_help_where_they_are() -> None:
    ten, thirteen = newton(example.RARELY_RECORDED), newton(())
    assert list(ten.index) == list(SEEDS)
    assert (thirteen - ten).mean()["Cleveland"] > 0.04
    assert (thirteen - ten).mean().min() > -0.01


@pytest.mark.slow
def test_the_page_shows_what_the_example_prints() -> None:
    script = ROOT / "examples" / "heart" / "heart_missing.py"
    printed = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout
    expected = lines_of(printed)
    shown = lines_of((ROOT / "docs" / "heart-missing.md").read_text(encoding="utf-8"))
    assert [label for label, _ in shown] == [label for label, _ in expected]
    assert len(expected) == 10 + 2 * 17
    for (label, figures), (_, again) in zip(shown, expected, strict=True):
        # Another processor may round a score of 0.5 to the other side: in one seed, one row of Switzerland's 31.
        assert figures == pytest.approx(again, abs=0.015), label


def lines_of(text: str) -> list[tuple[str, list[float]]]:
    """Of every line of a table, its label and its figures."""
    lines = [line.split("|") for line in text.splitlines() if re.match(r"\| \w.*\|.*\d", line)]
    return [
        (cells[1].strip(), [float(x) for x in re.findall(r"\d+(?:\.\d+)?", " ".join(cells[2:]))])
        for cells in lines
    ]
