"""The score by layer, a line a flow time, with intervals and yardsticks."""

from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from lightning_modules.figures.control_bars import control_word
from lightning_modules.figures.style import (
    BLUE,
    GREY,
    ORANGE,
    SETTINGS,
    score_word,
    styled_axes,
    trivial_word,
)
from lightning_modules.results import CellResult, ProbeResults

MOST_LINES = 4
"""More flow times than this are thinned out evenly, besides the chosen cell's own; the title says
so, and the heatmap shows all of them."""


def lines_of(results: ProbeResults) -> list[tuple[str, list[CellResult]]]:
    """The cells as labelled lines: over layers, or over flow times where there is no layer."""
    cells = results.cells
    if cells[0].cell.layer is None:
        return [("", list(cells))]
    times = list(dict.fromkeys(c.cell.flow_time for c in cells))
    if len(times) > MOST_LINES:
        steps = {round(i * (len(times) - 1) / (MOST_LINES - 1)) for i in range(MOST_LINES)}
        steps.add(times.index(cells[results.chosen].cell.flow_time))
        times = [times[i] for i in sorted(steps)]
    return [
        (
            "" if time is None else f"t = {time:.2f}",
            [c for c in cells if c.cell.flow_time == time],
        )
        for time in times
    ]


def _places(line: list[CellResult]) -> list[float]:
    return [
        float(c.cell.layer) if c.cell.layer is not None else float(c.cell.flow_time or 0)
        for c in line
    ]


def _draw_line(axes: Axes, label: str, line: list[CellResult], colour: str) -> None:
    x = _places(line)
    low, high = zip(*(c.interval for c in line), strict=True)
    axes.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
    axes.plot(x, [c.score for c in line], "o-", color=colour, lw=1.6, ms=4.5, label=label)


def draw_yardsticks(axes: Axes, results: ProbeResults) -> None:
    """Lines for the trivial predictor and for chance."""
    word = trivial_word(results.score_name)
    label = f"{word} ({results.trivial:.2f})"
    axes.axhline(results.trivial, color=ORANGE, ls="--", lw=1.3, label=label)
    label = f"chance ({results.chance:.2f})"
    axes.axhline(results.chance, color=GREY, ls=":", lw=1.3, label=label)


CONTROL_COLOURS: dict[str, str] = {
    "shuffled": "#b91c1c", "random_projection": "#7c3aed", "untrained": "#0f766e",
    "proprioception": "#a16207", "time": "#be185d",
}  # fmt: skip


def draw_controls(axes: Axes, results: ProbeResults) -> None:
    """A thin line a control, of the cells at the chosen flow time."""
    time = results.cells[results.chosen].cell.flow_time
    every = list(results.cells)
    by_layer = every[0].cell.layer is not None
    line = [c for c in every if c.cell.flow_time == time] if by_layer else every
    for name in dict.fromkeys(name for cell in line for name in cell.controls):
        cells = [cell for cell in line if name in cell.controls]
        scores, x = [cell.controls[name].score for cell in cells], _places(cells)
        colour = CONTROL_COLOURS.get(name, GREY)
        low, high = [s.low for s in scores], [s.high for s in scores]
        axes.fill_between(x, low, high, color=colour, alpha=0.08, linewidth=0)
        values = [score.value for score in scores]
        axes.plot(x, values, ".-", color=colour, lw=0.9, ms=4, label=control_word(name))


def draw_layer_lines(results: ProbeResults) -> Figure:
    """Draws the figure; the chosen cell carries a ring."""
    figure, axes = styled_axes(7.2, 3.9)
    lines = lines_of(results)
    with rc_context(SETTINGS):
        ramp = colormaps["viridis"]
        for i, (label, line) in enumerate(lines):
            colour = BLUE if len(lines) == 1 else to_hex(ramp(0.85 * i / (len(lines) - 1)))
            name = label or f"{results.score_name} with 95 % interval"
            _draw_line(axes, name, line, colour)
        chosen = results.cells[results.chosen]
        axes.plot(
            _places([chosen]), [chosen.score], "o", ms=11, mfc="none", mec="black", mew=1.3,
            label="chosen on validation",
        )  # fmt: skip
        draw_controls(axes, results)
        draw_yardsticks(axes, results)
        by_layer = results.cells[0].cell.layer is not None
        axes.set_xlabel("layer" if by_layer else "flow time (1 = noise, 0 = action)")
        axes.set_xticks(sorted(set(_places(list(results.cells)))))
        if not by_layer:
            axes.invert_xaxis()
        axes.set_ylabel(f"{score_word(results.score_name)} ({results.split})")
        ends = [c.interval[0] for c in results.cells if c.interval[0] == c.interval[0]]
        low = min(0.0, *ends, *(c.score for c in results.cells), results.trivial)
        axes.set_ylim(low - 0.03, 1.03)
        every = len({cell.cell.flow_time for cell in results.cells})
        cut = f" ({len(lines)} of {every} flow times)" if by_layer and len(lines) < every else ""
        axes.set_title(f"{results.target} from {chosen.cell.field}{cut}")
        axes.grid(axis="y", color="#e5e7eb", lw=0.8)
        axes.set_axisbelow(True)
        figure.legend(loc="outside lower center", ncols=3)
    return figure
