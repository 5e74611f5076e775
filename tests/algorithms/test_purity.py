"""`client` and `server` are pure: what they are given is the same bits afterwards, and they answer the same again."""

from typing import Any

import numpy as np
import pytest

from fedpact.algorithms import ALGORITHMS
from fedpact.algorithms.optimizers import SGD, Adam
from fedpact.core.accumulator import Accumulator
from fedpact.core.model import Schema
from fedpact.learn.linear import Logistic
from fedpact.learn.naive_bayes import GaussianNB
from fedpact.store.tree import pack
from tests.federation import SEED, split

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(40, 3))
Y = RANDOM.integers(0, 2, 40)
SCHEMA = Schema("binary", (3,), (0, 1))
CLIENTS = split(X, Y, [15, 25])
SETTINGS: dict[str, dict[str, Any]] = {
    "FedAvg": {
        "batch_size": 5,
        "optimizer": Adam(),
        "server_optimizer": SGD(momentum=0.9),
        "max_grad_norm": 0.1,
    },
    "FedSGD": {"batch_size": 4, "server_optimizer": Adam()},
    "FedProx": {"mu": 0.5},
    "SCAFFOLD": {"batch_size": 5, "option": 1},
    "FedDF": {"batch_size": 5, "public": X[:8], "server_steps": 3, "models": {"1": Logistic(0.2)}},
}


def bits(value: Any) -> tuple[Any, dict[str, bytes]]:
    tree, arrays = pack(value)
    return tree, {name: array.tobytes() for name, array in arrays.items()}


def model_for(name: str, library: str) -> Any:
    if name == "OneShot":
        return GaussianNB().build(SCHEMA)
    if library == "numpy":
        return Logistic(0.1, init="uniform").build(SCHEMA)
    torch = pytest.importorskip("torch")
    from fedpact.learn.torch import Torch

    layers = (torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 2))
    return Torch(torch.nn.Sequential(*layers)).build(SCHEMA)


CASES = [(name, "numpy") for name in ALGORITHMS] + [
    (name, "torch") for name in ALGORITHMS if name not in ("Newton", "OneShot")
]


@pytest.mark.parametrize(("name", "library"), CASES)
def test_what_client_and_server_are_given_stays_as_it_is(name: str, library: str) -> None:
    model, algorithm = model_for(name, library), ALGORITHMS.load(name)(**SETTINGS.get(name, {}))
    state = algorithm.init(model, SEED)
    kept: dict[str, Any] = {client.id: {} for client in CLIENTS}
    for _ in range(2):
        task = algorithm.task(state)
        if task is None:
            break
        accumulator = Accumulator(task, 65536.0, len(X), len(CLIENTS))
        before = bits((state, task, kept, CLIENTS))
        renewed = {}
        for client in CLIENTS:
            update, renewed[client.id] = algorithm.client(model, task, client, kept[client.id], SEED)
            again, _ = algorithm.client(model, task, client, kept[client.id], SEED)
            assert bits(update) == bits(again)
            accumulator.add(update)
        assert bits((state, task, kept, CLIENTS)) == before

        aggregate = accumulator.aggregate()
        before = bits((state, task, kept, aggregate))
        after = algorithm.server(model, state, aggregate)
        assert bits((state, task, kept, aggregate)) == before
        assert bits(algorithm.server(model, state, aggregate)) == bits(after)
        assert bits(after) != bits(state)
        state, kept = after, renewed
