"""What a step of preparing images is: a specification, and the fitted step that it becomes.

Images are arrays [n, channels, height, width], or [n, height, width] where they have one channel.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError, DataError
from fedpact.data.preprocess.estimate import Estimate

Shape = tuple[int, ...]

# A table of colours for people has so many channels at most: one behind the pixels of a larger image is misplaced.
_MOST_COLOURS = 4


class FittedImageStep(Protocol):
    """A fitted step: plain data, the same at every client."""

    def transform(self, images: NDArray[Any]) -> NDArray[Any]:
        """Return the prepared images, never in the memory of those given."""
        ...

    def shape_out(self, shape: Shape) -> Shape:
        """Return the shape of an image that was of this shape."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return the step as plain data."""
        ...


class ImageStep(ABC):
    """A step as a job names it: a frozen dataclass of settings."""

    @abstractmethod
    def estimate(self, shape: Shape) -> Estimate:
        """Return what finds out about all clients' images; an estimate of no channels where nothing has to be.

        Args:
            shape: the shape of an image that the step is given.

        Raises:
            ConfigError: the step does not fit the images.
        """

    @abstractmethod
    def fitted(self, shape: Shape, estimates: Mapping[str, Any]) -> FittedImageStep:
        """Return the step that the estimates make of it."""


def are_image_steps(steps: Sequence[Any]) -> bool:
    """Return whether the steps prepare images; False where they prepare tables, or there are none.

    Raises:
        ConfigError: there are steps of both kinds.
    """
    of_images = [isinstance(step, ImageStep) for step in steps]
    if any(of_images) and not all(of_images):
        image, table = (type(steps[of_images.index(kind)]).__name__ for kind in (True, False))
        raise ConfigError(
            f"preprocess: {image} prepares images and {table} the columns of a table, and examples are one or the "
            "other; leave out the steps of the other kind."
        )
    return any(of_images)


def check_images(steps: Sequence[ImageStep], shape: Shape | None) -> Shape:
    """Return the shape of one example, if it is an image.

    Args:
        steps: the steps, for the message.
        shape: the shape; None for the rows of a table.

    Raises:
        ConfigError: the examples are no images, or have their channels last.
    """
    first = type(steps[0]).__name__
    if shape is None or len(shape) not in (2, 3) or 0 in shape:
        what = "rows of a table" if shape is None else f"arrays of shape {shape}"
        raise ConfigError(
            f"preprocess: {first} prepares images [channels, height, width] or [height, width], but these examples "
            f"are {what}; leave it out."
        )
    if len(shape) == 3 and shape[2] <= _MOST_COLOURS < min(shape[:2]):
        raise ConfigError(
            f"preprocess: the images have the shape {shape}, with {shape[2]} channels last; {first} takes them first, "
            "as torch does: np.moveaxis(x, -1, 1)."
        )
    return shape


def channels_of(shape: Shape) -> int:
    """Return the number of channels of images of this shape."""
    return shape[0] if len(shape) == 3 else 1


def channels_in(images: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield the pixels of each channel [n, height, width], as views."""
    if images.ndim == 3:
        yield images
        return
    for channel in range(images.shape[1]):
        yield images[:, channel]


def as_images(x: Any) -> NDArray[Any]:
    """Return pixels as an array of numbers.

    Raises:
        DataError: they are none.
    """
    if hasattr(x, "columns"):
        raise DataError("the examples are the rows of a table; the model takes images.")
    images = np.asarray(x)
    if images.dtype.kind not in "biuf":
        raise DataError(
            f"the images are an array of dtype {images.dtype}; give numbers [n, channels, height, width]."
        )
    return images
