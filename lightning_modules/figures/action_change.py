"""How far actions move when a concept is erased, beside random directions."""

from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_modules.erasure.action_change import ALL, ActionChange, DimensionChange
from lightning_modules.figures.style import BLUE, GREY, ORANGE, SETTINGS
from lightning_modules.metrics.estimate import Estimate

CAPTION = (
    "Root mean square change of the predicted actions at the same states and from the same noise, "
    "each in standard deviations of the plain actions. Bars: 95 % intervals from drawing episodes. "
    "Right: erased minus random on the same draws; an interval that leaves out zero is a "
    "difference. Crosses: each file of random directions by itself."
)


def draw_change(change: ActionChange) -> Figure:
    """Draws the changes on the left and their difference on the right, all in plain deviations."""
    with rc_context(SETTINGS):
        figure = Figure(figsize=(9.6, 1.6 + 0.42 * len(change.rows)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        _draw_sizes(left, change.rows)
        for place, row in enumerate(change.rows):
            _draw_estimate(right, place, row.difference, BLUE, None, unit_of(row))
        right.axvline(0.0, color=GREY, ls=":", lw=1.3)
        right.set_title("erased minus random")
        left.set_yticks(range(len(change.rows)), [dimension_word(row) for row in change.rows])
        left.invert_yaxis()
        for axes in (left, right):
            axes.grid(axis="x", color="#e5e7eb", lw=0.8)
            axes.set_axisbelow(True)
            axes.set_xlabel("standard deviations of the plain actions")
        figure.legend(loc="outside lower center", ncols=3)
    return figure


def dimension_word(row: DimensionChange) -> str:
    """The row as a label."""
    return "all together" if row.dimension == ALL else f"action {row.dimension}"


def unit_of(row: DimensionChange) -> float:
    """What the row's numbers are divided by in the figure; 1 where nothing ever varies."""
    return row.spread or 1.0


def _draw_sizes(axes: Axes, rows: Sequence[DimensionChange]) -> None:
    for place, row in enumerate(rows):
        first, unit = place == 0, unit_of(row)
        label = "concept erased" if first else None
        _draw_estimate(axes, place - 0.14, row.erased, BLUE, label, unit)
        label = "random directions" if first else None
        _draw_estimate(axes, place + 0.14, row.random, ORANGE, label, unit)
        shown = [value / unit for value in row.random_files]
        if len(shown) > 1:
            label = "each file of random directions" if first else None
            axes.plot(shown, [place + 0.3] * len(shown), "x", color=GREY, ms=4, label=label)
    axes.set_xlim(left=0)
    axes.set_title("change of the actions")


def _draw_estimate(
    axes: Axes, place: float | int, estimate: Estimate, colour: str, label: str | None, unit: float
) -> None:
    if estimate.known:
        ends = [estimate.low / unit, estimate.high / unit]
        axes.plot(ends, [place, place], color=colour, lw=2.4)
    axes.plot(estimate.value / unit, place, "o", color=colour, ms=6, label=label)
