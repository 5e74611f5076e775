"""The picture of a description: a histogram, or the frequent categories, of each column, and the noise in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fedpact.drawing import BLUE, GREY, INK, house_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fedpact.engine.description import ColumnSummary, Description

_ACROSS = 4
_MOST_BARS = 10
_LONGEST_NAME = 18


def draw_description(description: Description) -> Figure:
    """Return a figure with a small chart for each column that has a histogram or categories.

    Raises:
        DependencyError: matplotlib is not installed.
    """
    drawn = [column for column in description.columns if column.histogram is not None or column.categories]
    with house_style():
        from matplotlib.figure import Figure

        across = min(_ACROSS, max(1, len(drawn)))
        down = max(1, -(-len(drawn) // across))
        noise = f" ±{description.rows_error:,.3g}" if description.rows_error else ""
        figure = Figure(figsize=(3.1 * across, 0.6 + 2.1 * down), layout="constrained")
        figure.suptitle(
            f"{description.rows:,}{noise} rows of {description.clients:,} clients",
            x=0.012,
            ha="left",
            fontsize=12,
            fontweight="bold",
        )
        panels = figure.subplots(down, across, squeeze=False).ravel()
        for axes, column in zip(panels, drawn, strict=False):
            axes.set_title(f"{column.name} ({column.unit})" if column.unit else column.name, fontsize=10)
            axes.tick_params(labelsize=8, length=0)
            if column.histogram is not None:
                _draw_histogram(axes, column)
            else:
                _draw_categories(axes, column)
        for axes in panels[len(drawn) :]:
            axes.set_axis_off()
        return figure


def _draw_histogram(axes: Axes, column: ColumnSummary) -> None:
    assert column.histogram is not None
    # Days since 1970 are what matplotlib takes for dates, by its default epoch.
    edges = np.array(column.histogram.edges)
    axes.stairs(np.array(column.histogram.counts), edges, fill=True, color=BLUE)
    if column.cell_error:
        _draw_noise(axes, (edges[:-1] + edges[1:]) / 2, column.histogram.counts, yerr=column.cell_error)
    if column.kind == "date":
        axes.set_xticks([edges[0], edges[-1]], [column.number(edges[0]), column.number(edges[-1])])
    if column.mean is not None:
        axes.axvline(column.mean, color=INK, linewidth=1.0)


def _draw_categories(axes: Axes, column: ColumnSummary) -> None:
    assert column.categories is not None
    shown = dict(list(column.categories.items())[:_MOST_BARS])
    # With noise the listed ones may be more than all.
    rest = max(0, column.count - sum(shown.values()))
    names = [_short(str(name)) for name in shown] + (["others"] if rest else [])
    counts = [*shown.values(), *([rest] if rest else [])]
    colours = [BLUE] * len(shown) + [GREY]
    axes.barh(range(len(counts)), counts, color=colours[: len(counts)], height=0.75)
    if column.cell_error:
        _draw_noise(axes, list(shown.values()), range(len(shown)), xerr=column.cell_error)
    axes.set_yticks(range(len(counts)), names)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")


def _draw_noise(axes: Axes, x: Any, y: Any, xerr: float | None = None, yerr: float | None = None) -> None:
    axes.errorbar(x, y, xerr=xerr, yerr=yerr, fmt="none", ecolor=INK, elinewidth=0.6)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
