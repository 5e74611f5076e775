"""Augmentation: images that are changed at random each time that training takes them.

Draws come from the stream of the client and the round, the same whichever engine and device trains it. Images of tests
and predictions stay as they are. Each image is changed for itself, so what is bounded for single records stays bounded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from fedpact.core.errors import ConfigError
from fedpact.core.model import Schema
from fedpact.core.seeds import Seed
from fedpact.learn import AUGMENTATIONS
from fedpact.learn.torch_running import Traits

if TYPE_CHECKING:
    from fedpact.learn.torch import TorchModel


@runtime_checkable
class Augmentation(Protocol):
    """A way to change images at random: a frozen dataclass of settings."""

    def augment(self, images: Tensor, random: np.random.Generator) -> Tensor:
        """Return the images, each changed by draws of its own; those given stay as they are.

        Args:
            images: floats [n, channels, height, width], as the module reads them; n ≥ 1.
            random: where draws come from.
        """
        ...


class Augmenting:
    """What changes the training batches of one session.

    Args:
        steps: the augmentations, in order.
        dtype: of the floating-point numbers that the module takes.
    """

    def __init__(self, steps: Sequence[Augmentation], dtype: torch.dtype) -> None:
        self._steps = steps
        self._dtype = dtype
        self.seed(Seed.of(0))

    def seed(self, seed: Seed) -> None:
        """Go to the start of the stream of this seed."""
        self._random = seed.generator()

    def position(self) -> Any:
        """Return where in the stream the next draw is."""
        return self._random.bit_generator.state

    def go_to(self, position: Any) -> None:
        """Go to where the stream once was."""
        self._random.bit_generator.state = position

    def __call__(self, x: Tensor) -> Tensor:
        """Return a batch of examples [n, channels, height, width] or [n, height, width], changed."""
        if not len(x):
            return x
        images = x if x.is_floating_point() else x.to(self._dtype)
        images = images if x.ndim == 4 else images.unsqueeze(1)
        for step in self._steps:
            images = step.augment(images, self._random)
        return images.reshape(x.shape)


def augmenting_of(model: "TorchModel") -> Augmenting | None:
    """Return what changes the training batches of a session of this model; None if nothing does."""
    dtype = model.traits.floats
    return Augmenting(model.spec.augment, dtype) if model.spec.augment and dtype is not None else None


def as_augmentations(given: Any) -> tuple[Augmentation, ...]:
    """Return a model's setting `augment` as objects.

    Raises:
        ConfigError: something in it is no augmentation, or has a wrong setting.
    """
    steps = given if isinstance(given, list | tuple) else [given]
    built = [AUGMENTATIONS.build(s) if isinstance(s, str) else _from_mapping(s) for s in steps]
    for step in built:
        if isinstance(step, type) or not is_dataclass(step) or not isinstance(step, Augmentation):
            raise ConfigError(
                f"Torch: augment has {step!r}; give {', '.join(f'fp.{name}(...)' for name in AUGMENTATIONS)}, or a "
                "frozen dataclass of your own with a method augment."
            )
    return tuple(built)


def check_augment(steps: Sequence[Augmentation], schema: Schema, traits: Traits) -> None:
    """Refuse examples that are no images, and labels that would have to move with the pixels.

    Raises:
        ConfigError: there are such.
    """
    if not steps:
        return
    names = ", ".join(type(step).__name__ for step in steps)
    if len(schema.shape) not in (2, 3):
        raise ConfigError(
            f"Torch: augment ({names}) changes images [channels, height, width] or [height, width], but the examples "
            f"have the shape {schema.shape}; leave augment out."
        )
    if schema.positions:
        raise ConfigError(
            f"Torch: augment ({names}) moves the pixels of images, but not their labels of shape {schema.positions} "
            "with them; leave augment out."
        )
    if traits.floats is None:
        raise ConfigError(
            f"Torch: augment ({names}) makes floating-point numbers, but the module takes whole ones alone; leave "
            "augment out."
        )


def _from_mapping(step: Any) -> Any:
    return AUGMENTATIONS.build(dict(step)) if isinstance(step, Mapping) else step
