"""Charts as SVG text: no script, no font, no library; colours come from the page, so they follow light and dark."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Format = Callable[[float], str]

_WIDTH, _HEIGHT = 440, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 30, 40
_MOST_POINTS = 400
# The mean width of a character at 12 px in a system font.
_CHARACTER = 6.4
_ROW, _BAR, _BINS = 30, 16, 24


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Args:
        name: what stands at its end.
        x: where it goes, rising.
        y: likewise; NaN where it is not known.
        style: a colour of the page, 1 to 6, or "muted".
        dashed: whether it is dashed.
        marks: radii of circles drawn on its points; None for none.
    """

    name: str
    x: Floats
    y: Floats
    style: str = "1"
    dashed: bool = False
    marks: Floats | None = None


@dataclass(frozen=True)
class Axis:
    """An axis of a chart.

    Args:
        label: what it shows, with its unit.
        low: where it begins.
        high: where it ends.
        is_share: whether its numbers are shares, to be written in per cent.
        whole: whether they are whole numbers.
    """

    label: str
    low: float
    high: float
    is_share: bool = False
    whole: bool = False

    def marks(self, about: int) -> list[tuple[float, str]]:
        """Return about so many round numbers along the axis, and how each is written: all to the same decimals."""
        factor, unit = (100, " %") if self.is_share else (1, "")
        values = ticks(self.low * factor, self.high * factor, about, self.whole)
        decimals = max((_decimals(value) for value in values), default=0)
        return [(value / factor, f"{value:,.{decimals}f}{unit}".replace("-", "−")) for value in values]


def line_chart(title: str, lines: Sequence[Line], x: Axis, y: Axis) -> str:
    """Return lines over a plane with labelled axes, each named at its right end.

    Args:
        title: what the chart shows, for those who cannot see it.
        lines: what to draw; drawn in this order.
        x: what runs to the right.
        y: what runs upwards.
    """
    names = [line.name for line in lines if line.name]
    right = _WIDTH - max([_RIGHT, *(12 + _CHARACTER * len(name) for name in names)])
    across = _Scale((x.low, x.high), (_LEFT, right))
    up = _Scale((y.low, y.high), (_HEIGHT - _BOTTOM, _TOP))
    parts = [_y_axis(up, y, right), _x_axis(across, x)]
    parts += [_drawn(line, across, up) for line in lines]
    parts += _end_labels(lines, across, up)
    return _svg(title, _HEIGHT, parts)


def stacked_bars(
    title: str, rows: Sequence[tuple[str, Sequence[float]]], names: Sequence[str], form: Format
) -> str:
    """Return one horizontal bar for each row, made of parts, with a legend above.

    Args:
        title: what the chart shows.
        rows: each row's name and the length of each of its parts.
        names: what the parts are called.
        form: how a length is written.
    """
    longest = max((sum(lengths) for _, lengths in rows), default=0) or 1
    left = min(180.0, 14 + _CHARACTER * max((len(name) for name, _ in rows), default=0))
    right = _WIDTH - 16 - _CHARACTER * len(form(longest))
    across = _Scale((0, longest), (left, right))
    parts, top = _legend(names)
    for place, (name, lengths) in enumerate(rows):
        y = top + place * _ROW
        label = _shortened(name, int((left - 14) / _CHARACTER) + 1)
        parts.append(_text(left - 8, y + 12, label, "end"))
        start = 0.0
        for part, length in enumerate(lengths):
            width = across(start + length) - across(start)
            hint = f"{name}, {names[part]}: {form(length)}"
            if width > 0:
                parts.append(
                    f'<rect class="f{_style(part)}" x="{_n(across(start))}" y="{y}" width="{_n(width)}" '
                    f'height="{_BAR}"><title>{escape(hint)}</title></rect>'
                )
            start += length
        parts.append(_text(across(start) + 6, y + 12, form(start), "start", "quiet"))
    return _svg(title, top + len(rows) * _ROW, parts)


def histogram(title: str, values: Floats, label: str, counted: str, form: Format, is_share: bool) -> str:
    """Return how many values fall into each of equal bins.

    Args:
        title: what the chart shows.
        values: the values.
        label: what they are.
        counted: what is counted, for the vertical axis.
        form: how a value is written.
        is_share: whether the values are shares.
    """
    counts, edges = np.histogram(values, bins=_BINS)
    x = Axis(label, float(edges[0]), float(edges[-1]), is_share)
    y = Axis(counted, 0, float(counts.max()) * 1.05, whole=True)
    across = _Scale((x.low, x.high), (_LEFT, _WIDTH - _RIGHT))
    up = _Scale((y.low, y.high), (_HEIGHT - _BOTTOM, _TOP))
    parts = [_y_axis(up, y, _WIDTH - _RIGHT)]
    for count, low, high in zip(counts, edges, edges[1:], strict=False):
        hint = f"{form(float(low))} to {form(float(high))}: {count}"
        parts.append(
            f'<rect class="f1" x="{_n(across(low) + 0.5)}" y="{_n(up(count))}" '
            f'width="{_n(max(0.5, across(high) - across(low) - 1))}" height="{_n(up(0) - up(count))}">'
            f"<title>{escape(hint)}</title></rect>"
        )
    parts.append(_x_axis(across, x))
    return _svg(title, _HEIGHT, parts)


def dot_rows(
    title: str, rows: Sequence[tuple[str, Sequence[float], float, str]], x: Axis, form: Format
) -> str:
    """Return a row for each name with small dots for single values and a large one for their mean.

    Args:
        title: what the chart shows.
        rows: name, single values, mean, and the style of the dots.
        x: what runs to the right.
        form: how a value is written.
    """
    left = min(190.0, 14 + _CHARACTER * max((len(name) for name, *_ in rows), default=0))
    right = _WIDTH - 16 - _CHARACTER * max((len(form(mean)) for _, _, mean, _ in rows), default=0)
    bottom = len(rows) * _ROW + 4
    across = _Scale((x.low, x.high), (left, right))
    parts = [_x_axis(across, x, bottom, is_grid=True)]
    for place, (name, values, mean, style) in enumerate(rows):
        y = place * _ROW + _ROW / 2
        parts.append(_text(left - 8, y + 4, _shortened(name, int((left - 14) / _CHARACTER) + 1), "end"))
        parts += [
            f'<circle class="f{style} faint" cx="{_n(across(value))}" cy="{_n(y)}" r="3.2"/>'
            for value in values
            if not math.isnan(value)
        ]
        if not math.isnan(mean):
            hint = f"{name}: {form(mean)}"
            parts.append(
                f'<circle class="f{style} ring" cx="{_n(across(mean))}" cy="{_n(y)}" r="6">'
                f"<title>{escape(hint)}</title></circle>"
            )
            parts.append(_text(right + 10, y + 4, form(mean), "start", "strong"))
    return _svg(title, bottom + _BOTTOM, parts)


def padded(
    values: Sequence[float] | Floats, floor: float = -math.inf, ceiling: float = math.inf
) -> tuple[float, float]:
    """Return a range that holds the finite values with some room, within bounds."""
    finite = [float(value) for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return max(floor, low - room), min(ceiling, high + room)


def ticks(low: float, high: float, about: int = 5, whole: bool = False) -> list[float]:
    """Return round numbers from low to high.

    >>> ticks(0, 1), ticks(0.91, 0.99, 4), ticks(1, 20, 5, whole=True)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.92, 0.94, 0.96, 0.98], [5.0, 10.0, 15.0, 20.0])
    """
    if not high > low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    if whole:
        step = max(1.0, float(round(step)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    decimals = max(0, 2 - math.floor(math.log10(step)))
    return [round(place * step, decimals) for place in range(first, last + 1)]


@dataclass(frozen=True)
class _Scale:
    """From values to places in the picture."""

    domain: tuple[float, float]
    target: tuple[float, float]

    def __call__(self, value: float) -> float:
        (low, high), (start, end) = self.domain, self.target
        return start + (float(value) - low) / ((high - low) or 1.0) * (end - start)


def _svg(title: str, height: float, parts: Sequence[str]) -> str:
    return (
        f'<svg role="img" viewBox="0 0 {_WIDTH} {_n(height)}" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def _y_axis(up: _Scale, axis: Axis, right: float) -> str:
    parts = [_text(0, 12, axis.label, "start", "quiet")]
    for value, text in axis.marks(about=4):
        y = _n(up(value))
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_n(right)}" y1="{y}" y2="{y}"/>')
        parts.append(_text(_LEFT - 8, up(value) + 4, text, "end", "quiet"))
    return "".join(parts)


def _x_axis(across: _Scale, axis: Axis, y: float = _HEIGHT - _BOTTOM, is_grid: bool = False) -> str:
    start, end = across.target
    parts = [f'<line class="axis" x1="{_n(start)}" x2="{_n(end)}" y1="{_n(y)}" y2="{_n(y)}"/>']
    for value, text in axis.marks(about=max(2, int((end - start) / 70))):
        x, kind = _n(across(value)), "grid" if is_grid else "axis"
        top, foot = (0.0, y) if is_grid else (y, y + 4)
        parts.append(f'<line class="{kind}" x1="{x}" x2="{x}" y1="{_n(top)}" y2="{_n(foot)}"/>')
        parts.append(_text(across(value), y + 17, text, "middle", "quiet"))
    parts.append(_text((start + end) / 2, y + 34, axis.label, "middle", "quiet"))
    return "".join(parts)


def _drawn(line: Line, across: _Scale, up: _Scale) -> str:
    known = np.isfinite(line.y)
    index = thinned(int(known.sum()))
    x, y = line.x[known][index], line.y[known][index]
    points = " ".join(f"{_n(across(a))},{_n(up(b))}" for a, b in zip(x, y, strict=True))
    dashes = ' stroke-dasharray="5 4"' if line.dashed else ""
    parts = [f'<polyline class="s{line.style}" points="{points}"{dashes}/>'] if len(x) > 1 else []
    marks = line.marks[known][index] if line.marks is not None else np.full(len(x), 3.5 if len(x) == 1 else 0)
    parts += [
        f'<circle class="f{line.style}" cx="{_n(across(a))}" cy="{_n(up(b))}" r="{_n(radius)}"/>'
        for a, b, radius in zip(x, y, marks, strict=True)
        if radius
    ]
    return "".join(parts)


def thinned(n: int) -> NDArray[np.intp]:
    """Return which of n points to draw: all, or evenly spaced ones with the first and the last."""
    return np.unique(np.linspace(0, n - 1, min(n, _MOST_POINTS)).round().astype(np.intp))


def _end_labels(lines: Sequence[Line], across: _Scale, up: _Scale) -> list[str]:
    """Put each name beside its line's last point, pushed apart where they would overlap."""
    ends = []
    for line in lines:
        known = np.flatnonzero(np.isfinite(line.y))
        if line.name and len(known):
            ends.append((up(line.y[known[-1]]), across(line.x[known[-1]]), line))
    ends.sort(key=lambda end: end[0])
    places: list[float] = []
    for y, _, _ in ends:
        places.append(max(y, places[-1] + 14) if places else y)
    overshoot = max(0.0, places[-1] - (_HEIGHT - _BOTTOM)) if places else 0.0
    for i in range(len(places) - 1, -1, -1):
        limit = places[i + 1] - 14 if i + 1 < len(places) else places[i] - overshoot
        places[i] = min(places[i], limit)
    return [
        _text(x + 8, y + 4, line.name, "start", f"t{line.style}")
        for y, (_, x, line) in zip(places, ends, strict=True)
    ]


def _legend(names: Sequence[str]) -> tuple[list[str], int]:
    parts, x, y = [], 8.0, 6
    for place, name in enumerate(names):
        width = 30 + _CHARACTER * len(name)
        if x + width > _WIDTH and x > 8:
            x, y = 8.0, y + 20
        parts.append(f'<rect class="f{_style(place)}" x="{_n(x)}" y="{y}" width="11" height="11"/>')
        parts.append(_text(x + 17, y + 10, name, "start", "quiet"))
        x += width
    return parts, y + 28


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}">{escape(text)}</text>'


def _shortened(name: str, room: int) -> str:
    return name if len(name) <= room else name[: room - 1] + "…"


def _style(place: int) -> int:
    return place % 6 + 1


def _decimals(value: float) -> int:
    return len(f"{value:.10f}".rstrip("0").partition(".")[2])


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
