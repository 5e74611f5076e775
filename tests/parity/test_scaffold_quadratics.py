"""SCAFFOLD and FedAvg on two parabolas, f_i(w) = a_i/2·(w − b_i)², where both fixed points can be written down.

A client that takes K full-gradient steps at rate η from x ends at y_i = b_i + r_i·(x − b_i), r_i = (1 − η·a_i)^K.

FedAvg stands still where the mean of the y_i is x: Σ p_i·(1 − r_i)·(b_i − x) = 0, so at
x_F = Σ p_i·(1 − r_i)·b_i / Σ p_i·(1 − r_i), p_i being the clients' shares of the rows. The optimum is
x* = Σ p_i·a_i·b_i / Σ p_i·a_i. For K = 1 the two agree, since 1 − r_i = η·a_i; for K > 1 they do not.

SCAFFOLD, option 1: c_i = a_i·(x − b_i), c = Σ p_i·c_i. A corrected step is y ← y − η·(a_i·(y − x) + c), so that y − x
goes from 0 to −c·(1 − r_i)/a_i. Its mean is 0 only if c = 0, that is at x*.

SCAFFOLD, option 2: c_i = c_i − c + (x − y_i)/(K·η) is at rest if y_i = x − K·η·c for every i, and x is if the
mean of the y_i is x: so c = 0 and y_i = x. A client that ends its K steps y ← y − η·(a_i·(y − b_i) − c_i) where it
began stood still, since they contract: c_i = a_i·(x − b_i), and Σ p_i·c_i = c = 0 only at x*.
"""

import numpy as np
import pytest

from fedpact.algorithms.fedavg import FedAvg
from fedpact.algorithms.scaffold import SCAFFOLD
from fedpact.core.algorithm import ClientState
from tests.federation import Quadratics, quadratic, run_rounds

A, B = np.array([1.0, 4.0]), np.array([0.0, 5.0])
RATE, STEPS = 0.1, 10
CLIENTS = [quadratic("a", A[0], B[0]), quadratic("b", A[1], B[1])]
# Client "a" has three times the rows of client "b".
UNEVEN = [quadratic("a", A[0], B[0], rows=3), quadratic("b", A[1], B[1], rows=1)]
MODEL = Quadratics([3.0])


def optimum(share: np.ndarray) -> float:
    return float(np.sum(share * A * B) / np.sum(share * A))


def fedavg_fixed_point(share: np.ndarray) -> float:
    moved = share * (1 - (1 - RATE * A) ** STEPS)
    return float(np.sum(moved * B) / np.sum(moved))


HALVES, QUARTERS = np.array([0.5, 0.5]), np.array([0.75, 0.25])
clients_and_shares = pytest.mark.parametrize(
    ("clients", "share"), [(CLIENTS, HALVES), (UNEVEN, QUARTERS)], ids=["even", "uneven"]
)
both_options = pytest.mark.parametrize("option", [1, 2])


def test_optimum_and_fixed_point_of_fedavg_are_far_apart() -> None:
    # x* = (0.5·1·0 + 0.5·4·5) / (0.5·1 + 0.5·4) = 10 / 2.5 = 4.
    assert optimum(HALVES) == 4
    # r = (0.9^10, 0.6^10) = (0.34868, 0.00605): x_F = 5·0.99395 / (0.65132 + 0.99395) = 3.0206.
    assert fedavg_fixed_point(HALVES) == pytest.approx(3.0206, abs=1e-4)


@clients_and_shares
def test_fedavg_converges_to_its_fixed_point_and_not_to_the_optimum(clients: list, share: np.ndarray) -> None:
    state = run_rounds(FedAvg(lr=RATE, local_steps=STEPS), MODEL, clients, 40)
    assert state.model["w"][0] == pytest.approx(fedavg_fixed_point(share), abs=1e-9)
    assert abs(state.model["w"][0] - optimum(share)) > 0.5


@both_options
@clients_and_shares
def test_scaffold_converges_to_the_optimum(clients: list, share: np.ndarray, option: int) -> None:
    state = run_rounds(SCAFFOLD(lr=RATE, local_steps=STEPS, option=option), MODEL, clients, 100)
    assert state.model["w"][0] == pytest.approx(optimum(share), abs=1e-9)


@both_options
@clients_and_shares
def test_control_variates_become_the_gradients_at_the_optimum(
    clients: list, share: np.ndarray, option: int
) -> None:
    kept: dict[str, ClientState] = {}
    state = run_rounds(SCAFFOLD(lr=RATE, local_steps=STEPS, option=option), MODEL, clients, 100, kept=kept)
    gradients = A * (optimum(share) - B)
    found = [kept[client.id]["control"]["w"][0] for client in clients]
    assert found == pytest.approx(gradients, abs=1e-8)
    assert state.control["w"][0] == pytest.approx(0, abs=1e-8)


@both_options
@clients_and_shares
def test_scaffold_converges_to_the_optimum_with_one_sampled_client_a_round(
    clients: list, share: np.ndarray, option: int
) -> None:
    algorithm = SCAFFOLD(lr=0.02, local_steps=STEPS, option=option)
    state = run_rounds(algorithm, MODEL, clients, 200, cohort=1)
    assert state.model["w"][0] == pytest.approx(optimum(share), abs=1e-6)


@both_options
def test_sampled_clients_that_weigh_less_and_more_than_the_mean_share_one_control_variate(
    option: int,
) -> None:
    # Five clients of 1 to 5 rows, two a round: the weight of a cohort is never its share of the clients.
    clients = [quadratic(str(i), 1 + 0.5 * i, i, rows=i + 1) for i in range(5)]
    share, a, b = np.arange(1, 6) / 15, 1 + 0.5 * np.arange(5), np.arange(5)
    state = run_rounds(
        SCAFFOLD(lr=0.05, local_steps=5, option=option), Quadratics([9.0]), clients, 200, cohort=2
    )
    assert state.model["w"][0] == pytest.approx(np.sum(share * a * b) / np.sum(share * a), abs=1e-6)


@both_options
@clients_and_shares
def test_scaffold_with_one_local_step_is_fedavg(clients: list, share: np.ndarray, option: int) -> None:
    # The mean of g_i − c_i + c is that of the g_i, because c is the mean of the c_i.
    scaffold = run_rounds(SCAFFOLD(lr=RATE, local_steps=1, option=option), MODEL, clients, 20)
    fedavg = run_rounds(FedAvg(lr=RATE, local_steps=1), MODEL, clients, 20)
    assert scaffold.model["w"] == pytest.approx(fedavg.model["w"], abs=1e-10)
