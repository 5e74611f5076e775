"""Weights of classes in torch models: (1/n) Σ weight·loss by autograd, whichever way gradients come."""

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedpact.core.errors import ConfigError, ModelError
from fedpact.core.model import Schema
from fedpact.core.rows import ClientData, Rows
from fedpact.core.seeds import Seed
from fedpact.core.vector import Vector
from fedpact.learn.focal import Focal

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from fedpact.learn.torch import Torch, TorchModel  # noqa: E402
from fedpact.learn.torch_clipping import Mapped, OneByOne  # noqa: E402
from fedpact.learn.torch_ghost import Ghost  # noqa: E402
from fedpact.learn.torch_losses import RowWise, focal  # noqa: E402
from fedpact.learn.torch_scaled import ScaledSession  # noqa: E402
from fedpact.learn.torch_stacked_ways import Mapped as MappedTogether  # noqa: E402
from fedpact.learn.torch_stacked_ways import Written  # noqa: E402

# The modules below draw their weights when they are made.
torch.manual_seed(0)

ROWS, D = 20, 4
WEIGHTS = [0.5, 4.0, 1.0]
THREE = Schema("multiclass", (D,), ("a", "b", "c"), class_counts=(10, 4, 6))
TWO = Schema("binary", (D,), ("no", "yes"), class_counts=(16, 4))
BY_LABEL = {"a": 0.5, "b": 4.0}
TEXT = Schema("multiclass", (5,), ("a", "b", "c"), (), (5,))


class LogProbabilities(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(D, 3), nn.LogSoftmax(dim=1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells, self.out = nn.LSTM(1, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.cells(x[..., None])[0][:, -1])


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(3, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.embed(x).cumsum(dim=1))


def mlp(outputs: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(D, 6), nn.Tanh(), nn.Linear(6, outputs))


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(D, 6), nn.GroupNorm(2, 6), nn.Linear(6, 3))


Case = tuple[Callable[[], nn.Module], Any, Callable[[Tensor, Tensor], Tensor], Schema]
EACH: dict[str, Case] = {
    "cross entropy": (
        mlp,
        "cross_entropy",
        lambda s, y: functional.cross_entropy(s, y, reduction="none"),
        THREE,
    ),
    "float64": (
        lambda: mlp().double(),
        "cross_entropy",
        lambda s, y: functional.cross_entropy(s, y, reduction="none"),
        THREE,
    ),
    "nll": (LogProbabilities, "nll", lambda s, y: functional.nll_loss(s, y, reduction="none"), THREE),
    "bce": (
        lambda: mlp(1),
        "bce",
        lambda s, y: functional.binary_cross_entropy_with_logits(s[:, 0], y.to(s.dtype), reduction="none"),
        TWO,
    ),
    "focal": (mlp, Focal(2.0), lambda s, y: focal(2.0, s, y), THREE),
    "focal, one output": (lambda: mlp(1), Focal(2.0), lambda s, y: focal(2.0, s[:, 0], y), TWO),
    "by the labels": (mlp, None, lambda s, y: functional.cross_entropy(s, y, reduction="none"), THREE),
}
every_loss = pytest.mark.parametrize("name", EACH)


def rows_of(schema: Schema, n: int = ROWS, seed: int = 0) -> Rows:
    random = np.random.default_rng(seed)
    y = random.integers(0, len(schema.classes), (n, *schema.positions))
    if schema.positions:
        return Rows(random.integers(0, 3, (n, *schema.shape)), y)
    return Rows(random.normal(size=(n, *schema.shape)).astype(np.float32), y)


def loaded(model: TorchModel, rows: Rows, session: Any = None) -> Any:
    session = session or model.session()
    session.load(model.initial(Seed.of(0)))
    session.bind(rows, Seed.of(0))
    return session


def by_autograd(module: nn.Module, mean: Tensor) -> Tensor:
    parameters = [p for p in module.parameters() if p.requires_grad]
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(mean, parameters)])


@every_loss
@pytest.mark.parametrize("class_weight", ["balanced", "by label"])
def test_a_sessions_loss_and_gradient_are_the_weighted_mean_over_the_rows(
    name: str, class_weight: str
) -> None:
    make, loss, of_rows, schema = EACH[name]
    torch.manual_seed(0)
    module = make()
    k, counts = len(schema.classes), np.array(schema.class_counts)
    weights = sum(counts) / (k * counts) if class_weight == "balanced" else np.array(WEIGHTS[:k])
    given = "balanced" if class_weight == "balanced" else dict(zip(schema.classes, WEIGHTS, strict=False))
    model, rows = Torch(module, loss, class_weight=given).build(schema), rows_of(schema)
    session = loaded(model, rows)
    found = session.gradient(None)
    dtype, y = next(module.parameters()).dtype, torch.from_numpy(rows.y)
    losses = of_rows(module(torch.from_numpy(rows.x).to(dtype)), y)
    mean = (torch.from_numpy(weights).to(dtype)[y] * losses).sum() / ROWS
    assert found == pytest.approx(mean.item(), rel=1e-5)
    torch.testing.assert_close(session.gradients[0], by_autograd(module, mean), rtol=1e-4, atol=1e-6)


def test_torchs_own_weights_divide_by_their_sum_instead() -> None:
    module, rows = mlp(), rows_of(THREE)
    session = loaded(Torch(module, class_weight=BY_LABEL).build(THREE), rows)
    y = torch.from_numpy(rows.y)
    theirs = functional.cross_entropy(module(torch.from_numpy(rows.x)), y, torch.tensor(WEIGHTS)).item()
    total = float(np.array(WEIGHTS)[rows.y].sum())
    assert session.gradient(None) == pytest.approx(theirs * total / ROWS, rel=1e-5)


def test_without_weights_the_loss_is_torchs_own_function() -> None:
    assert Torch(mlp()).build(THREE).loss is functional.cross_entropy
    assert isinstance(Torch(mlp(), class_weight=BY_LABEL).build(THREE).loss, RowWise)


@pytest.mark.parametrize("name", ["cross entropy", "float64", "bce", "focal", "focal, one output"])
@pytest.mark.parametrize("sizes", [[3, 7, 6], [4, 4, 4]])
def test_clients_side_by_side_have_each_its_own_gradient(name: str, sizes: list[int]) -> None:
    make, loss, _, schema = EACH[name]
    model = Torch(make(), loss, class_weight="balanced").build(schema)
    assert model.unstackable() is None
    assert isinstance(model.stacked()._way, Written)
    clients = [ClientData(str(n), rows_of(schema, size, n)) for n, size in enumerate(sizes)]
    check_side_by_side(model, clients)


def test_so_have_clients_of_a_module_that_torch_maps() -> None:
    model = Torch(normed(), class_weight=BY_LABEL).build(THREE)
    assert model.unstackable() is None
    assert isinstance(model.stacked()._way, MappedTogether)
    check_side_by_side(model, [ClientData(str(n), rows_of(THREE, n, n)) for n in (5, 8)])


def check_side_by_side(model: TorchModel, clients: list[ClientData]) -> None:
    session, start = model.stacked(), model.initial(Seed.of(0))
    sizes = np.array([len(client.train) for client in clients])
    session.load(start, clients, lambda: [Seed.of(0)] * len(clients))
    index = np.zeros((len(clients), int(session.widths(sizes).max())), np.int64)
    for place, size in enumerate(sizes):
        index[place, :size] = np.arange(size)
    losses = session.gradient(0, index, sizes)
    for place, client in enumerate(clients):
        alone = loaded(model, client.train)
        assert float(losses[place]) == pytest.approx(float(alone.gradient(None)), rel=1e-5)
        torch.testing.assert_close(session.gradients[0][place], alone.gradients[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "loss", "way"),
    [
        (mlp, None, Ghost),
        (normed, None, Mapped),
        (Recurrent, None, OneByOne),
        (mlp, Focal(1.0), Ghost),
        (normed, Focal(1.0), Mapped),
    ],
)
def test_a_rows_weight_is_in_its_gradient_before_that_is_clipped(make: Any, loss: Any, way: type) -> None:
    model, rows = Torch(make(), loss, class_weight={"b": 500.0}).build(THREE), rows_of(THREE)
    session, norm = loaded(model, rows), 0.3
    clipped = session.clipped(np.arange(ROWS), norm)[0]
    assert isinstance(session._clipping, way)
    expected = np.zeros(clipped.shape)
    for row in range(ROWS):
        session.gradient(np.array([row]))
        gradient = session.gradients[0].double().numpy()
        expected += gradient * min(1.0, norm / np.linalg.norm(gradient))
    np.testing.assert_allclose(clipped, expected, rtol=1e-4, atol=1e-5)
    heavy = np.flatnonzero(rows.y == 1)[:1]
    # Whatever it weighs, a row adds no more than the norm.
    assert np.linalg.norm(session.clipped(heavy, norm)[0]) <= norm * (1 + 1e-6)


def test_labels_at_every_position_weigh_each_for_itself() -> None:
    module, rows = Tagger(), rows_of(TEXT)
    session = loaded(Torch(module, class_weight=BY_LABEL).build(TEXT), rows)
    y = torch.from_numpy(rows.y).reshape(-1)
    losses = functional.cross_entropy(module(torch.from_numpy(rows.x)).flatten(0, 1), y, reduction="none")
    mean = (torch.tensor(WEIGHTS)[y] * losses).mean()
    assert session.gradient(None) == pytest.approx(mean.item(), rel=1e-5)
    torch.testing.assert_close(session.gradients[0], by_autograd(module, mean), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", ["cross_entropy", Focal(2.0)])
def test_bfloat16_and_float16_give_nearly_the_gradient_of_full_precision(loss: Any) -> None:
    module, rows = mlp(), rows_of(THREE)
    full = loaded(Torch(module, loss, class_weight=BY_LABEL).build(THREE), rows)
    full.gradient(None)
    brain = loaded(Torch(module, loss, precision="bf16", class_weight=BY_LABEL).build(THREE), rows)
    brain.gradient(None)
    model = Torch(module, loss, class_weight=BY_LABEL).build(THREE)
    half = loaded(model, rows, ScaledSession(model))
    half.gradient(None)
    torch.testing.assert_close(half.gradients[0], full.gradients[0], rtol=0.02, atol=0.005)
    torch.testing.assert_close(brain.gradients[0], full.gradients[0], rtol=0.1, atol=0.03)


def test_a_model_that_was_sent_to_another_process_gives_the_same_bits() -> None:
    rows = rows_of(THREE)
    for loss in (None, Focal(2.0)):
        model = Torch(mlp(), loss, class_weight=BY_LABEL).build(THREE)
        found: list[tuple[Any, bytes]] = []
        sent = pickle.loads(pickle.dumps(model))  # noqa: S301
        for each in (model, sent, model.on("cpu")):
            session = loaded(each, rows)
            found.append((session.gradient(None), session.gradients[0].numpy().tobytes()))
        assert found[0] == found[1] == found[2]


def test_a_step_of_descent_is_along_the_weighted_gradient() -> None:
    model, rows = Torch(mlp(), class_weight=BY_LABEL).build(THREE), rows_of(THREE)
    start = model.initial(Seed.of(0))
    one, other = loaded(model, rows), Vector.zeros(model.layout)
    one.gradient(None)
    other.flats[0][:] = start.flats[0] - 0.5 * one.gradients[0].numpy()
    one.descend(None, 0.5)
    np.testing.assert_allclose(one.store().flats[0], other.flats[0], rtol=1e-5, atol=1e-7)


def test_a_student_of_probabilities_knows_no_weights() -> None:
    rows = rows_of(THREE)
    taught = Rows(rows.x, np.full((ROWS, 3), 1 / 3))
    module, gradients = mlp(), []
    for class_weight in (None, BY_LABEL):
        session = loaded(Torch(module, class_weight=class_weight).build(THREE).taught(2.0), taught)
        session.gradient(None)
        gradients.append(session.gradients[0].clone())
    assert torch.equal(*gradients)


def test_without_weights_a_module_is_described_as_before_there_were_any() -> None:
    assert "class_weight" not in Torch(mlp()).describe()
    assert Torch(mlp(), class_weight={"b": 2}).describe()["class_weight"] == {"b": 2.0}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: Torch(mlp(), nn.CrossEntropyLoss(), class_weight=BY_LABEL),
            ConfigError,
            "a loss of one's own",
        ),
        (lambda: Torch(mlp(1), "mse", class_weight=BY_LABEL), ConfigError, '"mse" is a loss of numbers'),
        (lambda: Torch(mlp(), class_weight="balance"), ConfigError, 'must be "balanced"'),
        (
            lambda: Torch(mlp(1), class_weight=BY_LABEL).build(Schema("regression", (D,))),
            ConfigError,
            "these are numbers to predict",
        ),
        (lambda: Torch(mlp(), class_weight={"d": 2}).build(THREE), ModelError, '"d", which is no class'),
    ],
)
def test_mistakes_are_named(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
