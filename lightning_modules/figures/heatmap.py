"""The score of every cell: layer x flow time."""

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lightning_modules.figures.style import COLOUR_MAP, SETTINGS, score_word, styled_axes
from lightning_modules.results import ProbeResults

MOST_NUMBERS = 240
"""Above this many cells the numbers in the cells would not be readable."""


def grid_of(results: ProbeResults) -> tuple[list[int | None], list[float | None], np.ndarray]:
    """Layers, flow times and the scores as a matrix [layer, flow time]."""
    layers = list(dict.fromkeys(c.cell.layer for c in results.cells))
    times = list(dict.fromkeys(c.cell.flow_time for c in results.cells))
    scores = np.array([c.score for c in results.cells]).reshape(len(layers), len(times))
    return layers, times, scores


def _label(axes: Axes, axis: str, values: list[int | None] | list[float | None]) -> None:
    named = values[0] is not None
    ticks = [f"{v:.2g}" if isinstance(v, float) else str(v) for v in values] if named else []
    getattr(axes, f"set_{axis}ticks")(range(len(ticks)), ticks)
    words = {True: "flow time (1 = noise)", False: "layer"}
    if named:
        getattr(axes, f"set_{axis}label")(words[isinstance(values[0], float)])


def _numbers(axes: Axes, image: np.ndarray, low: float) -> None:
    for (y, x), value in np.ndenumerate(image):
        dark = (value - low) / (1 - low) < 0.6
        axes.text(
            x, y, f"{value:.2f}", ha="center", va="center", fontsize=7.5,
            color="white" if dark else "black",
        )  # fmt: skip


def draw_heatmap(results: ProbeResults) -> Figure:
    """Draws the figure; a grid without flow times lies down as one row of layers."""
    layers, times, scores = grid_of(results)
    flat = len(times) == 1
    image = scores.T if flat else scores
    rows, columns = image.shape
    # The title, labels and the colour bar need their room whatever the grid.
    figure, axes = styled_axes(max(6.6, 2.2 + 0.52 * columns), 1.75 + 0.33 * rows)
    low = min(results.chance, float(np.nanmin(scores)), results.trivial)
    with rc_context(SETTINGS):
        drawn = axes.imshow(
            image, vmin=low, vmax=1.0, cmap=COLOUR_MAP, aspect="auto", origin="lower"
        )
        if image.size <= MOST_NUMBERS:
            _numbers(axes, image, low)
        _label(axes, "x", layers if flat else times)
        _label(axes, "y", times if flat else layers)
        y, x = np.unravel_index(results.chosen, scores.shape)
        corner = (y - 0.5, -0.5) if flat else (x - 0.5, y - 0.5)
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, ec="#ef4444", lw=2.2, clip_on=False))
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(drawn, ax=axes, pad=0.02, aspect=max(6, 4 * rows), shrink=0.95)
        bar.set_label(score_word(results.score_name))
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue] - a Spine
        bar.ax.axhline(results.trivial, color="#ef8b2c", lw=2)
        field = results.cells[0].cell.field
        axes.set_title(f"{results.target} from {field} ({results.split}); box: chosen")
    return figure
