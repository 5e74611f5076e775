"""The arithmetic of docs/worked-examples.md, through the code that every round runs."""

import doctest
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpact.algorithms.fedavg import FedAvg
from fedpact.algorithms.fedsgd import FedSGD
from fedpact.algorithms.optimizers import SGD, Adam, EMAMomentum, Optimizer
from fedpact.core.messages import Aggregate
from fedpact.core.model import Schema
from fedpact.core.vector import Vector
from tests.federation import SEED, Quadratics, run_rounds, split

PAGE = Path(__file__).parents[2] / "docs" / "worked-examples.md"
SIZES = [100, 200, 300]
WEIGHTS = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
# On the loss ‖w − x‖²/2 one full step at rate 1 ends at x: training at client k ends at WEIGHTS[k].
CLIENTS = split(np.repeat(WEIGHTS, SIZES, axis=0), np.ones(600), SIZES)


@pytest.mark.parametrize(
    ("weighting", "expected"),
    [
        # (100·[1, 2, 3] + 200·[4, 5, 6] + 300·[7, 8, 9]) / 600 = [3000, 3600, 4200] / 600
        ("examples", [5.0, 6.0, 7.0]),
        # ([1, 2, 3] + [4, 5, 6] + [7, 8, 9]) / 3 = [12, 15, 18] / 3
        ("uniform", [4.0, 5.0, 6.0]),
    ],
)
@pytest.mark.parametrize("start", [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [-0.3, 0.7, 1e3]])
def test_fedavg_takes_the_mean_of_three_clients(
    weighting: Any, expected: list[float], start: list[float]
) -> None:
    algorithm = FedAvg(lr=1.0, local_steps=1, batch_size=None, weighting=weighting)
    assert run_rounds(algorithm, Quadratics(start), CLIENTS, 1).model["w"] == pytest.approx(
        expected, abs=1e-10
    )


def test_mean_of_those_that_answer_is_divided_by_their_rows() -> None:
    # (100·[1, 2, 3] + 200·[4, 5, 6]) / 300
    algorithm = FedAvg(lr=1.0, local_steps=1, batch_size=None)
    model = Quadratics([0.0, 0.0, 0.0])
    assert run_rounds(algorithm, model, CLIENTS[:2], 1).model["w"] == pytest.approx(
        [3.0, 4.0, 5.0], abs=1e-12
    )


W, G = np.array([1.0, 2.0, 3.0]), np.array([0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    ("optimizer", "first", "second"),
    [
        # w − 0.01·g, twice
        (SGD(), [0.999, 1.998, 2.997], [0.998, 1.996, 2.994]),
        # b = g, then 0.9·g + g = 1.9·g: 0.999 − 0.01·0.19 = 0.9971
        (SGD(momentum=0.9), [0.999, 1.998, 2.997], [0.9971, 1.9942, 2.9913]),
        # m = 0.1·g, then 0.09·g + 0.1·g = 0.19·g: 0.9999 − 0.01·0.019 = 0.99971
        (EMAMomentum(beta=0.9), [0.9999, 1.9998, 2.9997], [0.99971, 1.99942, 2.99913]),
        # m̂ = g and v̂ = g² in both steps: 0.01·g/|g| = 0.01
        (Adam(betas=(0.9, 0.99), eps=0.0), [0.99, 1.99, 2.99], [0.98, 1.98, 2.98]),
        # 0.1·g/√(0.01·g²) = 1, then 0.19·g/√(0.0199·g²) = 0.19/0.14106736 = 1.3468743
        (
            Adam(betas=(0.9, 0.99), eps=0.0, bias_correction=False),
            [0.99, 1.99, 2.99],
            [0.976531257, 1.976531257, 2.976531257],
        ),
    ],
    ids=["gradient descent", "momentum that sums", "momentum that averages", "Adam", "Adam uncorrected"],
)
def test_server_steps_from_one_two_three(
    optimizer: Optimizer, first: list[float], second: list[float]
) -> None:
    model, algorithm = Quadratics(W), FedSGD(lr=0.01, server_optimizer=optimizer)
    aggregate = Aggregate("gradient", 3, 600, 3, means={"model": Vector.from_arrays({"w": G})})
    state = algorithm.server(model, algorithm.init(model, SEED), aggregate)
    assert state.model["w"] == pytest.approx(first, abs=1e-12)
    assert algorithm.server(model, state, aggregate).model["w"] == pytest.approx(second, abs=1e-9)


def test_gradients_of_clients_make_that_step_through_a_whole_round() -> None:
    # The gradient of ‖w − x‖²/2 is w − x: three clients whose mean gradient is g, weighted 1 : 2 : 3.
    gradients = np.array([[0.4, -0.1, 0.0], [-0.2, 0.5, 0.3], [0.2, 0.1, 0.4]])
    assert (gradients * [[1], [2], [3]]).sum(axis=0) / 6 == pytest.approx(G)
    clients = split(np.repeat(W - gradients, SIZES, axis=0), np.ones(600), SIZES)
    state = run_rounds(FedSGD(lr=0.01), Quadratics(W), clients, 1)
    assert state.model["w"] == pytest.approx([0.999, 1.998, 2.997], abs=1e-12)


def test_batch_norm_counts_the_weighted_mean_of_batches_to_the_nearest() -> None:
    torch = pytest.importorskip("torch")
    from fedpact.learn.torch import Torch

    model = Torch(torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1))).build(
        Schema("regression", (3,))
    )
    x = np.random.default_rng(0).normal(size=(600, 3)).astype(np.float32)
    state = run_rounds(FedAvg(lr=0.01, batch_size=50), model, split(x, x.sum(axis=1), SIZES), 1)
    # (100·2 + 200·4 + 300·6) / 600 = 4.67 batches
    counter = state.model["0.num_batches_tracked"]
    assert counter == 5
    assert counter.dtype == np.int64


def test_every_block_of_the_page_runs_and_prints_what_it_says() -> None:
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert blocks
    assert {language for language, _ in blocks} == {"pycon"}
    # One session, as a reader would type it.
    session = doctest.DocTestParser().get_doctest("".join(code for _, code in blocks), {}, PAGE.name, None, 0)
    assert doctest.DocTestRunner().run(session).failed == 0


def test_fixed_point_that_the_page_gives_for_fedavg() -> None:
    clients = split(np.array([[0.0], [5.0]]), np.array([1.0, 4.0]), [1, 1])
    state = run_rounds(FedAvg(lr=0.1, local_steps=10), Quadratics([0.0]), clients, 40)
    assert state.model["w"][0] == pytest.approx(3.02, abs=5e-3)
