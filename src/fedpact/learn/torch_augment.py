"""Ways to change images at random: mirrored, shifted, turned, in other colours, or with a part erased.

Each is an `Augmentation`. What comes into an image from outside is 0: black, or after `NormalizeImages` the mean.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fedpact.core.errors import ConfigError
from fedpact.core.settings import check_counts, check_flags, check_numbers, number_in

# How often a rectangle to erase is drawn anew where it is larger than the image.
_TRIES = 10


@dataclass(frozen=True)
class RandomFlip:
    """Mirror images with probability 1/2.

    Args:
        horizontal: left to right.
        vertical: upside down, by a draw of its own.

    Raises:
        ConfigError: neither is to be done.
    """

    horizontal: bool = True
    vertical: bool = False

    def __post_init__(self) -> None:
        check_flags(self, "horizontal", "vertical")
        if not (self.horizontal or self.vertical):
            raise ConfigError("RandomFlip: horizontal and vertical are both false, so nothing is left to do.")

    def augment(self, images: Tensor, random: np.random.Generator) -> Tensor:
        """Return the images, about half of them mirrored."""
        for wanted, axis in ((self.horizontal, 3), (self.vertical, 2)):
            if wanted:
                coins = _of_each(random.random(len(images)) < 0.5, images)
                images = torch.where(coins, images.flip(axis), images)
        return images


@dataclass(frozen=True)
class RandomCrop:
    """Shift each image by up to so many pixels down or up, and as many right or left: a crop of the padded image.

    Args:
        padding: the largest shift, in pixels.

    Raises:
        ConfigError: it is no whole number, 1 or more.
    """

    padding: int = 4

    def __post_init__(self) -> None:
        check_counts(self, "padding")

    def augment(self, images: Tensor, random: np.random.Generator) -> Tensor:
        """Return the images, each shifted."""
        n, channels, height, width = images.shape
        padded = functional.pad(images, [self.padding] * 4)
        top, left = random.integers(0, 2 * self.padding + 1, (2, n))
        rows = _places(top, height, images).view(n, 1, height, 1)
        columns = _places(left, width, images).view(n, 1, 1, width)
        wide = padded.gather(2, rows.expand(n, channels, height, padded.shape[3]))
        return wide.gather(3, columns.expand(n, channels, height, width))


@dataclass(frozen=True)
class RandomRotation:
    """Turn each image about its middle by an angle between −degrees and degrees, with bilinear interpolation.

    Args:
        degrees: the largest angle, above 0 and at most 180.

    Raises:
        ConfigError: it is not in that range.
    """

    degrees: float

    def __post_init__(self) -> None:
        check_numbers(self, "degrees", positive=True, at_most=180.0)

    def augment(self, images: Tensor, random: np.random.Generator) -> Tensor:
        """Return the images, each turned."""
        n, _, height, width = images.shape
        angles = np.deg2rad(random.uniform(-self.degrees, self.degrees, n))
        cos, sin, zero = np.cos(angles), np.sin(angles), np.zeros(n)
        # The grid's unit is half the width along a row and half the height along a column.
        turn = np.array([[cos, -sin * (height / width), zero], [sin * (width / height), cos, zero]])
        turns = torch.from_numpy(turn.transpose(2, 0, 1).copy()).to(images.device, images.dtype)
        grid = functional.affine_grid(turns, list(images.shape), align_corners=False)
        return functional.grid_sample(images, grid, align_corners=False)


@dataclass(frozen=True)
class ColorJitter:
    """Change brightness, contrast and saturation of each image by factors and offsets of its own.

    They are defined for numbers of any scale, and nothing is cut off: after `NormalizeImages` a pixel may be negative.

    Args:
        brightness: the largest number that is added to or taken from all of an image, in units of what the module
            reads: of white where that is 1, or of the standard deviation after `NormalizeImages`.
        contrast: distances from the image's mean are multiplied by 1 − contrast to 1 + contrast; at most 1.
        saturation: distances from the mean of a pixel's channels are, by 1 − saturation to 1 + saturation; at most 1.

    Raises:
        ConfigError: a setting is not in its range, or all are 0.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0

    def __post_init__(self) -> None:
        check_numbers(self, "brightness")
        check_numbers(self, "contrast", "saturation", at_most=1.0)
        if not (self.brightness or self.contrast or self.saturation):
            raise ConfigError(
                "ColorJitter: brightness, contrast and saturation are all 0, so nothing is left to do."
            )

    def augment(self, images: Tensor, random: np.random.Generator) -> Tensor:
        """Return the images in other colours."""
        for amount, axes in ((self.contrast, (1, 2, 3)), (self.saturation, (1,))):
            if amount:
                mean = images.mean(axes, keepdim=True)
                factors = random.uniform(1 - amount, 1 + amount, len(images))
                images = mean + (images - mean) * _of_each(factors, images)
        if self.brightness:
            offsets = random.uniform(-self.brightness, self.brightness, len(images))
            images = images + _of_each(offsets, images)
        return images


@dataclass(frozen=True)
class RandomErasing:
    """Set a rectangle in some images to 0.

    Zhong, Kang, Zheng, Li and Yang, "Random Erasing Data Augmentation", AAAI 2020, Algorithm 1, with proportions whose
    logarithm is uniform, so that high and wide rectangles are as common. An image that no rectangle of ten fits into
    stays whole.

    Args:
        p: the share of images that lose a rectangle.
        scale: the least and the largest area of the rectangle, as a share of the image's.
        ratio: the least and the largest of its proportions, height over width.

    Raises:
        ConfigError: a setting is not in its range.
    """

    p: float = 0.5
    scale: tuple[float, float] = (0.02, 0.4)
    ratio: tuple[float, float] = (0.3, 1 / 0.3)

    def __post_init__(self) -> None:
        check_numbers(self, "p", positive=True, at_most=1.0)
        for name, most in (("scale", 1.0), ("ratio", math.inf)):
            pair = getattr(self, name)
            said = f"RandomErasing: {name} is {pair!r}; it must be two numbers, the smaller first."
            if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
                raise ConfigError(said)
            numbers = tuple(number_in(self, name, number, positive=True, at_most=most) for number in pair)
            if numbers[0] > numbers[1]:
                raise ConfigError(said)
            object.__setattr__(self, name, numbers)

    def augment(self, images: Tensor, random: np.random.Generator) -> Tensor:
        """Return the images, some of them with a rectangle of 0."""
        n, _, height, width = images.shape
        chosen = random.random(n) < self.p
        area = random.uniform(*self.scale, (_TRIES, n)) * height * width
        ratio = np.exp(random.uniform(math.log(self.ratio[0]), math.log(self.ratio[1]), (_TRIES, n)))
        highs, wides = (np.maximum(1, np.rint(np.sqrt(size))) for size in (area * ratio, area / ratio))
        fits = (highs <= height) & (wides <= width)
        first = np.argmax(fits, axis=0), np.arange(n)
        high, wide = highs[first], wides[first]
        top, left = random.random((2, n))
        inside = [
            (pixels >= start[:, None]) & (pixels < (start + size)[:, None])
            for pixels, start, size in (
                (np.arange(height), np.floor(top * (height - high + 1)), high),
                (np.arange(width), np.floor(left * (width - wide + 1)), wide),
            )
        ]
        inside[0] &= (chosen & fits[first])[:, None]
        erased = torch.from_numpy(inside[0][:, None, :, None] & inside[1][:, None, None, :])
        return images.masked_fill(erased.to(images.device), 0.0)


def _of_each(values: NDArray[Any], images: Tensor) -> Tensor:
    """Return a number or truth value of each image [n, 1, 1, 1], to be combined with the images."""
    tensor = torch.from_numpy(values).view(-1, 1, 1, 1)
    return tensor.to(images.device, torch.bool if tensor.dtype is torch.bool else images.dtype)


def _places(starts: NDArray[np.int64], count: int, images: Tensor) -> Tensor:
    """Return the places from each start on [n, count]."""
    return torch.from_numpy(starts[:, None] + np.arange(count)).to(images.device)
