"""A module as a chain of layers that are written out where they are known, and otherwise left to autograd.

No number changes by more than rounding does. Whether a module may be taken apart is found out by trying.
"""

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fedpact.core.errors import ModelError
from fedpact.core.seeds import Seed
from fedpact.learn.torch_dropout import MaskedDropout
from fedpact.learn.torch_layers import (
    Convolution,
    Dense,
    Differentiated,
    Drop,
    Flat,
    Layer,
    Pool,
    Rectifier,
    Sigmoid,
    Tanh,
    gradients_of,
    trained,
)
from fedpact.learn.torch_line import is_untouched, steps_of
from fedpact.learn.torch_running import Generators
from fedpact.learn.torch_sinks import Sink

# The mean loss of outputs, and its gradient with respect to them.
Objective = Callable[[Tensor], tuple[Tensor, Tensor]]

_KNOWN: dict[type[nn.Module], Callable[[Any, bool], Layer]] = {
    nn.Linear: Dense,
    nn.Conv2d: Convolution,
    nn.MaxPool2d: lambda part, _: Pool(part),
    nn.Flatten: lambda part, _: Flat(part),
    nn.ReLU: lambda *_: Rectifier(),
    nn.Tanh: lambda *_: Tanh(),
    nn.Sigmoid: lambda *_: Sigmoid(),
    MaskedDropout: lambda part, _: Drop(part),
}
# These make their outputs and their inputs' gradients anew, and keep neither.
_FRESH = (Dense, Convolution, Pool)
_EXCHANGED = {(nn.ReLU, nn.MaxPool2d), (MaskedDropout, nn.Flatten)}
# Between two ways to add float32 numbers up.
_TOLERANCE = 1e-3


class Chain:
    """A module's layers one after another.

    Args:
        layers: those layers.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = list(layers)
        self._first = next(i for i, layer in enumerate(layers) if layer.parameters)
        for layer in layers[: self._first + 1]:
            layer.onward = False

    def __call__(self, x: Tensor) -> Tensor:
        """Return the outputs, under `no_grad`."""
        for layer in self.layers:
            x, _ = layer.forward(x, False)
        return x

    def differentiate(self, x: Tensor, objective: Objective, sink: Sink) -> Tensor:
        """Return the loss of a batch, the gradients of which go to a sink; under `no_grad`."""
        for layer in self.layers[: self._first]:
            x, _ = layer.forward(x, False)
        trail = []
        for layer in self.layers[self._first :]:
            x, kept = layer.forward(x, True)
            trail.append((layer, kept))
        loss, gradient = objective(x)
        while trail:
            layer, kept = trail.pop()
            gradient = layer.backward(kept, gradient, sink)
        return loss


def chain_of(module: nn.Module, examples: Tensor, bf16: bool) -> Chain:
    """Return a module as a chain; of a single layer, the whole, if it cannot be taken apart.

    Args:
        module: in training mode; linear layers that are left to autograd are exchanged for faster ones in place.
        examples: a few of what it takes.
        bf16: whether to compute in bfloat16 where that pays.
    """
    if examples.is_cpu and _has_layers(module) and _agrees(module, examples):
        return Chain(_layers(module, bf16))
    return Chain([Differentiated(module, bf16)])


def _has_layers(module: nn.Module) -> bool:
    return any(_is_known(part, False) for part in _parts(module))


def _layers(module: nn.Module, bf16: bool) -> list[Layer]:
    """Return the layers; in a row those that are not known are one."""
    layers: list[Layer] = []
    for known, parts in itertools.groupby(
        _in_better_order(_parts(module)), lambda part: _is_known(part, bf16)
    ):
        if known:
            layers.extend(_KNOWN[type(part)](part, bf16) for part in parts)
        else:
            unknown = list(parts)
            layers.append(Differentiated(unknown[0] if len(unknown) == 1 else nn.Sequential(*unknown), bf16))
    for before, layer in itertools.pairwise(layers):
        if isinstance(layer, Rectifier):
            layer.owns_input = isinstance(before, _FRESH)
        if isinstance(before, Rectifier):
            before.owns_gradient = isinstance(layer, _FRESH)
    return layers


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    if not is_untouched(module):
        yield module
    elif type(module) is nn.Sequential:
        for part in module:
            yield from _parts(part)
    elif type(module).__module__.startswith(("torch.", "fedpact.")):
        if type(module) is not nn.Identity:
            yield module
    else:
        steps = steps_of(module)
        if steps is None:
            yield module
        else:
            for step in steps:
                yield from _parts(step)


def _in_better_order(parts: Iterable[nn.Module]) -> list[nn.Module]:
    """Rectify what a pool has left, which is the same and less; drop after flattening, which moves memory."""
    ordered = list(parts)
    for i in range(len(ordered) - 1):
        pair = ordered[i], ordered[i + 1]
        if tuple(map(type, pair)) in _EXCHANGED and all(_is_known(part, False) for part in pair):
            ordered[i : i + 2] = reversed(pair)
    return ordered


def _is_known(part: nn.Module, bf16: bool) -> bool:
    if type(part) not in _KNOWN or not is_untouched(part):
        return False
    if isinstance(part, (nn.Linear, nn.Conv2d)):
        own = [tensor for tensor in (part.weight, part.bias) if tensor is not None]
        if not all(isinstance(tensor, nn.Parameter) for tensor in own):
            return False
        if bf16 and any(tensor.dtype is not torch.float32 for tensor in own):
            return False
    if isinstance(part, nn.Conv2d):
        return part.padding_mode == "zeros" and not isinstance(part.padding, str)
    return not (isinstance(part, nn.MaxPool2d) and part.return_indices)


def _agrees(module: nn.Module, examples: Tensor) -> bool:
    """Whether the chain computes of these examples what the module does, gradients included.

    It would not where layers share parameters, one reaches into another, or a layer has no single input and output.
    """
    outcomes = []
    for run in (_by_autograd, _by_chain):
        double = copy.deepcopy(module)
        try:
            with Generators(examples.device, Seed.of(0)), torch.no_grad():
                # No gradient should be 0 because a layer has been made to start from weights of 0.
                for parameter in trained(double):
                    parameter.add_(torch.randn_like(parameter), alpha=0.01)
                outcomes.append(run(double, examples.clone()))
        except Exception:
            return False
    expected, computed = outcomes
    scale = max(tensor.norm().item() for tensor in expected)
    return all(
        a.shape == b.shape and (a - b).norm() <= _TOLERANCE * (b.norm() + _TOLERANCE * scale)
        for a, b in zip(computed, expected, strict=True)
    )


def _by_autograd(module: nn.Module, x: Tensor) -> list[Tensor]:
    with torch.enable_grad():
        y = module(x)
    parameters = trained(module)
    found = gradients_of(y, _cotangent(y), parameters)
    return [y.detach(), *_without_none(found, parameters)]


def _by_chain(module: nn.Module, x: Tensor) -> list[Tensor]:
    layers, collected, parameters = _layers(module, False), _Collecting(), trained(module)
    own = [parameter for layer in layers for parameter in layer.parameters]
    if len(own) != len(parameters) or set(own) != set(parameters):
        raise ModelError("layers share parameters, or do without them.")
    y = Chain(layers).differentiate(x, lambda y: (y, _cotangent(y)), collected)
    return [y, *_without_none([collected.sums.get(parameter) for parameter in parameters], parameters)]


class _Collecting:
    """Adds up all gradients of a parameter."""

    def __init__(self) -> None:
        self.sums: dict[Tensor, Tensor] = {}

    def product(self, weight: Tensor, left: Tensor, right: Tensor) -> None:
        self.whole([weight], [left @ right])

    def rows(self, bias: Tensor, gradients: Tensor) -> None:
        self.whole([bias], [gradients.sum(0)])

    def whole(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                self.sums[parameter] = self.sums.get(parameter, 0) + gradient


def _without_none(gradients: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> Iterator[Tensor]:
    for gradient, parameter in zip(gradients, parameters, strict=True):
        yield torch.zeros_like(parameter) if gradient is None else gradient


def _cotangent(y: Tensor) -> Tensor:
    return torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
