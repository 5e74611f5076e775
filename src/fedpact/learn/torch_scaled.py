"""Training in float16, whose smallest number is 6·10⁻⁸: of a loss that is scaled up, so that small gradients survive.

Micikevicius et al., "Mixed Precision Training", ICLR 2018, Section 3.2. Scales are powers of two, which round nothing.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fedpact.core.errors import ClientError
from fedpact.core.model import Batch
from fedpact.core.rows import Rows
from fedpact.core.seeds import Seed
from fedpact.learn.torch_chain import Chain
from fedpact.learn.torch_layers import Differentiated
from fedpact.learn.torch_modules import buffer_places
from fedpact.learn.torch_session import TorchSession

if TYPE_CHECKING:
    from fedpact.learn.torch import TorchModel

# Every client's first scale. It is halved where a gradient passes 65,504, the largest number of float16, and never
# raised, so that a client's steps depend on nothing but the client.
_FIRST = 2.0**16


class ScaledSession(TorchSession):
    """A session that computes in float16 where automatic mixed precision of torch does; weights keep their dtype.

    Attributes:
        scale: what the loss is multiplied by at present.
    """

    def __init__(self, model: "TorchModel") -> None:
        super().__init__(model)
        self._chain = Chain([_InHalf(self.module, False)])
        self._places = [(owner, key) for _, owner, key in buffer_places(self.module)]
        self.scale = _FIRST

    def bind(self, rows: Rows, seed: Seed) -> None:
        super().bind(rows, seed)
        self.scale = _FIRST

    def gradient(self, index: Batch) -> float | Tensor:
        """Write the gradient of the mean loss, as any session does; where it overflows, at half the scale.

        Raises:
            ClientError: the module or the loss fails on these rows, or the loss or its gradient is out of the range of
                float16 at any scale.
        """
        while True:
            before = self._mark()
            loss = super().gradient(index)
            if all(torch.stack([flat.isfinite().all() for flat in self.gradients]).tolist()):
                break
            if self.scale == 1 or not np.isfinite(float(loss)):
                raise ClientError(
                    f"the loss is {float(loss):g}, and numbers on the way to it or to its gradient pass 65,504, the "
                    'largest of float16: set precision="bf16" or "full", or lower the learning rate.'
                )
            self._go_back(before)
            self.scale /= 2
        for flat in self.gradients:
            flat.mul_(1 / self.scale)
        return loss

    def descend(self, index: Batch, lr: float) -> float | Tensor:
        """Take a step of gradient descent, once its gradient is known to be finite; return the loss."""
        loss = self.gradient(index)
        for weights, gradient in zip(self.weights, self.gradients, strict=True):
            weights.add_(gradient, alpha=-lr)
        return loss

    def _objective(self, outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        # Scaled before it is a number of float16.
        loss, gradient = super()._objective(outputs.to(self._model.traits.output_dtype), y)
        return loss, gradient.mul_(self.scale).to(outputs.dtype)

    def _mark(self) -> Any:
        """Return what a step changes besides gradients."""
        buffers = [(owner, key, owner._buffers[key]) for owner, key in self._places]
        copies = [None if buffer is None else buffer.clone() for *_, buffer in buffers]
        masks = self._masks and self._masks.position()
        augmenting = self._augmenting and self._augmenting.position()
        return buffers, copies, masks, self._random and self._random.mark(), augmenting

    def _go_back(self, mark: Any) -> None:
        buffers, copies, masks, random, augmenting = mark
        for (owner, key, buffer), copy in zip(buffers, copies, strict=True):
            owner._buffers[key] = buffer if buffer is None else buffer.copy_(copy)
        if self._masks is not None:
            self._masks.go_to(masks)
        if self._random is not None:
            self._random.go_to(random)
        if self._augmenting is not None:
            self._augmenting.go_to(augmenting)


class _InHalf(Differentiated):
    def forward(self, x: Tensor, keep: bool) -> tuple[Tensor, Any]:
        with torch.autocast(x.device.type, torch.float16):
            return super().forward(x, keep)
