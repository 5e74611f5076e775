"""The picture of a partition, drawn with matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedpact.drawing import BLUE, GREEN, INK, ORANGE, house_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fedpact.data.partitions.report import Report

# More clients than this have no room for a name each, more labels none for a place in the key.
_MOST_NAMES = 40
_MOST_KEYS = 12
_LOOKS = {"labels": (BLUE, "o"), "features": (GREEN, "s"), "relabelled": (ORANGE, "D")}


def draw_partition(report: Report) -> Figure:
    """Return a figure of each client's labels, as bars of its rows, and of its distances from IID.

    Raises:
        DependencyError: matplotlib is not installed.
    """
    with house_style():
        from matplotlib.figure import Figure

        clients = len(report.sizes)
        height = 1.7 + 0.26 * min(clients, _MOST_NAMES)
        figure = Figure(figsize=(10.0, height), layout="constrained")
        figure.suptitle(report.how, x=0.012, ha="left", fontsize=12, fontweight="bold")
        bars, dots = figure.subplots(1, 2, width_ratios=(1.4, 1), sharey=True)
        _draw_labels(bars, report)
        _draw_distances(dots, report)
        for axes in (bars, dots):
            axes.grid(visible=False, axis="y")
            axes.grid(visible=True, axis="x")
        if clients <= _MOST_NAMES:
            bars.set_yticks(range(clients), [str(id) for id in report.sizes.index], color=INK)
        else:
            bars.set_ylabel("client")
        bars.set_ylim(clients - 0.5, -0.5)
        return figure


def _draw_labels(axes: Axes, report: Report) -> None:
    from matplotlib import colormaps

    places = np.arange(len(report.sizes))
    axes.set_title("Rows, by label" if len(report.labels.columns) else "Rows")
    axes.set_xlabel("rows")
    if not len(report.labels.columns):
        axes.barh(places, report.sizes.to_numpy(), color=BLUE, height=0.8)
        return
    colours = colormaps["viridis"](np.linspace(0.08, 0.92, len(report.labels.columns)))
    begun = np.zeros(len(places))
    for name, colour in zip(report.labels.columns, colours, strict=True):
        counts = report.labels[name].to_numpy()
        axes.barh(
            places, counts, left=begun, color=colour, height=0.8, label=str(name).removeprefix("label ")
        )
        begun += counts
    if len(report.labels.columns) <= _MOST_KEYS:
        axes.legend(title="label", frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _draw_distances(axes: Axes, report: Report) -> None:
    axes.set_title("Distance from IID")
    axes.set_xlabel("total variation; |: by chance")
    axes.set_xlim(-0.02, 1.02)
    places = np.arange(len(report.sizes))
    for name, (colour, marker) in _LOOKS.items():
        if name not in report.distances or (name == "relabelled" and not report.distances[name].any()):
            continue
        axes.plot(
            report.distances[name], places, marker, color=colour, markersize=5, label=name, clip_on=False
        )
        if f"{name}_by_chance" in report.distances:
            chance = report.distances[f"{name}_by_chance"]
            axes.plot(chance, places, "|", color=colour, markersize=9)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axes.tick_params(length=0)
