"""Figures of recorded episodes: lengths, actions, instructions, strata."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightning_modules.figures.style import BLUE, ORANGE, SETTINGS, shorten_name, styled_axes
from lightning_modules.recordings.action_sums import BINS, ActionSums

MOST_BARS = 30
MOST_BINS = 40
MOST_LABELS = 12
"""Bars of one kind of stratum."""
MARKED = (0.05, 0.5, 0.95)
"""Quantiles that are drawn into the histograms of actions."""
COLUMNS = 4


def draw_lengths(lengths: Sequence[int]) -> Figure:
    """How long episodes are."""
    figure, axes = styled_axes(7.2, 3.2)
    with rc_context(SETTINGS):
        low, high = min(lengths), max(lengths)
        # Bins hold equally many whole numbers: others would make gaps and peaks of their own.
        step = -(-(high - low + 1) // MOST_BINS)
        edges = np.arange(low, high + step + 1, step) - 0.5
        axes.hist(lengths, bins=edges.tolist(), color=BLUE)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("steps")
        axes.set_ylabel("episodes")
        axes.set_title(f"Length of {len(lengths):,} episodes")
    return figure


def draw_counts(counts: Mapping[str, int], title: str) -> Figure:
    """How many episodes each label has, the most frequent first."""
    shown = list(counts.items())[:MOST_BARS]
    figure, axes = styled_axes(7.2, 1.3 + 0.27 * len(shown))
    with rc_context(SETTINGS):
        places = range(len(shown))
        axes.barh(places, [count for _, count in shown], color=BLUE, height=0.66)
        _ = axes.set_yticks(places, [shorten_name(name) for name, _ in shown], fontsize=8)
        axes.invert_yaxis()
        axes.set_xlabel("episodes")
        more = f" (first {len(shown)} of {len(counts)})" if len(counts) > len(shown) else ""
        axes.set_title(title + more)
    return figure


def draw_strata(strata: Mapping[str, Mapping[str, int]]) -> Figure:
    """How many episodes each label of each kind of stratum has; what is rare is taken together."""
    shown = {title: _most_frequent(counts) for title, counts in strata.items()}
    heights = [len(counts) + 2.2 for counts in shown.values()]
    with rc_context(SETTINGS):
        figure = Figure(figsize=(7.2, 0.24 * sum(heights)), layout="constrained")
        grid = figure.subplots(len(shown), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (title, counts) in zip(grid, shown.items(), strict=True):
            axes.barh(range(len(counts)), list(counts.values()), color=BLUE, height=0.66)
            names = [shorten_name(name) for name in counts]
            axes.set_yticks(range(len(counts)), names, fontsize=8)
            axes.invert_yaxis()
            axes.set_title(title)
        grid[-1].set_xlabel("episodes")
    return figure


def _most_frequent(counts: Mapping[str, int]) -> dict[str, int]:
    if len(counts) <= MOST_LABELS:
        return dict(counts)
    listed = list(counts.items())
    rest = listed[MOST_LABELS - 1 :]
    others = {f"{len(rest)} others": sum(count for _, count in rest)}
    return dict(listed[: MOST_LABELS - 1]) | others


def draw_actions(sums: ActionSums) -> Figure:
    """A histogram of each dimension of the actions with quantiles, from counts of the stream."""
    quantiles = BINS.quantiles(sums.counts, np.asarray(MARKED))
    size = len(sums.counts)
    columns = min(COLUMNS, size)
    rows = -(-size // columns)
    with rc_context(SETTINGS):
        figure = Figure(figsize=(2.5 * columns, 0.6 + 1.9 * rows), layout="constrained")
        for dim in range(size):
            axes = figure.add_subplot(rows, columns, dim + 1)
            low, high = sums.low[dim], sums.high[dim]
            edges = np.linspace(low, high if high > low else low + 1e-9, 41)
            middles = np.clip(BINS.middles, low, high)
            axes.hist(middles, bins=edges.tolist(), weights=sums.counts[dim], color=BLUE)
            for share, value in zip(MARKED, quantiles[:, dim], strict=True):
                axes.axvline(value, color=ORANGE, lw=1.3, ls="-" if share == 0.5 else ":")
            axes.set_title(f"dimension {dim}", fontsize=9)
            axes.set_yticks([])
        figure.suptitle(
            f"Actions of {sums.steps:,} steps; orange: 5, 50 and 95 %", x=0.01, ha="left",
            fontsize=10,
        )  # fmt: skip
    return figure
