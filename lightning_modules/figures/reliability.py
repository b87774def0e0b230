"""Does a stated probability come true as often as it says?"""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from lightning_modules.figures.style import BLUE, GREY, ORANGE, SETTINGS, styled_axes
from lightning_modules.results import ProbeResults

CONTROL = "trained on exchanged targets"


def _line(rows: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
    return [r["confidence"] for r in rows], [r["accuracy"] for r in rows]


def draw_reliability(results: ProbeResults) -> Figure:
    """Draws accuracy over confidence, with the calibration error and its interval."""
    rows = results.reliability
    chosen = results.cells[results.chosen]
    error = chosen.metrics.get("ece")
    title = f"{results.target}, {chosen.cell.words}"
    title += f": calibration error {error}" if error else ""
    figure, axes = styled_axes(6.6, 4.2)
    most = max(row["samples"] for row in rows)
    with rc_context(SETTINGS):
        axes.plot([0, 1], [0, 1], color=GREY, ls=":", lw=1.3, label="calibrated")
        control = _line(results.control_reliability)
        axes.plot(*control, "o-", color=ORANGE, lw=1.2, ms=4, label=CONTROL)
        axes.plot(*_line(rows), color=BLUE, lw=1.2, label="the probe, 95 % intervals")
        for row in rows:
            size = 3 + 9 * (row["samples"] / most) ** 0.5
            axes.plot(row["confidence"], row["accuracy"], "o", color=BLUE, ms=size)
            if row.get("low") is not None:
                ends = [row["low"], row["high"]]
                axes.plot([row["confidence"]] * 2, ends, color=BLUE, lw=1.6, alpha=0.6)
        axes.set_xlim(0, 1.02)
        axes.set_ylim(-0.02, 1.03)
        axes.set_xlabel("stated probability of the answer (dots: by number of samples)")
        axes.set_ylabel("share that was right")
        axes.set_title(title)
        figure.legend(loc="outside lower center", ncols=3)
    return figure
