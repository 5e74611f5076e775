"""Layers written out, forward and backward, so that a step costs little more than its arithmetic.

The gradients of a layer's parameters go to a sink, which may change the parameters, when the layer has no more use
for them.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fedpact.learn.torch_dropout import MaskedDropout
from fedpact.learn.torch_fast import use_fast_products
from fedpact.learn.torch_sinks import Sink, linear, product

_aten = torch.ops.aten
_rectify_gradient = _aten.threshold_backward.grad_input

# With fewer rows, or fewer multiplications, a product in bfloat16 saves less than rounding its weights takes.
_BF16_ROWS = 16
_BF16_MULTIPLICATIONS = 1 << 20
_ONEDNN_DTYPES = (torch.float32, torch.bfloat16)


class Layer(Protocol):
    """One layer of a chain.

    Attributes:
        parameters: its trained parameters.
        onward: whether the layers before it have trained parameters, so that they need its input's gradient.
    """

    parameters: list[nn.Parameter]
    onward: bool

    def forward(self, x: Tensor, keep: bool) -> tuple[Tensor, Any]:
        """Return the outputs, and where they are to be kept, what the backward pass needs."""
        ...

    def backward(self, kept: Any, gradient: Tensor, sink: Sink) -> Any:
        """Hand on the parameters' gradients; return the inputs' where they are needed.

        Args:
            kept: what the forward pass kept.
            gradient: of the outputs, in their dtype.
            sink: who takes the parameters' gradients.
        """
        ...


class Dense:
    """A `torch.nn.Linear`; under bf16 a product that is large enough is computed in bfloat16."""

    def __init__(self, layer: nn.Linear, bf16: bool) -> None:
        self._weight, self._bias, self._bf16 = layer.weight, layer.bias, bf16
        self._moves = [p is not None and p.requires_grad for p in (layer.weight, layer.bias)]
        self.parameters, self.onward = trained(layer), True

    def forward(self, x: Tensor, keep: bool) -> tuple[Tensor, Any]:
        if x.ndim == 2 and not self._bf16:
            return linear(x, self._weight, self._bias), x
        shape, dtype, weight, bias = x.shape, x.dtype, self._weight, self._bias
        if len(shape) != 2:
            x = x.reshape(-1, shape[-1])
        if self._bf16:
            rows = x.shape[0]
            pays = rows >= _BF16_ROWS and rows * weight.numel() >= _BF16_MULTIPLICATIONS
            x, weight, bias = _in_dtype(torch.bfloat16 if pays else torch.float32, x, weight, bias)
        y = linear(x, weight, bias)
        if len(shape) != 2:
            y = y.view(*shape[:-1], -1)
        return y, ((shape, dtype, x, weight) if keep else None)

    def backward(self, kept: Any, gradient: Tensor, sink: Sink) -> Any:
        if isinstance(kept, Tensor):
            onward = product(gradient, self._weight) if self.onward else None
            self._hand_on(gradient, kept, sink)
            return onward
        shape, dtype, x, weight = kept
        if len(shape) != 2:
            gradient = gradient.reshape(x.shape[0], -1)
        onward = product(gradient, weight) if self.onward else None
        self._hand_on(gradient, x, sink)
        return None if onward is None else onward.view(shape).to(dtype)

    def _hand_on(self, gradient: Tensor, x: Tensor, sink: Sink) -> None:
        if self._moves[0]:
            sink.product(self._weight, gradient.t(), x)
        if self._moves[1]:
            sink.rows(self._bias, gradient)


class Convolution:
    """A `torch.nn.Conv2d`, channels last, which is how oneDNN is fastest; under bf16 in bfloat16."""

    def __init__(self, layer: nn.Conv2d, bf16: bool) -> None:
        self._weight, self._bias, self._bf16 = layer.weight, layer.bias, bf16
        self._how = (layer.stride, layer.padding, layer.dilation, False, (0, 0), layer.groups)
        self._moves = [p is not None and p.requires_grad for p in (layer.weight, layer.bias)]
        self._bias_shape = None if layer.bias is None else layer.bias.shape
        self.parameters, self.onward = trained(layer), True

    def forward(self, x: Tensor, keep: bool) -> tuple[Tensor, Any]:
        dtype, weight, bias = x.dtype, self._weight, self._bias
        if self._bf16:
            x, weight, bias = _in_dtype(torch.bfloat16, x, weight, bias)
        if x.dtype in _ONEDNN_DTYPES:
            x = _with_channels_last(x)
        y = _aten.convolution.default(x, weight, bias, *self._how)
        return y, ((dtype, x, weight) if keep else None)

    def backward(self, kept: Any, gradient: Tensor, sink: Sink) -> Any:
        dtype, x, weight = kept
        onward, *found = _aten.convolution_backward.default(
            gradient, x, weight, self._bias_shape, *self._how, [self.onward, *self._moves]
        )
        sink.whole(self.parameters, [g for g, moves in zip(found, self._moves, strict=True) if moves])
        return onward.to(dtype) if self.onward else None


class Plain:
    """What all layers without parameters have."""

    def __init__(self) -> None:
        self.parameters: list[nn.Parameter] = []
        self.onward = True


class Rectifier(Plain):
    """A `torch.nn.ReLU`.

    Attributes:
        owns_input: whether its input belongs to nobody else, so that it may overwrite it;
        owns_gradient: and its outputs' gradient.
    """

    def __init__(self) -> None:
        super().__init__()
        self.owns_input = self.owns_gradient = False

    def forward(self, x: Tensor, keep: bool) -> tuple[Tensor, Any]:
        y = x.relu_() if self.owns_input else x.relu()
        return y, y

    def backward(self, kept: Any, gradient: Tensor, sink: Sink) -> Any:
        if self.owns_gradient:
            return _rectify_gradient(gradient, kept, 0, grad_input=gradient)
        return _aten.threshold_backward.default(gradient, kept, 0)


class Tanh(Plain):
    """A `torch.nn.Tanh`."""

    def forward(self, x: Tensor, keep: bool) -> tuple[Tensor, Any]:
        y = x.tanh()
        return y, y

    def backward(self, kept: Any, gradient: Tensor, sink: Sink) -> Any:
        return _aten.tanh_backward.default(gradient, kept)


class Sigmoid(Plain):
    """A `torch.nn.Sigmoid`."""

    def forward(self, x: Tensor, keep: bool) -> tuple[Tensor, Any]:
        y = x.sigmoid()
        return y, y

    def backward(self, kept: Any, gradient: Tensor, sink: Sink) -> Any:
        return _aten.sigmoid_backward.default(gradient, kept)


class Pool(Plain):
    """A `torch.nn.MaxPool2d`."""

    def __init__(self, layer: nn.MaxPool2d) -> None:
        super().__init__()
        self._how = tuple(
            [n, n] if isinstance(n, int) else list(n)
            for n in (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        )
        self._ceil = layer.ceil_mode

    def forward(self, x: Tensor, keep: bool) -> tuple[Tensor, Any]:
        y, places = _aten.max_pool2d_with_indices.default(x, *self._how, self._ceil)
        return y, ((x, places) if keep else None)

    def backward(self, kept: Any, gradient: Tensor, sink: Sink) -> Any:
        x, places = kept
        return _aten.max_pool2d_with_indices_backward.default(gradient, x, *self._how, self._ceil, places)


class Flat(Plain):
    """A `torch.nn.Flatten`."""

    def __init__(self, layer: nn.Flatten) -> None:
        super().__init__()
        self._dims = (layer.start_dim, layer.end_dim)

    def forward(self, x: Tensor, keep: bool) -> tuple[Tensor, Any]:
        return x.flatten(*self._dims), ((x.shape, _channels_last(x)) if keep else None)

    def backward(self, kept: Any, gradient: Tensor, sink: Sink) -> Any:
        shape, channels_last = kept
        gradient = gradient.reshape(shape)
        # The layers before it are slow where a gradient lies otherwise than the numbers it is for.
        return gradient.contiguous(memory_format=torch.channels_last) if channels_last else gradient


class Drop(Plain):
    """A `torch.nn.Dropout` with masks of the client's own."""

    def __init__(self, layer: MaskedDropout) -> None:
        super().__init__()
        self._layer = layer

    def forward(self, x: Tensor, keep: bool) -> tuple[Tensor, Any]:
        layer = self._layer
        if not layer.training or layer.p == 0:
            return x, None
        mask = layer.masks.draw(tuple(x.shape), layer.p)
        return (x * mask).to(x.dtype), mask

    def backward(self, kept: Any, gradient: Tensor, sink: Sink) -> Any:
        return gradient if kept is None else (gradient * kept).to(gradient.dtype)


class Differentiated:
    """Any module, differentiated by autograd.

    Args:
        module: takes one tensor and returns one.
        bf16: whether it runs under automatic mixed precision.
    """

    def __init__(self, module: nn.Module, bf16: bool) -> None:
        self._module, self._bf16 = module, bf16
        if not bf16:
            use_fast_products(module)
        self._writes = any(getattr(part, "inplace", False) for part in module.modules())
        self.parameters, self.onward = trained(module), True

    def forward(self, x: Tensor, keep: bool) -> tuple[Tensor, Any]:
        autocast = torch.autocast(x.device.type, torch.bfloat16) if self._bf16 else nullcontext()
        if not keep:
            with autocast:
                return self._module(x), None
        x = x.detach()
        if self.onward:
            x.requires_grad_()
        with torch.enable_grad(), autocast:
            y = self._module(x.clone() if self._writes else x)
        return y.detach(), (x, y)

    def backward(self, kept: Any, gradient: Tensor, sink: Sink) -> Any:
        x, y = kept
        inputs = [x, *self.parameters] if self.onward else self.parameters
        found = gradients_of(y, gradient, inputs)
        if not self.onward:
            sink.whole(self.parameters, found)
            return None
        sink.whole(self.parameters, found[1:])
        return torch.zeros_like(x) if found[0] is None else found[0]


class _Paired(torch.autograd.Function):
    """A number whose gradient with respect to y is the tensor given, and whose value means nothing."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, gradient: Tensor) -> Tensor:
        ctx.gradient = gradient
        return y.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        return ctx.gradient, None


def gradients_of(y: Tensor, gradient: Tensor, inputs: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """Return the gradients of `inputs` from that of y; None for those that y does not depend on."""
    # To hand a gradient to torch.autograd.grad takes half a second the first time: for its shape sympy is imported.
    paired: Any = _Paired
    with torch.enable_grad():
        number = paired.apply(y, gradient)
    found = torch.autograd.grad(number, inputs, allow_unused=True)
    # An embedding may give those of the rows that it read alone.
    return tuple(g.to_dense() if g is not None and g.is_sparse else g for g in found)


def trained(module: nn.Module) -> list[nn.Parameter]:
    """Return a module's trained parameters."""
    return [p for p in module.parameters() if p.requires_grad]


def _in_dtype(dtype: torch.dtype, *tensors: Tensor | None) -> list[Any]:
    return [None if tensor is None else tensor.to(dtype) for tensor in tensors]


def _with_channels_last(x: Tensor) -> Tensor:
    x = x.contiguous(memory_format=torch.channels_last)
    if x.shape[1] == 1:
        # Of a single channel both orders are the same memory; by its strides oneDNN takes it for channels first.
        _, _, height, width = x.shape
        x = x.as_strided(x.shape, (height * width, 1, width, 1))
    return x


def _channels_last(x: Tensor) -> bool:
    return x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
