"""Many torch modules side by side, against torch's own autograd on each of them."""

import pickle
import re
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpact.core import Rows, Schema, Seed, Vector
from fedpact.core.errors import DataError
from fedpact.core.model import DescendingStackedSession, StackableModel
from fedpact.core.rows import ClientData
from fedpact.core.stack import Stack, on_host

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from fedpact.learn.torch import Torch, TorchModel  # noqa: E402
from fedpact.learn.torch_dropout import Masks  # noqa: E402

# The modules below draw their weights when they are made.
torch.manual_seed(0)

THREE = Schema("multiclass", (5,), ("a", "b", "c"))
TWO = Schema("binary", (5,), ("no", "yes"))
NUMBER = Schema("regression", (5,))
IMAGES = Schema("multiclass", (1, 8, 8), ("a", "b", "c"))
WORDS = Schema("multiclass", (4,), ("a", "b", "c"))
TEXT = Schema("multiclass", (4,), tuple(range(7)), (), (4,))


def mlp(outputs: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, outputs))


def cnn() -> nn.Module:
    layers = (nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3))
    return nn.Sequential(*layers)


class Tagger(nn.Module):
    """Scores at every position."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 6)
        self.out = nn.Linear(6, 7, bias=False)
        self.out.weight = nn.Parameter(self.embed.weight.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.embed(x).cumsum(dim=1))


class Tied(Tagger):
    def __init__(self) -> None:
        super().__init__()
        self.out.weight = self.embed.weight


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.embed(x).mean(dim=1))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(5, 1, 8, dropout=0.0, batch_first=True)
        self.out = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layer(x.unsqueeze(1)).squeeze(1))


class Centred(nn.Module):
    """Reads its whole batch: a row more changes every output."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x - x.mean(dim=0))


class Scaled(nn.Module):
    """A constant that does not travel, an overwritten input and a frozen layer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(2.0), persistent=False)
        self.frozen = nn.Linear(5, 5).requires_grad_(False)
        self.out = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.frozen(x.mul_(self.scale)))


def hinge(outputs: Tensor, y: Tensor) -> Tensor:
    return functional.multi_margin_loss(outputs, y)


MODELS: dict[str, tuple[Torch, Schema]] = {
    "three classes": (Torch(mlp()), THREE),
    "two classes": (Torch(mlp(2)), TWO),
    "one logit": (Torch(mlp(1)), TWO),
    "a number": (Torch(mlp(1), loss="huber"), NUMBER),
    "log-probabilities": (Torch(nn.Sequential(nn.Linear(5, 3), nn.LogSoftmax(1)), loss="nll"), THREE),
    "float64": (Torch(mlp().double()), THREE),
    "a loss of one's own": (Torch(mlp(), loss=hinge), THREE),
    "flattened images": (
        Torch(nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.Sigmoid(), nn.Linear(5, 3))),
        IMAGES,
    ),
    "without biases": (
        Torch(nn.Sequential(nn.Linear(5, 4, bias=False), nn.ReLU(), nn.Linear(4, 3))),
        THREE,
    ),
    "convolutions": (Torch(cnn()), IMAGES),
    "convolutions and a loss of one's own": (Torch(cnn(), loss=hinge), IMAGES),
    "words": (Torch(Words()), WORDS),
    "a label at every position": (Torch(Tagger()), TEXT),
    "tied weights": (Torch(Tied()), TEXT),
    "attention": (Torch(Attention()), THREE),
    "what reads its whole batch": (Torch(Centred()), THREE),
    "what overwrites its input": (Torch(Scaled()), THREE),
}
WRITTEN = (
    "three classes",
    "two classes",
    "one logit",
    "a number",
    "float64",
    "a loss of one's own",
    "flattened images",
    "without biases",
)
every_model = pytest.mark.parametrize("name", MODELS)


def build(name: str) -> TorchModel:
    spec, schema = MODELS[name]
    return spec.build(schema)


def clients_of(model: TorchModel, sizes: list[int]) -> list[ClientData]:
    schema, random = model.schema, np.random.default_rng(sum(sizes))
    made = []
    for i, n in enumerate(sizes):
        whole = model.traits.floats is None
        x = random.integers(0, 7, (n, *schema.shape)) if whole else random.normal(size=(n, *schema.shape))
        labels = (n, *schema.positions)
        y = random.integers(0, len(schema.classes), labels) if schema.classes else random.normal(size=labels)
        made.append(ClientData(str(i), Rows(x, y)))
    return made


def no_seeds() -> list[Seed]:
    raise AssertionError("this module draws nothing")


def spread(session: Any) -> list[Vector]:
    """Give each client weights of its own, and return them."""
    for flat in session.weights:
        flat += torch.linspace(-0.1, 0.1, flat.numel(), dtype=flat.dtype).view(flat.shape)
    return session.models().rows()


def by_autograd(model: TorchModel, weights: Vector, rows: Rows, index: Any) -> tuple[dict[str, Any], float]:
    """Return the gradients of the mean loss over some rows, and the loss, as torch has them."""
    module = model.export(weights).train()
    x, y = model.inputs(rows.x)[index].clone(), model.targets(rows.y)[index]
    loss = model.loss(model.run(module, x), y)
    loss.backward()
    grads = {n: p.grad.numpy() for n, p in module.named_parameters() if p.grad is not None}
    return grads, loss.item()


def check(found: Vector, expected: dict[str, Any]) -> None:
    for name, gradient in expected.items():
        np.testing.assert_allclose(found[name], gradient, rtol=1e-4, atol=1e-6)


@every_model
@settings(max_examples=8)
@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4), data=st.data())
def test_gradients_and_losses_are_those_of_autograd(name: str, sizes: list[int], data: Any) -> None:
    model = build(name)
    clients, session = clients_of(model, sizes), model.stacked()
    session.load(model.initial(Seed.of(0)), clients, no_seeds)
    models = spread(session)
    taken = np.array([data.draw(st.integers(1, n)) for n in sizes])
    widths = session.widths(taken)
    for place, (size, width) in enumerate(zip(taken.tolist(), widths.tolist(), strict=True)):
        index = np.arange(width)[None] % size
        losses = session.gradient(place, index, taken[place : place + 1])
        expected, loss = by_autograd(model, models[place], clients[place].train, index[0, :size])
        check(session.slopes().row(place), expected)
        assert float(losses[0]) == pytest.approx(loss, rel=1e-5, abs=1e-6)


@every_model
def test_clients_are_computed_together_as_each_alone(name: str) -> None:
    model = build(name)
    clients, session = clients_of(model, [6, 6, 6]), model.stacked()
    session.load(model.initial(Seed.of(0)), clients, no_seeds)
    models = spread(session)
    index = np.array([[5, 0, 3], [1, 2, 4]])
    losses = session.gradient(1, index, np.array([3, 3]))
    for place in (1, 2):
        expected, loss = by_autograd(model, models[place], clients[place].train, index[place - 1])
        check(session.slopes().row(place), expected)
        assert float(losses[place - 1]) == pytest.approx(loss, rel=1e-5)


@every_model
def test_all_rows_are_taken_without_an_index_and_stay_as_they_are(name: str) -> None:
    model = build(name)
    clients, session = clients_of(model, [4, 4]), model.stacked()
    session.load(model.initial(Seed.of(0)), clients, no_seeds)
    models = spread(session)
    for _ in range(2):
        session.gradient(0, None, np.array([4, 4]))
        for place in (0, 1):
            expected, _ = by_autograd(model, models[place], clients[place].train, np.arange(4))
            check(session.slopes().row(place), expected)


@every_model
def test_a_descent_is_the_gradient_and_then_a_step(name: str) -> None:
    model = build(name)
    clients, session = clients_of(model, [4, 4, 4]), model.stacked()
    assert isinstance(session, DescendingStackedSession)
    index, sizes = np.array([[3, 1], [0, 2]]), np.array([2, 2])
    session.load(model.initial(Seed.of(0)), clients, no_seeds)
    before = spread(session)
    losses = session.gradient(1, index, sizes).clone()
    gradients = session.slopes().rows()
    descended = session.descend(1, index, sizes, 0.5)
    assert on_host(descended) == pytest.approx(on_host(losses), rel=1e-6)
    after = session.models().rows()
    assert after[0] == before[0]
    for place in (1, 2):
        for new, old, gradient in zip(
            after[place].flats, before[place].flats, gradients[place].flats, strict=True
        ):
            np.testing.assert_allclose(new, old - 0.5 * gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("what reads its whole batch",)])
def test_rows_that_fill_a_batch_up_change_nothing(name: str) -> None:
    model = build(name)
    clients, session = clients_of(model, [6, 6]), model.stacked()
    if "own" in name:
        assert session.widths(np.array([2, 5])).tolist() == [2, 5]
        return
    session.load(model.initial(Seed.of(0)), clients, no_seeds)
    models = spread(session)
    assert session.widths(np.array([2, 5])).tolist() == [5, 5]
    index = np.array([[4, 1, 4, 4, 4], [0, 1, 2, 3, 4]])
    losses = session.gradient(0, index, np.array([2, 5]))
    for place, size in enumerate((2, 5)):
        expected, loss = by_autograd(model, models[place], clients[place].train, index[place, :size])
        check(session.slopes().row(place), expected)
        assert float(losses[place]) == pytest.approx(loss, rel=1e-5)


def test_batches_of_a_module_that_reads_them_whole_are_not_filled_up() -> None:
    session = build("what reads its whole batch").stacked()
    assert session.widths(np.array([2, 5, 40])).tolist() == [2, 5, 40]


class Lonely(nn.Module):
    """Does something else with a single row."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x if len(x) == 1 else x.tanh())


def test_batches_of_a_module_that_treats_a_single_row_otherwise_are_not_filled_up() -> None:
    model = Torch(Lonely()).build(THREE)
    session, clients = model.stacked(), clients_of(model, [1, 4])
    assert session.widths(np.array([1, 4])).tolist() == [1, 4]
    session.load(model.initial(Seed.of(0)), clients, no_seeds)
    models = spread(session)
    for place, size in enumerate((1, 4)):
        session.gradient(place, None, np.array([size]))
        expected, _ = by_autograd(model, models[place], clients[place].train, np.arange(size))
        check(session.slopes().row(place), expected)


def test_large_batches_are_filled_up_by_a_quarter_at_most() -> None:
    session = build("three classes").stacked()
    assert session.widths(np.array([2, 32, 33, 50, 1000])).tolist() == [32, 32, 40, 56, 1024]


@every_model
def test_dense_and_elementwise_layers_are_written_out(name: str) -> None:
    ways = {True: "Written", False: "Mapped"}
    assert type(build(name).stacked()._way).__name__ == ways[name in WRITTEN]


class Dropping(nn.Module):
    """Dropout of several shapes, with a part that is in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(1, 4, 3), nn.Linear(36, 3)
        self.first, self.last, self.off = nn.Dropout(0.25), nn.Dropout(0.5), nn.Dropout(0.9).eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(functional.max_pool2d(self.conv(x), 2))
        return self.out(self.off(self.last(torch.relu(x).flatten(1))))


class SmoothlyDropping(Dropping):
    """The same without a choice between numbers, which rounding to bfloat16 would make another way."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(functional.avg_pool2d(self.conv(x), 2))
        return self.out(self.off(self.last(torch.tanh(x).flatten(1))))


DROPPING = {
    "written out": Torch(
        nn.Sequential(nn.Dropout(0.2), nn.Flatten(), nn.Linear(64, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    ),
    "mapped": Torch(Dropping()),
    "mapped in bfloat16": Torch(SmoothlyDropping(), precision="bf16"),
}


@pytest.mark.parametrize("name", DROPPING)
def test_dropout_is_each_clients_own_whoever_is_beside_it(name: str) -> None:
    model = DROPPING[name].build(IMAGES)
    clients, seeds = clients_of(model, [7, 5, 7]), [Seed.of(i) for i in range(3)]
    session, alone = model.stacked(), model.session()
    start, sizes = model.initial(Seed.of(0)), np.array([4, 3, 4])
    index = np.array([[3, 1, 0, 2], [0, 2, 4, 0], [5, 6, 1, 0]])
    session.load(start, clients, lambda: seeds)
    first, second = (session.gradient(0, index, sizes).clone() for _ in range(2))
    gradients, tolerance = session.slopes(), 0.02 if "bfloat16" in name else 1e-5
    for place, client in enumerate(clients):
        alone.load(start)
        alone.bind(client.train, seeds[place])
        own = index[place, : sizes[place]]
        losses = [alone.gradient(own), alone.gradient(own)]
        assert [float(first[place]), float(second[place])] == pytest.approx(losses, rel=tolerance)
        expected = alone.gradients[0].numpy()
        difference = np.linalg.norm(gradients.row(place).flats[0] - expected)
        assert difference <= tolerance * np.linalg.norm(expected)


def test_masks_are_drawn_for_the_rows_that_count_alone() -> None:
    model = DROPPING["written out"].build(IMAGES)
    session, clients = model.stacked(), clients_of(model, [5])
    session.load(model.initial(Seed.of(0)), clients, lambda: [Seed.of(3)])
    session.gradient(0, np.array([[1, 2, 0, 1]]), np.array([3]))
    masks = Masks(Seed.of(3).child("dropout"))
    masks.draw((3, 1, 8, 8), 0.2)
    masks.draw((3, 8), 0.5)
    np.testing.assert_array_equal(session._masks[0].draw((9,), 0.5), masks.draw((9,), 0.5))


class Flow(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x) if x.sum() > 0 else self.out(-x)


class Noisy(Flow):
    def forward(self, x: Tensor) -> Tensor:
        return self.out(x + torch.randn_like(x))


class Counting(Flow):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.out(x) / self.calls


class Numpy(Flow):
    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.from_numpy(np.abs(x.detach().numpy())))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x.unsqueeze(2))[0][:, -1]


REFUSALS = {
    "batch norm": (
        nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3)),
        r'a buffer that training may change, "1\.running_mean"',
    ),
    "a counter": (Counting(), 'a buffer that training changes, "calls"'),
    "control flow": (Flow(), "what the module does depends on its numbers"),
    "noise": (Noisy(), r"draws random numbers other than by torch\.nn\.Dropout"),
    "other dropout": (nn.Sequential(nn.Linear(5, 3), nn.AlphaDropout(0.5)), "draws random numbers"),
    "numpy": (Numpy(), "torch cannot run the module for many clients at once"),
    "a recurrent network": (Recurrent(), "torch cannot run the module for many clients at once"),
    "half precision": (mlp().bfloat16(), 'the parameter "0.weight" is bfloat16'),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_trained_side_by_side_says_why(name: str) -> None:
    module, why = REFUSALS[name]
    model = Torch(module).build(THREE)
    assert isinstance(model, StackableModel)
    refusal = model.unstackable()
    assert refusal is not None
    assert re.search(why, refusal)


def test_every_thread_has_a_session_of_its_own() -> None:
    model = build("three classes")
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(model.stacked()))
    thread.start()
    thread.join()
    assert model.stacked() is model.stacked()
    assert found[0] is not model.stacked()


def test_memory_is_kept_from_one_group_of_clients_to_the_next() -> None:
    model = build("three classes")
    session, start = model.stacked(), model.initial(Seed.of(0))
    session.load(start, clients_of(model, [3] * 5), no_seeds)
    place = session.weights[0].data_ptr()
    session.load(start, clients_of(model, [3] * 2), no_seeds)
    assert session.weights[0].shape == (2, model.layout.size)
    assert session.weights[0].data_ptr() == place
    assert session.models().rows() == [start, start]
    session.load(start, clients_of(model, [3] * 6), no_seeds)
    assert session.models().rows() == [start] * 6


def test_rows_that_do_not_fit_are_refused() -> None:
    model = build("three classes")
    session, start = model.stacked(), model.initial(Seed.of(0))
    for rows, why in (
        (Rows(np.zeros((3, 5))), "as many labels as rows"),
        (Rows(np.zeros((3, 4)), np.zeros(3, int)), "the model takes"),
        (Rows(np.full((3, 5), "a"), np.zeros(3, int)), "takes numbers"),
    ):
        with pytest.raises(DataError, match=why):
            session.load(start, [ClientData("a", rows)], no_seeds)


def test_vectors_of_a_round_become_tensors_beside_the_weights() -> None:
    model = build("three classes")
    session, start = model.stacked(), model.initial(Seed.of(0))
    session.load(start, clients_of(model, [3] * 2), no_seeds)
    stack = Stack.of([start.widened(), start.widened()], model.layout.wide)
    for vectors, shape in ((stack, (2, model.layout.size)), (start.widened(), (model.layout.size,))):
        (array,) = session.arrays(vectors)
        assert isinstance(array, Tensor)
        assert array.shape == shape


def test_there_is_room_for_more_clients_where_a_device_has_memory() -> None:
    assert build("three classes").stack_bytes == 8 << 20


def test_a_model_that_was_sent_elsewhere_stacks_there_too() -> None:
    model = build("convolutions")
    session, clients = model.stacked(), clients_of(model, [3, 3])
    there = pickle.loads(pickle.dumps(model)).stacked()  # noqa: S301
    for each in (session, there):
        each.load(model.initial(Seed.of(0)), clients, no_seeds)
        each.descend(0, None, np.array([3, 3]), 0.1)
    assert there is not session
    assert there.models().rows() == session.models().rows()
