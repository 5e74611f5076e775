"""Reddi et al., "Adaptive Federated Optimization", ICLR 2021, Algorithm 2, written out in numpy.

Δ is the weighted mean of the clients' changes; m ← β₁·m + (1 − β₁)·Δ from m = 0, v as each variant has it from
v = τ², and x ← x + η·m/(√v + τ).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedpact.algorithms.fedavg import FedAvg
from fedpact.algorithms.fedopt import FedAdagrad, FedAdam, FedAvgM, FedYogi
from fedpact.algorithms.optimizers import Adagrad
from tests.federation import Quadratics, quadratic, run_rounds

TAU = 1e-3
BETA1, BETA2 = 0.9, 0.99
START = np.array([1.0, -2.0, 0.1])
OPTIMA = np.array([[0.0, 3.0, 0.1], [4.0, 1.0, -0.3]])
CLIENTS = [quadratic("a", 1.0, OPTIMA[0], rows=1), quadratic("b", 1.0, OPTIMA[1], rows=3)]
LOCAL: dict[str, Any] = {"lr": 0.1, "local_steps": 2, "batch_size": None}


def mean_change(x: np.ndarray) -> np.ndarray:
    # Two steps at rate 0.1 with curvature 1 leave 0.9² of the distance to each client's optimum.
    return (1 - 0.81) * (0.25 * OPTIMA[0] + 0.75 * OPTIMA[1] - x)


def adam(v: np.ndarray, squared: np.ndarray) -> np.ndarray:
    return BETA2 * v + (1 - BETA2) * squared


def yogi(v: np.ndarray, squared: np.ndarray) -> np.ndarray:
    return v - (1 - BETA2) * squared * np.sign(v - squared)


def adagrad(v: np.ndarray, squared: np.ndarray) -> np.ndarray:
    return v + squared


def algorithm_2(
    accumulate: Callable[[np.ndarray, np.ndarray], np.ndarray], beta1: float, rounds: int
) -> np.ndarray:
    x, m, v = START, np.zeros(3), np.full(3, TAU**2)
    for _ in range(rounds):
        change = mean_change(x)
        m = beta1 * m + (1 - beta1) * change
        v = accumulate(v, change**2)
        x = x + 0.1 * m / (np.sqrt(v) + TAU)
    return x


@pytest.mark.parametrize("rounds", [1, 2, 5])
@pytest.mark.parametrize(
    ("algorithm", "accumulate", "beta1"),
    [
        (FedAdam(**LOCAL), adam, BETA1),
        (FedYogi(**LOCAL), yogi, BETA1),
        # The paper runs FedAdagrad without momentum: β₁ = 0.
        (FedAdagrad(**LOCAL), adagrad, 0.0),
        (
            FedAdagrad(server_optimizer=Adagrad(BETA1, TAU, initial_accumulator=TAU**2), **LOCAL),
            adagrad,
            BETA1,
        ),
    ],
    ids=["FedAdam", "FedYogi", "FedAdagrad", "FedAdagrad with momentum"],
)
def test_server_steps_are_those_of_algorithm_2(
    algorithm: FedAvg,
    accumulate: Callable[[np.ndarray, np.ndarray], np.ndarray],
    beta1: float,
    rounds: int,
) -> None:
    found = run_rounds(algorithm, Quadratics(START), CLIENTS, rounds).model["w"]
    # The mean is exact to 2^-44, which the first divisions by √v, some 1e-2, make a little larger.
    assert found == pytest.approx(algorithm_2(accumulate, beta1, rounds), abs=1e-10)


def test_first_step_of_fedadam_by_hand() -> None:
    # Δ = 0.19·(3 − 1) = 0.38 in the first coordinate; m = 0.038; v = 0.99·1e-6 + 0.01·0.1444 = 0.00144499;
    # x = 1 + 0.1·0.038/(0.0380130 + 0.001) = 1.0974034.
    state = run_rounds(FedAdam(**LOCAL), Quadratics(START), CLIENTS, 1)
    assert state.model["w"][0] == pytest.approx(1.0974034, abs=1e-7)


def test_fedavgm_sums_the_changes_with_momentum() -> None:
    x, buffer = START, np.zeros(3)
    for _ in range(4):
        buffer = 0.9 * buffer + mean_change(x)
        x = x + buffer
    found = run_rounds(FedAvgM(**LOCAL), Quadratics(START), CLIENTS, 4).model["w"]
    assert found == pytest.approx(x, abs=1e-11)


def test_server_rate_scales_the_mean_change() -> None:
    state = run_rounds(FedAvg(**LOCAL, server_lr=0.5), Quadratics(START), CLIENTS, 1)
    assert state.model["w"] == pytest.approx(START + 0.5 * mean_change(START), abs=1e-12)
