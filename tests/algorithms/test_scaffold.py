import numpy as np
import pytest

from fedpact.algorithms.scaffold import SCAFFOLD
from fedpact.algorithms.schedules import CosineDecay
from fedpact.core.messages import Task
from fedpact.core.vector import Vector
from tests.federation import SEED, Quadratics, quadratic, run_rounds

# f(w) = w²/2 from x = 2: the gradient is w.
MODEL = Quadratics([2.0])
CLIENT = quadratic("a", 1, 0.0)
START = MODEL.initial(SEED)


def control(value: float) -> Vector:
    return Vector.from_arrays({"w": np.array([value])}, MODEL.layout)


def step(algorithm: SCAFFOLD, server: float, own: float) -> tuple[float, float, float]:
    """Return the change of the model, that of c_i, and the c_i kept, for c and c_i before."""
    task = Task("train", arrays={"model": START, "control": control(server)})
    update, kept = algorithm.client(MODEL, task, CLIENT, {"control": control(own)}, SEED)
    changes = (update.averaged[name]["w"][0] for name in ("model", "control"))
    return (*changes, kept["control"]["w"][0])


@pytest.mark.parametrize("option", [1, 2])
def test_local_step_is_along_the_gradient_less_the_clients_control_plus_the_servers(option: int) -> None:
    # Equation (3): y = 2 − 0.1·(2 − 0.25 + 0.5) = 1.775. Option 1 renews c_i to the gradient at x, 2; option 2 to
    # c_i − c + (x − y)/(K·η) = 0.25 − 0.5 + 0.225/0.1 = 2, the same for one step.
    change, control_change, kept = step(SCAFFOLD(lr=0.1, local_steps=1, option=option), 0.5, 0.25)
    assert change == pytest.approx(-0.225)
    assert kept == pytest.approx(2.0)
    assert control_change == pytest.approx(1.75)


def test_option_two_renews_the_control_to_the_mean_of_the_gradients_on_the_way() -> None:
    # y₁ = 1.775, y₂ = 1.775 − 0.1·(1.775 + 0.25) = 1.5725; c_i = 0.25 − 0.5 + (2 − 1.5725)/(2·0.1) = 1.8875, which
    # is the mean of the gradients 2 and 1.775.
    change, _, kept = step(SCAFFOLD(lr=0.1, local_steps=2, option=2), 0.5, 0.25)
    assert change == pytest.approx(-0.4275)
    assert kept == pytest.approx(1.8875)


def test_option_one_renews_the_control_to_the_gradient_at_the_model_received() -> None:
    *_, kept = step(SCAFFOLD(lr=0.1, local_steps=2, option=1), 0.5, 0.25)
    assert kept == 2.0


def test_server_control_moves_by_the_share_of_clients_that_were_sampled() -> None:
    # One of four equal clients renews its control from 0 to its gradient at x, 2: c = 2/4.
    clients = [quadratic(id, 1, 0.0) for id in "abcd"]
    state = run_rounds(SCAFFOLD(lr=0.1, local_steps=1), MODEL, clients, 1, cohort=1)
    assert state.control["w"][0] == pytest.approx(0.5)


def test_client_keeps_its_control_in_a_round_whose_rate_is_zero() -> None:
    algorithm = SCAFFOLD(lr=0.1, local_steps=2, lr_schedule=CosineDecay(rounds=1))
    task = Task("train", version=1, arrays={"model": START, "control": control(0.5)})
    update, kept = algorithm.client(MODEL, task, CLIENT, {"control": control(0.25)}, SEED)
    assert kept["control"] == control(0.25)
    assert update.averaged["control"] == control(0.0)


def test_buffers_have_no_control() -> None:
    torch = pytest.importorskip("torch")
    from fedpact.core.model import Schema
    from fedpact.learn.torch import Torch
    from tests.federation import split

    random = np.random.default_rng(0)
    x, y = random.normal(3, 2, size=(40, 4)), random.normal(size=40)
    module = torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
    model = Torch(module).build(Schema("regression", (4,)))
    for option in (1, 2):
        kept: dict = {}
        algorithm = SCAFFOLD(lr=0.01, batch_size=8, option=option)
        state = run_rounds(algorithm, model, split(x, y, [10, 30]), 2, kept=kept)
        for vector in (state.control, kept["0"]["control"]):
            for segment, flat in zip(vector.layout.segments, vector.flats, strict=True):
                assert np.any(flat) == (segment.role == "parameter")
        # 2 rounds of 2 and 4 batches: (10·2 + 30·4)/40 = 3.5 a round, half to even 4; the next to 7.5, and so 8.
        assert state.model["0.num_batches_tracked"] == 8
