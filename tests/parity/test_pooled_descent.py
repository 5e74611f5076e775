"""FedSGD with all clients and full batches is gradient descent on the pooled rows."""

import copy
from typing import Any

import numpy as np
import pytest

from fedpact.algorithms.fedavg import FedAvg
from fedpact.algorithms.fedsgd import FedSGD
from fedpact.algorithms.optimizers import SGD, Adam
from fedpact.core.model import Schema
from fedpact.learn.linear import Logistic
from tests.federation import run_rounds, split

ROUNDS = 50
SIZES = [7, 40, 103, 250]
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(400, 5))
# Clients that are not alike: each has its own mean, and so its own share of the classes.
X += np.repeat(RANDOM.normal(size=(4, 5)), SIZES, axis=0)
Y = (X @ RANDOM.normal(size=5) + RANDOM.normal(size=400) > 0).astype(np.int64)
CLIENTS = split(X, Y, SIZES)
BINARY = Schema("binary", (5,), (0, 1))


def test_logistic_regression_is_that_of_a_pooled_loop() -> None:
    w, b, l2, lr = np.zeros(5), 0.0, 0.01, 0.5
    for _ in range(ROUNDS):
        residual = 1 / (1 + np.exp(-(X @ w + b))) - Y
        w, b = w - lr * (X.T @ residual / 400 + l2 * w), b - lr * residual.mean()
    state = run_rounds(FedSGD(lr=lr), Logistic(l2).build(BINARY), CLIENTS, ROUNDS)
    assert state.model["coef"] == pytest.approx(w, abs=1e-9)
    assert state.model["intercept"] == pytest.approx(b, abs=1e-9)


def test_unequal_clients_that_weigh_the_same_are_not_pooled_descent() -> None:
    model = Logistic().build(BINARY)
    pooled = run_rounds(FedSGD(lr=0.5), model, CLIENTS, ROUNDS).model
    uniform = run_rounds(FedSGD(lr=0.5, weighting="uniform"), model, CLIENTS, ROUNDS).model
    assert np.abs(pooled["coef"] - uniform["coef"]).max() > 0.05


def test_fedavg_with_one_full_step_is_pooled_descent_too() -> None:
    model = Logistic().build(BINARY)
    fedsgd = run_rounds(FedSGD(lr=0.5), model, CLIENTS, ROUNDS).model
    fedavg = run_rounds(FedAvg(lr=0.5, local_steps=1, batch_size=None), model, CLIENTS, ROUNDS).model
    assert fedavg.flats[0] == pytest.approx(fedsgd.flats[0], abs=1e-9)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("optimizer", [SGD(), SGD(momentum=0.9), Adam()], ids=["SGD", "momentum", "Adam"])
def test_torch_network_is_that_of_a_pooled_torch_loop(optimizer: Any, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    from fedpact.learn.torch import Torch

    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    network.to(getattr(torch, dtype))
    pooled, lr = copy.deepcopy(network), 0.01 if isinstance(optimizer, Adam) else 0.1
    steps = {
        SGD(): torch.optim.SGD(pooled.parameters(), lr=lr),
        SGD(momentum=0.9): torch.optim.SGD(pooled.parameters(), lr=lr, momentum=0.9),
        Adam(): torch.optim.Adam(pooled.parameters(), lr=lr),
    }[optimizer]
    x, y = torch.tensor(X, dtype=getattr(torch, dtype)), torch.tensor(Y)
    for _ in range(ROUNDS):
        steps.zero_grad()
        torch.nn.functional.cross_entropy(pooled(x), y).backward()
        steps.step()

    model = Torch(network, loss="cross_entropy").build(BINARY)
    state = run_rounds(FedSGD(lr=lr, server_optimizer=optimizer), model, CLIENTS, ROUNDS)
    # A float32 has 24 bits: 50 rounds of sums in another order differ by some units of 6e-8.
    tolerance = 1e-9 if dtype == "float64" else 1e-6
    for name, parameter in pooled.named_parameters():
        assert state.model[name] == pytest.approx(parameter.detach().numpy(), abs=tolerance), name
