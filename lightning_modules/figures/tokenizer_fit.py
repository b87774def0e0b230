"""How a FAST tokenizer does: tokens a chunk, and the error of each dimension."""

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_modules.figures.style import BLUE, GREY, ORANGE, SETTINGS

MOST_BARS = 60


def draw_tokenizer_fit(
    lengths: dict[str, Sequence[int]],
    *,
    naive: int,
    rms_error: Sequence[float],
    largest_error: Sequence[float],
    bound: Sequence[float],
) -> Figure:
    """Draws a histogram of tokens a chunk, and the round-trip error a dimension.

    Args:
        lengths: tokens of each chunk, by what the chunks are (`learnt`, `held out`).
        naive: tokens of a chunk where each number is one.
        rms_error: a number a dimension, in robot units.
        largest_error: the same.
        bound: what rounding alone can do.
    """
    with rc_context(SETTINGS):
        figure = Figure(figsize=(10.4, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        _draw_lengths(left, lengths, naive)
        _draw_errors(right, rms_error, largest_error, bound)
        return figure


def _legend_below(axes: Axes) -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(-0.05, -0.16), ncols=2)


def _draw_lengths(axes: Axes, lengths: dict[str, Sequence[int]], naive: int) -> None:
    longest = max(max(values) for values in lengths.values())
    edges = np.linspace(0, longest + 1, min(longest + 1, MOST_BARS) + 1)
    for (name, values), colour in zip(lengths.items(), (BLUE, ORANGE), strict=False):
        weights = np.full(len(values), 1 / len(values))
        label = f"{name}, mean {np.mean(values):.1f}"
        axes.hist(values, edges.tolist(), weights=weights, color=colour, alpha=0.6, label=label)
    axes.axvline(naive, color=GREY, ls="--", lw=1.3, label=f"one a number: {naive}")
    axes.set_xlabel("tokens a chunk")
    axes.set_ylabel("share of chunks")
    axes.set_title("Length")
    _legend_below(axes)


def _draw_errors(
    axes: Axes, rms: Sequence[float], largest: Sequence[float], bound: Sequence[float]
) -> None:
    places = np.arange(len(rms))
    axes.bar(places - 0.2, rms, width=0.4, color=BLUE, label="root mean square")
    axes.bar(places + 0.2, largest, width=0.4, color=ORANGE, label="largest")
    axes.plot(places, bound, ls="", marker="_", ms=16, color="#111827", label="bound of rounding")
    axes.set_xticks(places)
    axes.set_xlabel("action dimension")
    axes.set_ylabel("error, robot units")
    axes.set_title("Round trip")
    _legend_below(axes)
