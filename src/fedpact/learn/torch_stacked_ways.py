"""Two ways to the gradients of many clients' modules: layers written out, and `torch.func.vmap`."""

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from fedpact.core.errors import ModelError
from fedpact.learn.torch_chain import chain_of
from fedpact.learn.torch_dropout import Masks, mask_dropout, masks_of
from fedpact.learn.torch_losses import is_cross_entropy, row_losses, weights_in
from fedpact.learn.torch_modules import copied, resting, set_training
from fedpact.learn.torch_stacked_layers import Cohort, Sink, StackedChain, stacked_layers, stacked_masks

if TYPE_CHECKING:
    from fedpact.learn.torch import TorchModel


class Way(Protocol):
    """How the gradients of many clients are computed."""

    def descend(self, x: Tensor, y: Tensor, cohort: Cohort, sink: Sink) -> Tensor:
        """Return the mean losses of batches [k], their gradients handed to a sink; to be called under `no_grad`.

        Args:
            x: examples [k, rows, ...].
            y: labels [k, rows, ...].
            cohort: whose they are.
            sink: who takes the gradients.
        """
        ...


class Losses:
    """The mean losses of many clients' batches.

    Args:
        model: the model.
    """

    def __init__(self, model: "TorchModel") -> None:
        self._model = model
        self._by_row = by_row(model)

    def of(self, outputs: Tensor, y: Tensor, cohort: Cohort) -> Tensor:
        """Return the losses [k] of outputs [k, rows, ...] and labels [k, rows, ...]."""
        model = self._model
        if self._by_row is None:
            each = zip(outputs.unbind(), y.unbind(), strict=True)
            return torch.stack([model.loss(model.run(_identity, own), labels) for own, labels in each])
        rows = self._by_row(model.run(_identity, outputs), y.reshape(-1))
        shares = cohort.shares(y.shape[1], rows.dtype, rows.device)
        return (rows.view(*y.shape[:2], -1).mean(2) * shares).sum(1)

    def and_gradient(self, outputs: Tensor, y: Tensor, cohort: Cohort) -> tuple[Tensor, Tensor]:
        """Return them, and the gradient of their sum with respect to the outputs; under `no_grad`."""
        if is_cross_entropy(self._model.loss) and outputs.dtype is torch.float32:
            shares = cohort.shares(y.shape[1], outputs.dtype, outputs.device)
            weights = weights_in(self._model.loss)
            return _cross_entropy(outputs, y, shares if weights is None else shares * weights[y])
        leaf = outputs.detach().requires_grad_()
        with torch.enable_grad():
            losses = self.of(leaf, y, cohort)
            (gradient,) = torch.autograd.grad(losses.sum(), leaf)
        return losses.detach(), gradient


class Written:
    """A chain of layers that are written out.

    Args:
        chain: the layers for many clients.
        losses: what is minimised.
    """

    def __init__(self, chain: StackedChain, losses: Losses) -> None:
        self._chain = chain
        self._losses = losses

    @classmethod
    def of(cls, model: "TorchModel") -> "Written":
        """Return this way for a model.

        Raises:
            ModelError: it has other layers, or computes in bfloat16.
        """
        if model.spec.precision != "full":
            raise ModelError("layers are written out for full precision alone.")
        module = training_copy(model, "cpu")
        example = torch.zeros((2, *model.schema.shape), dtype=model.traits.floats or torch.int64)
        names = {id(p): name for name, p in module.named_parameters() if p.requires_grad}
        return cls(
            StackedChain(stacked_layers(chain_of(module, example, False).layers, names)), Losses(model)
        )

    def descend(self, x: Tensor, y: Tensor, cohort: Cohort, sink: Sink) -> Tensor:
        return self._chain.descend(
            x, lambda outputs: self._losses.and_gradient(outputs, y, cohort), cohort, sink
        )


class Mapped:
    """Any module that torch can run for many clients at once, by `torch.func.vmap`.

    Args:
        model: the model.
    """

    def __init__(self, model: "TorchModel") -> None:
        self._model = model
        self._module = training_copy(model, model.device)
        self._losses = Losses(model)
        self._masks = masks_of(self._module) or Masks()
        self._shapes = MaskShapes(model)

    def descend(self, x: Tensor, y: Tensor, cohort: Cohort, sink: Sink) -> Tensor:
        leaves = {name: weights.detach().requires_grad_() for name, weights in cohort.weights.items()}
        drawn = self._drawn(x.shape[1], cohort)
        # Of attention's kernels this is the one that can be mapped. Gradients of what is mapped: to map gradients, as
        # torch.func.grad would, has torch import its compiler, which takes a second and 70 MB.
        with torch.enable_grad(), plain_attention:
            outputs = vmap(self._outputs, randomness="error")(leaves, x, drawn)
            losses = self._losses.of(outputs, y, cohort)
            found = torch.autograd.grad(losses.sum(), list(leaves.values()), materialize_grads=True)
        for name, gradient in zip(leaves, found, strict=True):
            sink.whole(name, gradient)
        return losses.detach()

    def _outputs(self, weights: dict[str, Tensor], x: Tensor, masks: list[Tensor]) -> Tensor:
        """Return one client's outputs."""

        def module(x: Tensor) -> Tensor:
            return functional_call(self._module, weights, (x,))

        with self._masks.feed(masks):
            return self._model.run(module, x)

    def _drawn(self, width: int, cohort: Cohort) -> list[Tensor]:
        """Return the masks [k, ...] of every dropout, each client's in the order in which it draws them alone."""
        if not cohort.masks:
            return []
        each = [
            [masks.draw(shape, p) for shape, p in self._shapes.of(size)]
            for masks, size in zip(cohort.masks, cohort.sizes.tolist(), strict=True)
        ]
        filled = [shape for shape, _ in self._shapes.of(width)]
        device = self._model.device
        return [
            stacked_masks(drawn, shape).to(device)
            for drawn, shape in zip(zip(*each, strict=True), filled, strict=True)
        ]


class _PlainAttention:
    """Has attention computed by its plain kernel as long as a thread is in here; the choice is the process's."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Let nobody be in here."""
        self._turn = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        with self._turn:
            if self._inside == 0:
                self._chosen = sdpa_kernel(SDPBackend.MATH)
                self._chosen.__enter__()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._turn:
            self._inside -= 1
            if self._inside == 0:
                self._chosen.__exit__(None, None, None)


plain_attention = _PlainAttention()
# The child of a fork has none of the threads that were in there.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=plain_attention.renew)


class MaskShapes:
    """The masks that a module's dropout asks for.

    Args:
        model: the module's model.
    """

    def __init__(self, model: "TorchModel") -> None:
        self._x = torch.zeros((1, *model.schema.shape), dtype=model.traits.floats or torch.int64)
        self._module = training_copy(model, "cpu")
        self._known: dict[int, list[tuple[tuple[int, ...], float]]] = {}

    def of(self, rows: int) -> list[tuple[tuple[int, ...], float]]:
        """Return the shape and p of each mask for so many rows, in the order in which they are asked for."""
        masks = masks_of(self._module)
        if masks is None:
            return []
        if rows not in self._known:
            with torch.no_grad(), masks.record() as asked:
                self._module(self._x.expand(rows, *self._x.shape[1:]).clone())
            self._known[rows] = asked
        return self._known[rows]


def training_copy(model: "TorchModel", device: Any) -> nn.Module:
    """Return a copy of a model's module in training mode, whose dropout is the clients' own."""
    module = copied(model._template).to(device)
    mask_dropout(module)
    set_training(module, resting(module))
    return module


def by_row(model: "TorchModel") -> Callable[[Tensor, Tensor], Tensor] | None:
    """Return what gives each row's loss; None where the loss is a function of one's own, which gives a mean."""
    return row_losses(model.loss)


def _cross_entropy(outputs: Tensor, y: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    scores, labels = outputs.log_softmax(2), y.unsqueeze(2)
    losses = -(scores.gather(2, labels).squeeze(2) * shares).sum(1)
    shares = shares.unsqueeze(2)
    gradient = scores.exp_().mul_(shares)
    return losses, gradient.scatter_add_(2, labels, -shares)


def _identity(outputs: Tensor) -> Tensor:
    return outputs
