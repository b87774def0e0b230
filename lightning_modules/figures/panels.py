"""Figures of several panels of lines with bands: one way to draw trajectories."""

import dataclasses
from collections.abc import Sequence

from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightning_modules.figures.style import BLUE, GREY, ORANGE, SETTINGS

Numbers = Sequence[float | int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """Points with intervals."""

    label: str
    x: Numbers
    y: Numbers
    low: Numbers
    high: Numbers
    colour: str = BLUE
    style: str = "o-"
    found: Sequence[bool] = ()
    """Points that carry a ring."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Panel:
    """One pair of axes."""

    title: str
    lines: Sequence[Line]
    level: float | None = None
    """Where a horizontal line stands for no information."""
    level_label: str = ""


def ramp(count: int) -> list[str]:
    """Colours that rise with the layer."""
    return [to_hex(colormaps["viridis"](0.85 * i / max(1, count - 1))) for i in range(count)]


def draw_panels(
    panels: Sequence[Panel],
    *,
    x_label: str,
    y_label: str,
    title: str,
    linear_to: float | None = None,
) -> Figure:
    """Draws panels side by side, at most three in a row, with the same vertical axis.

    Args:
        panels: at least one.
        x_label: of all.
        y_label: of all.
        title: of the figure.
        linear_to: beyond it, on both sides, the vertical axis is logarithmic.
    """
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    size = (1.2 + 3.6 * columns, 1.4 + 2.7 * rows)
    with rc_context(SETTINGS):
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(rows, columns, sharey=True, sharex=True, squeeze=False)
        for axes, panel in zip(grid.flat, panels, strict=False):
            _draw(axes, panel)
        for axes in list(grid.flat)[len(panels) :]:
            axes.remove()
        for axes in grid[-1]:
            axes.set_xlabel(x_label)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axes in grid[:, 0]:
            axes.set_ylabel(y_label)
        if linear_to is not None:
            grid[0, 0].set_yscale("symlog", linthresh=linear_to)
        figure.suptitle(title, fontsize=11, fontweight="bold", x=0.01, ha="left")
        handles = {
            label: handle
            for axes in grid.flat
            if axes.figure is not None
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            list(handles.values()),
            list(handles),
            loc="outside lower center",
            ncols=min(4, len(handles)),
        )
    return figure


def _draw(axes: Axes, panel: Panel) -> None:
    for line in panel.lines:
        known = [low == low and high == high for low, high in zip(line.low, line.high, strict=True)]
        axes.fill_between(
            line.x, line.low, line.high, where=known, color=line.colour, alpha=0.15, linewidth=0
        )
        axes.plot(line.x, line.y, line.style, color=line.colour, lw=1.5, ms=3.5, label=line.label)
        ringed = [i for i, found in enumerate(line.found) if found]
        axes.plot(
            [line.x[i] for i in ringed], [line.y[i] for i in ringed], "o", ms=8, mfc="none",
            mec="#ef4444", mew=1.4, label="p < 0.05, corrected" if ringed else None,
        )  # fmt: skip
    if panel.level is not None:
        axes.axhline(panel.level, color=GREY, ls=":", lw=1.3, label=panel.level_label)
    axes.set_title(panel.title, fontsize=10)
    axes.grid(axis="y", color="#e5e7eb", lw=0.8)
    axes.set_axisbelow(True)


CONTROL_COLOUR = ORANGE
