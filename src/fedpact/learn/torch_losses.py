"""Losses of torch modules by name, and how outputs become predictions under each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedpact.core.errors import ModelError
from fedpact.core.model import Kind, Schema

Loss = Callable[[Tensor, Tensor], Tensor]
Link = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class NamedLoss:
    """A mean loss by name.

    Args:
        kinds: the kinds of labels it is for.
        one_output: whether it reads outputs [n]; else [n, classes].
        mean: the loss of outputs and targets [n].
        link: how outputs become predictions.
    """

    kinds: tuple[Kind, ...]
    one_output: bool
    mean: Loss
    link: Link


def _softmax(outputs: Tensor) -> Tensor:
    return outputs.softmax(dim=1)


def _identity(outputs: Tensor) -> Tensor:
    return outputs


_CLASSES: tuple[Kind, ...] = ("binary", "multiclass")
LOSSES: Mapping[str, NamedLoss] = {
    "cross_entropy": NamedLoss(_CLASSES, False, functional.cross_entropy, _softmax),
    "nll": NamedLoss(_CLASSES, False, functional.nll_loss, torch.exp),
    "bce": NamedLoss(("binary",), True, functional.binary_cross_entropy_with_logits, torch.sigmoid),
    "mse": NamedLoss(("regression",), True, functional.mse_loss, _identity),
    "l1": NamedLoss(("regression",), True, functional.l1_loss, _identity),
    "huber": NamedLoss(("regression",), True, functional.huber_loss, _identity),
    "poisson": NamedLoss(("regression",), True, functional.poisson_nll_loss, torch.exp),
}


def loss_and_link(loss: str | Loss | None, schema: Schema, outputs: int) -> tuple[Loss, Link]:
    """Return a mean loss and the link from outputs to predictions.

    Args:
        loss: as `Torch` takes it.
        schema: what is predicted.
        outputs: the number of outputs for a label.

    Raises:
        ModelError: the outputs do not fit the labels, or the loss does not fit both.
    """
    classes = len(schema.classes)
    fitting = {"regression": (1,), "binary": (1, 2), "multiclass": (classes,)}[schema.kind]
    if outputs not in fitting:
        known = ", ".join(map(str, schema.classes[:10])) + (", …" if classes > 10 else "")
        needed = (
            f"the data has {classes} classes ({known})" if classes else "a regression predicts one number"
        )
        raise ModelError(
            f"the model gives {outputs} output{'s' if outputs != 1 else ''} but {needed}; its last layer must "
            f"have {' or '.join(map(str, fitting))}."
        )
    one = outputs == 1
    if loss is None:
        loss = "mse" if schema.kind == "regression" else "bce" if one else "cross_entropy"
    if not isinstance(loss, str):
        return loss, _identity if schema.kind == "regression" else torch.sigmoid if one else _softmax
    usable = [name for name, n in LOSSES.items() if schema.kind in n.kinds and n.one_output == one]
    if loss not in usable:
        raise ModelError(
            f'the loss "{loss}" does not fit a {schema.kind} label and {outputs} '
            f"output{'' if one else 's'}; use {' or '.join(usable)}."
        )
    return LOSSES[loss].mean, LOSSES[loss].link


def at_every_position(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean loss over examples and positions: of outputs for each, and of targets [n, *positions]."""
    return loss(outputs, targets.reshape(-1))


def check_loss(loss: Loss, outputs: Tensor, targets: Tensor) -> None:
    """Try a loss on outputs and targets.

    Raises:
        ModelError: it has parameters of its own, fails, or returns something else than one number.
    """
    if isinstance(loss, nn.Module) and any(p.requires_grad for p in loss.parameters()):
        raise ModelError("the loss has parameters of its own, which nobody trains; move them to the module.")
    try:
        mean: Any = loss(outputs, targets)
    except Exception as error:
        shapes = f"outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}"
        raise ModelError(f"the loss fails on {shapes}: {error}") from error
    if not isinstance(mean, Tensor) or mean.ndim:
        raise ModelError("the loss must return the mean over the rows, as a tensor of one number.")


def describe_loss(loss: str | Loss | None) -> str | None:
    """Return a loss in words that differ where two losses do: its name, or its function's with its settings."""
    if loss is None or isinstance(loss, str):
        return loss
    if not isinstance(loss, nn.Module):
        return _qualified(loss)
    settings = {name: value for name, value in vars(loss).items() if not name.startswith("_")}
    settings.update((name, tensor.tolist()) for name, tensor in loss.state_dict().items())
    return f"{_qualified(loss)}({', '.join(f'{name}={settings[name]}' for name in sorted(settings))})"


def _qualified(thing: Any) -> str:
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{named.__module__}.{named.__qualname__}"
