"""All metrics of the chosen cell, each with its interval and with what it is without latents."""

from matplotlib import rc_context
from matplotlib.figure import Figure

from lightning_modules.figures.style import BLUE, GREY, SETTINGS, styled_axes
from lightning_modules.metrics.estimate import Estimate
from lightning_modules.results import ProbeResults

WORDS: dict[str, str] = {
    "balanced_accuracy": "balanced accuracy", "auroc": "AUROC, class against rest",
    "ece": "calibration error", "cosine_raw": "cosine, raw", "cosine_centred": "cosine, centred",
    "similarity_gap": "cosine to own minus others", "mrr": "mean reciprocal rank", "r2": "R²",
    "phase_early": "first third of the episode", "phase_middle": "second third",
    "phase_late": "last third",
}  # fmt: skip


def metric_word(name: str) -> str:
    """A metric as people call it."""
    return WORDS.get(name, name)


def draw_metrics(results: ProbeResults) -> Figure:
    """Draws one row a metric."""
    chosen = results.cells[results.chosen]
    low, high = chosen.interval
    score = Estimate(value=chosen.score, low=low, high=high, chance=results.chance)
    rows = {results.score_name: score, **chosen.metrics}
    figure, axes = styled_axes(7.2, 1.5 + 0.32 * len(rows))
    with rc_context(SETTINGS):
        for place, (_, estimate) in enumerate(rows.items()):
            if estimate.known:
                axes.plot([estimate.low, estimate.high], [place, place], color=BLUE, lw=2.4)
            label = "value with 95 % interval" if place == 0 else None
            axes.plot(estimate.value, place, "o", color=BLUE, ms=6, label=label)
            if estimate.chance is not None:
                label = "without latents" if place == 0 else None
                axes.plot(estimate.chance, place, "|", color=GREY, ms=14, mew=2.2, label=label)
        axes.set_yticks(range(len(rows)), [metric_word(name) for name in rows])
        axes.invert_yaxis()
        axes.grid(axis="x", color="#e5e7eb", lw=0.8)
        axes.set_axisbelow(True)
        axes.set_title(f"{results.target}, {chosen.cell.words} ({results.split})")
        figure.legend(loc="outside lower center", ncols=2)
    return figure
