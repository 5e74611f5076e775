"""Pictures as PNG, drawn with matplotlib."""

from typing import TYPE_CHECKING

import numpy as np

from fedpact.drawing import BLUE, GREEN, GREY, INK, ORANGE, house_style
from fedpact.engine.words import many, score
from fedpact.report.comparison import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

_COLOURS = {"alone": ORANGE, "federation": BLUE, "pooled": GREEN}
# From which share of the scale on white is easier to read than black.
_DARK_FROM = 0.72


def draw_comparison(comparison: Comparison) -> "Figure":
    """Return a figure of each model's accuracy: over all held-out rows, and at each client.

    Raises:
        DependencyError: matplotlib is not installed.
    """
    with house_style():
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine

        rows = len(comparison.candidates)
        layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1, wspace=0.04)
        figure = Figure(figsize=(11.0, 1.9 + 0.46 * rows), layout=layout)
        figure.suptitle(comparison.study.title, x=0.012, ha="left", fontsize=14, fontweight="bold")
        strip, grid = figure.subplots(1, 2, width_ratios=(1.25, 1), sharey=True)
        _draw_strip(strip, comparison)
        _draw_grid(grid, comparison)
        return figure


def _draw_strip(axes: "Axes", comparison: Comparison) -> None:
    axes.set_title("Accuracy on all hospitals' held-out rows")
    several = comparison.repeats > 1
    axes.set_xlabel(
        f"%; small: {many(comparison.repeats, 'repetition')}, large: their mean" if several else "%"
    )
    axes.grid(axis="x")
    axes.grid(visible=False, axis="y")
    for place, candidate in enumerate(comparison.candidates):
        values, colour = 100 * candidate.values("accuracy"), _COLOURS[candidate.kind]
        if several:
            offsets = 0.13 * np.array([(-1) ** i for i in range(len(values))])
            axes.plot(
                values, place + offsets, "o", color=colour, alpha=0.32, markersize=4.5, markeredgewidth=0
            )
        axes.plot(
            values.mean(),
            place,
            "o",
            color=colour,
            markersize=10,
            markeredgecolor="white",
            markeredgewidth=1.2,
        )
        axes.annotate(
            score("accuracy", candidate.mean("accuracy")),
            (1.0, place),
            xycoords=("axes fraction", "data"),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            color=INK,
            fontweight="bold" if candidate.kind == "federation" else "normal",
        )
    names = [f"{each.name} alone" if each.kind == "alone" else each.name for each in comparison.candidates]
    axes.set_yticks(range(len(names)), names, color=INK)
    for text, candidate in zip(axes.get_yticklabels(), comparison.candidates, strict=True):
        text.set_fontweight("bold" if candidate.kind == "federation" else "normal")
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.axhline(len(comparison.alone) - 0.5, color=GREY, linewidth=0.8)


def _draw_grid(axes: "Axes", comparison: Comparison) -> None:
    axes.set_title("… and on those of each, %")
    ids = comparison.federation.ids
    shares = np.array([[each.at(id, "accuracy") for id in ids] for each in comparison.candidates])
    lowest = float(np.nanmin(shares))
    dark = lowest + _DARK_FROM * (1.0 - lowest)
    axes.grid(visible=False)
    axes.imshow(shares, cmap=_blues(), vmin=lowest, vmax=1.0, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        text = "–" if np.isnan(share) else f"{100 * share:.1f}"
        axes.text(column, row, text, ha="center", va="center", color="white" if share > dark else INK)
    axes.set_xticks(range(len(ids)), [id.replace(" ", "\n") for id in ids], color=INK)
    axes.tick_params(length=0, labelleft=False)
    axes.spines[:].set_visible(False)
    axes.axhline(len(comparison.alone) - 0.5, color="white", linewidth=3)


def _blues() -> "Colormap":
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("fedpact", ["#eef4f8", "#7db3d5", BLUE])
