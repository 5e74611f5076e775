"""Clipped sums of per-example gradients: those of a loop over single examples by autograd, whichever way they come."""

from collections.abc import Callable

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from fedpact.core.errors import ClientError, ModelError  # noqa: E402
from fedpact.core.model import Schema, clips  # noqa: E402
from fedpact.core.rows import Rows  # noqa: E402
from fedpact.core.seeds import Seed  # noqa: E402
from fedpact.learn.torch import Torch, TorchModel  # noqa: E402
from fedpact.learn.torch_clipped import Step, Sums  # noqa: E402
from fedpact.learn.torch_clipping import Mapped, OneByOne  # noqa: E402
from fedpact.learn.torch_ghost import Ghost, _Factors  # noqa: E402

ROWS = 23
EVERY = np.arange(ROWS)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells, self.out = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.cells(x)[0][:, -1])


class Branching(nn.Module):
    """What it computes depends on the numbers, so that it cannot be mapped."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        rows = [self.one(row) if row.sum() > 0 else self.other(row) for row in x]
        return torch.stack(rows)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(4, 4), nn.Linear(4, 3)
        self.second = nn.Linear(4, 4, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.second(self.first(x).tanh()).relu())


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 5, (3, 2), stride=2, dilation=(1, 2), bias=False),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(20, 6),
        nn.Sigmoid(),
        nn.Linear(6, 3),
    )


def frozen() -> nn.Module:
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    module[0].weight.requires_grad = False
    return module


def long_sequence() -> nn.Module:
    """Of its first layer the gradient is smaller than the products of all places; of its second one it is not."""
    return nn.Sequential(
        nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 40), nn.ReLU(), nn.Flatten(), nn.Linear(280, 3)
    )


Make = Callable[[], nn.Module]
MODULES: dict[str, tuple[Make, tuple[int, ...], type]] = {
    "dense": (lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), (4,), Ghost),
    "convolutions": (convolutions, (2, 12, 10), Ghost),
    "sequence": (long_sequence, (7, 3), Ghost),
    "frozen": (frozen, (4,), Ghost),
    "group norm": (lambda: nn.Sequential(nn.Linear(4, 6), nn.GroupNorm(2, 6), nn.Linear(6, 3)), (4,), Mapped),
    "depthwise": (
        lambda: nn.Sequential(nn.Conv1d(2, 4, 3, groups=2), nn.Flatten(), nn.Linear(16, 3)),
        (2, 6),
        Mapped,
    ),
    "tied": (Tied, (4,), Mapped),
    "in place": (
        lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 5), nn.GELU(), nn.Linear(5, 3)),
        (4,),
        Mapped,
    ),
    "attention": (
        lambda: nn.Sequential(
            nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True), nn.Flatten(), nn.Linear(20, 3)
        ),
        (5, 4),
        Mapped,
    ),
    "lstm": (Recurrent, (6, 4), OneByOne),
    "branching": (Branching, (4,), OneByOne),
}


def built(make: Make, shape: tuple[int, ...], **settings: object) -> TorchModel:
    torch.manual_seed(0)
    return Torch(make(), **settings).build(Schema("multiclass", shape, (0, 1, 2)))  # type: ignore[arg-type]


def rows_for(shape: tuple[int, ...]) -> Rows:
    random = np.random.default_rng(0)
    return Rows(random.normal(size=(ROWS, *shape)).astype(np.float32), random.integers(0, 3, ROWS))


def session_of(model: TorchModel, rows: Rows):
    session = model.session()
    session.load(model.initial(Seed.of(0)))
    session.bind(rows, Seed.of(1))
    assert clips(session)
    return session


def looped(model: TorchModel, rows: Rows, norm: float) -> np.ndarray:
    """Return the clipped sum, by autograd for each example alone, with a module of torch's and nothing of ours."""
    module = model.export(model.initial(Seed.of(0))).train()
    parameters = [p for p in module.parameters() if p.requires_grad]
    total = 0.0
    for x, y in zip(torch.from_numpy(rows.x.copy()), torch.from_numpy(rows.y), strict=True):
        loss = nn.functional.cross_entropy(module(x[None].clone()), y[None])
        found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        flat = torch.cat([g.flatten() for g in found]).double()
        total = total + flat * min(1.0, norm / flat.norm().item())
    return total.numpy()


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("norm", [0.2, 1.0, 1e6])
def test_clipped_sum_is_that_of_a_loop_over_single_examples(name: str, norm: float) -> None:
    make, shape, way = MODULES[name]
    model, rows = built(make, shape), rows_for(shape)
    session = session_of(model, rows)
    found = np.concatenate(session.clipped(EVERY, norm))
    assert isinstance(session._clipping, way)
    np.testing.assert_allclose(found, looped(model, rows, norm), atol=1e-5)


@pytest.mark.parametrize("name", [name for name, case in MODULES.items() if case[2] is Ghost])
def test_ghost_norms_are_those_of_explicit_gradients(name: str) -> None:
    make, shape, _ = MODULES[name]
    model, rows = built(make, shape), rows_for(shape)
    session, explicit = session_of(model, rows), Mapped(model)
    for row in range(5):
        # A huge norm clips nothing: the sum over one example is its gradient. A tiny one scales it to its norm.
        tiny = 1e-3
        whole, clipped = (np.concatenate(session.clipped(np.array([row]), norm)) for norm in (1e9, tiny))
        sums = Sums(model)
        with torch.no_grad():
            x, y = session._batch(np.array([row]))
            explicit.add(x, y, Step(1e9, session._arrays, None, session._objective), sums)
        gradient = np.concatenate([flat.numpy() for flat in sums.flats])
        np.testing.assert_allclose(whole, gradient, rtol=1e-4, atol=1e-6)
        # So the factor of the clipping shows the norm that the ghost has found.
        ghost_norm = tiny * np.linalg.norm(whole) / np.linalg.norm(clipped)
        assert ghost_norm == pytest.approx(np.linalg.norm(gradient), rel=1e-5)


@pytest.mark.parametrize("name", MODULES)
def test_a_row_less_changes_the_sum_by_at_most_the_norm(name: str) -> None:
    make, shape, _ = MODULES[name]
    session, norm = session_of(built(make, shape), rows_for(shape)), 0.05
    whole = np.concatenate(session.clipped(EVERY, norm))
    for left_out in (0, 11, ROWS - 1):
        without = np.concatenate(session.clipped(np.delete(EVERY, left_out), norm))
        # A thousandth is what RecordDP allows for rounding.
        assert np.linalg.norm(whole - without) <= norm * (1 + 2**-10)


@pytest.mark.parametrize("name", ["dense", "convolutions", "sequence", "group norm", "branching"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38])
def test_a_row_of_nan_inf_or_huge_numbers_adds_at_most_the_norm(name: str, value: float) -> None:
    make, shape, _ = MODULES[name]
    rows, norm = rows_for(shape), 0.5
    rows.x[3] = value
    session = session_of(built(make, shape), rows)
    whole = np.concatenate(session.clipped(EVERY, norm))
    without = np.concatenate(session.clipped(np.delete(EVERY, 3), norm))
    assert np.isfinite(whole).all()
    assert np.linalg.norm(whole - without) <= norm * (1 + 2**-10)


@pytest.mark.parametrize("name", ["dense", "group norm", "branching"])
def test_no_rows_and_gradients_of_zero_add_nothing(name: str) -> None:
    make, shape, _ = MODULES[name]
    model = built(make, shape)
    session = session_of(model, rows_for(shape))
    assert not np.concatenate(session.clipped(EVERY[:0], 1.0)).any()

    zero = Torch(nn.Sequential(nn.Linear(2, 1)), loss="mse").build(Schema("regression", (2,)))
    flat = zero.session()
    flat.load(zero.initial(Seed.of(0)))
    x = np.ones((3, 2), np.float32)
    flat.bind(Rows(x, zero.predict(zero.initial(Seed.of(0)), x).astype(np.float64)), Seed.of(0))
    assert not np.concatenate(flat.clipped(np.arange(3), 1.0)).any()


def test_every_position_of_an_example_belongs_to_one_record() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Embedding(7, 6), nn.Linear(6, 3))
    model = Torch(module).build(Schema("multiclass", (5,), (0, 1, 2), positions=(5,)))
    random = np.random.default_rng(0)
    rows = Rows(random.integers(0, 7, (ROWS, 5)), random.integers(0, 3, (ROWS, 5)))
    session, norm = session_of(model, rows), 0.1
    found = np.concatenate(session.clipped(EVERY, norm))
    total = 0.0
    for x, y in zip(torch.from_numpy(rows.x), torch.from_numpy(rows.y), strict=True):
        loss = nn.functional.cross_entropy(module(x), y)
        flat = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(module.parameters()))]).double()
        total = total + flat * min(1.0, norm / flat.norm().item())
    np.testing.assert_allclose(found, total.numpy(), atol=1e-5)


@pytest.mark.parametrize("layers", [(), (nn.GroupNorm(1, 32),)], ids=["ghost", "mapped"])
def test_dropout_is_drawn_for_every_record_and_step_anew(layers: tuple[nn.Module, ...]) -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 32), *layers, nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 3))

    model = built(make, (4,))
    same = Rows(np.tile(rows_for((4,)).x[:1], (200, 1)), np.zeros(200, np.int64))
    session = session_of(model, same)
    single = [np.concatenate(session.clipped(np.array([0]), 1e6)) for _ in range(30)]
    together = np.concatenate(session.clipped(np.arange(200), 1e6))
    assert len({each.tobytes() for each in single}) > 10
    # With one mask for all, the sum would be 200 times one of the gradients.
    assert min(np.linalg.norm(together - 200 * each) for each in single) > 0.02 * np.linalg.norm(together)
    again = session_of(model, same)
    assert np.array_equal(np.concatenate(again.clipped(np.array([0]), 1e6)), single[0])


def test_computing_in_bfloat16_clips_as_well() -> None:
    make, shape, _ = MODULES["dense"]
    rows, norm = rows_for(shape), 0.2
    model = built(make, shape, precision="bf16")
    session = session_of(model, rows)
    whole = np.concatenate(session.clipped(EVERY, norm))
    np.testing.assert_allclose(whole, looped(model, rows, norm), atol=0.1)
    without = np.concatenate(session.clipped(EVERY[1:], norm))
    assert np.linalg.norm(whole - without) <= norm * (1 + 2**-10)


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (nn.BatchNorm1d(6), '"1" is a BatchNorm1d'),
        (nn.BatchNorm1d(6, track_running_stats=False).eval(), '"1" is a BatchNorm1d'),
        (
            nn.Sequential(
                nn.Unflatten(1, (2, 3)), nn.InstanceNorm1d(2, track_running_stats=True), nn.Flatten()
            ),
            '"1.1" is a',
        ),
    ],
    ids=["batch norm", "without statistics", "instance norm"],
)
def test_layer_that_mixes_rows_is_refused_by_name_with_what_to_use(layer: nn.Module, named: str) -> None:
    model = built(lambda: nn.Sequential(nn.Linear(4, 6), layer, nn.Linear(6, 3)), (4,))
    with pytest.raises(ModelError, match=rf"{named}.*use torch\.nn\.GroupNorm instead"):
        session_of(model, rows_for((4,))).clipped(EVERY, 1.0)


def test_batch_norm_that_rests_is_a_layer_like_others() -> None:
    model = built(lambda: nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6).eval(), nn.Linear(6, 3)), (4,))
    session = session_of(model, rows_for((4,)))
    start = session.store()
    assert np.concatenate(session.clipped(EVERY, 1.0)).any()
    assert session.store() == start


def test_loss_whose_rows_depend_on_one_another_is_refused() -> None:
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 1.0]))
    model = built(*MODULES["dense"][:2], loss=weighted)
    with pytest.raises(ModelError, match=r"not the mean of its rows' losses.*Weigh classes by Torch"):
        session_of(model, rows_for((4,))).clipped(EVERY, 1.0)


def test_loss_of_ones_own_that_is_a_mean_is_clipped_row_by_row() -> None:
    model, rows = built(*MODULES["dense"][:2], loss=nn.CrossEntropyLoss()), rows_for((4,))
    found = np.concatenate(session_of(model, rows).clipped(EVERY, 0.3))
    np.testing.assert_allclose(found, looped(model, rows, 0.3), atol=1e-5)


def test_norms_are_added_up_where_the_gradients_are() -> None:
    # Tensors of the device "meta" have no values, and mix as little with those of the CPU as those of a GPU do.
    weight, slopes, inputs = (torch.empty(shape, device="meta") for shape in ((3, 4), (3, 5), (5, 4)))
    factors = _Factors(5, weight.device)
    factors.product(weight, slopes, inputs)
    factors.rows(weight[:, 0], slopes.t())
    assert factors._squares.device == weight.device


def test_float16_is_refused() -> None:
    if not torch.cuda.is_available():
        model = built(*MODULES["dense"][:2])
        object.__setattr__(model.spec, "precision", "fp16")
    else:
        model = built(*MODULES["dense"][:2], precision="fp16", device="cuda")
    with pytest.raises(ModelError, match='use "bf16" or "full"'):
        session_of(model, rows_for((4,))).clipped(EVERY, 1.0)


def test_module_that_fails_on_a_row_fails_in_a_sentence() -> None:
    model = Torch(nn.Sequential(nn.Embedding(7, 6), nn.Flatten(), nn.Linear(12, 3))).build(
        Schema("multiclass", (2,), (0, 1, 2))
    )
    session = session_of(model, Rows(np.full((2, 2), 9), np.zeros(2, np.int64)))
    with pytest.raises(ClientError, match="the module fails on 2 rows"):
        session.clipped(np.arange(2), 1.0)
