"""Layers written out for many clients at once, each with its own weights: matrix products, and what is elementwise.

Activations are [clients, rows, ...]. A step has no tape, and one of gradient descent stores no gradient: it goes from
a matrix product into the weights.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedpact.core.errors import ModelError
from fedpact.core.vector import Segment
from fedpact.learn.torch_dropout import Masks
from fedpact.learn.torch_layers import Dense, Drop, Flat, Layer, Rectifier, Sigmoid, Tanh

# The losses of outputs [k], and the gradient of their sum with respect to the outputs.
Objective = Callable[[Tensor], tuple[Tensor, Tensor]]


class Sink(Protocol):
    """Who takes the gradients of the clients' parameters, by name; under `no_grad`."""

    def product(self, name: str, left: Tensor, right: Tensor) -> None:
        """Take left [k, m, rows] @ right [k, rows, n], the gradients of weights [k, m, n]."""
        ...

    def whole(self, name: str, gradients: Tensor) -> None:
        """Take gradients [k, ...]."""
        ...


@dataclass(frozen=True)
class Recording:
    """Writes gradients over others.

    Args:
        gradients: of each parameter [k, ...].
    """

    gradients: Mapping[str, Tensor]

    def product(self, name: str, left: Tensor, right: Tensor) -> None:
        torch.bmm(left, right, out=self.gradients[name])

    def whole(self, name: str, gradients: Tensor) -> None:
        self.gradients[name].copy_(gradients)


@dataclass(frozen=True)
class Descent:
    """Takes a step of gradient descent in place: w ← w − lr·g.

    Args:
        weights: each parameter [k, ...].
        lr: the learning rate.
    """

    weights: Mapping[str, Tensor]
    lr: float

    def product(self, name: str, left: Tensor, right: Tensor) -> None:
        self.weights[name].baddbmm_(left, right, alpha=-self.lr)

    def whole(self, name: str, gradients: Tensor) -> None:
        self.weights[name].add_(gradients, alpha=-self.lr)


@dataclass(frozen=True)
class Cohort:
    """Clients whose batches are computed together.

    Args:
        weights: each parameter of theirs [k, ...].
        sizes: how many rows of their batches count [k].
        masks: where their dropout comes from; empty without dropout.
    """

    weights: Mapping[str, Tensor]
    sizes: NDArray[np.int64]
    masks: Sequence[Masks]

    def shares(self, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return what each row of a batch counts in its client's mean [k, width]: 1/size, and 0 where it fills up."""
        counts = np.arange(width) < self.sizes[:, None]
        return torch.as_tensor(counts / self.sizes[:, None], dtype=dtype, device=device)

    def mask(self, shape: Sequence[int], p: float) -> Tensor:
        """Return the next masks [k, rows, ...], each drawn for the rows that count and 0 for the others."""
        drawn = [
            masks.draw((size, *shape[2:]), p)
            for masks, size in zip(self.masks, self.sizes.tolist(), strict=True)
        ]
        return stacked_masks(drawn, shape[1:])


def by_name(flats: Sequence[Tensor], segments: Sequence[Segment]) -> dict[str, Tensor]:
    """Return views [clients, ...] of each array of flat tensors [clients, elements]."""
    arrays = {}
    for flat, segment in zip(flats, segments, strict=True):
        start = 0
        for entry in segment.entries:
            arrays[entry.name] = flat[:, start : start + entry.size].view(len(flat), *entry.shape)
            start += entry.size
    return arrays


def stacked_masks(drawn: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
    """Return masks of up to this shape as one tensor [k, *shape], with zeros around the smaller ones."""
    if all(mask.shape == tuple(shape) for mask in drawn):
        return torch.stack(list(drawn))
    filled = torch.zeros((len(drawn), *shape))
    for place, mask in enumerate(drawn):
        filled[place][tuple(map(slice, mask.shape))] = mask
    return filled


class StackedLayer(Protocol):
    """One layer of many clients' models."""

    def forward(self, x: Tensor, cohort: Cohort) -> tuple[Tensor, Any]:
        """Return the outputs, and what the backward pass needs."""
        ...

    def backward(self, kept: Any, gradient: Tensor, cohort: Cohort, sink: Sink, onward: bool) -> Any:
        """Hand on the parameters' gradients; return the inputs' if they are needed."""
        ...


class StackedDense:
    """As many `torch.nn.Linear`.

    Args:
        weight: the weight's name.
        bias: the bias's; None without one.
    """

    def __init__(self, weight: str, bias: str | None) -> None:
        self._weight = weight
        self._bias = bias

    def forward(self, x: Tensor, cohort: Cohort) -> tuple[Tensor, Any]:
        flat = x.reshape(x.shape[0], -1, x.shape[-1])
        weight = cohort.weights[self._weight].transpose(1, 2)
        if self._bias is None:
            y = torch.bmm(flat, weight)
        else:
            y = torch.baddbmm(cohort.weights[self._bias].unsqueeze(1), flat, weight)
        return y.view(*x.shape[:-1], -1), (flat, x.shape)

    def backward(self, kept: Any, gradient: Tensor, cohort: Cohort, sink: Sink, onward: bool) -> Any:
        x, shape = kept
        flat = gradient.reshape(x.shape[0], x.shape[1], -1)
        # Before the weights change.
        inwards = torch.bmm(flat, cohort.weights[self._weight]).view(shape) if onward else None
        sink.product(self._weight, flat.transpose(1, 2), x)
        if self._bias is not None:
            sink.whole(self._bias, flat.sum(1))
        return inwards


class Elementwise:
    """A layer that computes the same for every number, wherever it is.

    Args:
        layer: that layer, for one client.
    """

    def __init__(self, layer: Layer) -> None:
        self._layer = layer

    def forward(self, x: Tensor, cohort: Cohort) -> tuple[Tensor, Any]:
        return self._layer.forward(x, True)

    def backward(self, kept: Any, gradient: Tensor, cohort: Cohort, sink: Sink, onward: bool) -> Any:
        return self._layer.backward(kept, gradient, sink)  # type: ignore[arg-type]


class StackedFlat:
    """As many `torch.nn.Flatten`.

    Args:
        dims: the first and the last axis that become one, of one client's activations.
    """

    def __init__(self, dims: tuple[int, int]) -> None:
        self._dims = tuple(dim + 1 if dim >= 0 else dim for dim in dims)

    def forward(self, x: Tensor, cohort: Cohort) -> tuple[Tensor, Any]:
        return x.flatten(*self._dims), x.shape

    def backward(self, kept: Any, gradient: Tensor, cohort: Cohort, sink: Sink, onward: bool) -> Any:
        return gradient.reshape(kept)


class StackedDrop:
    """As many `torch.nn.Dropout`, each with its client's masks.

    Args:
        layer: that layer, for one client.
    """

    def __init__(self, layer: Drop) -> None:
        self._layer = layer._layer

    def forward(self, x: Tensor, cohort: Cohort) -> tuple[Tensor, Any]:
        if not self._layer.training or self._layer.p == 0:
            return x, None
        mask = cohort.mask(x.shape, self._layer.p).to(x.device)
        return (x * mask).to(x.dtype), mask

    def backward(self, kept: Any, gradient: Tensor, cohort: Cohort, sink: Sink, onward: bool) -> Any:
        return gradient if kept is None else (gradient * kept).to(gradient.dtype)


def stacked_layers(layers: Sequence[Layer], names: Mapping[int, str]) -> list[StackedLayer]:
    """Return a chain's layers for many clients.

    Args:
        layers: those of one client's chain.
        names: the names of the trained parameters by their identity.

    Raises:
        ModelError: one of them is not written out here.
    """
    made: list[StackedLayer] = []
    for layer in layers:
        if isinstance(layer, Dense):
            weight, bias = layer._weight, layer._bias
            if not all(p is None or id(p) in names for p in (weight, bias)):
                raise ModelError("a dense layer is frozen.")
            made.append(StackedDense(names[id(weight)], None if bias is None else names[id(bias)]))
        elif isinstance(layer, Rectifier | Tanh | Sigmoid):
            made.append(Elementwise(layer))
        elif isinstance(layer, Flat) and min(layer._dims) != 0:
            made.append(StackedFlat(layer._dims))
        elif isinstance(layer, Drop):
            made.append(StackedDrop(layer))
        else:
            raise ModelError(f"{type(layer).__name__} is not written out for many clients.")
    return made


class StackedChain:
    """Many clients' models as one chain of layers.

    Args:
        layers: those layers.
    """

    def __init__(self, layers: Sequence[StackedLayer]) -> None:
        self._layers = list(layers)
        self._first = next(i for i, layer in enumerate(layers) if isinstance(layer, StackedDense))

    def descend(self, x: Tensor, objective: Objective, cohort: Cohort, sink: Sink) -> Tensor:
        """Return the losses of batches [k], their gradients handed to a sink; to be called under `no_grad`."""
        trail = []
        for layer in self._layers:
            x, kept = layer.forward(x, cohort)
            trail.append((layer, kept))
        losses, gradient = objective(x)
        for place in range(len(trail) - 1, self._first - 1, -1):
            layer, kept = trail.pop()
            gradient = layer.backward(kept, gradient, cohort, sink, onward=place > self._first)
        return losses
