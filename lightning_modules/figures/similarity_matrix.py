"""Readings against the instructions' embeddings: the probe, its control, and what could be."""

from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_modules.figures.style import SETTINGS, shorten_name
from lightning_modules.results import ProbeResults, SimilarityMatrix

MOST_NUMBERS = 14
"""With more instructions than this the numbers would not be readable."""
Rows = tuple[tuple[float | None, ...], ...]


def image_of(rows: Rows) -> np.ndarray:
    """The matrix with NaN where nothing is known."""
    return np.array([[np.nan if x is None else x for x in row] for row in rows])


def half_widths(matrix: SimilarityMatrix) -> np.ndarray:
    """Half the width of each entry's interval; NaN where there is none."""
    return (image_of(matrix.high) - image_of(matrix.low)) / 2


def _number(axes: Axes, image: np.ndarray, half: np.ndarray) -> None:
    for (y, x), value in np.ndenumerate(image):
        if not np.isfinite(value):
            continue
        known, colour = np.isfinite(half[y, x]), "white" if abs(value) > 0.65 else "#111827"
        look: dict[str, Any] = {"ha": "center", "va": "center", "color": colour}
        axes.text(x, y - 0.14 * known, f"{value:.1f}", fontsize=6.5, **look)
        if known:
            axes.text(x, y + 0.26, f"±{half[y, x]:.2f}", fontsize=4.5, **look)


def draw_similarity(results: ProbeResults) -> Figure:
    """Draws a panel for the probe, one for the control, one for the embeddings.

    A row stands for a true instruction that the split has; the columns are all instructions.
    """
    matrix = results.similarity
    assert matrix is not None
    gap = results.cells[results.chosen].metrics.get("similarity_gap")
    said = "" if gap is None else f"\nown minus others {gap}"
    panels = {f"the probe{said}": matrix.read}
    if matrix.control:
        panels["control: trained on\nexchanged instructions"] = matrix.control
    panels["perfect readings"] = matrix.perfect
    size, names = len(matrix.names), [shorten_name(name, 46) for name in matrix.names]
    here = np.flatnonzero(np.isfinite(image_of(matrix.read)).any(axis=1))
    with rc_context(SETTINGS):
        width = 2.1 + 0.24 * size
        height = 1.4 + width * len(here) / size + 0.15 * (size - len(here))
        figure = Figure(figsize=(width * len(panels) + 3.0, height), layout="constrained")
        grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        drawn = None
        for axes, (title, rows) in zip(grid, panels.items(), strict=True):
            image = image_of(rows)[here]
            drawn = axes.imshow(image, vmin=-1, vmax=1, cmap="RdBu_r")
            if size <= MOST_NUMBERS:
                own = rows is matrix.read and bool(matrix.low)
                none = np.full_like(image, np.nan)
                _number(axes, image, half_widths(matrix)[here] if own else none)
            axes.set_xticks(range(size), [str(i) for i in range(size)], fontsize=7)
            axes.set_title(title, fontsize=9)
            axes.set_xlabel("embedding of instruction")
            axes.spines[:].set_visible(False)
        grid[0].set_yticks(range(len(here)), [f"{names[i]}  {i}" for i in here], fontsize=7)
        others = [f"{i}  {names[i]}" for i in range(size) if i not in here]
        if others:
            figure.supxlabel("\n".join(["no samples of:", *others]), fontsize=7, x=0.01, ha="left")
        assert drawn is not None
        bar = figure.colorbar(drawn, ax=list(grid), pad=0.01, shrink=0.8)
        bar.set_label("cosine, centred")
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue] - a Spine
    return figure
