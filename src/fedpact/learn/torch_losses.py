"""Losses of torch modules by name, and how outputs become predictions under each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedpact.core.errors import ConfigError, ModelError, suggest
from fedpact.core.model import Kind, Schema
from fedpact.learn import LOSSES as PARTS
from fedpact.learn.focal import Focal
from fedpact.learn.torch_modules import copied

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


class RowWise(nn.Module):
    """A mean of rows' losses, each times the weight of its class, and divided by the number of rows.

    Args:
        rows: the loss of each row, of outputs and targets [n].
        weights: of the classes, in the outputs' dtype; None where each is 1.
    """

    weights: Tensor | None

    def __init__(self, rows: Loss, weights: Tensor | None) -> None:
        super().__init__()
        self.rows = rows
        self.register_buffer("weights", weights)

    def by_row(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the losses [n], each with its weight."""
        losses = self.rows(outputs, targets)
        return losses if self.weights is None else losses * self.weights[targets.long()]

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return their mean."""
        return self.by_row(outputs, targets).mean()


def focal(gamma: float, outputs: Tensor, targets: Tensor) -> Tensor:
    """Return each row's −(1 − p)^γ·log p of the probability p of its own class (see `Focal`).

    Args:
        gamma: γ.
        outputs: logits [n, classes], or [n] of two classes.
        targets: class indexes [n], or 0 and 1 as the outputs' dtype.
    """
    if outputs.ndim == 1:
        margin = torch.where(targets > 0, outputs, -outputs)
    else:
        # Unlike torch's one_hot, which reads the labels, this can be mapped over examples.
        own = targets[:, None] == torch.arange(outputs.shape[1], device=targets.device)
        others = outputs.masked_fill(own, -torch.inf).logsumexp(dim=1)
        margin = outputs.masked_fill(~own, 0.0).sum(dim=1) - others
    # Of log p − log(1 − p), which loses neither logarithm where p is nearly 0 or 1.
    return -torch.exp(gamma * functional.logsigmoid(-margin)) * functional.logsigmoid(margin)


def check_named(part: Any) -> None:
    """Check a part's setting `loss` where it is named, keep `Focal` as itself, and check that class weights fit it.

    Raises:
        ConfigError: there is no such loss, or it is not of classes and these have weights.
    """
    loss = part.loss
    if isinstance(loss, Mapping) or (isinstance(loss, str) and loss.casefold() == "focal"):
        loss = PARTS.build(loss if isinstance(loss, str) else dict(loss))
        object.__setattr__(part, "loss", loss)
    if isinstance(loss, str) and loss not in LOSSES:
        known = (*LOSSES, *PARTS)
        raise ConfigError(f"Torch: loss is {loss!r}; it must be {' or '.join(known)}.{suggest(loss, known)}")
    if part.class_weight is None or loss is None or isinstance(loss, Focal):
        return
    fitting = [name for name, named in LOSSES.items() if "binary" in named.kinds]
    if not isinstance(loss, str):
        raise ConfigError(
            f"Torch: class_weight does not reach into a loss of one's own ({describe_loss(loss)}), which gives a mean: "
            f"give {', '.join(fitting)} or fp.Focal(), or have the function weigh its rows and leave class_weight out."
        )
    if loss not in fitting:
        raise ConfigError(
            f'Torch: class_weight is for labels that are classes, and "{loss}" is a loss of numbers; use '
            f"{', '.join(fitting)} or fp.Focal(), or leave class_weight out."
        )


def loss_and_link(
    loss: str | Loss | Focal | None, schema: Schema, outputs: int, weights: Tensor | None = None
) -> tuple[Loss, Link]:
    """Return a mean loss and the link from outputs to predictions.

    Args:
        loss: as `Torch` takes it.
        schema: what is predicted.
        outputs: the number of outputs for a label.
        weights: of the classes, in the outputs' dtype; None where each is 1.

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
    gamma = 0.0
    if isinstance(loss, Focal):
        gamma, loss = loss.gamma, "bce" if one else "cross_entropy"
    if not isinstance(loss, str):
        return loss, _identity if schema.kind == "regression" else torch.sigmoid if one else _softmax
    usable = [name for name, n in LOSSES.items() if schema.kind in n.kinds and n.one_output == one]
    if loss not in usable:
        raise ModelError(
            f'the loss "{loss}" does not fit a {schema.kind} label and {outputs} '
            f"output{'' if one else 's'}; use {' or '.join(usable)}."
        )
    mean, link = LOSSES[loss].mean, LOSSES[loss].link
    if gamma:
        return RowWise(partial(focal, gamma), weights), link
    return mean if weights is None else RowWise(_each(mean), weights), link


def is_cross_entropy(loss: Loss) -> bool:
    """Return whether a loss is the cross entropy, with or without weights (see `weights_in`)."""
    if not isinstance(loss, RowWise):
        return loss is functional.cross_entropy
    return isinstance(loss.rows, partial) and loss.rows.func is functional.cross_entropy


def weights_in(loss: Loss) -> Tensor | None:
    """Return the weights of classes in a loss [classes]; None where each is 1."""
    return loss.weights if isinstance(loss, RowWise) else None


def row_losses(loss: Loss) -> Loss | None:
    """Return what gives each row's loss; None where the loss is a function of one's own, which gives a mean."""
    if isinstance(loss, partial) and loss.func is at_every_position:
        loss = loss.args[0]
    if isinstance(loss, RowWise):
        return loss.by_row
    known = any(loss is named.mean for named in LOSSES.values())
    return _each(loss) if known else None


def moved(loss: Loss, device: torch.device) -> Loss:
    """Return a loss for outputs on a device: a copy there, where it is a module."""
    if isinstance(loss, partial) and loss.func is at_every_position:
        return partial(at_every_position, moved(loss.args[0], device))
    return copied(loss).to(device) if isinstance(loss, nn.Module) else loss


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


def describe_loss(loss: str | Loss | Focal | None) -> str | dict[str, Any] | None:
    """Return a loss as plain data that differ where two do: its name, its function's with its settings, or a part's."""
    if loss is None or isinstance(loss, str):
        return loss
    if isinstance(loss, Focal):
        return PARTS.describe(loss)
    if not isinstance(loss, nn.Module):
        return _qualified(loss)
    settings = {name: value for name, value in vars(loss).items() if not name.startswith("_")}
    settings.update((name, tensor.tolist()) for name, tensor in loss.state_dict().items())
    return f"{_qualified(loss)}({', '.join(f'{name}={settings[name]}' for name in sorted(settings))})"


def _each(mean: Callable[..., Tensor]) -> Loss:
    """Return a loss of each row, of one by name, which is a mean."""
    return partial(mean, reduction="none")


def _qualified(thing: Any) -> str:
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{named.__module__}.{named.__qualname__}"
