"""Dropout whose masks come from the client's own stream, the same whichever engine trains it.

Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", JMLR 2014, in the
inverted form of `torch.nn.Dropout`: what is kept is scaled up in training, and prediction is left as it is.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedpact.core.seeds import Seed

# A number is kept where 16 random bits are below its keep probability, in units of 1/65536.
_LEVELS = 1 << 16


class Masks:
    """Where the dropout layers of one copy of a module take their masks from.

    The masks of a step are drawn in the order in which its layers are called; each takes ⌈elements/4⌉ words of 64
    bits from the stream, so it depends on nothing but the seed and the shapes and probabilities before it.
    """

    def __init__(self, seed: Seed | None = None) -> None:
        self.seed(seed or Seed.of(0))
        self._fed: deque[Tensor] | None = None
        self._asked: list[tuple[tuple[int, ...], float]] | None = None

    def seed(self, seed: Seed) -> None:
        """Go to the start of the stream of this seed."""
        self._words = np.random.SFC64(seed.integer())

    def position(self) -> Any:
        """Return where in the stream the next mask is."""
        return self._words.state

    def go_to(self, position: Any) -> None:
        """Go to where the stream once was."""
        self._words.state = position

    def draw(self, shape: tuple[int, ...], p: float) -> Tensor:
        """Return the next mask [*shape], float32: 0 with probability p, else 1/(1 − p).

        Its elements lie in row-major order. 1 − p is rounded to a multiple of 1/65536, and the scale is that of
        the rounded one, so that the mean is exactly 1.

        Args:
            shape: the shape of what is dropped, batch included.
            p: the probability of dropping, in [0, 1].
        """
        if self._asked is not None:
            self._asked.append((tuple(shape), p))
        if self._fed is not None:
            return self._fed.popleft()
        kept = round((1 - p) * _LEVELS)
        if kept == 0:
            return torch.zeros(shape)
        size = math.prod(shape)
        # Little-endian on every machine, so that the order of the bits is too.
        bits = self._words.random_raw(-(-size // 4)).astype("<u8", copy=False).view("<u2")[:size]
        mask = np.multiply(bits <= kept - 1, np.float32(_LEVELS / kept))
        return torch.from_numpy(mask).view(shape)

    @contextmanager
    def feed(self, masks: Iterable[Tensor]) -> Iterator[None]:
        """Hand out these masks in the order of the calls, instead of drawing them.

        For a batch of clients under `torch.func.vmap` they are the client's slices of [clients, *shape].
        """
        outer, self._fed = self._fed, deque(masks)
        try:
            yield
        finally:
            self._fed = outer

    @contextmanager
    def record(self) -> Iterator[list[tuple[tuple[int, ...], float]]]:
        """Note the shape and p of every mask asked for, in the order of the calls."""
        outer, self._asked = self._asked, []
        try:
            yield self._asked
        finally:
            self._asked = outer


class MaskedDropout(nn.Dropout):
    """A `torch.nn.Dropout` that takes its masks from the client's stream.

    Attributes:
        masks: where they come from, shared by all such layers of a module.
    """

    masks: Masks

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        return (x * self.masks.draw(tuple(x.shape), self.p)).to(x.dtype)


def mask_dropout(module: nn.Module) -> None:
    """Let every `torch.nn.Dropout` of a module, in place, take its masks from one source."""
    masks = Masks()
    for layer in module.modules():
        if type(layer) is nn.Dropout:
            layer.__class__ = MaskedDropout
            vars(layer)["masks"] = masks


def masks_of(module: nn.Module) -> Masks | None:
    """Return where the dropout layers of a module take their masks from; None if there are none."""
    return next((layer.masks for layer in module.modules() if isinstance(layer, MaskedDropout)), None)
