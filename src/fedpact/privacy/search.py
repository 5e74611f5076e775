"""Where something that is monotone begins to hold, in few steps, since each of them may take a second."""

import math
from collections.abc import Callable

from fedpact.core.errors import ConfigError

_LEAST_NOISE, _MOST_NOISE = 1e-3, 1e6
_TOLERANCE = 1e-4


def bracket(excess: Callable[[float], float], start: float) -> tuple[float, float]:
    """Return two log noises, of which the first is not enough and the second is."""
    least, most = math.log(_LEAST_NOISE), math.log(_MOST_NOISE)
    step = 0.1
    if excess(start) > 0:
        low = start
        while excess(high := min(low + step, most)) > 0:
            if high == most:
                raise ConfigError(
                    f"no noise multiplier up to {_MOST_NOISE:,.0f} is enough: release less often, or allow a larger "
                    "epsilon."
                )
            low, step = high, 2 * step
        return low, high
    high = start
    while excess(low := max(high - step, least)) <= 0:
        if low == least:
            return least, least
        high, step = low, 2 * step
    return low, high


def crossing(excess: Callable[[float], float], low: float, high: float) -> float:
    """Return where a falling excess becomes 0, from above: by false position (Illinois), every third time by half."""
    at_low, at_high = excess(low), excess(high)
    turn = 0
    while high - low > _TOLERANCE and at_high < -_TOLERANCE:
        turn += 1
        share = at_low / (at_low - at_high) if turn % 3 else 0.5
        middle = low + min(max(share, 0.01), 0.99) * (high - low)
        found = excess(middle)
        if found > 0:
            low, at_low, at_high = middle, found, at_high / 2
        else:
            high, at_high, at_low = middle, found, at_low / 2
    return high


def furthest(holds: Callable[[int], bool], known: int, last: int) -> int:
    """Return the number furthest from one that holds, towards the last, up to which all hold."""
    way = 1 if last >= known else -1
    step = max(1, known // 8)
    while known != last:
        tried = known + way * min(step, abs(last - known))
        if not holds(tried):
            break
        known, step = tried, 2 * step
    else:
        return known
    while abs(tried - known) > 1:
        middle = (known + tried) // 2
        known, tried = (middle, tried) if holds(middle) else (known, middle)
    return known
