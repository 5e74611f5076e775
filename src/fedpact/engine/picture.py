"""Pictures of a run, drawn with matplotlib."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from fedpact.core.errors import ConfigError, DependencyError, suggest
from fedpact.engine import words

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which the colour-blind can tell apart, a little darker.
BLUE, ORANGE, GREEN, GREY, INK = "#0069a8", "#c65200", "#00805e", "#8a949e", "#1b2127"
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Inter", "Helvetica Neue", "Arial", "Noto Sans", "Noto Sans CJK SC", "DejaVu Sans"],
    "font.size": 10.0,
    "axes.titlesize": 11.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10.0,
    "axes.labelcolor": "#5d6874",
    "axes.edgecolor": "#c3cad1",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#e3e7eb",
    "xtick.color": "#5d6874",
    "ytick.color": "#5d6874",
    "ytick.left": False,
    "text.color": INK,
    "axes.titlecolor": INK,
    "lines.linewidth": 2.0,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.dpi": 160.0,
}


@contextmanager
def house_style() -> Iterator[None]:
    """Draw within it: quiet axes, few lines, a palette for everybody.

    Raises:
        DependencyError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise DependencyError('drawing needs matplotlib: pip install "fedpact[plot]".') from None
    with matplotlib.rc_context(_STYLE):
        yield


def draw_history(history: "pd.DataFrame", metric: str | None = None) -> "Figure":
    """Return a figure of the training loss and of a metric over rounds: all rows, mean and worst client.

    Args:
        history: one row for each round, as `Result.history` has it.
        metric: one that the history has, or "train_loss" for that alone; None for the first of accuracy, rmse.

    Raises:
        DependencyError: matplotlib is not installed.
        ConfigError: there is no such metric.
    """
    chosen = _chosen(history, metric)
    panels = [name for name in ("train_loss", chosen) if name is not None and name in history.columns]
    if chosen == "train_loss":
        panels = ["train_loss"]
    if not panels:
        raise ConfigError("there is nothing to plot: the history has neither a training loss nor a metric.")
    with house_style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5.0 * len(panels), 3.4), layout="constrained")
        for axes, name in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _draw_panel(axes, history, name)
        return figure


def _chosen(history: "pd.DataFrame", metric: str | None) -> str | None:
    present = [str(name) for name in history.columns if f"{name}_mean" in history.columns]
    if metric is None:
        return words.main_metric(present)
    if "train_loss" in history.columns:
        present.append("train_loss")
    if metric not in present:
        raise ConfigError(
            f'the history has no metric "{metric}".{suggest(metric, present)} '
            f"It has: {', '.join(present) or 'none'}."
        )
    return metric


def _draw_panel(axes: "Axes", history: "pd.DataFrame", name: str) -> None:
    from matplotlib.ticker import MaxNLocator

    label = words.label(name)
    axes.set_title(words.capital(label if name == "train_loss" else f"{label} on held-out rows"))
    axes.set_xlabel("round")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    lines = {
        name: (BLUE, "all rows"),
        f"{name}_mean": (GREY, "mean of clients"),
        f"{name}_worst": (ORANGE, "worst client"),
    }
    present = {column: look for column, look in lines.items() if column in history.columns}
    ends = []
    for column, (colour, line) in present.items():
        values = history[column].dropna()
        marker = "o" if len(values) == 1 else ""
        axes.plot(
            values.index, values, color=colour, marker=marker, markersize=5, zorder=3 if column == name else 2
        )
        if len(present) > 1 and len(values):
            ends.append((float(values.iloc[-1]), float(values.index[-1]), colour, line))
    _name_lines(axes, ends)


def _name_lines(axes: "Axes", ends: list[tuple[float, float, str, str]]) -> None:
    """Write each line's name beside its last point, pushed apart where names would overlap."""
    low, high = axes.get_ylim()
    gap = 0.075 * (high - low)
    ends.sort()
    places = [value for value, *_ in ends]
    for lower, upper in pairwise(range(len(places))):
        places[upper] = max(places[upper], places[lower] + gap)
    for place, (value, x, colour, line) in zip(places, ends, strict=True):
        axes.annotate(
            line,
            (x, value),
            xytext=(7, (place - value) / (high - low) * axes.bbox.height * 72 / axes.figure.dpi),
            textcoords="offset points",
            color=colour,
            va="center",
            annotation_clip=False,
        )
    axes.set_ylim(low, high)
