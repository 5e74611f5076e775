"""Where the derivative of a Yeo-Johnson log-likelihood changes its sign, asked for at a few lambdas at a time.

A search is plain data: {"pivot", "scale", "asked", "points", "lambda"}; the points are [lambda, derivative], in order.
The log-likelihood is concave (Kouider and Chen, "Concavity of Box-Cox log-likelihood function", Statistics &
Probability Letters 25(2), 1995; Marchand et al., NeurIPS 2022), so the derivative falls and there is one change.
"""

import math
from typing import Any

from fedpact.core.errors import DataError
from fedpact.data.preprocess.yeo_johnson import middle

Search = dict[str, Any]

# SciPy's bounds (`scipy.stats.yeojohnson_normmax`): powers of values up to 20 times as large, and their squares,
# are to stay within half of float64's exponents.
_ROOM = 20.0
_LOG_EPSILON = math.log(2.0**-52)
_LOWEST = (math.log(2.0**-1022) - _LOG_EPSILON) / 2
_HIGHEST = (1024 * math.log(2.0) + _LOG_EPSILON) / 2

_LADDER = (-9.0, -3.0, -1.0, 0.0, 1.0, 3.0, 9.0)
_PRECISION = 1e-10
# Of a column that spans less than this, squares of differences vanish.
_LEAST_SCALE = 1e-140


def begin(name: str, least: float, largest: float) -> Search:
    """Return the search for a column with these ends.

    Raises:
        DataError: no power of the column is safely within float64.
    """
    pivot = middle(least, largest)
    logs = [math.copysign(_log(abs(end)), end) for end in (least, largest)]
    scale = (logs[1] - logs[0]) / 2
    if pivot:
        # Of close numbers the difference of the logarithms would cancel.
        scale = math.log1p((largest - least) / (1 + min(abs(least), abs(largest)))) / 2
    if scale < _LEAST_SCALE:
        return {"pivot": 0.0, "scale": 1.0, "asked": [], "points": [], "lambda": 1.0}
    low, high = _bounds(name, least, largest)
    center = 1.0 if pivot == 0 else 0.0 if pivot > 0 else 2.0
    asked = [low, *(center + step / scale for step in _LADDER), high]
    asked = sorted({each for each in asked if low <= each <= high})
    return {"pivot": pivot, "scale": scale, "asked": asked, "points": [], "lambda": None}


def candidates(search: Search) -> list[float]:
    """Return the lambdas to ask for next; none once lambda is found."""
    asked: list[float] = search["asked"]
    return asked


def result(search: Search) -> float:
    """Return the lambda that was found."""
    found: float = search["lambda"]
    return found


def narrowed(search: Search, slopes: list[float]) -> Search:
    """Return the search with the derivatives at the lambdas that were asked for."""
    if not slopes:
        return search
    new = [[lam, slope] for lam, slope in zip(search["asked"], slopes, strict=True) if not math.isnan(slope)]
    for lam, slope in new:
        if slope == 0:
            return _done(search, lam)
    points = sorted(search["points"] + new)
    rising = next((i for i, (_, slope) in enumerate(points) if slope <= 0), len(points))
    if rising in (0, len(points)):
        # The likelihood rises towards a bound: nothing beyond it was asked for.
        best = points[-1 if rising else 0][0] if points else 1.0
        return _done(search, best)
    near = points[max(0, rising - 2) : rising + 2]
    (low, _), (high, _) = points[rising - 1 : rising + 1]
    precision = _PRECISION * max(abs(low), abs(high), 1 / search["scale"])
    guess = _root(near, low, high)
    straight = _root(points[rising - 1 : rising + 1], low, high)
    error = min(max(abs(guess - straight), 8 * precision), (high - low) / 4)
    # The middle is there for the worst case: a guess may be bad, and its error underestimated, time and again.
    steps = (-error, -error / 16, 0.0, error / 16, error, (low + high) / 2 - guess)
    asked = sorted({guess + step for step in steps if low < guess + step < high})
    if high - low <= 2 * precision or not asked:
        return _done(search, guess)
    return {**search, "asked": asked, "points": near}


def _done(search: Search, lam: float) -> Search:
    return {**search, "asked": [], "points": [], "lambda": lam}


def _root(points: list[list[float]], low: float, high: float) -> float:
    """Return where the inverse polynomial through points has the derivative 0, by Neville's scheme."""
    lams, slopes = [lam for lam, _ in points], [slope for _, slope in points]
    for order in range(1, len(points)):
        for i in range(len(points) - order):
            apart = slopes[i] - slopes[i + order]
            if apart == 0:
                return (low + high) / 2
            lams[i] = (slopes[i] * lams[i + 1] - slopes[i + order] * lams[i]) / apart
    if low < lams[0] < high:
        return lams[0]
    return (low + high) / 2 if len(points) == 2 else _root(_two(points, low), low, high)


def _two(points: list[list[float]], low: float) -> list[list[float]]:
    place = [lam for lam, _ in points].index(low)
    return points[place : place + 2]


def _bounds(name: str, least: float, largest: float) -> tuple[float, float]:
    reach = _log(max(abs(least), abs(largest)), _ROOM)
    low, high = _LOWEST / reach, _HIGHEST / reach
    if largest < 0:
        low, high = 2 - high, 2 - low
    elif least < 0:
        low, high = max(2 - high, low), min(2 - low, high)
    if low > high:
        raise DataError(
            f'column "{name}" holds values too large for a power transformation; divide them first, or leave '
            "the column out of YeoJohnson."
        )
    return low, high


def _log(size: float, times: float = 1.0) -> float:
    """Return log(1 + times·size), also where the product is more than a float64 holds."""
    return math.log1p(times * size) if size < 1e300 else math.log(times) + math.log(size)
