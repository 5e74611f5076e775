"""Pictures of a run, drawn with matplotlib."""

from itertools import pairwise
from typing import TYPE_CHECKING

from fedpact.core.errors import ConfigError, suggest
from fedpact.drawing import BLUE, GREY, ORANGE, house_style
from fedpact.engine import words

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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
