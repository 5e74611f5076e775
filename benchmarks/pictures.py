"""Pictures of what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.report import Report

_OURS, _OTHERS = "#00796b", "#607d8b"


def draw_comparison(reports: Sequence[Report], path: Path) -> None:
    """Draw one panel for each comparison: seconds per round as points, with whiskers from the least to the most."""
    from matplotlib.figure import Figure

    columns = min(len(reports), 3)
    rows = -(-len(reports) // columns)
    height = 0.9 + 0.32 * max(len(report.lines) for report in reports)
    figure = Figure(figsize=(4.6 * columns, height * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes, report in zip_longest(panels, reports):
        if report is None:
            axes.set_visible(False)
            continue
        lines = report.lines[::-1]
        for place, line in enumerate(lines):
            seconds, colour = line.seconds, _OURS if line.label in report.ours else _OTHERS
            axes.plot([seconds.least, seconds.most], [place, place], color=colour, linewidth=2)
            axes.plot(seconds.middle, place, marker="o", color=colour)
            axes.annotate(
                f"{seconds.middle:.3g}",
                (seconds.most, place),
                textcoords="offset points",
                xytext=(8, 0),
                va="center",
                fontsize=8,
            )
        axes.set_yticks(range(len(lines)), [line.label for line in lines])
        axes.set_ylim(-0.6, len(lines) - 0.4)
        axes.set_xscale("log")
        axes.set_xlim(
            min(line.seconds.least for line in lines) / 2, max(line.seconds.most for line in lines) * 4
        )
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        workload = report.content["workload"]
        axes.set_title(f"{workload['letter']}: {workload['title']}", loc="left", fontsize=10)
        axes.set_xlabel("seconds per round")
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def draw_scaling(curves: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw one panel for each curve: rounds per second over what was varied."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6 * len(curves), 3.2), layout="constrained")
    for axes, curve in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves, strict=True):
        axes.plot(curve["sizes"], [1 / seconds for seconds in curve["seconds"]], marker="o", color=_OURS)
        for size, spread in zip(curve["sizes"], curve["spreads"], strict=True):
            axes.plot([size, size], [1 / spread["most"], 1 / spread["least"]], color=_OURS)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(curve["sizes"], [f"{size:,}" for size in curve["sizes"]], fontsize=7)
        axes.set_xticks([], minor=True)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
        axes.set_title(curve["title"], loc="left", fontsize=10)
        axes.set_xlabel(curve["unit"])
        axes.set_ylabel("rounds per second")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
