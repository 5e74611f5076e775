"""Training in float16: small gradients survive by a scaled loss, and what overflows is done again at half the scale.

Here it runs on the processor, whose float16 has the same numbers; a user is given it on a GPU alone.
"""

from typing import Any

import numpy as np
import pytest

import fedpact as fp
from fedpact.core import Rows, Schema, Seed
from fedpact.core.errors import ClientError, ConfigError

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from fedpact.algorithms.local_sgd import LocalSGD  # noqa: E402
from fedpact.learn.torch import Torch, TorchModel  # noqa: E402
from fedpact.learn.torch_scaled import ScaledSession  # noqa: E402
from fedpact.learn.torch_session import TorchSession  # noqa: E402

torch.manual_seed(0)

NUMBER = Schema("regression", (1,))
THREE = Schema("multiclass", (5,), ("a", "b", "c"))
a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class InHalf(nn.Linear):
    """A linear layer of one weight w, without a bias, computed in float16 whatever the context."""

    def __init__(self, weight: float) -> None:
        super().__init__(1, 1, bias=False)
        with torch.no_grad():
            self.weight.fill_(weight)


def one_weight(weight: float, x: float, y: float, loss: Any = "mse") -> tuple[TorchModel, ScaledSession]:
    """Return a session with the loss (w·x − y)² of a single row."""
    model = Torch(InHalf(weight), loss).build(NUMBER)
    session = ScaledSession(model)
    session.load(model.initial(Seed.of(0)))
    session.bind(Rows(np.array([[x]], np.float32), np.array([y], np.float32)), Seed.of(0))
    return model, session


def scaled(module: nn.Module, rows: Rows, schema: Schema = THREE) -> tuple[TorchModel, ScaledSession]:
    model = Torch(module).build(schema)
    session = ScaledSession(model)
    session.load(model.initial(Seed.of(0)))
    session.bind(rows, Seed.of(0))
    return model, session


def rows(n: int = 24, size: float = 1.0) -> Rows:
    random = np.random.default_rng(0)
    return Rows(size * random.normal(size=(n, 5)).astype(np.float32), random.integers(0, 3, n))


def test_a_gradient_that_float16_would_lose_survives() -> None:
    # w = 0, x = 2⁻¹², y = 2⁻¹⁴: the gradient is 2(wx − y)x = −2⁻²⁵, below half of 2⁻²⁴, the smallest of float16.
    _, session = one_weight(0.0, 2.0**-12, 2.0**-14)
    session.gradient(None)
    assert session.gradients[0].tolist() == [-(2.0**-25)]
    assert session.scale == 2.0**16
    session.scale = 1.0
    session.gradient(None)
    assert session.gradients[0].tolist() == [0.0]


def test_a_gradient_that_overflows_is_computed_again_at_half_the_scale() -> None:
    # w = 0, x = 64, y = 1: the gradient is −128; times 2⁹ it is 65,536, past 65,504, and times 2⁸ it is 32,768.
    _, session = one_weight(0.0, 64.0, 1.0)
    assert session.gradient(None) == 1.0
    assert session.scale == 2.0**8
    assert session.gradients[0].tolist() == [-128.0]


def test_every_client_begins_at_the_first_scale() -> None:
    _, session = one_weight(0.0, 64.0, 1.0)
    session.gradient(None)
    session.bind(Rows(np.array([[1.0]], np.float32), np.array([0.25], np.float32)), Seed.of(0))
    session.gradient(None)
    # The gradient is −1/2: times 2¹⁶ it is 32,768.
    assert session.scale == 2.0**16
    assert session.gradients[0].tolist() == [-0.5]


def test_a_step_of_descent_is_taken_with_the_gradient_unscaled() -> None:
    _, session = one_weight(0.5, 64.0, 1.0)
    # The gradient is 2(32 − 1)·64 = 3,968, and 0.5 − 3,968/8,192 = 1/64.
    session.descend(None, 2.0**-13)
    assert session.weights[0].tolist() == [2.0**-6]


@pytest.mark.parametrize(("x", "y"), [(1e5, 1.0), (6e4, -6e4)])
def test_what_no_scale_can_help_is_the_clients_failure(x: float, y: float) -> None:
    _, session = one_weight(1.0, x, y)
    with pytest.raises(ClientError, match='the largest of float16: set precision="bf16" or "full"'):
        session.gradient(None)


class Counting(nn.Module):
    """Counts its batches in a buffer that it replaces, and draws from both generators that a module may draw from."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 3))
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("own", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen = self.seen + 1
            self.own += 1
            x = x + 0.01 * torch.randn_like(x)
        return self.layers(x)


def test_a_step_that_is_done_again_leaves_no_other_trace() -> None:
    module, data = Counting(), rows()
    outcomes = []
    for first in (2.0**16, 2.0**30):
        model, session = scaled(module, data)
        session.scale = first
        for index in (np.arange(8), np.arange(8, 24)):
            session.gradient(index)
        outcomes.append((session.store(), [g.clone() for g in session.gradients], session.scale))
    (weights, gradients, _), (others, others_gradients, scale) = outcomes
    assert scale < 2.0**30
    assert model.state_dict(weights)["seen"] == 2
    assert weights == others
    for a, b in zip(gradients, others_gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-4)


def test_gradients_are_those_of_full_precision_to_three_digits() -> None:
    module, data = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)), rows()
    model, session = scaled(module, data)
    full = TorchSession(model)
    full.load(model.initial(Seed.of(0)))
    full.bind(data, Seed.of(0))
    assert session.gradient(None) == pytest.approx(full.gradient(None), rel=1e-2)
    for a, b in zip(session.gradients, full.gradients, strict=True):
        assert not torch.equal(a, b)
        torch.testing.assert_close(a, b, rtol=2e-2, atol=2e-3)


class OnProcessor(TorchModel):
    """A model that trains in float16 where it would not be offered."""

    def session(self) -> TorchSession:
        if not hasattr(self, "_only"):
            self._only = ScaledSession(self)
        return self._only


def test_a_bound_on_the_gradients_norm_is_one_on_the_unscaled_gradient() -> None:
    start = OnProcessor(Torch(InHalf(0.0), "mse"), NUMBER)
    data = Rows(np.array([[64.0]], np.float32), np.array([1.0], np.float32))
    local = LocalSGD(lr=1.0, local_steps=1, max_grad_norm=2.0)
    trained = local.local_training(start, start.initial(Seed.of(0)), data, 0, Seed.of(0))
    # The gradient of −128 is scaled down to −2.
    assert trained.model.flats[0].tolist() == pytest.approx([2.0])


def test_a_client_gets_the_same_bits_whoever_was_trained_before() -> None:
    module = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    local = LocalSGD(lr=0.001, local_epochs=2, batch_size=8)

    def trained(*several: Rows) -> Any:
        model = OnProcessor(Torch(module), THREE)
        start = model.initial(Seed.of(0))
        return [local.local_training(model, start, each, 0, Seed.of(0)).model for each in several][-1]

    assert trained(rows()) == trained(rows(9, 100.0), rows())


def test_on_a_processor_it_is_refused_with_what_to_use() -> None:
    with pytest.raises(ConfigError, match='is for CUDA devices; on a processor use precision="bf16"'):
        Torch(nn.Linear(5, 3), precision="fp16").build(THREE)


def test_a_model_file_of_a_gpu_is_read_on_a_processor() -> None:
    from fedpact.engine.models import rebuild_model

    module = nn.Linear(5, 3)
    written = Torch(module, "cross_entropy", device="cuda", precision="fp16").describe()
    assert rebuild_model(written, module).precision == "full"


@a_gpu
def test_a_gpu_trains_in_float16() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(4, 200, 5)).astype(np.float32)
    clients = fp.populations.arrays(x, (x.sum(axis=2) > 0).astype(np.int64))
    module = nn.Sequential(nn.Linear(5, 32), nn.ReLU(), nn.Linear(32, 2))
    losses = {}
    for precision in ("full", "fp16"):
        model = Torch(module, device="cuda", precision=precision)
        result = fp.train(
            model, clients, algorithm=fp.FedAvg(lr=0.1), rounds=5, engine="batched", progress=False
        )
        losses[precision] = result.history["train_loss"].iloc[-1]
    assert "in float16 each client's loss has a scale of its own" in result.engine
    assert losses["fp16"] == pytest.approx(losses["full"], rel=0.02)
