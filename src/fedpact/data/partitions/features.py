"""Feature shift: clients that measure the same things differently, by noise or by the angle of the camera.

For arrays of floats. A table's numeric columns become one with `table.to_numpy()`.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError, DataError
from fedpact.core.rows import Rows
from fedpact.core.seeds import Seed
from fedpact.data.partition import Partition
from fedpact.data.partitions.partitioner import Partitioner


@dataclass(frozen=True)
class Noise(Partitioner):
    """Add Gaussian noise whose variance grows from client to client: variance · k/n at client k of n.

    Li et al., "Federated Learning on Non-IID Data Silos: An Experimental Study", ICDE 2022, section IV-C:
    noise-based feature imbalance.

    Args:
        of: how the rows are dealt.
        variance: of the last client's noise, in the features' own units squared; ≥ 0.

    Raises:
        ConfigError: a variance below 0.
        DataError: (of the rows) features that are no array of floats.
    """

    of: Partitioner
    variance: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.variance < float("inf"):
            raise ConfigError(f"The variance of noise must be a number from 0, and is {self.variance}.")

    def deal(self, rows: Rows, seed: Seed) -> Partition:
        return self.of.deal(rows, seed)

    def alter(self, parts: dict[str, Rows], seed: Seed) -> dict[str, Rows]:
        parts = self.of.alter(parts, seed.child("of"))
        stream = seed.child("partition", "noise")
        altered = {}
        for place, (id, rows) in enumerate(parts.items(), start=1):
            x = _floats(rows)
            noise = stream.child(id).generator().standard_normal(x.shape, dtype=np.float32)
            noise *= np.sqrt(self.variance * place / len(parts))
            altered[id] = replace(rows, x=(x + noise).astype(x.dtype, copy=False))
        return altered


@dataclass(frozen=True)
class Rotation(Partitioner):
    """Rotate images counterclockwise, each client's by the angle of its group: client k takes `degrees[k mod groups]`.

    Ghosh et al., "An Efficient Framework for Clustered Federated Learning", NeurIPS 2020, section 6: Rotated
    MNIST, with 0, 90, 180 and 270 degrees. Quarter turns of square images move pixels; other angles interpolate
    between the four nearest, and what comes from outside the image is 0.

    Args:
        of: how the rows are dealt.
        degrees: for each group of clients.

    Raises:
        ConfigError: no angles, or one that is not finite.
        DataError: (of the rows) features that are no array of floats [n, ..., height, width].
    """

    of: Partitioner
    degrees: tuple[float, ...] = (0.0, 90.0, 180.0, 270.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "degrees", tuple(self.degrees))
        if not self.degrees or not np.isfinite(self.degrees).all():
            raise ConfigError(f"degrees of a rotation must be finite, one a group, and are {self.degrees}.")

    def deal(self, rows: Rows, seed: Seed) -> Partition:
        return self.of.deal(rows, seed)

    def alter(self, parts: dict[str, Rows], seed: Seed) -> dict[str, Rows]:
        parts = self.of.alter(parts, seed.child("of"))
        return {
            id: replace(rows, x=rotated(_images(rows), self.degrees[place % len(self.degrees)]))
            for place, (id, rows) in enumerate(parts.items())
        }


def rotated(images: NDArray[Any], degrees: float) -> NDArray[Any]:
    """Return images [..., height, width] rotated counterclockwise about their centre, at their old size."""
    height, width = images.shape[-2:]
    quarters, rest = divmod(degrees, 90)
    if rest == 0 and (height == width or quarters % 2 == 0):
        return np.rot90(images, int(quarters) % 4, axes=(-2, -1)).copy()
    angle = np.deg2rad(degrees)
    down, right = np.mgrid[:height, :width].astype(np.float64)
    down -= (height - 1) / 2
    right -= (width - 1) / 2
    # Where each pixel of the result comes from: the turn backwards.
    row = down * np.cos(angle) + right * np.sin(angle) + (height - 1) / 2
    column = right * np.cos(angle) - down * np.sin(angle) + (width - 1) / 2
    result = np.zeros(images.shape, images.dtype)
    inside = (row >= 0) & (row <= height - 1) & (column >= 0) & (column <= width - 1)
    row, column = row[inside], column[inside]
    top, left = np.floor(row).astype(np.intp), np.floor(column).astype(np.intp)
    for to_row, weight_down in ((0, 1 - (row - top)), (1, row - top)):
        for to_column, weight_right in ((0, 1 - (column - left)), (1, column - left)):
            # Past the last row or column the weight is 0.
            places = np.minimum(top + to_row, height - 1), np.minimum(left + to_column, width - 1)
            weights = (weight_down * weight_right).astype(images.dtype)
            result[..., inside] += weights * images[..., places[0], places[1]]
    return result


def _floats(rows: Rows) -> NDArray[Any]:
    if not isinstance(rows.x, np.ndarray) or not np.issubdtype(rows.x.dtype, np.floating):
        kind = (
            f"an array of {rows.x.dtype}" if isinstance(rows.x, np.ndarray) else f"a {type(rows.x).__name__}"
        )
        raise DataError(
            f"A feature shift needs an array of floats, and these features are {kind}: turn them into one first, "
            "as in x.astype(np.float32)."
        )
    return rows.x


def _images(rows: Rows) -> NDArray[Any]:
    images = _floats(rows)
    if images.ndim < 3:
        raise DataError(
            f"A rotation needs images [n, ..., height, width], and these features have the shape {list(images.shape)}."
        )
    return images
