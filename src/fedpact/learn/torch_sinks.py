"""Where gradients go as a backward pass finds them: to memory, or straight into the weights.

A step of gradient descent needs no gradient in memory: W ← W − lr·dᵀx is one matrix product that accumulates.
"""

import platform
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

_ONEDNN = (
    platform.machine() in ("x86_64", "AMD64")
    and torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)
# Measured on CPUs with AVX-512: from about a million multiplications on, oneDNN is up to three times as fast as
# the BLAS that torch comes with; below, calling it costs more. It cannot accumulate, so where the product is no
# more than 32 rows deep the memory of its result costs more than it saves.
_MULTIPLICATIONS = 1 << 20
_DEPTH = 32


class Sink(Protocol):
    """Who takes the gradients, under `no_grad`."""

    def product(self, weight: Tensor, left: Tensor, right: Tensor) -> None:
        """Take left [m, rows] @ right [rows, n], the gradient of a weight [m, n]."""
        ...

    def rows(self, bias: Tensor, gradients: Tensor) -> None:
        """Take the sum of gradients [rows, n] over the rows, the gradient of a bias [n]."""
        ...

    def whole(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
        """Take the gradients of these parameters; None is 0."""
        ...


class Recording:
    """Writes gradients over the parameters' `grad`."""

    def product(self, weight: Tensor, left: Tensor, right: Tensor) -> None:
        gradient: Any = weight.grad
        if left.dtype is not weight.dtype or _is_deep(left, right):
            gradient.copy_(product(left, right))
        else:
            torch.mm(left, right, out=gradient)

    def rows(self, bias: Tensor, gradients: Tensor) -> None:
        torch.sum(gradients, 0, dtype=bias.dtype, out=bias.grad)

    def whole(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
        for parameter, found in zip(parameters, gradients, strict=True):
            gradient: Any = parameter.grad
            if found is None:
                gradient.zero_()
            else:
                gradient.copy_(found)


class Descent:
    """Takes a step of gradient descent in place: w ← w − lr·g.

    Args:
        lr: the learning rate.
    """

    def __init__(self, lr: float) -> None:
        self.lr = lr

    def product(self, weight: Tensor, left: Tensor, right: Tensor) -> None:
        if left.dtype is not weight.dtype or _is_deep(left, right):
            weight.add_(product(left, right), alpha=-self.lr)
        else:
            weight.addmm_(left, right, alpha=-self.lr)

    def rows(self, bias: Tensor, gradients: Tensor) -> None:
        if gradients.dtype is not bias.dtype:
            gradients = gradients.to(bias.dtype)
        bias.addmv_(gradients.t(), _ones(gradients.shape[0], gradients.dtype), alpha=-self.lr)

    def whole(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
        known = [(p, g) for p, g in zip(parameters, gradients, strict=True) if g is not None]
        if known:
            trained, found = zip(*known, strict=True)
            torch._foreach_add_(trained, found, alpha=-self.lr)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x @ weightᵀ + bias, [rows, m], of x [rows, n] and a weight [m, n], by the faster library."""
    if x.shape[0] * weight.numel() >= _MULTIPLICATIONS and _fits(x) and _fits(weight):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return functional.linear(x, weight, bias)


def product(left: Tensor, right: Tensor) -> Tensor:
    """Return left @ right, [m, n], of left [m, rows] and right [rows, n], by the faster library."""
    if _is_large(left, right) and _fits(left) and _fits(right):
        return torch.ops.mkldnn._linear_pointwise(left, right.t(), None, "none", [], "")
    return torch.mm(left, right)


def _fits(matrix: Tensor) -> bool:
    if not _ONEDNN or matrix.dtype is not torch.float32 or not matrix.is_cpu:
        return False
    # With any other strides oneDNN takes a thousand times as long.
    return matrix.is_contiguous() or matrix.t().is_contiguous()


def _is_large(left: Tensor, right: Tensor) -> bool:
    return left.shape[0] * right.numel() >= _MULTIPLICATIONS


def _is_deep(left: Tensor, right: Tensor) -> bool:
    return right.shape[0] >= _DEPTH and _is_large(left, right)


@lru_cache(maxsize=64)
def _ones(size: int, dtype: torch.dtype) -> Tensor:
    return torch.ones(size, dtype=dtype)
