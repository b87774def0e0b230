"""One look for all figures."""

from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

BLUE = "#2b5c8a"
ORANGE = "#d9762b"
GREY = "#6b7280"
COLOUR_MAP = "viridis"
PNG_DPI = 160

SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9ca3af",
    "axes.labelcolor": "#374151",
    "xtick.color": "#374151",
    "ytick.color": "#374151",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.hashsalt": "vla-lens",
}


def styled_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of this size in inches, with one pair of axes in the house style."""
    with rc_context(SETTINGS):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.add_subplot()


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a PNG, and an SVG beside it; equal figures give equal bytes.

    It is drawn once for each, and laid out once for all: `savefig` would do both twice as often.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    dpi = figure.get_dpi()
    with rc_context(SETTINGS):
        figure.set_dpi(PNG_DPI)
        FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})
        figure.set_layout_engine("none")  # keeps what was laid out
        FigureCanvasSVG(figure).print_svg(path.with_suffix(".svg"), metadata={"Date": None})
        figure.set_dpi(dpi)


def shorten_name(name: str, limit: int = 42) -> str:
    """Cuts a long name at its end, with an ellipsis."""
    return name if len(name) <= limit else name[: limit - 1] + "…"


def score_word(score_name: str) -> str:
    """The score as an axis label names it."""
    return {"cosine": "cosine similarity"}.get(score_name, score_name)


def trivial_word(score_name: str) -> str:
    """What the trivial predictor is called beside this score."""
    return "majority class" if score_name == "accuracy" else "mean vector"
