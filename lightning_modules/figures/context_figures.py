"""The figures of a card.

Letters: d dimensions, k components.
"""

from collections.abc import Iterator

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from lightning_modules.context.card import Card, CellCard
from lightning_modules.context.dimension_table import NEARLY_CONSTANT
from lightning_modules.figures.panels import Line, Panel, draw_panels
from lightning_modules.figures.style import BLUE, GREY, ORANGE, SETTINGS

STABILITY_WORDS: dict[str, tuple[str, str]] = {
    "means": ("means", "difference in std"),
    "stds": ("standard deviations", "median |log ratio|"),
    "directions": ("first 5 directions", "1 - overlap"),
}
MOST_FIGURES = 4
"""Cells that get figures of their own; the one over all layers shows the others."""


def card_figures(card: Card) -> Iterator[tuple[str, Figure]]:
    """Yields names and figures."""
    for cell in card.cells[:MOST_FIGURES]:
        name = cell.cell.name
        yield f"{name}/dimensions", draw_dimensions(cell)
        if cell.norm is not None:
            yield f"{name}/layer_norm", draw_norm(cell)
        yield f"{name}/lengths_and_directions", draw_lengths_and_directions(cell)
        if cell.stability:
            yield f"{name}/stability", draw_stability(cell)
    if len(card.cells) > 1:
        yield "over_layers", draw_over_cells(card)


def draw_dimensions(cell: CellCard) -> Figure:
    """Means with quantiles, sorted; stds, sorted."""
    table = cell.table
    order = np.argsort(table.mean)
    quantiles = {name: c[order] for name, c in table.columns().items() if name.startswith("q")}
    place = np.arange(len(order))
    with rc_context(SETTINGS):
        figure = Figure(figsize=(11, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        for low, high, alpha in (("q0.01", "q0.99", 0.15), ("q0.25", "q0.75", 0.35)):
            label = f"{low[1:]} to {high[1:]} quantile"
            left.fill_between(
                place, quantiles[low], quantiles[high], color=BLUE, alpha=alpha, lw=0,
                label=label, rasterized=True,
            )  # fmt: skip
        left.plot(place, table.mean[order], color=ORANGE, lw=1.4, label="mean")
        left.set_xlabel("dimension, by its mean")
        left.set_title(f"values of each dimension, {table.count} vectors")
        left.legend(loc="upper left")
        std = np.sort(table.std)
        right.plot(place, np.maximum(std, 1e-12), color=BLUE, lw=1.6)
        median = float(np.median(std))
        right.axhline(median, color=GREY, ls=":", lw=1.3, label="median")
        right.axhline(
            NEARLY_CONSTANT * median, color=ORANGE, ls="--", lw=1.2, label="1/20 of the median"
        )
        right.set_yscale("log")
        right.set_xlabel("dimension, by its std")
        right.set_title("standard deviation")
        right.legend(loc="upper left")
    return figure


def draw_norm(cell: CellCard) -> Figure:
    """Each dimension's std beside the LayerNorm's weight, its mean beside the bias."""
    assert cell.norm is not None
    pairs = (
        (np.abs(cell.norm.weight), cell.table.std, "|weight|", "std of the dimension"),
        (cell.norm.bias, cell.table.mean, "bias", "mean of the dimension"),
    )
    with rc_context(SETTINGS):
        figure = Figure(figsize=(9, 3.8), layout="constrained")
        for axes, (x, y, name, what) in zip(figure.subplots(1, 2), pairs, strict=True):
            axes.axline(
                (float(x.mean()), float(x.mean())), slope=1, color=GREY, ls=":", lw=1.3,
                label="as the norm alone would make it",
            )  # fmt: skip
            axes.scatter(x, y, s=9, lw=0, alpha=0.6, color=BLUE, rasterized=True)
            axes.set_xlabel(f"{name} of the LayerNorm")
            axes.set_title(what)
            axes.legend(loc="best")
    return figure


def draw_lengths_and_directions(cell: CellCard) -> Figure:
    """Histogram of the lengths, spectrum, and the kept vectors along two directions."""
    several = cell.spectrum is not None
    with rc_context(SETTINGS):
        figure = Figure(figsize=(12 if several else 4.5, 3.6), layout="constrained")
        axes = np.atleast_1d(figure.subplots(1, 3 if several else 1))
        lengths, counts = lengths_of(cell)
        axes[0].hist(lengths, bins=40, weights=counts, color=BLUE)
        axes[0].set_title("length of the vectors")
        axes[0].set_xlabel("Euclidean norm")
        axes[0].set_ylabel("vectors")
        if cell.spectrum is not None:
            shares = cell.spectrum.shares
            axes[1].plot(np.arange(1, len(shares) + 1), shares.cumsum(), color=BLUE, lw=1.8)
            axes[1].axvline(
                cell.spectrum.effective_rank, color=ORANGE, ls="--", lw=1.3,
                label=f"effective rank {cell.spectrum.effective_rank:.1f}",
            )  # fmt: skip
            axes[1].set_xscale("log")
            axes[1].set_ylim(0, 1.02)
            axes[1].set_xlabel("principal directions")
            axes[1].set_title("share of the variance")
            axes[1].legend(loc="best")
            vectors, units, _ = cell.kept
            points = (vectors - cell.table.mean) @ cell.spectrum.directions[:2].T
            if points.shape[1] == 2:
                _, colour = np.unique(units, return_inverse=True)
                axes[2].scatter(*points.T, c=colour % 20, cmap="tab20", s=6, lw=0, rasterized=True)
                axes[2].set_xlabel(f"first direction ({100 * shares[0]:.0f} %)")
                axes[2].set_ylabel(f"second ({100 * shares[1]:.0f} %)")
            axes[2].set_title("kept vectors, coloured by episode")
    return figure


def lengths_of(cell: CellCard) -> tuple[np.ndarray, np.ndarray]:
    """Lengths with weights: of the kept vectors, or bins of all where none were kept."""
    vectors, _, _ = cell.kept
    if not len(vectors):
        return cell.length_bins
    return np.linalg.norm(vectors.astype(np.float64), axis=1), np.ones(len(vectors))


def draw_stability(cell: CellCard) -> Figure:
    """How far two samples differ, by their size."""
    panels = [
        Panel(
            title=f"{STABILITY_WORDS[c.name][0]}: {STABILITY_WORDS[c.name][1]}",
            lines=[
                Line(
                    label="two samples without overlap: median and 95 % of draws", x=c.rows,
                    y=c.middle, low=c.low, high=c.high,
                )
            ],
        )
        for c in cell.stability
    ]  # fmt: skip
    figure = draw_panels(
        panels, x_label="vectors in each sample", y_label="difference",
        title="How far another sample would differ",
    )  # fmt: skip
    for axes, curve in zip(figure.axes, cell.stability, strict=True):
        axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        shown = curve.rows[::-3]
        axes.xaxis.set_major_locator(FixedLocator(shown))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticklabels([f"{n:.0f}" for n in shown])
    return figure


def lines_of(card: Card, word: str) -> dict[str, list[tuple[float, float]]]:
    """One fact over the cells: a line a field and flow time, by layer where there are any."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for place, cell in enumerate(card.cells):
        where, time = cell.cell, cell.cell.flow_time
        label = where.field if time is None else f"{where.field}, t = {time:.2f}"
        x = where.layer if where.layer is not None else place
        lines.setdefault(label, []).append((float(x), cell.facts.get(word) or np.nan))
    return lines


def draw_over_cells(card: Card) -> Figure:
    """A few numbers of every cell side by side."""
    words = {"effective_rank": "effective rank", "length_mean": "mean length",
             "median_std": "median std"}  # fmt: skip
    shown = {w: title for w, title in words.items() if w in card.cells[0].facts}
    layered = card.cells[0].cell.layer is not None
    with rc_context(SETTINGS):
        figure = Figure(figsize=(3.9 * len(shown), 3.4), layout="constrained")
        panels = figure.subplots(1, len(shown))
        for axes, (word, title) in zip(panels, shown.items(), strict=True):
            for label, points in lines_of(card, word).items():
                axes.plot(*zip(*points, strict=True), "o-", ms=3.5, lw=1.4, label=label)
            axes.set_title(title)
            axes.set_xlabel("layer" if layered else "cell")
        handles, labels = panels[0].get_legend_handles_labels()
        if len(labels) <= 10:
            figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    return figure
