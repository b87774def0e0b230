"""The score of every cell, and its margin over controls: layer x flow time."""

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lightning_modules.figures.style import COLOUR_MAP, SETTINGS, score_word, trivial_word
from lightning_modules.results import ProbeResults
from lightning_modules.verdict import REFUTING

WIDE = 10
"""With more columns than this the two parts lie above each other."""
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


def _numbers(axes: Axes, image: np.ndarray, dark: np.ndarray) -> None:
    for (y, x), value in np.ndenumerate(image):
        if np.isfinite(value):
            axes.text(
                x, y, f"{value:.2f}", ha="center", va="center", fontsize=7.5,
                color="white" if dark[y, x] else "black",
            )  # fmt: skip


def margins_of(results: ProbeResults) -> tuple[str, np.ndarray]:
    """What cells are compared with, and the lower end of each one's margin over it."""
    if all(cell.controls for cell in results.cells):
        lows = [
            min((c.margin.low for n, c in cell.controls.items() if n in REFUTING), default=np.nan)
            for cell in results.cells
        ]
        return "above the strongest control", np.array(lows)
    word = trivial_word(results.score_name)
    return f"above the {word}", np.array([cell.gain[0] for cell in results.cells])


def _box(axes: Axes, results: ProbeResults, columns: int, flat: bool) -> None:
    y, x = divmod(results.chosen, columns)
    corner = (y - 0.5, -0.5) if flat else (x - 0.5, y - 0.5)
    axes.add_patch(Rectangle(corner, 1, 1, fill=False, ec="#ef4444", lw=2.2, clip_on=False))
    axes.spines[:].set_visible(False)


def draw_heatmap(results: ProbeResults) -> Figure:
    """Draws both; a grid without flow times lies down as one row of layers."""
    layers, times, scores = grid_of(results)
    flat = len(times) == 1
    word, margins = margins_of(results)
    images = [(x.T if flat else x) for x in (scores, margins.reshape(scores.shape))]
    rows, columns = len(images[0]), len(images[0].T)
    # Wide grids lie above each other. Titles, labels and bars need their room whatever the grid.
    beside = (1, 2) if columns <= WIDE and not flat else (2, 1)
    width, height = max(6.6, 2.2 + 0.52 * columns), 1.75 + 0.33 * rows
    size = (width * beside[1], height * beside[0])
    low = min(results.chance, float(np.nanmin(scores)), results.trivial)
    edge = max(0.05, float(np.nanmax(np.abs(margins)))) if np.isfinite(margins).any() else 1.0
    with rc_context(SETTINGS):
        figure = Figure(figsize=size, layout="constrained")
        scales = ((low, 1.0, COLOUR_MAP), (-edge, edge, "RdBu"))
        field = results.cells[0].cell.field
        titles = (
            f"{results.target} from {field} ({results.split}); box: chosen",
            f"{word}, low end",
        )
        panels = figure.subplots(*beside, squeeze=False).ravel()
        for axes, image, (start, stop, colours), title in zip(
            panels, images, scales, titles, strict=True
        ):
            drawn = axes.imshow(
                image, vmin=start, vmax=stop, cmap=colours, aspect="auto", origin="lower"
            )
            share = (image - start) / (stop - start)
            dark = share < 0.6 if colours == COLOUR_MAP else np.abs(share - 0.5) > 0.35
            if image.size <= MOST_NUMBERS:
                _numbers(axes, image, dark)
            _label(axes, "x", layers if flat else times)
            _label(axes, "y", times if flat else layers)
            _box(axes, results, scores.shape[1], flat)
            axes.set_title(title)
            bar = figure.colorbar(drawn, ax=axes, pad=0.02, aspect=max(6, 4 * rows), shrink=0.95)
            bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue] - a Spine
            if colours == COLOUR_MAP:
                bar.set_label(score_word(results.score_name))
                bar.ax.axhline(results.trivial, color="#ef8b2c", lw=2)
    return figure
