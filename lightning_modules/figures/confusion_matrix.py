"""What the chosen cell said where each class was true, and how surely each one is recognised."""

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_modules.figures.style import BLUE, GREY, ORANGE, SETTINGS, shorten_name
from lightning_modules.results import ProbeResults

MOST_NAMES = 20
"""Above this many classes the axes carry numbers in place of names."""


def draw_confusion(results: ProbeResults) -> Figure:
    """Draws the matrix with rows normalised to 1, and each class's recall with its interval."""
    counts = np.array(results.confusion)
    size = len(counts)
    named = size <= MOST_NAMES
    side, words = (2.4 + 0.42 * size, 3.2) if named else (8.0, 0.0)
    recall = 2.6 if results.class_recall else 0.0
    with rc_context(SETTINGS):
        figure = Figure(figsize=(side + words + recall, side), layout="constrained")
        ratios = [side, recall] if recall else [side]
        grid = figure.subplots(1, len(ratios), width_ratios=ratios, squeeze=False, sharey=True)[0]
        _draw_counts(grid[0], counts, named=named)
        if named:
            names = [shorten_name(name, 44) for name in results.classes]
            grid[0].set_yticks(range(size), names, fontsize=8)
            grid[0].set_xticks(range(size), [name.split(" ")[0] for name in names], fontsize=8)
        if recall:
            _draw_recall(grid[1], results)
            figure.legend(loc="outside lower right", ncols=3)
        place = results.cells[results.chosen].cell.words
        figure.suptitle(
            f"{results.target}, {place} ({results.split})", fontsize=11, fontweight="bold"
        )
    return figure


def _draw_counts(axes: Axes, counts: np.ndarray, *, named: bool) -> None:
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(share, vmin=0, vmax=1, cmap="Blues")
    if named:
        for (y, x), count in np.ndenumerate(counts):
            if count:
                colour = "white" if share[y, x] > 0.55 else "#111827"
                axes.text(x, y, str(count), ha="center", va="center", fontsize=8, color=colour)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title("samples; colour: share of the true class", fontsize=9, fontweight="normal")
    axes.spines[:].set_visible(False)


def _draw_recall(axes: Axes, results: ProbeResults) -> None:
    label: str | None = "recognised, 95 % interval"
    control: str | None = "trained on exchanged targets"
    for place, name in enumerate(results.classes):
        estimate = results.class_recall.get(name)
        if estimate is None:
            continue
        if estimate.known:
            axes.plot([estimate.low, estimate.high], [place, place], color=BLUE, lw=2.4)
        axes.plot(estimate.value, place, "o", color=BLUE, ms=6, label=label)
        label = None
        if name in results.control_recall:
            x = results.control_recall[name]
            axes.plot(x, place, "|", color=ORANGE, ms=13, mew=2.2, label=control)
            control = None
    axes.axvline(results.chance, color=GREY, ls=":", lw=1.3, label="chance")
    axes.set_xlim(-0.03, 1.03)
    axes.grid(axis="x", color="#e5e7eb", lw=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel("share recognised")
    axes.set_title("by true class", fontsize=9, fontweight="normal")
