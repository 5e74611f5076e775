from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from fedpact.algorithms.newton import Newton, NewtonState
from fedpact.core.accumulator import Accumulator
from fedpact.core.model import Schema
from fedpact.core.vector import Vector
from fedpact.learn.linear import Linear, Logistic, Softmax
from tests.federation import SEED, run_rounds, split

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(300, 4))
Y = (X[:, 0] + RANDOM.normal(size=300) > 0).astype(np.int64)
SIZES = [30, 70, 200]


def fit(spec: Any, x: np.ndarray, y: np.ndarray, rounds: int = 100) -> NewtonState:
    classes = () if isinstance(spec, Linear) else tuple(range(int(y.max()) + 1))
    model = spec.build(Schema(spec.kind, x.shape[1:], classes))
    return run_rounds(Newton(), model, split(x, y, SIZES), rounds)


def gradient_norm(spec: Any, state: NewtonState, x: np.ndarray, y: np.ndarray) -> float:
    """Return the norm of the gradient on all rows, which is 0 at the optimum and nowhere else."""
    classes = () if isinstance(spec, Linear) else tuple(range(int(y.max()) + 1))
    model = spec.build(Schema(spec.kind, x.shape[1:], classes))
    session = model.session()
    session.load(state.model)
    session.bind(split(x, y, [300])[0].train, SEED)
    session.gradient(None)
    return float(np.linalg.norm(session.gradients[0]))


def test_it_ends_by_itself() -> None:
    state = fit(Logistic(0.01), X, Y)
    assert state.converged
    assert state.round < 10
    assert Newton().task(state) is None


def test_linear_regression_is_solved_in_one_step_and_confirmed_in_a_second() -> None:
    assert fit(Linear(), X, X @ [1.0, 2.0, 3.0, 4.0]).round == 2


def test_duplicate_columns_share_their_weight() -> None:
    single, double = fit(Logistic(), X, Y), fit(Logistic(), np.hstack([X, X[:, :1]]), Y)
    assert double.converged
    assert double.model["coef"][[0, 4]] == pytest.approx(single.model["coef"][0] / 2, abs=1e-9)
    assert double.model["coef"][1:4] == pytest.approx(single.model["coef"][1:], abs=1e-9)


def test_column_of_zeros_keeps_its_weight() -> None:
    state = fit(Logistic(), np.hstack([X, np.zeros((300, 1))]), Y)
    assert state.converged
    assert state.model["coef"][4] == pytest.approx(0, abs=1e-12)


def test_weights_of_softmax_that_no_row_can_tell_apart_add_up_to_zero() -> None:
    y = np.digitize(X[:, 0] + RANDOM.normal(size=300), [-0.5, 0.5])
    state = fit(Softmax(), X, y)
    assert state.converged
    assert state.model["intercept"].sum() == pytest.approx(0, abs=1e-9)
    assert state.model["coef"].sum(axis=0) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("spec", [Linear(), Logistic()], ids=["Linear", "Logistic"])
def test_units_of_the_columns_change_nothing_but_the_units_of_the_weights(spec: Any) -> None:
    # Metres or nanometres: the Hessian's diagonal spans 24 orders of magnitude here.
    units = np.array([1e6, 1.0, 1e-6, 1e-3])
    y = Y if isinstance(spec, Logistic) else X @ [1.0, 2.0, 3.0, 4.0] + Y
    plain, scaled = fit(spec, X, y), fit(spec, X * units, y)
    assert scaled.converged
    assert scaled.model["coef"] * units == pytest.approx(plain.model["coef"], abs=1e-8)


def test_column_far_from_zero_is_told_apart_from_the_intercept() -> None:
    plain, shifted = fit(Logistic(), X, Y), fit(Logistic(), X + np.array([1e4, 0, 0, 0]), Y)
    assert shifted.model["coef"] == pytest.approx(plain.model["coef"], abs=1e-6)


def test_separable_rows_with_a_penalty_converge() -> None:
    y = (X[:, 0] > 0).astype(np.int64)
    for l2 in (1e-2, 1e-6):
        state = fit(Logistic(l2), X, y)
        assert state.converged
        assert gradient_norm(Logistic(l2), state, X, y) < 1e-9


def test_client_that_is_gone_leaves_the_others_to_converge_at_once() -> None:
    # Without its rows the objective is another and rises here, which says nothing about the step.
    clients, algorithm = split(X, Y, SIZES), Newton()
    model = Logistic(0.01).build(Schema("binary", (4,), (0, 1)))
    state = run_rounds(algorithm, model, clients, 3)
    while task := algorithm.task(state):
        accumulator = Accumulator(task, 65536.0, 300, 2)
        for client in clients[1:]:
            accumulator.add(algorithm.client(model, task, client, {}, SEED)[0])
        state = algorithm.server(model, state, accumulator.aggregate())
    assert state.round < 10
    alone = run_rounds(algorithm, model, clients[1:], 20)
    assert state.model.flats[0] == pytest.approx(alone.model.flats[0], abs=1e-9)


def test_model_is_the_best_point_judged_whenever_a_run_ends() -> None:
    # From far away on the flat side of the log loss a full Newton step overshoots by orders of magnitude.
    spec = Logistic(1e-4)
    model = spec.build(Schema("binary", (4,), (0, 1)))
    far = model.initial(SEED)
    far["coef"] = [-8.0, 3.0, -3.0, 2.0]
    model.initial = lambda seed: far  # type: ignore[method-assign]
    states = [run_rounds(Newton(), model, split(X, Y, SIZES), rounds) for rounds in range(1, 20)]
    rows = split(X, Y, [300])[0].train

    def objective(weights: Vector) -> float:
        return model.curvature(weights, rows)[0] / 300 + 0.5e-4 * float(weights["coef"] @ weights["coef"])

    found = [objective(state.model) for state in states]
    assert states[0].model == far
    assert all(after <= before + 1e-12 for before, after in pairwise(found))
    assert any(objective(state.trial) > 10 * objective(state.model) for state in states)


def test_last_step_is_taken_where_it_converges() -> None:
    state = fit(Linear(), X, X @ [1.0, 2.0, 3.0, 4.0])
    assert state.converged
    assert state.model == state.trial


def test_steps_that_go_too_far_are_halved() -> None:
    # From far away on the flat side of the log loss a full Newton step overshoots by orders of magnitude.
    model = Logistic(1e-4).build(Schema("binary", (4,), (0, 1)))
    far = model.initial(SEED)
    far["coef"] = [-8.0, 3.0, -3.0, 2.0]
    model.initial = lambda seed: far
    states = [run_rounds(Newton(), model, split(X, Y, SIZES), rounds) for rounds in range(1, 20)]
    assert min(state.damping for state in states) < 1
    objectives = [state.objective for state in states]
    assert all(b <= a + 1e-12 for a, b in pairwise(objectives))
    state = states[-1]
    assert state.converged
    assert gradient_norm(Logistic(1e-4), state, X, Y) < 1e-9
