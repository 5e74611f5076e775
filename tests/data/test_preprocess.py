import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from fedpact.core import Accumulator, ClientData, Rows, Seed
from fedpact.core.algorithm import Algorithm
from fedpact.data.preprocess import FitPipeline, Impute, OneHot, Pipeline, Standardize, Step


def fit(algorithm: Any, clients: Sequence[ClientData]) -> Any:
    """Run an algorithm to its end; all plain data pass through JSON, as on a wire."""
    runs: Algorithm[Any] = algorithm
    state = runs.init(None, Seed.of(0))
    while (task := runs.task(state)) is not None:
        task = replace(task, parameters=json.loads(json.dumps(task.parameters)))
        total = Accumulator(task, limit=65536, total_weight=len(clients), population=len(clients))
        for client in clients:
            update, _ = runs.client(None, task, client, {}, Seed.of(0))
            total.add(replace(update, answer=json.loads(json.dumps(update.answer))))
        state = runs.server(None, state, total.aggregate())
    return algorithm.fitted(state)


def fit_steps(steps: Sequence[Step], *tables: Any) -> Pipeline:
    clients = [ClientData(f"client {i}", Rows(table)) for i, table in enumerate(tables)]
    pipeline = fit(FitPipeline(tuple(steps)), clients)
    assert isinstance(pipeline, Pipeline)
    return pipeline


def spread(table: pd.DataFrame, owners: NDArray[np.int64]) -> list[pd.DataFrame]:
    return [table[owners == owner].reset_index(drop=True) for owner in np.unique(owners)]


def patients(rows: int = 60) -> pd.DataFrame:
    """Rows with all that is awkward: huge offsets, tiny and huge values, constants, missing values, codes."""
    draw = np.random.default_rng(3)
    missing = draw.random((rows, 3)) < 0.3
    missing[:2] = False
    return pd.DataFrame(
        {
            "age": np.where(missing[:, 0], np.nan, draw.integers(20, 90, rows)),
            "visit": 1.6e9 + draw.uniform(-1, 1, rows),
            "dose": np.where(missing[:, 1], np.nan, draw.normal(3e-12, 1e-13, rows)),
            "copies": draw.normal(0, 4e200, rows),
            "unit": np.full(rows, 0.1),
            "smoker": draw.random(rows) < 0.4,
            "ward": np.where(missing[:, 2], None, draw.choice(["B", "a", "Ä", "10", "9"], rows)),
            "pain": draw.integers(1, 4, rows),
        }
    )


EVERYTHING: tuple[Step, ...] = (
    Impute("median", columns=("age",)),
    Impute("mean"),
    Impute("most_frequent"),
    Standardize(columns=("age", "visit", "dose", "copies", "unit")),
    OneHot(columns=("ward", "pain")),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=60, max_size=60), st.permutations(range(6)))
def test_fitted_pipeline_is_the_same_bits_for_any_partition_of_the_rows(
    owners: list[int], names: list[int]
) -> None:
    table = patients()
    parts = spread(table, np.array(owners))
    clients = [ClientData(f"client {name}", Rows(part)) for name, part in zip(names, parts, strict=False)]
    spread_out = fit(FitPipeline(EVERYTHING), clients)
    assert json.dumps(spread_out.to_json()) == json.dumps(fit_steps(EVERYTHING, table).to_json())


def test_one_row_clients_fit_the_same_pipeline() -> None:
    table = patients(12)
    rows = spread(table, np.arange(12))
    assert fit_steps(EVERYTHING, *rows).to_json() == fit_steps(EVERYTHING, table).to_json()


@pytest.mark.parametrize("column", ["age", "visit", "dose", "copies", "unit", "smoker", "pain"])
def test_standardize_equals_scikit_learn_on_the_pooled_rows(column: str) -> None:
    table = patients()[[column]].astype(float)
    pipeline = fit_steps([Standardize()], *spread(table, np.arange(60) % 4))
    # scikit-learn's variance of numbers near 1e200 overflows; dividing by a power of two changes no digit.
    unit = 2.0**660 if column == "copies" else 1.0
    expected = StandardScaler().fit(table.to_numpy() / unit)
    (step,) = pipeline.to_json()["steps"]
    assert step["mean"][column] / unit == pytest.approx(expected.mean_[0], rel=1e-12, abs=1e-25)
    assert step["scale"][column] / (unit if column != "unit" else 1) == pytest.approx(
        # StandardScaler's own variance of visits is off by 1e-8: it subtracts a mean that is rounded.
        float(np.std(table[column] / unit - 1.6e9)) if column == "visit" else expected.scale_[0],
        rel=1e-12 if column != "visit" else 1e-6,
    )
