"""A picture of how far the tensors of one checkpoint are from those of another."""

import pathlib
from typing import TYPE_CHECKING

from jax_bridge.checkpoints.comparison import Difference, Move

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BARS = 40
"""Tensors that get a bar with their name; the curve above has all."""
FLOOR = 1e-9
"""Relative changes below are drawn here: a logarithmic axis has no zero."""


def draw_changes(found: Difference, path: pathlib.Path) -> None:
    """Writes a picture: all relative changes sorted, by part, and the largest ones by name.

    Raises:
        ValueError: if no tensor is in both checkpoints with the same shape.
    """
    if not found.moves:
        raise ValueError(
            f"`against` must share a tensor with {found.first}, but {found.second} has none."
        )
    from matplotlib.figure import Figure

    listed = found.moved[:BARS]
    parts = sorted({move.part for move in found.moves})
    colours = {part: f"C{number}" for number, part in enumerate(parts)}
    figure = Figure(figsize=(9, 3.2 + 0.19 * len(listed)), layout="constrained")
    every, named = figure.subplots(2, 1, height_ratios=[2.6, 0.19 * len(listed) + 0.4])
    for part in parts:
        places = [i for i, move in enumerate(found.moves) if move.part == part]
        heights = [_drawn(found.moves[i].relative) for i in places]
        every.plot(places, heights, ".", color=colours[part], label=part)
    every.set(
        yscale="log", xlabel="tensor, the farthest first",
        ylabel=f"relative change (equal: {FLOOR:g})",
        title=f"{len(found.moved)} of {len(found.moves)} tensors moved",
    )  # fmt: skip
    every.legend()
    if not listed:
        named.set_axis_off()
    else:
        _draw_bars(named, listed, [colours[move.part] for move in listed])
    figure.savefig(path, dpi=120)


def _draw_bars(axes: "Axes", listed: list[Move], colours: list[str]) -> None:
    axes.barh(range(len(listed)), [_drawn(move.relative) for move in listed], color=colours)
    axes.set_yticks(range(len(listed)), [_shortened(move.name) for move in listed], fontsize=7)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    values = [_drawn(move.relative) for move in listed]
    # Two decades at least, so that nearly equal changes look so.
    axes.set(
        xscale="log", xlabel="relative change",
        xlim=(min(values[-1], values[0] / 100) / 1.5, values[0] * 1.5),
    )  # fmt: skip


def _drawn(relative: float) -> float:
    """Within what the axis shows; a tensor that was all zeros has changed without bound."""
    return min(max(relative, FLOOR), 1e3)


def _shortened(name: str) -> str:
    return name if len(name) <= 60 else f"...{name[-57:]}"
