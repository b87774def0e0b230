"""What the chosen cell said where each class was true."""

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from lightning_modules.figures.style import SETTINGS, shorten_name, styled_axes
from lightning_modules.results import ProbeResults

MOST_NAMES = 20
"""Above this many classes the axes carry numbers in place of names."""


def draw_confusion(results: ProbeResults) -> Figure:
    """Draws the matrix with rows normalised to 1, and the counts in its cells."""
    counts = np.array(results.confusion)
    size = len(counts)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = 2.4 + 0.42 * size if size <= MOST_NAMES else 8.0
    figure, axes = styled_axes(side + (3.2 if size <= MOST_NAMES else 0), side)
    with rc_context(SETTINGS):
        drawn = axes.imshow(share, vmin=0, vmax=1, cmap="Blues")
        if size <= MOST_NAMES:
            for (y, x), count in np.ndenumerate(counts):
                if count:
                    colour = "white" if share[y, x] > 0.55 else "#111827"
                    axes.text(x, y, str(count), ha="center", va="center", fontsize=8, color=colour)
            names = [shorten_name(name, 44) for name in results.classes]
            axes.set_yticks(range(size), names, fontsize=8)
            axes.set_xticks(range(size), [name.split(" ")[0] for name in names], fontsize=8)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(drawn, ax=axes, shrink=0.8, pad=0.02)
        bar.set_label("share of the true class")
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue] - a Spine
        place = results.cells[results.chosen].cell.words
        axes.set_title(f"{results.target}, {place} ({results.split})", loc="center")
    return figure
