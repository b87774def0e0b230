"""Which token of a policy reads which in training, as a picture."""

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int8
from matplotlib import rc_context
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from lightning_modules.figures.style import SETTINGS, styled_axes

MEANINGS = ("not read", "read", "read, no gradient goes back")
"""Of the values 0, 1 and 2."""
COLOURS = ("#f3f4f6", "#2563eb", "#f59e0b")


def draw_mask(
    names: Sequence[str], sizes: Sequence[int], values: Int8[np.ndarray, "q q"], title: str
) -> Figure:
    """Draws the mask; every group has the same width, however many tokens it has.

    Args:
        names: of the groups of tokens.
        sizes: tokens of each.
        values: 0, 1 or 2 for each query (row) and key (column).
        title: above the picture.
    """
    edges = np.concatenate([[0], np.cumsum(sizes)])
    # As many drawn cells for each group, so that 10 actions are seen beside 588 image tokens.
    cells = 48
    rows = np.concatenate(
        [a + np.arange(cells) * (b - a) // cells for a, b in itertools.pairwise(edges)]
    )
    side = 2.2 + 0.85 * len(names)
    figure, axes = styled_axes(side + 1.0, side)
    with rc_context(SETTINGS):
        axes.imshow(
            values[np.ix_(rows, rows)], cmap=ListedColormap(COLOURS), vmin=0, vmax=2,
            interpolation="nearest",
        )  # fmt: skip
        for edge in range(1, len(names)):
            axes.axhline(edge * cells - 0.5, color="white", linewidth=1.5)
            axes.axvline(edge * cells - 0.5, color="white", linewidth=1.5)
        middles = cells * (np.arange(len(names)) + 0.5) - 0.5
        labels = [f"{name}\n{size}" for name, size in zip(names, sizes, strict=True)]
        axes.set_xticks(middles, labels, fontsize=7)
        axes.set_yticks(middles, labels, fontsize=7)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.grid(visible=False)
        axes.xaxis.set_label_position("top")
        axes.set_xlabel("token that is read (key)")
        axes.set_ylabel("token that reads (query)")
        axes.set_title(title, loc="center", pad=10)
        handles = [
            Patch(color=colour, label=meaning)
            for colour, meaning in zip(COLOURS, MEANINGS, strict=True)
        ]
        axes.legend(
            handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=3, frameon=False
        )
    return figure
