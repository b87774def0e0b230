"""Layer by rollout step, one panel an expert."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from lightning_modules.figures.style import SETTINGS

Row = Mapping[str, Any]
MOST_TICKS = 12


def rows_of_places(rows: Sequence[Row]) -> tuple[list[tuple[Any, Any]], list[int], np.ndarray]:
    """Layer and flow time (rows), steps (columns), and the values as a matrix."""
    places = list(dict.fromkeys((r["layer"], r["flow_time"]) for r in rows))
    steps = sorted({r["step"] for r in rows})
    image = np.full((len(places), len(steps)), np.nan)
    for row in rows:
        place = (row["layer"], row["flow_time"])
        image[places.index(place), steps.index(row["step"])] = row["value"]
    return places, steps, image


def draw_step_heatmaps(
    rows: Sequence[Row], marked: set[tuple[Any, ...]], *, title: str, label: str
) -> Figure:
    """Draws a panel an expert; of flow times the rows of one layer lie together.

    Args:
        rows: with expert, layer, flow_time, step and value.
        marked: (expert, layer, flow_time, step) that carry a cross.
        title: of the figure.
        label: of the colour bar.
    """
    experts = list(dict.fromkeys(row["expert"] for row in rows))
    images = [rows_of_places([r for r in rows if r["expert"] == e]) for e in experts]
    values = np.concatenate([image.ravel() for _, _, image in images])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    tallest = max(len(places) for places, _, _ in images)
    with rc_context(SETTINGS):
        size = (1.6 + 3.5 * len(experts), 1.6 + min(6.0, max(1.6, 0.16 * tallest)))
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(1, len(experts), squeeze=False)[0]
        drawn = None
        for axes, expert, (places, steps, image) in zip(grid, experts, images, strict=True):
            drawn = axes.imshow(
                image, vmin=low, vmax=high, cmap="viridis_r", aspect="auto", origin="lower",
                interpolation="nearest",
            )  # fmt: skip
            spots = [
                (x, y)
                for y, place in enumerate(places)
                for x, step in enumerate(steps)
                if (expert, *place, step) in marked
            ]
            if spots:
                axes.plot(*zip(*spots, strict=True), "x", color="#ef4444", ms=6, mew=1.6)
            shown = range(0, len(steps), -(-len(steps) // MOST_TICKS))
            axes.set_xticks(list(shown), [str(steps[i]) for i in shown], fontsize=8)
            _name_places(axes, places)
            axes.set_title(expert, fontsize=10)
            axes.set_xlabel("rollout step")
            axes.spines[:].set_visible(False)
        assert drawn is not None
        bar = figure.colorbar(drawn, ax=list(grid), pad=0.02)
        bar.set_label(label)
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue] - a Spine
        figure.suptitle(title, fontsize=11, fontweight="bold", x=0.01, ha="left")
    return figure


def _name_places(axes: Any, places: Sequence[tuple[Any, Any]]) -> None:
    layers = [layer for layer, _ in places]
    first = [i for i, layer in enumerate(layers) if i == 0 or layers[i - 1] != layer]
    several = len(first) < len(places)
    axes.set_yticks(first, [str(layers[i]) for i in first], fontsize=8)
    axes.set_ylabel("layer (flow time 1 below, 0.1 above)" if several else "layer")
