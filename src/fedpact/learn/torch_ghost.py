"""Clipped sums without the gradients: of modules that are chains of linear layers and convolutions.

The norm of a linear layer's gradient follows from its inputs and its outputs' gradients (Goodfellow, "Efficient
Per-Example Gradient Computations", 2015; Li et al., "Large Language Models Can Be Strong Differentially Private
Learners", ICLR 2022, Section 4: ghost clipping). These, kept, also give the clipped sum, without a second backward pass
(Bu et al., "Differentially Private Optimization on Large Foundation Models at Low Cost", ICML 2023: book-keeping). A
convolution is a linear layer over patches.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from fedpact.core.errors import ModelError
from fedpact.learn.torch_chain import Chain
from fedpact.learn.torch_clipped import Step, Sums, factors_of
from fedpact.learn.torch_layers import Convolution, Dense, Layer, Plain
from fedpact.learn.torch_running import rows_at_once

if TYPE_CHECKING:
    from fedpact.learn.torch import TorchModel

_aten = torch.ops.aten


class Ghost:
    """The clipped sums of a chain of linear layers and convolutions, without the gradients.

    Args:
        model: the model.
        chain: its module, each parameter of which is of one layer.
    """

    def __init__(self, model: "TorchModel", chain: Chain) -> None:
        self._chain = Chain(
            [_Patches(layer) if isinstance(layer, Convolution) else layer for layer in chain.layers]
        )
        self._rows = rows_at_once(model.traits, model.device)

    def add(self, x: Tensor, y: Tensor, step: Step, sums: Sums) -> None:
        names = {step.weights[name].data_ptr(): name for name, part in sums.arrays.items() if part.numel()}
        for own, labels in zip(x.split(self._rows), y.split(self._rows), strict=True):
            if not len(own):
                continue
            factors = _Factors(len(own), own.device)

            def objective(outputs: Tensor, labels: Tensor = labels) -> tuple[Tensor, Tensor]:
                loss, gradient = step.objective(outputs, labels)
                return loss, gradient * len(labels)

            self._chain.differentiate(own, objective, factors)
            factors.add_to(sums, names, step.norm)


class _Factors:
    """Takes what gradients are products of, and adds up the squares of each example's norm."""

    def __init__(self, rows: int, device: torch.device) -> None:
        self._squares = torch.zeros(rows, dtype=torch.float64, device=device)
        # A parameter, its outputs' gradients [rows, t, m], and for a weight its inputs [rows, t, n].
        self._kept: list[tuple[Tensor, Tensor, Tensor | None]] = []

    def product(self, weight: Tensor, left: Tensor, right: Tensor) -> None:
        rows = len(self._squares)
        slopes = left.t().double().reshape(rows, -1, left.shape[0])
        inputs = right.double().reshape(rows, -1, right.shape[1])
        places, outputs, width = slopes.shape[1], slopes.shape[2], inputs.shape[2]
        if places == 1:
            squares = slopes.square().sum((1, 2)) * inputs.square().sum((1, 2))
        elif places * places <= outputs * width:
            # ‖Σ d_t x_tᵀ‖² is Σ (d_s·d_t)(x_s·x_t), over all pairs of places.
            squares = ((slopes @ slopes.mT) * (inputs @ inputs.mT)).sum((1, 2))
        else:
            squares = (slopes.mT @ inputs).square().sum((1, 2))
        self._squares += squares
        self._kept.append((weight, slopes, inputs))

    def rows(self, bias: Tensor, gradients: Tensor) -> None:
        slopes = gradients.double().reshape(len(self._squares), -1, gradients.shape[1]).sum(1, keepdim=True)
        self._squares += slopes.square().sum((1, 2))
        self._kept.append((bias, slopes, None))

    def whole(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
        raise ModelError("a layer gave the gradient of a batch where that of each example is needed.")

    def add_to(self, sums: Sums, names: Mapping[int, str], norm: float) -> None:
        """Add the clipped gradients to the sums of the parameters, which are named by where they are in memory."""
        factors, finite = factors_of(self._squares, norm)
        for parameter, slopes, inputs in self._kept:
            if finite is not None:
                slopes = slopes.where(finite[:, None, None], 0.0)
                inputs = None if inputs is None else inputs.where(finite[:, None, None], 0.0)
            slopes = slopes * factors[:, None, None]
            into = sums.arrays[names[parameter.data_ptr()]]
            if inputs is None:
                into += slopes.sum((0, 1))
            else:
                into.view(slopes.shape[2], -1).addmm_(slopes.flatten(0, 1).t(), inputs.flatten(0, 1))


class _Patches(Convolution):
    """A convolution that hands on what its gradient is a product of: patches, and its outputs' gradients."""

    def __init__(self, layer: Convolution) -> None:
        vars(self).update(vars(layer))

    def backward(self, kept: Any, gradient: Tensor, sink: Any) -> Any:
        dtype, x, weight = kept
        slopes = gradient.flatten(2).mT.flatten(0, 1)
        if self._moves[0]:
            stride, padding, dilation = self._how[:3]
            assert not isinstance(padding, str)
            patches = functional.unfold(x, weight.shape[2:], dilation, padding, stride)
            sink.product(self._weight, slopes.t(), patches.mT.flatten(0, 1))
        if self._moves[1]:
            sink.rows(self._bias, slopes)
        if not self.onward:
            return None
        wanted = [True, False, False]
        return _aten.convolution_backward.default(gradient, x, weight, None, *self._how, wanted)[0].to(dtype)


def is_written_out(layer: Layer) -> bool:
    """Return whether this way knows a layer."""
    if isinstance(layer, Convolution):
        return layer._how[-1] == 1
    return isinstance(layer, Dense | Plain)
