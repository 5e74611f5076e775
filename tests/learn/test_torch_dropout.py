"""Dropout by masks of the client's own."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpact.core import Rows, Schema, Seed

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from fedpact.learn.torch import Torch  # noqa: E402
from fedpact.learn.torch_dropout import MaskedDropout, Masks, mask_dropout, masks_of  # noqa: E402
from fedpact.learn.torch_session import TorchSession  # noqa: E402


class Net(nn.Module):
    """Dropout in a module that is not a sequence: left to autograd."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + 0


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3),
        nn.Dropout(0.25),
        nn.ReLU(),
        nn.Dropout(0.0),
        nn.MaxPool2d(2),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(12, 8),
        nn.Dropout(0.1),
        nn.Linear(8, 3),
    )


DATA = Rows(
    np.random.default_rng(0).normal(size=(20, 1, 6, 6)).astype(np.float32),
    np.random.default_rng(1).integers(0, 3, 20),
)


def begin(module: nn.Module, seed: int = 1, **spec: Any) -> TorchSession:
    session = Torch(module, **spec).build(Schema("multiclass", (1, 6, 6), (0, 1, 2))).session()
    session.load(session._model.initial(Seed.of(0)))
    session.bind(DATA, Seed.of(seed))
    return session


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
def test_masks_have_mean_one_and_the_variance_of_dropout(p: float) -> None:
    mask = Masks(Seed.of(0)).draw((1000, 400), p).double()
    kept = round((1 - p) * 65536) / 65536
    # Each element is 1/kept with probability kept: its variance is 1/kept − 1, and the mean's that over n.
    variance = 1 / kept - 1
    assert abs(mask.mean() - 1) < 5 * np.sqrt(variance / mask.numel())
    assert mask.var() == pytest.approx(variance, rel=0.01)
    assert mask.unique().tolist() == [0, np.float32(1 / kept)]


def test_elements_of_a_mask_are_independent_of_their_neighbours() -> None:
    mask = Masks(Seed.of(0)).draw((400_000,), 0.5) - 1
    for step in (1, 2, 3, 4, 8):
        # Products of independent ±1 are ±1: the standard deviation of their mean is 1/√n.
        assert abs((mask[step:] * mask[:-step]).mean()) < 5 / np.sqrt(len(mask))


@pytest.mark.parametrize(("p", "value"), [(0.0, 1.0), (1e-7, 1.0), (1.0, 0.0), (1 - 1e-7, 0.0)])
def test_the_ends_of_the_range_drop_nothing_or_all(p: float, value: float) -> None:
    assert torch.equal(Masks().draw((3, 5), p), torch.full((3, 5), value))


def test_a_mask_of_no_elements_is_empty() -> None:
    assert Masks().draw((0, 4), 0.5).shape == (0, 4)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4), st.integers(0, 99))
def test_masks_are_those_of_the_seed_in_the_order_of_the_calls(shapes: list[Any], seed: int) -> None:
    masks = Masks(Seed.of(seed))
    first = [masks.draw(shape, 0.5) for shape in shapes]
    masks.seed(Seed.of(seed))
    again = [masks.draw(shape, 0.5) for shape in shapes]
    assert all(map(torch.equal, first, again))


def test_masks_follow_from_the_stream_as_documented() -> None:
    words = np.random.SFC64(Seed.of(3).integer()).random_raw(2)
    # Four numbers of 16 bits in each word, the lowest first; those below 3/4 of 65536 are kept.
    bits = [int(word) >> shift & 0xFFFF for word in words for shift in (0, 16, 32, 48)]
    expected = [4 / 3 if number < 49152 else 0 for number in bits[:6]]
    mask = Masks(Seed.of(3)).draw((2, 3), 0.25)
    np.testing.assert_array_equal(mask.flatten().numpy(), np.array(expected, np.float32))


def test_dropout_of_all_kinds_but_the_plain_one_is_left_alone() -> None:
    class Own(nn.Dropout):
        pass

    module = nn.ModuleList([nn.Dropout(0.5), Own(0.5), nn.Dropout2d(0.5), nn.AlphaDropout(0.5)])
    mask_dropout(module)
    assert [type(layer) for layer in module] == [MaskedDropout, Own, nn.Dropout2d, nn.AlphaDropout]
    assert masks_of(module) is module[0].masks
    assert masks_of(module[1]) is None


def test_predictions_drop_nothing_and_leave_the_stream_where_it_is() -> None:
    once, twice = begin(network()), begin(network())
    twice.load(once.store())
    x = torch.from_numpy(DATA.x)
    expected = twice._model.export(twice.store())(x).softmax(1).detach().numpy()
    np.testing.assert_allclose(twice._model.predict(twice.store(), DATA.x), expected, rtol=1e-5)
    assert once.gradient(None) == twice.gradient(None)


def test_dropout_takes_nothing_from_torchs_generators() -> None:
    session = begin(network())
    before = torch.get_rng_state()
    first = session.gradient(None)
    assert torch.equal(torch.get_rng_state(), before)
    assert not session._model.traits.draws_in_training
    assert session.gradient(None) != first
    session.bind(DATA, Seed.of(1))
    torch.manual_seed(5)
    assert session.gradient(None) == first


def test_masks_do_not_depend_on_how_a_module_is_run() -> None:
    losses = []
    for make in (network, Net):
        module = make()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view(parameter.shape))
        session = begin(module)
        losses.append([session.gradient(None) for _ in range(3)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("step", ["gradient", "descend"])
def test_training_with_dropout_is_autograds_with_the_same_masks(step: str) -> None:
    session = begin(network())
    masks = Masks(Seed.of(1).child("dropout"))
    module = session._model.export(session.store()).train()

    def forward(x: Tensor) -> Tensor:
        x = module[0](x)
        x = torch.relu(x * masks.draw(tuple(x.shape), 0.25))
        x = module[4](x)
        x = (x * masks.draw(tuple(x.shape), 0.5)).flatten(1)
        x = module[7](x)
        return module[9](x * masks.draw(tuple(x.shape), 0.1))

    for _ in range(5):
        loss = functional.cross_entropy(forward(torch.from_numpy(DATA.x)), torch.from_numpy(DATA.y))
        gradients = torch.autograd.grad(loss, list(module.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(module.parameters(), gradients, strict=True):
                parameter -= 0.1 * gradient
        if step == "descend":
            found = session.descend(None, 0.1)
        else:
            found = session.gradient(None)
            session.weights[0].sub_(session.gradients[0], alpha=0.1)
        assert found == pytest.approx(loss.item(), rel=1e-5)
    expected = torch.cat([p.detach().flatten() for p in module.parameters()])
    torch.testing.assert_close(session.weights[0], expected, rtol=1e-4, atol=1e-6)


def test_masks_asked_for_can_be_drawn_beforehand_for_many_clients_and_fed_to_a_batch_of_them() -> None:
    module = nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.5), nn.Tanh(), nn.Dropout(0.25), nn.Linear(8, 3))
    mask_dropout(module)
    module.train()
    masks = masks_of(module)
    x = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(0))
    with masks.record() as asked:
        module(x[0])
    assert asked == [((6, 8), 0.5), ((6, 8), 0.25)]

    streams = [Masks(Seed.of(client)) for client in range(4)]
    drawn = [torch.stack([stream.draw(shape, p) for stream in streams]) for shape, p in asked]

    def forward(x: Tensor, *own: Tensor) -> Tensor:
        with masks.feed(own):
            return module(x)

    together = torch.vmap(forward)(x, *drawn)
    for client in range(4):
        masks.seed(Seed.of(client))
        torch.testing.assert_close(together[client], module(x[client]))
