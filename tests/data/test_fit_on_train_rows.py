"""Preparation is fitted on train rows only: whatever test rows hold, not a bit of it changes."""

import json
from collections.abc import Sequence
from functools import cache

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

import fedpact as fp
from fedpact.core.accumulator import Accumulator
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.data.preprocess import FitPipeline, Impute, OneHot, Standardize

STEPS = (Impute("median", columns=("age",)), Impute("mean"), Impute("most_frequent"), Standardize(), OneHot())


def train_rows(id: str) -> Rows:
    draw = np.random.default_rng(len(id))
    age = np.where(draw.random(20) < 0.3, np.nan, draw.integers(20, 90, 20))
    dose = np.where(draw.random(20) < 0.3, np.nan, draw.normal(size=20))
    ward = pd.Series(draw.choice(["a", "b"], 20), dtype=object).mask(draw.random(20) < 0.2)
    return Rows(pd.DataFrame({"age": age, "dose": dose, "ward": ward}), draw.integers(0, 2, 20))


def clients_with(tests: Sequence[Rows | None]) -> list[ClientData]:
    return [ClientData(id, train_rows(id), test) for id, test in zip(("x", "yy"), tests, strict=True)]


def fitted_bits(clients: Sequence[ClientData]) -> str:
    algorithm = FitPipeline(STEPS)
    state = algorithm.init(None, Seed.of(0))
    while (task := algorithm.task(state)) is not None:
        total = Accumulator(task, limit=65536, total_weight=len(clients), population=len(clients))
        for client in clients:
            total.add(algorithm.client(None, task, client, {}, Seed.of(0))[0])
        state = algorithm.server(None, state, total.aggregate())
    # Python writes a float with as many digits as tell it from every other.
    return json.dumps(algorithm.fitted(state).to_json())


@cache
def without_test_rows() -> str:
    return fitted_bits(clients_with([None, None]))


@st.composite
def any_test_rows(draw: st.DrawFn) -> Rows:
    n = draw(st.integers(1, 6))
    number = st.floats(allow_infinity=False, width=64)
    column = st.lists(number, min_size=n, max_size=n)
    wards = st.lists(st.sampled_from(["a", "b", "c", "zebra", None]), min_size=n, max_size=n)
    table = pd.DataFrame(
        {"age": draw(column), "dose": draw(column), "ward": pd.Series(draw(wards), dtype=object)}
    )
    return Rows(table, np.array(draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))))


@settings(max_examples=30, deadline=None)
@given(any_test_rows(), any_test_rows())
def test_no_test_row_changes_a_bit_of_what_is_fitted(one, other) -> None:
    assert fitted_bits(clients_with([one, other])) == without_test_rows()


def test_no_test_row_changes_a_bit_of_a_trained_model() -> None:
    draw = np.random.default_rng(9)
    seen = []
    for scale in (1.0, 1e6):
        tests = [
            Rows(
                pd.DataFrame({"age": draw.normal(size=5) * scale, "dose": scale, "ward": "a"}),
                draw.integers(0, 2, 5),
            )
            for _ in range(2)
        ]
        result = fp.train(fp.models.Logistic(), clients_with(tests), preprocess=list(STEPS), rounds=3)
        seen.append(result)
    first, second = (json.dumps(each.fitted.preparation.pipeline.to_json()) for each in seen)
    assert first == second == without_test_rows()
    assert seen[0].fitted.weights == seen[1].fitted.weights


def test_moving_a_row_to_the_train_rows_does_change_what_is_fitted() -> None:
    one, other = clients_with([None, None])
    odd = Rows(pd.DataFrame({"age": [300.0], "dose": [1e9], "ward": ["zebra"]}), np.array([1]))
    both = fp.Federation((ClientData("1", one.train), ClientData("2", odd))).pooled().train
    assert fitted_bits([ClientData("x", both), other]) != without_test_rows()
