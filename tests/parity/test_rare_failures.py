"""Rare failures at three factories: what a remedy changes, and what the page says of it."""

import os
import re
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("sklearn")
# The example is a folder of scripts that import one another by name.
sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "rare_failures"))
import rare_failures as example

DATA = Path(os.environ.get("FEDPACT_DATA", "/nonexistent"))
PAGE = (Path(__file__).parents[2] / "docs" / "imbalance.md").read_text(encoding="utf-8")

with_data = pytest.mark.skipif(
    not (DATA / "ai4i2020").is_dir(), reason="FEDPACT_DATA holds no ai4i2020: the folder of the data set"
)
RECALL, PRECISION, AVERAGE_PRECISION = 0, 1, 3


@cache
def found(label: str) -> NDArray[np.float64]:
    """Return the metrics of a logistic regression with a remedy, in the mean of two seeds."""
    return np.mean(example.measured(example.MODELS[0], example.REMEDIES[label], seeds=(42, 43)), axis=0)


@with_data
def test_factories_have_all_rows_and_failures_and_no_column_that_tells_them() -> None:
    clients = example.factories(42)
    rows = {c.id: len(c.train) + len(c.test) for c in clients if c.test is not None}
    # As counted in the file: `cut -d, -f3 ai4i2020.csv | sort | uniq -c`.
    assert rows == {"H": 1003, "L": 6000, "M": 2997}
    assert sum(int(np.sum(each.y)) for c in clients for each in (c.train, c.test) if each is not None) == 339
    assert [len(c.train.x.columns) for c in clients] == [5, 5, 5]


@with_data
@pytest.mark.parametrize("label", ["`OverSample()`", '`class_weight="balanced"`', "`ExtraPasses()`"])
def test_remedy_finds_most_failures_that_are_missed_without_it_and_ranks_rows_no_better(label: str) -> None:
    without, with_remedy = found("nothing"), found(label)
    assert without[RECALL] < 0.4
    assert with_remedy[RECALL] > 0.7
    assert with_remedy[PRECISION] < 0.3 < without[PRECISION]
    assert with_remedy[AVERAGE_PRECISION] == pytest.approx(without[AVERAGE_PRECISION], abs=0.08)


@with_data
def test_synthetic_rows_find_most_failures() -> None:
    pytest.importorskip("imblearn")
    for label in ("`SMOTE()`", '`SMOTE(kind="borderline-1")`', "`ADASYN()`"):
        assert found(label)[RECALL] > 0.7


def test_page_has_a_row_for_every_remedy_and_model() -> None:
    rows = re.findall(r"^\| (.*?) \| 0\.", PAGE, re.MULTILINE)
    labels = [*example.REMEDIES, *(f"pooled: {label}" for label in example.POOLED)]
    labels.insert(1, f"nothing, at {example.SHARE}")
    assert rows == labels * len(example.MODELS)
