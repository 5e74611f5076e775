import numpy as np
import pytest

from fedpact.algorithms.fedavg import FedAvg
from fedpact.algorithms.fedprox import FedProx
from fedpact.core.model import Schema
from fedpact.core.rows import ClientData, Rows
from fedpact.learn.linear import Logistic
from tests.federation import Quadratics, quadratic, run_rounds, split

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(60, 3))
Y = (X.sum(axis=1) + RANDOM.normal(size=60) > 0).astype(np.int64)
LOGISTIC = Logistic().build(Schema("binary", (3,), (0, 1)))

# One client with the loss 2/2·(w − 5)², which starts from 1.
CURVATURE, OPTIMUM, START = 2.0, 5.0, 1.0


def trained(mu: float, steps: int = 2000) -> float:
    algorithm = FedProx(lr=0.5 / (CURVATURE + mu), local_steps=steps, mu=mu)
    return float(
        run_rounds(algorithm, Quadratics([START]), [quadratic("a", CURVATURE, OPTIMUM)], 1).model["w"][0]
    )


def test_mu_of_zero_is_fedavg_to_the_bit() -> None:
    clients = split(X, Y, [10, 20, 30])
    fedprox = run_rounds(FedProx(mu=0.0, lr=0.3, batch_size=4), LOGISTIC, clients, 3)
    fedavg = run_rounds(FedAvg(lr=0.3, batch_size=4), LOGISTIC, clients, 3)
    assert fedprox == fedavg


@pytest.mark.parametrize("mu", [0.1, 1.0, 10.0])
def test_local_training_ends_at_the_minimum_of_the_loss_with_the_proximal_term(mu: float) -> None:
    # a·(w − b) + mu·(w − x) = 0 at w = (a·b + mu·x)/(a + mu).
    minimum = (CURVATURE * OPTIMUM + mu * START) / (CURVATURE + mu)
    assert trained(mu) == pytest.approx(minimum, abs=1e-9)


def test_distance_from_the_start_shrinks_like_one_over_mu() -> None:
    # It is a·|b − x|/(a + mu): mu times it tends to a·|b − x| = 8.
    for mu in (1e2, 1e3, 1e4):
        distance = trained(mu) - START
        assert mu * distance == pytest.approx(8, rel=2 * CURVATURE / mu)


def test_pull_is_towards_the_model_of_the_round_and_not_of_the_start() -> None:
    # Each round goes the share a/(a + mu) = 1/2 of the way that is left, so 4 → 2 → 1 → 1/2 from the optimum.
    algorithm = FedProx(lr=0.1, local_steps=200, mu=CURVATURE)
    state = run_rounds(algorithm, Quadratics([START]), [quadratic("a", CURVATURE, OPTIMUM)], 3)
    assert state.model["w"][0] == pytest.approx(OPTIMUM - 0.5, abs=1e-9)


def test_steps_are_those_of_torch_on_the_loss_with_the_proximal_term() -> None:
    torch = pytest.importorskip("torch")
    weights = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([weights], lr=0.2)
    x, y = torch.tensor(X), torch.tensor(Y, dtype=torch.float64)
    for _ in range(3):
        start = weights.detach().clone()
        for _ in range(5):
            optimizer.zero_grad()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(x @ weights[:3] + weights[3], y)
            (loss + 0.5 * 0.7 * ((weights - start) ** 2).sum()).backward()
            optimizer.step()
    algorithm = FedProx(lr=0.2, local_steps=5, batch_size=None, mu=0.7)
    state = run_rounds(algorithm, LOGISTIC, [ClientData("a", Rows(X, Y))], 3)
    assert state.model.flats[0] == pytest.approx(weights.detach().numpy(), abs=1e-9)
