"""The layers that are written out, against torch's own autograd."""

import copy
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpact.core import Rows, Schema, Seed
from fedpact.core.errors import ClientError

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from fedpact.learn import torch_session  # noqa: E402
from fedpact.learn.torch import Torch  # noqa: E402
from fedpact.learn.torch_layers import Dense, Differentiated, Pool, Rectifier  # noqa: E402
from fedpact.learn.torch_session import TorchSession  # noqa: E402
from fedpact.learn.torch_sinks import linear  # noqa: E402


def begin(module: nn.Module, data: Rows, classes: int = 3, **spec: Any) -> TorchSession:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape) / parameter[0].numel() ** 0.5)
    model = Torch(module, **spec).build(Schema("multiclass", data.x.shape[1:], tuple(range(classes))))
    session = model.session()
    session.load(model.initial(Seed.of(0)))
    session.bind(data, Seed.of(1))
    return session


def rows(*shape: int, classes: int = 3, n: int = 24) -> Rows:
    random = np.random.default_rng(0)
    return Rows(random.normal(size=(n, *shape)).astype(np.float32), random.integers(0, classes, n))


def words(n: int = 24) -> Rows:
    random = np.random.default_rng(0)
    return Rows(random.integers(0, 11, (n, 4)), random.integers(0, 11, n))


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(5, 8),
        nn.Tanh(),
        nn.Linear(8, 8),
        nn.ReLU(),
        nn.Linear(8, 6, bias=False),
        nn.Sigmoid(),
        nn.Linear(6, 3),
    )


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2, dilation=2, groups=2, bias=False),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Flatten(),
        nn.ReLU(),
        nn.Sequential(nn.Identity(), nn.Linear(32, 3)),
    )


def large() -> nn.Module:
    """Products that go to oneDNN, and with all rows such that are too deep to be added in place."""
    return nn.Sequential(nn.Linear(5, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 3))


class Upright(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.out = nn.Linear(6, 11, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.embed(x).mean(dim=1))


class Borrowed(nn.Module):
    """Uses the weight of a layer that is not its own."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layers = (layer,)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.layers[0].weight


def twice() -> nn.Module:
    layer = nn.Linear(8, 8)
    return nn.Sequential(nn.Linear(5, 8), layer, nn.Tanh(), layer, nn.ReLU(), nn.Linear(8, 3))


def tied_layers() -> nn.Module:
    module = nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5), nn.Linear(5, 3))
    module[2].weight = module[0].weight
    return module


def borrowing() -> nn.Module:
    first = nn.Linear(5, 8)
    return nn.Sequential(first, nn.Tanh(), Borrowed(first), nn.Linear(5, 3))


def frozen() -> nn.Module:
    module = mlp()
    module[0].requires_grad_(False)
    module[2].bias.requires_grad_(False)
    module[4].requires_grad_(False)
    return module


def hooked() -> nn.Module:
    module = mlp()
    module[2].register_forward_hook(lambda layer, inputs, output: 2 * output)
    return module


def patched() -> nn.Module:
    module = mlp()
    module[1].forward = torch.sin
    return module


class Net(nn.Module):
    """As networks are mostly written: layers in `__init__`, and functions between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 6, 3)
        self.drop, self.scores = nn.Dropout(0.25), nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.first(x.unsqueeze(1)))
        x = functional.max_pool2d(torch.relu(self.second(x)), 2)
        x = x.view(x.size(0), -1)
        return functional.log_softmax(self.scores(self.drop(x)), dim=1)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.scores = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.scores(x + functional.relu(self.second(x)))


def wide() -> nn.Module:
    """Products under autograd that are large enough for the faster library."""
    return nn.Sequential(Residual(), nn.Linear(3, 512), nn.SiLU(), Widening(), nn.SiLU(), nn.Linear(512, 3))


class Widening(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(512, 512)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer(x)


def normed() -> nn.Module:
    return nn.Sequential(
        Upright(),
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 8),
        nn.BatchNorm1d(8),
        nn.SiLU(inplace=True),
        Scaled(),
        nn.Linear(8, 3),
    )


CASES: dict[str, tuple[Any, Rows]] = {
    "mlp": (mlp, rows(5)),
    "one layer": (lambda: nn.Linear(5, 3), rows(5)),
    "cnn": (cnn, rows(2, 9, 9)),
    "large": (large, rows(5, n=40)),
    "float64": (lambda: mlp().double(), rows(5)),
    "float64 cnn": (lambda: cnn().double(), rows(2, 9, 9)),
    "batch norm": (normed, rows(6, 6, 2)),
    "frozen": (frozen, rows(5)),
    "tied embedding": (Tied, words()),
    "embedding": (lambda: nn.Sequential(nn.Embedding(11, 2), nn.Flatten(), nn.Linear(8, 11)), words()),
    "sparse embedding": (
        lambda: nn.Sequential(nn.Embedding(11, 2, sparse=True), nn.Flatten(), nn.Linear(8, 11)),
        words(),
    ),
    "a layer called twice": (twice, rows(5)),
    "tied layers": (tied_layers, rows(5)),
    "a borrowed weight": (borrowing, rows(5)),
    "hooks": (hooked, rows(5)),
    "another forward": (patched, rows(5)),
    "a network of functions": (Net, rows(8, 8)),
    "a branch": (Residual, rows(5)),
    "large products under autograd": (wide, rows(5)),
    "three axes": (
        lambda: nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3)),
        rows(3, 5),
    ),
}
every_case = pytest.mark.parametrize("case", CASES)
every_batch = pytest.mark.parametrize(
    "index", [None, np.array([5, 3, 8, 21]), np.arange(6, 12)], ids=["all rows", "some", "neighbours"]
)


def reference(session: TorchSession, module: nn.Module, data: Rows) -> tuple[float, list[Tensor]]:
    """Return the loss and the gradients of autograd, at the session's weights."""
    module = copy.deepcopy(module).train()
    module.load_state_dict(session._model.state_dict(session.store()))
    dtype = next(module.parameters()).dtype
    x = torch.from_numpy(data.x)
    outputs = module(x.to(dtype) if x.is_floating_point() else x)
    loss = functional.cross_entropy(outputs, torch.from_numpy(data.y))
    trained = [p for p in module.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, trained, materialize_grads=True)
    return loss.item(), [gradient.to_dense() for gradient in found]


@every_case
@every_batch
def test_gradient_is_that_of_the_untouched_module(case: str, index: np.ndarray | None) -> None:
    make, data = CASES[case]
    module = make()
    session = begin(module, data, classes=11 if data.x.dtype.kind == "i" else 3)
    for flat in session.gradients:
        flat.fill_(7.0)
    for layer in (*module.modules(), *session.module.modules()):
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    expected_loss, expected = reference(session, module, data if index is None else data.take(index))
    assert session.gradient(index) == pytest.approx(expected_loss, rel=1e-6)
    found = [p.grad for p in session.module.parameters() if p.requires_grad]
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


@every_case
@every_batch
def test_descent_is_the_gradient_and_then_a_step(case: str, index: np.ndarray | None) -> None:
    make, data = CASES[case]
    session = begin(make(), data, classes=11 if data.x.dtype.kind == "i" else 3)
    start = session.store()
    loss = session.gradient(index)
    expected = [w - 0.1 * g for w, g in zip(session.weights, session.gradients, strict=True)]
    buffers = session.store().flats[len(expected) :]

    session.load(start)
    session.bind(data, Seed.of(1))
    assert session.descend(index, 0.1) == loss
    for weights, wanted in zip(session.weights, expected, strict=True):
        assert (weights - wanted).norm() <= 1e-6 * wanted.norm()
        assert not torch.equal(weights, torch.from_numpy(start.flats[0]))
    for mine, theirs in zip(session.store().flats[len(expected) :], buffers, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@every_case
def test_the_change_is_what_is_stored_minus_the_start(case: str) -> None:
    make, data = CASES[case]
    session = begin(make(), data, classes=11 if data.x.dtype.kind == "i" else 3)
    start = session.store()
    session.descend(None, 0.1)
    change = session.change(start)
    assert change == session.store().minus(start)
    session.descend(None, 0.1)
    assert change != session.change(start)


@every_case
@pytest.mark.parametrize("bytes_at_once", [1, 300, 1 << 22])
def test_slices_of_an_order_are_the_bits_of_the_rows_they_stand_for(
    case: str, bytes_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_session, "_LAID_OUT_BYTES", bytes_at_once)
    make, data = CASES[case]
    session = begin(make(), data, classes=11 if data.x.dtype.kind == "i" else 3)
    start, losses, ends = session.store(), [], []
    orders = [np.random.default_rng(epoch).permutation(24) for epoch in range(2)]
    parts = [slice(0, 7), slice(7, 14), slice(14, 24), slice(5, 9)]
    for arranged in (False, True):
        session.load(start)
        session.bind(data, Seed.of(1))
        for order in orders:
            if arranged:
                session.arrange(order)
            losses.append([session.descend(part if arranged else order[part], 0.05) for part in parts])
        ends.append(session.store())
    assert losses[:2] == losses[2:]
    assert ends[0] == ends[1] != start


def test_an_order_ends_with_the_rows_it_is_of() -> None:
    session = begin(mlp(), rows(5))
    first = session.gradient(slice(0, 8))
    session.arrange(np.arange(24)[::-1].copy())
    last = session.gradient(slice(0, 8))
    session.bind(rows(5), Seed.of(1))
    assert session.gradient(slice(0, 8)) == first != last
    assert session.gradient(np.arange(23, 15, -1)) == last


@every_case
def test_thirty_steps_of_descent_are_the_same_bits_when_repeated(case: str) -> None:
    make, data = CASES[case]
    session = begin(make(), data, classes=11 if data.x.dtype.kind == "i" else 3)
    start, ends = session.store(), []
    for _ in range(2):
        session.load(start)
        session.bind(data, Seed.of(1))
        for step in range(30):
            session.descend(np.arange(step % 7, step % 7 + 8), 0.05)
        ends.append(session.store())
    assert ends[0] == ends[1] != start


@every_case
def test_predictions_are_those_of_the_untouched_module(case: str) -> None:
    make, data = CASES[case]
    module = make()
    session = begin(module, data, classes=11 if data.x.dtype.kind == "i" else 3)
    module = module.eval()
    x = torch.from_numpy(data.x)
    x = x.to(next(module.parameters()).dtype) if x.is_floating_point() else x
    expected = module(x).softmax(dim=1).detach().numpy()
    predicted = session._model.predict(session.store(), data.x)
    np.testing.assert_allclose(predicted, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("case", "layers"),
    [
        ("mlp", 7),
        ("cnn", 8),
        ("batch norm", 9),
        ("hooks", 7),
        ("another forward", 7),
        ("embedding", 3),
        ("a network of functions", 10),
        ("a branch", 1),
        ("tied embedding", 1),
        ("a layer called twice", 1),
        ("tied layers", 1),
        ("a borrowed weight", 1),
    ],
)
def test_a_module_is_taken_apart_unless_its_layers_hang_together(case: str, layers: int) -> None:
    make, data = CASES[case]
    session = begin(make(), data, classes=11 if data.x.dtype.kind == "i" else 3)
    assert len(session._chain.layers) == layers


def test_what_is_not_known_is_left_to_autograd_and_the_rest_is_written_out() -> None:
    make, data = CASES["hooks"]
    kinds = [type(layer) for layer in begin(make(), data)._chain.layers]
    assert kinds[0] is kinds[-1] is Dense
    assert [i for i, kind in enumerate(kinds) if kind is Differentiated] == [2]


def test_the_functions_of_a_network_become_layers() -> None:
    make, data = CASES["a network of functions"]
    kinds = [type(layer).__name__ for layer in begin(make(), data)._chain.layers]
    one, two = ["Differentiated", "Convolution", "Rectifier"], ["Convolution", "Pool", "Rectifier"]
    assert kinds == [*one, *two, "Flat", "Drop", "Dense", "Differentiated"]


def test_pooling_comes_before_rectifying() -> None:
    make, data = CASES["cnn"]
    kinds = [type(layer) for layer in begin(make(), data)._chain.layers]
    assert kinds[3:5] == [Pool, Rectifier]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([-2.0, -0.0, 0.0, 1.0, 2.0]), min_size=36, max_size=36))
def test_pooling_before_rectifying_changes_neither_outputs_nor_gradients_where_values_tie(
    values: list[float],
) -> None:
    # A convolution of one weight of 1 leaves its inputs as they are.
    module = nn.Sequential(
        nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(), nn.MaxPool2d(3, 1, 1), nn.Flatten(), nn.Linear(36, 3)
    )
    data = Rows(np.array(values, np.float32).reshape(1, 1, 6, 6), np.array([1]))
    session = begin(module, data)
    with torch.no_grad():
        session.module[0].weight.fill_(1)
    expected_loss, expected = reference(session, module, data)
    assert session.gradient(None) == pytest.approx(expected_loss, rel=1e-6)
    for mine, theirs in zip([p.grad for p in session.module.parameters()], expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_taking_a_module_apart_leaves_its_buffers_and_the_global_generator_alone() -> None:
    module = normed()
    before = torch.get_rng_state()
    model = Torch(module).build(Schema("multiclass", (6, 6, 2), (0, 1, 2)))
    session = model.session()
    assert torch.equal(torch.get_rng_state(), before)
    buffers = dict(session.module.named_buffers())
    assert buffers["2.num_batches_tracked"] == 0
    assert not buffers["2.running_mean"].any()


def test_a_gradient_that_no_parameter_has_is_zero_however_often_it_is_asked_for() -> None:
    module = mlp()
    module.register_parameter("spare", nn.Parameter(torch.ones(4)))
    _, data = CASES["mlp"]
    session = begin(module, data)
    for _ in range(2):
        session.gradient(None)
        assert not session.module.spare.grad.any()
        session.gradients[0].fill_(7.0)


def test_descent_leaves_rows_as_they_are() -> None:
    data = rows(5)
    session = begin(nn.Sequential(nn.ReLU(inplace=True), nn.ReLU(), nn.Linear(5, 3)), data)
    before = data.x.copy()
    for index in (None, np.arange(4), np.array([3, 1])):
        session.descend(index, 0.1)
    np.testing.assert_array_equal(data.x, before)


def test_no_rows_at_all_have_no_mean_loss() -> None:
    session = begin(mlp(), rows(5))
    assert np.isnan(session.gradient(np.arange(0)))


def test_a_label_that_is_no_class_is_the_clients_failure() -> None:
    data = rows(5)
    session = begin(mlp(), Rows(data.x, data.y + 1))
    with pytest.raises(ClientError, match="fails on 24 rows: Target 3 is out of bounds"):
        session.descend(None, 0.1)


@pytest.mark.parametrize(
    ("loss", "classes"),
    [("mse", 0), ("bce", 2), ("cross_entropy", 2), (nn.CrossEntropyLoss(label_smoothing=0.1), 2)],
)
def test_descent_on_any_loss_is_the_gradient_and_then_a_step(loss: Any, classes: int) -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(24, 5)).astype(np.float32), random.integers(0, 2, 24)
    outputs = 1 if loss in ("mse", "bce") else 2
    schema = Schema("binary", (5,), (0, 1)) if classes else Schema("regression", (5,))
    model = Torch(nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, outputs)), loss).build(schema)
    session = model.session()
    session.load(model.initial(Seed.of(0)))
    session.bind(Rows(x, y), Seed.of(0))
    value = session.gradient(None)
    expected = session.weights[0] - 0.1 * session.gradients[0]
    assert session.descend(None, 0.1) == value
    torch.testing.assert_close(session.weights[0], expected, rtol=1e-6, atol=1e-7)


def bf16_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 16, 3),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(64, 1024),
        nn.SiLU(),
        nn.Linear(1024, 3),
    )


def test_a_loss_may_write_into_the_outputs() -> None:
    def clamped(outputs: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(outputs.clamp_(-1, 1), y)

    data = rows(5)
    module = mlp()
    session = begin(module, data, loss=clamped)
    outputs = session.module(torch.from_numpy(data.x))
    expected = functional.cross_entropy(outputs.clamp(-1, 1), torch.from_numpy(data.y)).item()
    assert session.gradient(None) == pytest.approx(expected, rel=1e-6)


def test_bf16_is_as_near_to_full_precision_as_torchs_own_mixed_precision() -> None:
    module, data = bf16_cnn(), rows(2, 8, 8)
    precise, rough = begin(module, data), begin(module, data, precision="bf16")
    precise.gradient(None)
    rough.gradient(None)
    rough.bind(data, Seed.of(1))
    with torch.autocast("cpu", torch.bfloat16):
        outputs = rough.module(torch.from_numpy(data.x))
    loss = functional.cross_entropy(outputs.float(), torch.from_numpy(data.y))
    theirs = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(rough.module.parameters()))])
    exact, ours = precise.gradients[0], rough.gradients[0]
    assert ours.dtype is torch.float32
    assert 0 < (ours - exact).norm() <= 1.2 * (theirs - exact).norm() < 0.2 * exact.norm()


def test_bf16_descent_is_the_gradient_and_then_a_step() -> None:
    data = rows(2, 8, 8)
    session = begin(bf16_cnn(), data, precision="bf16")
    start, loss = session.store(), session.gradient(None)
    expected = session.weights[0] - 0.1 * session.gradients[0]
    session.load(start)
    session.bind(data, Seed.of(1))
    assert session.descend(None, 0.1) == loss
    assert (session.weights[0] - expected).norm() <= 1e-6 * expected.norm()


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([(3, 5, 7), (40, 300, 200), (8, 400, 400)]),
    st.sampled_from(["rows", "columns", "strided", "expanded"]),
    st.booleans(),
)
def test_a_product_is_the_same_for_operands_of_any_strides(
    shape: tuple[int, int, int], lies: str, bias: bool
) -> None:
    m, n, k = shape
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(m, k, generator=generator), torch.randn(n, k, generator=generator)
    b = torch.randn(n, generator=generator) if bias else None
    if lies == "columns":
        x, w = x.t().contiguous().t(), w.t().contiguous().t()
    elif lies == "strided":
        x, w = torch.stack([x, x], -1)[..., 0], torch.stack([w, w], -1)[..., 0]
    elif lies == "expanded":
        x = x[:1].expand(m, k)
    expected = (x.double() @ w.double().t() + (0 if b is None else b.double())).float()
    torch.testing.assert_close(linear(x, w, b), expected, rtol=1e-4, atol=1e-4)


class Force(nn.Module):
    """The gradient of an energy, by which molecules are learned: training takes the gradient of a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = nn.Sequential(
            nn.Linear(5, 512), nn.Tanh(), nn.Linear(512, 512), nn.Tanh(), nn.Linear(512, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x + torch.zeros_like(x, requires_grad=True)
            return torch.autograd.grad(self.energy(x).sum(), x, create_graph=True)[0][:, :3]


class Mapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 512), nn.Linear(512, 512), nn.Linear(512, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.vmap(self.layers)(x.expand(40, *x.shape)).sum(0)


@pytest.mark.parametrize("make", [Force, Mapped])
def test_large_products_under_autograd_bear_what_autograd_and_vmap_do_with_them(make: Any) -> None:
    module, data = make(), rows(5)
    session = begin(module, data)
    _, expected = reference(session, module, data)
    session.gradient(None)
    for mine, theirs in zip([p.grad for p in session.module.parameters()], expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_a_step_does_not_load_torchs_compiler() -> None:
    # It takes half a second and 30 MB in every process that trains.
    code = """
import sys
import numpy as np
from torch import nn
from fedpact.core import Rows, Schema, Seed
from fedpact.learn.torch import Torch
module = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
session = Torch(module).build(Schema("multiclass", (5,), (0, 1, 2))).session()
session.bind(Rows(np.zeros((4, 5), np.float32), np.zeros(4, np.int64)), Seed.of(0))
session.descend(None, 0.1)
sys.exit("sympy" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_case
def test_on_a_cuda_device_the_loss_is_a_tensor_and_descent_the_same(case: str) -> None:
    make, data = CASES[case]
    classes = 11 if data.x.dtype.kind == "i" else 3
    session = begin(make(), data, classes, device="cuda")
    start, loss = session.store(), session.gradient(None)
    assert isinstance(loss, Tensor)
    assert loss.is_cuda
    assert loss.ndim == 0
    expected = [w - 0.1 * g for w, g in zip(session.weights, session.gradients, strict=True)]
    session.load(start)
    session.descend(None, 0.1)
    for weights, wanted in zip(session.weights, expected, strict=True):
        torch.testing.assert_close(weights, wanted, rtol=1e-3, atol=1e-4)
