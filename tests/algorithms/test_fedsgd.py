import numpy as np
import pytest

from fedpact.algorithms.fedsgd import FedSGD
from fedpact.algorithms.optimizers import SGD
from fedpact.algorithms.schedules import StepDecay
from fedpact.core.messages import Task
from fedpact.core.model import Schema
from fedpact.core.seeds import Seed
from tests.federation import SEED, Quadratics, quadratic, run_rounds, split

SMALL, LARGE = quadratic("a", 1.0, 0.0, rows=1), quadratic("b", 1.0, 4.0, rows=3)
MODEL = Quadratics([0.0])


@pytest.mark.parametrize("batch_size", [None, 1, 2])
def test_batch_stands_for_all_the_rows_of_its_client(batch_size: int | None) -> None:
    # All rows of a client are alike, so any batch has the gradient of all: (1·0 + 3·(0 − 4))/4 = −3.
    state = run_rounds(FedSGD(lr=1.0, batch_size=batch_size), MODEL, [SMALL, LARGE], 1)
    assert state.model["w"][0] == 3.0


def test_gradients_weigh_the_same_when_uniform() -> None:
    state = run_rounds(FedSGD(lr=1.0, weighting="uniform"), MODEL, [SMALL, LARGE], 1)
    assert state.model["w"][0] == 2.0


def test_batch_is_drawn_without_repetition_from_the_seed() -> None:
    # A client whose row i has its optimum at 2^i: the mean gradient at 0 says which rows were drawn.
    client = split(2.0 ** np.arange(10)[:, None], np.ones(10), [10])[0]
    task = Task("gradient", arrays={"model": MODEL.initial(SEED)})
    drawn = []
    for number in range(20):
        update, _ = FedSGD(batch_size=4).client(MODEL, task, client, {}, Seed.of(number))
        drawn.append(round(-4 * update.averaged["model"]["w"][0]))
    assert all(rows.bit_count() == 4 for rows in drawn)
    assert len(set(drawn)) > 10
    again, _ = FedSGD(batch_size=4).client(MODEL, task, client, {}, Seed.of(0))
    assert round(-4 * again.averaged["model"]["w"][0]) == drawn[0]


def test_server_optimiser_and_schedule_step_along_the_mean_gradient() -> None:
    algorithm = FedSGD(lr=0.1, server_optimizer=SGD(momentum=0.9), lr_schedule=StepDecay(every=1, rate=0.5))
    w, buffer = 0.0, 0.0
    for lr in (0.1, 0.05, 0.025):
        buffer = 0.9 * buffer + (w - 3)
        w -= lr * buffer
    assert run_rounds(algorithm, MODEL, [SMALL, LARGE], 3).model["w"][0] == pytest.approx(w, abs=1e-12)


def test_buffers_move_by_their_mean_change() -> None:
    torch = pytest.importorskip("torch")
    from fedpact.learn.torch import Torch

    random = np.random.default_rng(0)
    x, y = random.normal(3, 2, size=(40, 4)).astype(np.float32), random.normal(size=40)
    module = torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
    model = Torch(module).build(Schema("regression", (4,)))
    state = run_rounds(FedSGD(lr=0.01), model, split(x, y, [10, 30]), 1)
    # Batch norm's momentum of 0.1 takes a tenth of each client's mean, and the mean of these weighs by rows.
    assert state.model["0.running_mean"] == pytest.approx(0.1 * x.mean(axis=0), abs=1e-6)
    assert state.model["0.num_batches_tracked"] == 1


def test_gradients_of_bfloat16_parameters_are_sent_as_numbers() -> None:
    torch = pytest.importorskip("torch")
    from fedpact.learn.torch import Torch

    module = torch.nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    torch.nn.init.constant_(module.weight, 0.5)
    model = Torch(module, loss="mse").build(Schema("regression", (1,)))
    task = Task("gradient", arrays={"model": model.initial(SEED)})
    client = split(np.array([[2.0]]), np.array([5.0]), [1])[0]
    update, _ = FedSGD().client(model, task, client, {}, SEED)
    # d/dw (2·w − 5)² at w = 0.5: 2·(1 − 5)·2.
    assert update.averaged["model"]["weight"].item() == -16.0


def test_update_says_how_many_rows_its_loss_is_of() -> None:
    task = Task("gradient", arrays={"model": MODEL.initial(SEED)})
    update, _ = FedSGD(batch_size=2).client(MODEL, task, LARGE, {}, SEED)
    assert update.metrics == {"loss": 2 * 8.0, "rows": 2}
    assert update.weight == 3
