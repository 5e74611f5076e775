import numpy as np
import pytest

from fedpact.algorithms.cyclic import Cyclic
from fedpact.core.messages import Task
from fedpact.core.model import Schema
from fedpact.core.seeds import Seed
from fedpact.engine.sampler import choose
from fedpact.learn.linear import Logistic
from tests.federation import SEED, Quadratics, quadratic, run_rounds, split

NAMES = ["a", "b", "c", "d", "e"]


def asked(algorithm: Cyclic, rounds: int, seed: Seed = SEED) -> list[str]:
    model = Quadratics([0.0])
    task: Task = algorithm.task(algorithm.init(model, seed))
    return [id for number in range(rounds) for id in choose(task.to, NAMES, None, number, seed)]


def test_one_client_trains_in_a_round_and_each_once_in_a_pass() -> None:
    order = asked(Cyclic(), 15)
    assert len(order) == 15
    assert all(sorted(order[i : i + 5]) == NAMES for i in (0, 5, 10))


def test_every_pass_has_an_order_of_its_own_drawn_from_the_seed() -> None:
    order = asked(Cyclic(), 15)
    assert order[:5] != order[5:10]
    assert order == asked(Cyclic(), 15)
    assert order != asked(Cyclic(), 15, Seed.of(1))


def test_clients_take_turns_by_name_without_shuffling() -> None:
    assert asked(Cyclic(shuffle_clients=False), 10) == NAMES * 2


def test_model_passes_from_client_to_client_to_the_bit() -> None:
    # Each step is w ← w − (w − b)/4. Of whole numbers b, 8 steps need 16 bits behind the point: nothing is rounded.
    optima, weight = [5.0, -3.0, 7.0, 2.0], 1.0
    clients = [quadratic(name, 1.0, b) for name, b in zip(NAMES, optima, strict=False)]
    for b in optima * 2:
        weight -= (weight - b) / 4
    algorithm = Cyclic(lr=0.25, local_steps=1, shuffle_clients=False)
    assert run_rounds(algorithm, Quadratics([1.0]), clients, 8).model["w"][0] == weight


def test_passes_are_sequential_training_in_one_process() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(60, 3)), random.integers(0, 2, 60)
    clients, model = split(x, y, [10, 20, 30]), Logistic().build(Schema("binary", (3,), (0, 1)))
    algorithm = Cyclic(lr=0.3, local_epochs=2, batch_size=7, shuffle=False, shuffle_clients=False)
    weights = model.initial(SEED)
    for number in range(6):
        rows = clients[number % 3].train
        weights = algorithm.local_training(model, weights, rows, number, SEED).model
    # What a client learned goes through the exact sum, whose unit is below 2^-40 here.
    assert run_rounds(algorithm, model, clients, 6).model.flats[0] == pytest.approx(
        weights.flats[0], abs=1e-11
    )
