"""Resizing: images of all clients brought to one height and width."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError
from fedpact.core.settings import check_choice
from fedpact.data.preprocess.estimate import Estimate
from fedpact.data.preprocess.image_moments import ChannelMoments
from fedpact.data.preprocess.image_resampling import bilinear, nearest
from fedpact.data.preprocess.image_steps import ImageStep, Shape

Interpolation = Literal["bilinear", "nearest"]
_WAYS = {"bilinear": bilinear, "nearest": nearest}


@dataclass(frozen=True)
class Resize(ImageStep):
    """Bring images to one height and width, as Pillow's `Image.resize` does; nothing leaves a client.

    As the first step it takes images of any height and width: each client, and its training and test rows, may have
    their own. An image of other proportions is stretched. Bytes (uint8) stay bytes, rounded as Pillow rounds them; of
    other numbers "bilinear" makes float32, or float64 of float64.

    Args:
        size: (height, width), or one number for squares.
        interpolation: "bilinear", averaged over all pixels where images become smaller; or "nearest", for masks and
            drawings whose values may not be mixed.

    Raises:
        ConfigError: the size is not of whole numbers, 1 or more, or the interpolation is another.
    """

    size: int | tuple[int, int]
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        sizes = (self.size, self.size) if isinstance(self.size, Integral) else self.size
        if not isinstance(sizes, Sequence) or len(sizes) != 2 or not all(map(_is_count, sizes)):
            raise ConfigError(
                f"Resize: size is {self.size!r}; it must be (height, width) in pixels, 1 or more, or one such number."
            )
        # One way of writing it, so that a job has one digest.
        object.__setattr__(self, "size", (int(sizes[0]), int(sizes[1])))
        check_choice(self, "interpolation", tuple(_WAYS))

    @property
    def height_and_width(self) -> tuple[int, int]:
        """The size of the images that it makes."""
        height, width = self.size if isinstance(self.size, tuple) else (self.size, self.size)
        return height, width

    def estimate(self, shape: Shape) -> Estimate:
        """Return an estimate of nothing."""
        return ChannelMoments(0)

    def fitted(self, shape: Shape, estimates: Mapping[str, Any]) -> "FittedResize":
        """Return the step."""
        return FittedResize(*self.height_and_width, self.interpolation)


@dataclass(frozen=True)
class FittedResize:
    """Images at this height and width.

    Args:
        height: in pixels.
        width: in pixels.
        interpolation: as of `Resize`.
    """

    height: int
    width: int
    interpolation: Interpolation

    def transform(self, images: NDArray[Any]) -> NDArray[Any]:
        """Return the images [..., height, width]."""
        # What is not finite stays so, and is refused by its row.
        with np.errstate(invalid="ignore", over="ignore"):
            return _WAYS[self.interpolation](images, (self.height, self.width))

    def shape_out(self, shape: Shape) -> Shape:
        """Return the shape with the last two axes resized."""
        return (*shape[:-2], self.height, self.width)

    def to_json(self) -> dict[str, Any]:
        """Return the step as plain data."""
        return {"height": self.height, "width": self.width, "interpolation": self.interpolation}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "FittedResize":
        """Return the step that `to_json` wrote down."""
        return cls(data["height"], data["width"], data["interpolation"])


def size_first(steps: Sequence[Any]) -> tuple[int, int] | None:
    """Return the height and width that the first step brings images to; None where it brings them to none."""
    first = steps[0] if steps else None
    return first.height_and_width if isinstance(first, Resize) else None


def _is_count(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1
