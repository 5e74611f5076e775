"""Normalisation: the channels of images shifted and scaled by what all clients share."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError
from fedpact.data.preprocess.estimate import Estimate
from fedpact.data.preprocess.image_moments import WHITE, ChannelMoments
from fedpact.data.preprocess.image_steps import ImageStep, Shape, channels_in, channels_of


@dataclass(frozen=True)
class NormalizeImages(ImageStep):
    """Subtract each channel's mean over all clients' training pixels and divide by its standard deviation.

    The two are found in one round.

    Bytes (uint8) are first read as numbers from 0 to 1, as torchvision's `ToTensor` does; other numbers are taken as
    they are. Then it is torchvision's `Normalize`: the deviation is the population's, and a constant channel is not
    scaled. The result is float32, or float64 of float64.

    Clients send sums: of each channel the number of pixels, their sum and the sum of their squares.
    `NormalizeImages(mean=0, std=1)` asks nobody, and turns bytes into numbers from 0 to 1.

    Args:
        mean: the mean of each channel, or one number for all; None to find it out.
        std: what to divide by, likewise; None where the mean is None.

    Raises:
        ConfigError: only one of the two is given, they are no finite numbers, or a deviation is not above 0.
    """

    mean: float | tuple[float, ...] | None = None
    std: float | tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if (self.mean is None) != (self.std is None):
            given, missing = ("mean", "std") if self.std is None else ("std", "mean")
            raise ConfigError(
                f"NormalizeImages: {given} is given and {missing} is not; give both, or neither."
            )
        for name in ("mean", "std"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _checked(name, value))

    def estimate(self, shape: Shape) -> Estimate:
        """Return what finds the means and deviations; an estimate of nothing where they are given.

        Raises:
            ConfigError: as many are given as the images do not have channels.
        """
        self._given(shape)
        return ChannelMoments(0 if self.mean is not None else channels_of(shape))

    def fitted(self, shape: Shape, estimates: Mapping[str, Any]) -> "FittedNormalizeImages":
        """Return the step with these means and deviations."""
        given = self._given(shape)
        if given is not None:
            return FittedNormalizeImages(*given)
        found = list(estimates.values())
        return FittedNormalizeImages(
            tuple(moment.mean for moment in found), tuple(moment.deviation or 1.0 for moment in found)
        )

    def _given(self, shape: Shape) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        if self.mean is None or self.std is None:
            return None
        channels = channels_of(shape)
        mean, std = (
            each if isinstance(each, tuple) else (each,) * channels for each in (self.mean, self.std)
        )
        for name, numbers in (("mean", mean), ("std", std)):
            if len(numbers) != channels:
                raise ConfigError(
                    f"NormalizeImages: {name} has {len(numbers)} numbers, but the images have {channels} "
                    f"channel{'s' if channels > 1 else ''}."
                )
        return mean, std


@dataclass(frozen=True)
class FittedNormalizeImages:
    """(pixel − mean) / scale, channel by channel; of bytes, (byte / 255 − mean) / scale.

    Args:
        mean: what is subtracted from each channel.
        scale: what each is divided by.
    """

    mean: tuple[float, ...]
    scale: tuple[float, ...]

    def transform(self, images: NDArray[Any]) -> NDArray[Any]:
        """Return the normalised images, float32, or float64 of float64."""
        dtype = np.float64 if images.dtype == np.float64 else np.float32
        out = np.empty(images.shape, dtype)
        constants = zip(self.mean, self.scale, strict=True)
        for into, pixels, (mean, scale) in zip(channels_in(out), channels_in(images), constants, strict=True):
            if images.dtype == np.uint8:
                into[:] = ((np.arange(WHITE + 1) / WHITE - mean) / scale).astype(dtype)[pixels]
                continue
            # What is not finite, or leaves the dtype's range, is refused by its row.
            with np.errstate(over="ignore", invalid="ignore"):
                np.subtract(pixels, mean, out=into, dtype=dtype, casting="unsafe")
                into /= scale
        return out

    def shape_out(self, shape: Shape) -> Shape:
        """Return the same shape."""
        return shape

    def to_json(self) -> dict[str, Any]:
        """Return the step as plain data."""
        return {"mean": list(self.mean), "scale": list(self.scale)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "FittedNormalizeImages":
        """Return the step that `to_json` wrote down."""
        return cls(tuple(data["mean"]), tuple(data["scale"]))


def _checked(name: str, value: Any) -> float | tuple[float, ...]:
    numbers = tuple(value) if isinstance(value, Sequence | np.ndarray) else (value,)
    if not numbers or not all(isinstance(n, Real) and math.isfinite(n) for n in numbers):
        raise ConfigError(
            f"NormalizeImages: {name} is {value!r}; it must be a finite number, or one for each channel."
        )
    if name == "std" and min(numbers) <= 0:
        raise ConfigError(f"NormalizeImages: std is {value!r}; it must be above 0.")
    plain = tuple(float(n) for n in numbers)
    return plain if len(plain) > 1 else plain[0]
