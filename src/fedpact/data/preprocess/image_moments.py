"""Means and standard deviations of each channel over all pixels of all clients' images."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fedpact.core import sums
from fedpact.core.algorithm import ClientState
from fedpact.core.errors import DataError
from fedpact.core.messages import Aggregate, Task, Update
from fedpact.core.rows import ClientData
from fedpact.core.seeds import Seed
from fedpact.data.preprocess.estimate import Estimating, ask, reply
from fedpact.data.preprocess.image_steps import as_images, channels_in
from fedpact.data.preprocess.moments import Moment
from fedpact.data.wording import at_client

# What a byte is divided by, so that black is 0 and white is 1.
WHITE = 255
_BLOCK = 1 << 18


@dataclass(frozen=True)
class ChannelMoments:
    """The mean and the standard deviation of each channel over all pixels, right to the last bit, in one round.

    A byte v counts as the fraction v / 255, unrounded, and any other number as itself. Of each channel a client sends
    the number of its pixels, their sum and the sum of their squares.

    Args:
        channels: the number of channels; 0 to find nothing out.
    """

    channels: int

    releases: ClassVar[Literal["averaged", "summed"]] = "summed"

    def init(self, model: Any, seed: Seed) -> Estimating:
        """Return the state before the first round."""
        return Estimating()

    def task(self, state: Estimating) -> Task | None:
        """Ask every client, once; nobody where there is no channel."""
        return ask(state) if self.channels and state.round == 0 else None

    def client(
        self, model: Any, task: Task, data: ClientData, kept: ClientState, seed: Seed
    ) -> tuple[Update, ClientState]:
        """Return each channel's number of pixels, their sum and the sum of their squares.

        Raises:
            DataError: a pixel is missing or infinite.
        """
        with at_client(data.id):
            images = as_images(data.train.x)
            _check_finite(images)
        of_channel = _bytes if images.dtype == np.uint8 else _numbers
        parts = [of_channel(pixels) for pixels in channels_in(images)]
        summed = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
        return reply(task, data, summed), kept

    def server(self, model: Any, state: Estimating, aggregate: Aggregate) -> Estimating:
        """Compute means and deviations from the sums.

        Raises:
            DataError: no client has an image.
        """
        found = []
        for channel, count in enumerate(aggregate.sum("count").tolist()):
            if count == 0:
                raise DataError("no client has a training image, so there is nothing to normalise by.")
            of_bytes, of_squares = (int(aggregate.sum(name)[channel]) for name in ("bytes", "byte_squares"))
            total = Fraction(of_bytes, WHITE) + sums.sum_in(aggregate.sum("sum")[channel])
            squares = Fraction(of_squares, WHITE**2)
            squares += sums.sum_of_squares_in(aggregate.sum("squares")[channel])
            mean = total / count
            found.append([float(mean), sums.square_root(squares / count - mean * mean)])
        return Estimating(state.round + 1, found)

    def fitted(self, state: Estimating) -> Mapping[str, Moment]:
        """Return channel, counted from 0 → its moments."""
        return {str(channel): Moment(*pair) for channel, pair in enumerate(state.found or ())}


def _bytes(pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.int64]]:
    counts = np.zeros(WHITE + 1, np.int64)
    step = max(1, _BLOCK // max(1, pixels[:1].size))
    for start in range(0, len(pixels), step):
        counts += np.bincount(pixels[start : start + step].reshape(-1), minlength=WHITE + 1)
    values = np.arange(WHITE + 1)
    return _sums(pixels.size, int(counts @ values), int(counts @ values**2), np.empty(0))


def _numbers(pixels: NDArray[Any]) -> dict[str, NDArray[np.int64]]:
    return _sums(pixels.size, 0, 0, pixels.astype(np.float64).reshape(-1))


def _sums(
    count: int, of_bytes: int, of_squares: int, numbers: NDArray[np.float64]
) -> dict[str, NDArray[np.int64]]:
    return {
        "count": np.array(count),
        "bytes": np.array(of_bytes),
        "byte_squares": np.array(of_squares),
        "sum": sums.sum_of(numbers),
        "squares": sums.sum_of_squares(numbers),
    }


def _check_finite(images: NDArray[Any]) -> None:
    if images.dtype.kind != "f":
        return
    bad = ~np.isfinite(images).reshape(len(images), -1).all(axis=1) if images.size else np.zeros(0, bool)
    if bad.any():
        raise DataError(
            f"a pixel is missing or infinite in {bad.sum()} image(s), first in row {np.argmax(bad) + 1}; leave these "
            "rows out."
        )
