"""The chosen cell beside its controls."""

from matplotlib import rc_context
from matplotlib.figure import Figure

from lightning_modules.figures.style import (
    BLUE,
    GREY,
    ORANGE,
    SETTINGS,
    score_word,
    styled_axes,
    trivial_word,
)
from lightning_modules.metrics.estimate import Estimate
from lightning_modules.results import ProbeResults

CONTROL_WORDS: dict[str, str] = {
    "shuffled": "targets exchanged", "random_projection": "random projection",
    "untrained": "untrained policy", "proprioception": "robot state alone", "time": "time alone",
}  # fmt: skip


def control_word(name: str) -> str:
    """A control as people call it."""
    return CONTROL_WORDS.get(name, name)


def draw_controls(results: ProbeResults) -> Figure:
    """Draws a bar for the probe, one a control, and the trivial predictor's."""
    chosen = results.cells[results.chosen]
    bars = {"the probe": Estimate(value=chosen.score, low=chosen.interval[0],
                                  high=chosen.interval[1])}  # fmt: skip
    bars |= {control_word(name): c.score for name, c in chosen.controls.items()}
    low, high = results.trivial_interval
    bars[trivial_word(results.score_name)] = Estimate(value=results.trivial, low=low, high=high)
    figure, axes = styled_axes(7.2, 1.4 + 0.36 * len(bars))
    with rc_context(SETTINGS):
        for place, estimate in enumerate(bars.values()):
            colour = BLUE if place == 0 else GREY if place < len(bars) - 1 else ORANGE
            axes.barh(place, estimate.value, color=colour, height=0.62)
            if estimate.known:
                axes.plot([estimate.low, estimate.high], [place, place], color="#111827", lw=1.6)
            end = max(estimate.high if estimate.known else estimate.value, 0)
            axes.text(end + 0.015, place, f"{estimate.value:.2f}", va="center", fontsize=9)
        axes.set_yticks(range(len(bars)), list(bars))
        axes.invert_yaxis()
        axes.axvline(results.chance, color=GREY, ls=":", lw=1.3)
        lowest = min([0.0, *(e.low if e.known else e.value for e in bars.values())])
        axes.set_xlim(lowest - 0.02, 1.12)
        axes.set_xlabel(f"{score_word(results.score_name)} ({results.split}); dotted: chance")
        axes.set_title(f"{results.target}, {chosen.cell.words}, beside its controls")
    return figure
