"""Which networks are a straight line of operations, and which could only seem to be."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from fedpact.learn.torch_line import steps_of  # noqa: E402


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.scores, self.drop = nn.Conv2d(2, 4, 3), nn.Linear(36, 3), nn.Dropout(0.5)
        self.factor, self.scale = 2, nn.Parameter(torch.ones(1))
        self.body = nn.Sequential(nn.Linear(3, 3), nn.Tanh())


def network(forward: Callable[[Any, Tensor], Tensor], **members: Any) -> nn.Module:
    return type("Made", (Network,), {"forward": forward, **members})()


def kinds(module: nn.Module) -> list[str]:
    return [type(step).__name__ for step in steps_of(module) or []]


CHANCE = np.random.default_rng(0)
X = torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("forward", "expected"),
    [
        (lambda self, x: functional.relu(self.conv(x)), ["Conv2d", "ReLU"]),
        (lambda self, x: self.conv(x).relu().tanh(), ["Conv2d", "ReLU", "Tanh"]),
        (lambda self, x: torch.sigmoid(functional.tanh(x)), ["Tanh", "Sigmoid"]),
        (lambda self, x: functional.max_pool2d(x, 3, stride=2, padding=1), ["MaxPool2d"]),
        (lambda self, x: torch.max_pool2d(x, (2, 3)), ["MaxPool2d"]),
        (lambda self, x: torch.flatten(x, 1), ["Flatten"]),
        (lambda self, x: x.flatten(2), ["Flatten"]),
        (lambda self, x: x.flatten(), ["Flatten"]),
        (lambda self, x: x.view(-1, 128), ["Flatten"]),
        (lambda self, x: x.view(x.size(0), -1), ["Flatten"]),
        (lambda self, x: x.reshape((x.shape[0], -1)), ["Flatten"]),
        (lambda self, x: torch.reshape(x, (x.size()[0], 128)), ["Flatten"]),
        (lambda self, x: x.view(-1, 1, 16, 8), ["Operation"]),
        (lambda self, x: functional.gelu(x / 255.0).mean(dim=3), ["Operation"] * 3),
        (lambda self, x: x * self.factor, ["Operation"]),
        (lambda self, x: self.body(self.scores(self.conv(x).flatten(1)[:, :36])), ["Conv2d", "Flatten"]),
    ],
)
def test_steps_one_after_another_give_what_the_network_gives(forward: Any, expected: list[str]) -> None:
    module = network(forward)
    steps = steps_of(module)
    assert kinds(module)[: len(expected)] == expected
    torch.testing.assert_close(nn.Sequential(*steps)(X), module(X))


def test_layers_are_the_networks_own() -> None:
    module = network(lambda self, x: self.body(self.drop(x)))
    drop, first, tanh = steps_of(module)
    assert drop is module.drop
    assert first is module.body[0]
    assert tanh is module.body[1]


def _stores(self: Any, x: Tensor) -> Tensor:
    self.factor += 1
    return x * self.factor


def _turns_on_chance(self: Any, x: Tensor) -> Tensor:
    return x + 1 if torch.rand(1) < 0.5 else x


def _turns_on_numpys_chance(self: Any, x: Tensor) -> Tensor:
    return x + 1 if CHANCE.random() < 0.5 else x


def _turns_on_numbers(self: Any, x: Tensor) -> Tensor:
    return x + 1 if x.sum() > 0 else x


def _branches(self: Any, x: Tensor) -> Tensor:
    return x + torch.relu(x)


def _adds_noise(self: Any, x: Tensor) -> Tensor:
    return x + torch.randn(1)


def _has_its_own_parameter(self: Any, x: Tensor) -> Tensor:
    return x * self.scale


def _differs_in_evaluation(self: Any, x: Tensor) -> Tensor:
    return functional.dropout(x, 0.5, self.training)


def _looks_at_the_world(self: Any, x: Tensor) -> Tensor:
    return x * float(os.environ.get("FACTOR", "1"))


def _asks_itself(self: Any, x: Tensor) -> Tensor:
    return x * self.now()


def _makes_a_function(self: Any, x: Tensor) -> Tensor:
    def plus(y: Tensor) -> Tensor:
        return y + self.factor

    return plus(x)


@pytest.mark.parametrize(
    "forward",
    [
        _stores,
        _turns_on_chance,
        _turns_on_numpys_chance,
        _turns_on_numbers,
        _branches,
        _adds_noise,
        _has_its_own_parameter,
        _differs_in_evaluation,
        _looks_at_the_world,
        _asks_itself,
        _makes_a_function,
    ],
)
def test_what_may_run_otherwise_another_time_or_is_no_line_is_refused(forward: Any) -> None:
    module, before = network(forward, now=lambda self: 1.0), torch.get_rng_state()
    assert steps_of(module) is None
    assert torch.equal(torch.get_rng_state(), before)


def test_hooks_on_what_would_be_taken_apart_are_kept_by_leaving_it_whole() -> None:
    module = network(lambda self, x: self.body(x))
    assert kinds(module) == ["Linear", "Tanh"]
    module.body.register_forward_hook(lambda *_: None)
    assert steps_of(module) is None
    inner = network(lambda self, x: self.conv(x))
    inner.conv.register_forward_hook(lambda *_: None)
    assert kinds(inner) == ["Conv2d"]
