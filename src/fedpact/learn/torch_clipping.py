"""Sums of per-example gradients, each clipped to a norm, of any torch module in which rows do not mix."""

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fedpact.core.errors import ModelError
from fedpact.core.seeds import Seed
from fedpact.learn.torch_chain import Chain
from fedpact.learn.torch_clipped import Clipping, Step, Sums, factors_of
from fedpact.learn.torch_dropout import Masks, masks_of
from fedpact.learn.torch_ghost import Ghost, is_written_out
from fedpact.learn.torch_modules import resting
from fedpact.learn.torch_running import Generators, rows_at_once
from fedpact.learn.torch_stacked_ways import MaskShapes, by_row, plain_attention, training_copy

if TYPE_CHECKING:
    from fedpact.learn.torch import TorchModel

# Of per-example gradients, in elements, so many at once: 4 MiB in float32.
_ELEMENTS = 1 << 20


def clipping_of(model: "TorchModel", chain: Chain) -> Clipping:
    """Return how the clipped sums of a model's module are computed.

    Args:
        model: the model.
        chain: its module as a session runs it.

    Raises:
        ModelError: the module or its loss mixes the rows of a batch, or computes in float16.
    """
    _check_rows_apart(model)
    plain = model.spec.precision == "full" and by_row(model) is not None
    if plain and all(is_written_out(layer) for layer in chain.layers):
        return Ghost(model, chain)
    mapped = Mapped(model)
    return mapped if mapped.works() else OneByOne(model)


class Mapped:
    """The clipped sums of any module that `torch.func.vmap` takes, from the gradients of a few examples at a time.

    Args:
        model: the model.
    """

    def __init__(self, model: "TorchModel") -> None:
        self._model = model
        self._module = training_copy(model, model.device)
        self._masks = masks_of(self._module) or Masks()
        self._shapes = MaskShapes(model)
        self._rows = max(1, min(_ELEMENTS // model.layout.size, rows_at_once(model.traits, model.device)))

    def works(self) -> bool:
        """Whether the module can be mapped, found out by trying."""
        model = self._model
        x = torch.zeros(
            (2, *model.schema.shape), dtype=model.traits.floats or torch.int64, device=model.device
        )
        y = torch.zeros((2, *model.schema.positions), dtype=_labels(model), device=model.device)
        weights = {name: p.detach() for name, p in self._module.named_parameters() if p.requires_grad}
        try:
            with torch.no_grad(), Generators(model.device, Seed.of(0), True), warnings.catch_warnings():
                # Of an LSTM torch says in every step that mapping it is no faster than a loop.
                warnings.filterwarnings("error", message="There is a performance drop")
                self._gradients(weights, x, y, Masks())
        except Exception:
            return False
        return True

    def add(self, x: Tensor, y: Tensor, step: Step, sums: Sums) -> None:
        weights = {name: step.weights[name] for name in sums.arrays}
        for own, labels in zip(x.split(self._rows), y.split(self._rows), strict=True):
            if len(own):
                _add_clipped(self._gradients(weights, own, labels, step.masks), step.norm, sums)

    def _gradients(
        self, weights: dict[str, Tensor], x: Tensor, y: Tensor, masks: Masks | None
    ) -> dict[str, Tensor]:
        """Return parameter → the gradients of all examples [n, ...]."""
        drawn = [] if masks is None else self._drawn(len(x), masks)
        with plain_attention:
            found = vmap(grad(self._loss), in_dims=(None, 0, 0, 0), randomness="different")(
                weights, x, y, drawn
            )
        return dict(found)

    def _loss(self, weights: dict[str, Tensor], x: Tensor, y: Tensor, masks: list[Tensor]) -> Tensor:
        with self._masks.feed(masks):
            return _loss_of_one(self._model, self._module, weights, x, y)

    def _drawn(self, rows: int, masks: Masks) -> list[Tensor]:
        """Return the masks [rows, ...] of every dropout, each example's own."""
        device = self._model.device
        return [masks.draw((rows, *shape), p).to(device) for shape, p in self._shapes.of(1)]


class OneByOne:
    """The clipped sums of a module that cannot be mapped, such as an LSTM: one example after another.

    Args:
        model: the model.
    """

    def __init__(self, model: "TorchModel") -> None:
        self._model = model
        self._module = training_copy(model, model.device)
        self._masks = masks_of(self._module)

    def add(self, x: Tensor, y: Tensor, step: Step, sums: Sums) -> None:
        leaves = {name: step.weights[name].detach().requires_grad_() for name in sums.arrays}
        for example, label in zip(x, y, strict=True):
            with torch.enable_grad():
                loss = self._loss(leaves, example, label, step.masks)
            found = torch.autograd.grad(
                loss, list(leaves.values()), materialize_grads=True, allow_unused=True
            )
            _add_clipped({name: g[None] for name, g in zip(leaves, found, strict=True)}, step.norm, sums)

    def _loss(self, leaves: dict[str, Tensor], x: Tensor, y: Tensor, masks: Masks | None) -> Tensor:
        if self._masks is not None and masks is not None:
            self._masks.go_to(masks.position())
        loss = _loss_of_one(self._model, self._module, leaves, x, y)
        if self._masks is not None and masks is not None:
            masks.go_to(self._masks.position())
        return loss


def _loss_of_one(
    model: "TorchModel", module: nn.Module, weights: Mapping[str, Tensor], x: Tensor, y: Tensor
) -> Tensor:
    """Return the loss of one example."""
    # Copies: what an example leaves behind in a buffer is not for the next, let alone for the server.
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}

    def run(x: Tensor) -> Tensor:
        return functional_call(module, {**weights, **buffers}, (x.clone(),))

    loss: Tensor = model.loss(model.run(run, x[None]), y[None])
    return loss


def _add_clipped(gradients: Mapping[str, Tensor], norm: float, sums: Sums) -> None:
    """Add gradients [n, ...], those of each example clipped together."""
    flat = {name: gradient.detach().flatten(1) for name, gradient in gradients.items()}
    norms = [torch.linalg.vector_norm(each, dim=1, dtype=torch.float64) for each in flat.values()]
    factors, finite = factors_of(torch.stack(norms).square().sum(0), norm)
    for name, each in flat.items():
        if finite is not None:
            each = each.where(finite[:, None], 0.0)
        sums.arrays[name].view(-1).addmv_(each.double().t(), factors)


def _check_rows_apart(model: "TorchModel") -> None:
    """Refuse modules and losses by which one row has a part in another's gradient."""
    if model.spec.precision == "fp16":
        raise ModelError(
            'in precision="fp16" the gradients of single records are out of range too often; use "bf16" or "full".'
        )
    module = model._template
    still = set(resting(module))
    for name, part in module.named_modules():
        if isinstance(part, nn.modules.batchnorm._NormBase) and _mixes(part, part not in still):
            raise ModelError(
                f'"{name or "the module"}" is a {type(part).__name__}, in which the rows of a batch change one '
                "another's gradients, so that no record's own can be clipped: use torch.nn.GroupNorm instead, or keep "
                "it in evaluation mode."
            )
    if by_row(model) is None:
        _check_loss(model)


def _mixes(norm: nn.modules.batchnorm._NormBase, training: bool) -> bool:
    own_statistics = norm.running_mean is None
    if isinstance(norm, nn.modules.instancenorm._InstanceNorm):
        return training and not own_statistics
    return training or own_statistics


def _check_loss(model: "TorchModel") -> None:
    """Refuse a loss of one's own that is not the mean of its rows' losses, as with weights of classes."""
    outputs = torch.linspace(
        -1, 1, 4 * model.traits.outputs, dtype=model.traits.output_dtype, device=model.device
    )
    outputs = outputs if model.traits.outputs == 1 else outputs.view(4, -1)
    classes = len(model.schema.classes) or 4
    labels = (torch.arange(4, device=model.device) % classes).to(_labels(model))
    whole = model.loss(outputs, labels)
    each = torch.stack([model.loss(outputs[i : i + 1], labels[i : i + 1]) for i in range(4)])
    if not torch.allclose(whole, each.mean(), rtol=1e-3, atol=1e-6, equal_nan=True):
        raise ModelError(
            "the loss of a batch is not the mean of its rows' losses, as it is not where torch weighs classes: then no "
            "record has a gradient of its own to be clipped. Weigh classes by Torch(..., class_weight=...) instead."
        )


def _labels(model: "TorchModel") -> torch.dtype:
    return torch.int64 if model.traits.outputs > 1 else model.traits.output_dtype
