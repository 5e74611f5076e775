"""Exact draws from symmetric, single-peaked distributions on the integers, whatever their width.

The integers are cut into blocks of 2^s. A block is drawn by Walker's alias method (Vose, "A linear algorithm for
generating random numbers with a given distribution", IEEE Trans. Software Engineering 1991) in whole numbers that
add up to 2^64, an integer within it by s random bits, and von Neumann's rejection makes the result exact: a
block's number bounds the weights of its integers from above.
"""

import decimal
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedpact.core.errors import ConfigError
from fedpact.core.settings import check_numbers
from fedpact.privacy.secret import secret_stream

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

# Tables of this many blocks, and draws of this many integers at a time, stay in a core's cache.
_BLOCKS = 2048
_DRAWS = 1 << 13

# Integers whose weight is below e^-92 < 2^-132 of the middle's are never drawn.
_REACH = 92.0

# Floats decide where their error, below 2^-40, cannot change the decision; digits in plenty decide elsewhere.
_SLACK = 2.0**-30
_DOUBT = 2.0**-36
DIGITS = decimal.Context(prec=60)


class BlockSampler:
    """Draws integers k with probabilities proportional to weight(|k|), which must fall as |k| grows.

    Floats only sort out the clear cases: a random number within 2^-36 of an acceptance probability is compared
    with 60 digits of it. So a draw differs from the distribution by less than 2^-128 in statistical distance, given
    ideal random bits: by the tails that are cut off (2^-130), and by the last of 192 bits in such a comparison.

    Args:
        log_weight: the natural logarithms of the weights of integers [n], within 2^-42.
        weight: the weight of one integer ≥ 0, to 40 digits at least, in the same unit as `log_weight`.
    """

    def __init__(self, log_weight: Callable[[Integers], Floats], weight: Callable[[int], Decimal]) -> None:
        self._log_weight_from_0 = log_weight
        self._peak = float(log_weight(np.zeros(1, np.int64))[0])
        self._weight = weight
        reach = self._reach()
        self._shift = max(0, (2 * reach // _BLOCKS).bit_length())
        self._half = (reach >> self._shift) + 1

        lowest = np.arange(-self._half, self._half) << self._shift
        highest = lowest + (1 << self._shift) - 1
        highest_weights = np.exp(self._log_weight(np.where(lowest < 0, highest, lowest)))
        lowest_weights = np.exp(self._log_weight(np.where(lowest < 0, lowest, highest)))

        bounds = highest_weights * (1 + _SLACK)
        self._unit = 2.0**64 * (1 - 2.0**-40) / float(bounds.sum())
        self._numbers = [int(number) + 1 for number in (bounds * self._unit).tolist()]
        self._numbers[self._half] += 2**64 - sum(self._numbers)
        self._thresholds, self._aliases = _alias_table(self._numbers)
        self._column_shift = 65 - len(self._thresholds).bit_length()

        self._relative_numbers = np.array(self._numbers, np.float64) / self._unit
        surely = lowest_weights / self._relative_numbers * (1 - _SLACK)
        self._surely_accepted = (surely * 2.0**64).astype(np.uint64)

    def draw(self, n: int) -> Integers:
        """Return n independent draws [n]."""
        out = np.empty(n, np.int64)
        for start in range(0, n, _DRAWS):
            piece = out[start : start + _DRAWS]
            piece[:], open_places = self._propose(piece.size)
            while open_places.size:
                piece[open_places], still_open = self._propose(open_places.size)
                open_places = open_places[still_open]
        return out

    def _propose(self, n: int) -> tuple[Integers, NDArray[np.intp]]:
        """Return n proposals, and the places of those that were rejected."""
        words = secret_stream().words(3 * n if self._shift else 2 * n).reshape(-1, n)
        columns = (words[0] >> np.uint64(self._column_shift)).view(np.int64)
        within = words[0] << np.uint64(64 - self._column_shift)
        blocks = np.where(within < self._thresholds[columns], columns, self._aliases[columns])
        integers = (blocks - self._half) << self._shift
        if self._shift:
            integers += (words[2] >> np.uint64(64 - self._shift)).view(np.int64)
        open_places = np.flatnonzero(words[1] >= self._surely_accepted[blocks])
        accepted = self._accepted(integers[open_places], blocks[open_places], words[1][open_places])
        return integers, open_places[~accepted]

    def _accepted(self, integers: Integers, blocks: Integers, coins: NDArray[np.uint64]) -> NDArray[np.bool_]:
        chances = np.exp(self._log_weight(integers)) / self._relative_numbers[blocks]
        margins = chances - coins * 2.0**-64
        accepted = margins > 0
        for i in np.flatnonzero(np.abs(margins) < _DOUBT):
            accepted[i] = self._settle(int(integers[i]), int(blocks[i]), int(coins[i]))
        return accepted

    def _settle(self, integer: int, block: int, coin: int) -> bool:
        """Decide with 60 digits, after another 128 bits of the coin."""
        high, low = secret_stream().words(2).tolist()
        with decimal.localcontext(DIGITS):
            exact_coin = Decimal(coin << 128 | high << 64 | low) / 2**192
            exact_bound = Decimal(self._numbers[block]) / Decimal(self._unit)
            return exact_coin * exact_bound * self._weight(0) < self._weight(abs(integer))

    def _log_weight(self, integers: Integers) -> Floats:
        return self._log_weight_from_0(np.abs(integers)) - self._peak

    def _reach(self) -> int:
        def is_beyond(integer: int) -> bool:
            return bool(self._log_weight(np.array([integer]))[0] < -_REACH)

        above = 1
        while not is_beyond(above):
            above *= 2
        below = above // 2
        while above - below > 1:
            middle = (above + below) // 2
            below, above = (below, middle) if is_beyond(middle) else (middle, above)
        return above


def check_width(part: Any, name: str, smallest: float, largest: float) -> None:
    """Check that the parameter of a distribution is a number in this range, and keep it as a float.

    Raises:
        ConfigError: it is not.
    """
    check_numbers(part, name, positive=True, at_most=largest)
    if getattr(part, name) < smallest:
        raise ConfigError(
            f"{type(part).__name__}: {name} is {getattr(part, name):g}, where nearly every draw is 0; it must be at "
            f"least {smallest:g}: choose a finer grid."
        )


def _alias_table(numbers: list[int]) -> tuple[NDArray[np.uint64], Integers]:
    """Return the columns, a power of two of them, of an alias table for numbers that add up to 2^64.

    A column is chosen by the top bits of a 64-bit word; the bits that remain, moved to the top, choose the column's
    own index where they are below its threshold, and its alias else.
    """
    bits = (len(numbers) - 1).bit_length()
    capacity = 1 << (64 - bits)
    left = numbers + [0] * ((1 << bits) - len(numbers))
    thresholds = [0] * len(left)
    aliases = list(range(len(left)))
    small = [i for i, number in enumerate(left) if number < capacity]
    large = [i for i, number in enumerate(left) if number > capacity]
    while small:
        low, high = small.pop(), large[-1]
        thresholds[low] = left[low] << bits
        aliases[low] = high
        left[high] -= capacity - left[low]
        if left[high] <= capacity:
            large.pop()
        if left[high] < capacity:
            small.append(high)
    return np.array(thresholds, np.uint64), np.array(aliases, np.int64)
