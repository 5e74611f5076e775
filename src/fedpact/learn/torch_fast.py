"""Layers of a module exchanged for ones that compute the same, faster on a CPU."""

from typing import Any

import torch
from torch import Tensor, nn

from fedpact.learn.torch_dropout import mask_dropout
from fedpact.learn.torch_sinks import linear, product

# Below, a function of its own costs autograd more time than the faster library saves.
_MULTIPLICATIONS = 1 << 22


def accelerated(module: nn.Module) -> nn.Module:
    """Return the module, on the CPU with `torch.nn.Dropout` exchanged for one with masks of the client's own."""
    if all(parameter.is_cpu for parameter in module.parameters()):
        mask_dropout(module)
    return module


class FastLinear(nn.Linear):
    """A `torch.nn.Linear` for autograd whose large products are computed by the faster library."""

    def forward(self, x: Tensor) -> Tensor:
        large = x.numel() * self.out_features >= _MULTIPLICATIONS and x.dtype is torch.float32
        if not large or torch.is_autocast_enabled("cpu") or torch._C._are_functorch_transforms_active():
            return super().forward(x)
        function: Any = _Linear
        return function.apply(x, self.weight, self.bias)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return linear(x.reshape(-1, x.shape[-1]), weight, bias).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        wanted, gradient = ctx.needs_input_grad, gradients[0].reshape(-1, weight.shape[0])
        # For a gradient of a gradient the products must be such as autograd knows.
        times = torch.mm if torch.is_grad_enabled() else product
        return (
            times(gradient, weight).view(x.shape) if wanted[0] else None,
            times(gradient.t(), x.reshape(-1, x.shape[-1])) if wanted[1] else None,
            gradient.sum(0) if wanted[2] else None,
        )


def use_fast_products(module: nn.Module) -> None:
    """Exchange every `torch.nn.Linear` of a module that is on the CPU, in place, for a `FastLinear`."""
    for layer in module.modules():
        if type(layer) is nn.Linear and layer.weight.is_cpu:
            layer.__class__ = FastLinear
