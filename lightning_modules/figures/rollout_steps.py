"""The score by rollout step: layer x step, and how far above the strongest yardstick."""

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_modules.figures.style import COLOUR_MAP, SETTINGS, score_word
from lightning_modules.results import CellResult, ProbeResults

MOST_NUMBERS = 144
"""Above this many fields the numbers in them would not be readable."""


def step_grid(results: ProbeResults) -> tuple[list[int], np.ndarray, np.ndarray]:
    """The first steps of the stretches, scores, and low ends of the margins [cell, stretch]."""
    steps = [entry.step for entry in results.cells[0].by_step]
    scores = [[entry.score.value for entry in cell.by_step] for cell in results.cells]
    margins = [[entry.margin.low for entry in cell.by_step] for cell in results.cells]
    return steps, np.array(scores), np.array(margins)


def draw_rollout_steps(results: ProbeResults) -> Figure:
    """Draws both; the rows are layers, of each layer its flow times."""
    steps, scores, margins = step_grid(results)
    samples = [entry.samples for entry in results.cells[0].by_step]
    ticks = [f"{step}\n{n}" for step, n in zip(steps, samples, strict=True)]
    tall = 2.0 + 0.3 * min(len(scores), 24)
    low = min(results.chance, results.trivial, float(np.nanmin(scores)))
    edge = np.nanmax(np.abs(margins), initial=0.05)
    with rc_context(SETTINGS):
        figure = Figure(figsize=(10.4, tall), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for axes, image, (start, stop, colours) in (
            (left, scores, (low, 1.0, COLOUR_MAP)), (right, margins, (-edge, edge, "RdBu")),
        ):  # fmt: skip
            drawn = axes.imshow(
                image, vmin=start, vmax=stop, cmap=colours, aspect="auto", origin="lower"
            )
            if image.size <= MOST_NUMBERS:
                _numbers(axes, image, (start, stop), diverging=axes is right)
            axes.set_xticks(range(len(steps)), ticks, fontsize=8)
            axes.set_xlabel("rollout step, from (below: samples)")
            axes.spines[:].set_visible(False)
            bar = figure.colorbar(drawn, ax=axes, pad=0.02)
            bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue] - a Spine
        left.axhline(results.chosen - 0.5, color="#ef4444", lw=1.2)
        left.axhline(results.chosen + 0.5, color="#ef4444", lw=1.2)
        _name_cells(left, results.cells)
        left.set_title(f"{score_word(results.score_name)} ({results.split})")
        right.set_title("above the strongest yardstick, low end")
    return figure


def _numbers(axes: Axes, image: np.ndarray, ends: tuple[float, float], *, diverging: bool) -> None:
    share = (image - ends[0]) / (ends[1] - ends[0])
    dark = np.abs(share - 0.5) > 0.35 if diverging else share < 0.6
    for (y, x), value in np.ndenumerate(image):
        if np.isfinite(value):
            axes.text(
                x, y, f"{value:.2f}", ha="center", va="center", fontsize=7,
                color="white" if dark[y, x] else "black",
            )  # fmt: skip


def _name_cells(axes: Axes, cells: tuple[CellResult, ...]) -> None:
    """Names each layer once, at its first row."""
    layers = [cell.cell.layer for cell in cells]
    first = [i for i, layer in enumerate(layers) if i == 0 or layers[i - 1] != layer]
    shown = first[:: -(-len(first) // 24)]
    axes.set_yticks(shown, ["" if layers[i] is None else str(layers[i]) for i in shown], fontsize=8)
    several = len({cell.cell.flow_time for cell in cells}) > 1
    axes.set_ylabel("layer (flow time 1 below, 0.1 above)" if several else "layer")
