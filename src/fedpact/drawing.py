"""How the project's pictures look, drawn with matplotlib."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fedpact.core.errors import DependencyError

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
