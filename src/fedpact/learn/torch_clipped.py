"""What ways to clip the gradients of single examples have in common: what they are given, and the sum they add to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from fedpact.learn.torch_dropout import Masks

if TYPE_CHECKING:
    from fedpact.learn.torch import TorchModel


@dataclass(frozen=True)
class Step:
    """What a batch is differentiated with.

    Args:
        norm: what each example's gradient is clipped to.
        weights: the weights by name.
        masks: where dropout takes its masks from; None if there is none.
        objective: the mean loss of outputs and labels, and its gradient with respect to the outputs.
    """

    norm: float
    weights: Mapping[str, Tensor]
    masks: Masks | None
    objective: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Sums:
    """A sum of gradients in float64, so that adding one example changes it by that example's gradient.

    Attributes:
        flats: one flat tensor for each dtype of trained parameters, in the order of the layout.
        arrays: trained parameter → its part.
    """

    def __init__(self, model: "TorchModel") -> None:
        self.flats: list[Tensor] = []
        self.arrays: dict[str, Tensor] = {}
        for segment in model.layout.segments:
            if segment.role != "parameter":
                continue
            sizes = [entry.size for entry in segment.entries]
            flat = torch.zeros(sum(sizes), dtype=torch.float64, device=model.device)
            self.flats.append(flat)
            for entry, part in zip(segment.entries, flat.split(sizes), strict=True):
                self.arrays[entry.name] = part.view(entry.shape)


class Clipping(Protocol):
    """How clipped sums are computed."""

    def add(self, x: Tensor, y: Tensor, step: Step, sums: Sums) -> None:
        """Add the clipped gradients of examples [n, ...] with labels [n, ...]; under `no_grad`."""
        ...


def factors_of(squares: Tensor, norm: float) -> tuple[Tensor, Tensor | None]:
    """Return what clips gradients of these squared norms [n], and which of them are finite; None for all.

    The factor of one that is not finite is 0, and what is multiplied by it must be made finite first.
    """
    finite = squares.isfinite()
    factors = (norm / squares.sqrt()).clamp(max=1.0).where(finite, 0.0)
    return factors, None if finite.all() else finite
