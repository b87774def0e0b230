"""Learning curves: validation loss by epoch."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_modules.figures.style import BLUE, GREY, SETTINGS, styled_axes

FILE = Path("metrics", "curves.csv")
NUMBERS = ("loss", "score", "low", "high")
"""Of a row; the ends of the loss's interval are unknown in files of earlier versions."""
RED = "#b91c1c"
MIDDLE = (10, 90)
"""Percentiles between which the other cells lie."""


def read_curves(path: Path) -> list[dict[str, Any]]:
    """The rows of a curves file; none where there is no file."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as file:
        return [
            {**row, "epoch": int(row["epoch"]),
             **{word: float(row.get(word) or "nan") for word in NUMBERS}}
            for row in csv.DictReader(file)
        ]  # fmt: skip


def _by_epoch(rows: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[float]]:
    ordered = sorted(rows, key=lambda row: row["epoch"])
    return [row["epoch"] for row in ordered], [row["loss"] for row in ordered]


def _draw_band(axes: Axes, rows: Sequence[Mapping[str, Any]], colour: str) -> None:
    ends = np.array(sorted((row["epoch"], row["low"], row["high"]) for row in rows))
    axes.fill_between(*ends.T, color=colour, alpha=0.22, linewidth=0)


def draw_curves(rows: Sequence[Mapping[str, Any]], chosen: str, best_epoch: int) -> Figure:
    """Draws the chosen cell, the middle of all cells, and the control.

    Args:
        rows: epoch, kind (`main` or `shuffled`), cell, loss and the ends of its interval.
        chosen: name of the chosen cell.
        best_epoch: the epoch whose weights it keeps.
    """
    figure, axes = styled_axes(7.2, 3.6)
    main = [row for row in rows if row["kind"] == "main"]
    epochs = sorted({row["epoch"] for row in main})
    with rc_context(SETTINGS):
        if len({row["cell"] for row in main}) > 2:
            losses = [[r["loss"] for r in main if r["epoch"] == epoch] for epoch in epochs]
            low, high = zip(*(np.percentile(each, MIDDLE) for each in losses), strict=True)
            label = "middle 80 % of all cells"
            axes.fill_between(epochs, low, high, color=GREY, alpha=0.18, linewidth=0, label=label)
        lines = (("main", BLUE, "chosen cell"), ("shuffled", RED, "same cell, targets exchanged"))
        for kind, colour, label in lines:
            own = [r for r in rows if r["kind"] == kind and r["cell"] == chosen]
            if own:
                axes.plot(*_by_epoch(own), color=colour, lw=1.6, label=label)
                _draw_band(axes, own, colour)
        if best_epoch >= 0:
            axes.axvline(best_epoch, color=GREY, ls=":", lw=1.3, label="kept weights")
        axes.set_xlabel("epoch")
        axes.set_ylabel("validation loss")
        axes.set_title("Learning curves")
        axes.grid(axis="y", color="#e5e7eb", lw=0.8)
        axes.set_axisbelow(True)
        figure.legend(loc="outside lower center", ncols=4)
    return figure
