"""Images at another size: the arithmetic of Pillow's `Image.resize`, over many images at once.

A pixel is a weighted mean of those around its place, in a triangle as wide as a pixel of the smaller image, so that
nothing is skipped where images become smaller ("antialiasing"). Rows are resampled first and columns then. Bytes are
added with weights of 22 bits in whole numbers and rounded after each of the two, as Pillow rounds them; which of the
two it does first differs from one of its versions to another, and with it the last bit.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WEIGHT_BITS = 22
_BLOCK_BYTES = 1 << 20

# Where a pixel's neighbours are along one axis, and their weights: [taps, pixels] each.
Taps = tuple[NDArray[np.intp], NDArray[np.float64]]


def bilinear(images: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Return images [..., height, width] at this size.

    Bytes stay bytes; float32 and float64 are computed in float64 and keep their dtype; others become float32. Each
    image is the same bits whatever images lie beside it.
    """
    if images.dtype != np.uint8 and images.dtype not in (np.float32, np.float64):
        images = images.astype(np.float32)
    return _blockwise(images, size, _bilinear)


def nearest(images: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Return images [..., height, width] at this size: each pixel is the one that its middle lies in."""
    return _blockwise(images, size, _nearest)


def _blockwise(
    images: NDArray[Any],
    size: tuple[int, int],
    resample: Callable[[NDArray[Any], tuple[int, int]], NDArray[Any]],
) -> NDArray[Any]:
    planes = images.reshape(-1, *images.shape[-2:])
    out = np.empty((len(planes), *size), images.dtype)
    # What is computed on stays within the cache of a processor.
    step = max(1, _BLOCK_BYTES // (8 * math.prod(planes.shape[1:])))
    for start in range(0, len(planes), step):
        out[start : start + step] = resample(planes[start : start + step], size)
    return out.reshape(*images.shape[:-2], *size)


def _nearest(planes: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    # In whole numbers, as a middle may lie on an edge: it is the later pixel's then.
    rows, columns = (
        (2 * np.arange(after) + 1) * before // (2 * after)
        for before, after in zip(planes.shape[1:], size, strict=True)
    )
    return planes[:, rows[:, None], columns]


def _bilinear(planes: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    for axis in (2, 1):
        before, after = planes.shape[axis], size[axis - 1]
        if before != after:
            planes = _along(planes, axis, taps_of(before, after))
    return planes


def _along(planes: NDArray[Any], axis: int, taps: Taps) -> NDArray[Any]:
    places, weights = taps
    whole = planes.dtype == np.uint8
    if whole:
        weights = np.floor(weights * (1 << _WEIGHT_BITS) + 0.5).astype(np.int32)
    wide = planes.astype(weights.dtype)
    weights = weights if axis == 2 else weights[:, :, None]
    total = np.take(wide, places[0], axis)
    total *= weights[0]
    for place, weight in zip(places[1:], weights[1:], strict=True):
        part = np.take(wide, place, axis)
        part *= weight
        total += part
    if whole:
        total += 1 << _WEIGHT_BITS - 1
        total >>= _WEIGHT_BITS
    return total.astype(planes.dtype)


def taps_of(before: int, after: int) -> Taps:
    """Return which of so many pixels make each of so many others, and with which weights: 1 together, never negative.

    The triangle that is cut off at an edge counts as a whole one.
    """
    scale = before / after
    width = max(scale, 1.0)
    centres = (np.arange(after) + 0.5) * scale
    first = np.maximum(0, (centres - width + 0.5).astype(np.intp))
    stop = np.minimum(before, (centres + width + 0.5).astype(np.intp))
    places = first + np.arange((stop - first).max())[:, None]
    weights = np.maximum(0.0, 1.0 - np.abs((places + 0.5 - centres) * (1.0 / width)))
    weights[places >= stop] = 0.0
    # One after another, as sums over taps of pixels are.
    return np.minimum(places, before - 1), weights / np.cumsum(weights, axis=0)[-1]
