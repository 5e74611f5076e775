"""The server's step: along a gradient, for parameters and buffers of any dtype."""

import tracemalloc
from typing import Any

import numpy as np
import pytest

from fedpact.algorithms.fedavg import FedAvg, FedAvgState
from fedpact.algorithms.fedsgd import FedSGD
from fedpact.algorithms.optimizers import SGD, Adam
from fedpact.algorithms.server import first_slots, server_step
from fedpact.core.messages import Aggregate
from fedpact.core.vector import Entry, Layout, Vector

MIXED = Layout(
    [
        Entry("w", (50,)),
        Entry("h", (50,), "float16"),
        Entry("b", (50,), "bfloat16"),
        Entry("d", (50,), "float64"),
        Entry("mean", (50,), "float32", "buffer"),
        Entry("steps", (50,), "int64", "buffer"),
    ]
)
LARGE = Layout([Entry("w", (1_000_000,))])


def random_vector(layout: Layout, seed: int) -> Vector:
    vector, random = Vector.zeros(layout.wide), np.random.default_rng(seed)
    for flat in vector.flats:
        flat[:] = random.normal(0, 5, flat.size)
    return vector


def aggregate(kind: Any, mean: Vector) -> Aggregate:
    return Aggregate(kind, 1, 1.0, 1, {"model": mean})


def test_plain_mean_has_the_bits_of_a_step_of_gradient_descent_at_rate_one() -> None:
    model, change = random_vector(MIXED, 0).narrowed(MIXED), random_vector(MIXED, 1)
    gradient = change.copy()
    for flat in gradient.flats:
        flat *= -1
    stepped, _ = server_step(SGD(), model, gradient, {}, 1, 1.0)
    found = FedAvg().server(None, FedAvgState(0, model, {}), aggregate("delta", change))
    assert found.model == stepped
    assert found.round == 1


def test_buffers_move_by_the_change_whatever_the_optimiser_and_rate() -> None:
    model, change = random_vector(MIXED, 0).narrowed(MIXED), random_vector(MIXED, 1)
    algorithm = FedAvg(server_optimizer=Adam(), server_lr=0.1)
    state = FedAvgState(0, model, first_slots(Adam(), model))
    found = algorithm.server(None, state, aggregate("delta", change)).model
    moved = model.plus(change)
    for name in ("mean", "steps"):
        assert np.array_equal(found[name], moved[name])
    assert not np.array_equal(found["w"], moved["w"])


@pytest.mark.parametrize(
    ("algorithm", "kind", "models"),
    [
        # The model, and its sums before they are rounded.
        (FedAvg(), "delta", 2),
        # The model, and a gradient that the optimiser may spend.
        (FedAvg(server_lr=0.5), "delta", 2),
        (FedSGD(), "gradient", 2),
    ],
    ids=["the mean", "FedAvg", "FedSGD"],
)
def test_server_makes_no_copy_of_the_model_that_it_does_not_need(
    algorithm: Any, kind: Any, models: int
) -> None:
    model, mean = random_vector(LARGE, 0), random_vector(LARGE, 1)
    state, given = FedAvgState(0, model, {}), aggregate(kind, mean)
    tracemalloc.start()
    algorithm.server(None, state, given)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Scratch of blocks comes on top.
    assert peak < (models + 0.5) * LARGE.nbytes
