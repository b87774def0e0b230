"""The chosen cell's score on each task."""

from matplotlib import rc_context
from matplotlib.figure import Figure

from lightning_modules.figures.style import (
    BLUE,
    GREY,
    ORANGE,
    SETTINGS,
    score_word,
    shorten_name,
    styled_axes,
    trivial_word,
)
from lightning_modules.results import ProbeResults

MOST_TASKS = 40
"""Of more tasks, the lowest scores are drawn."""


def draw_task_bars(results: ProbeResults) -> Figure:
    """Draws one bar a task, in the order of the tasks."""
    chosen = results.cells[results.chosen]
    tasks = sorted(chosen.by_task.items())
    lowest = sorted(tasks, key=lambda item: item[1])[:MOST_TASKS]
    left_out = len(tasks) - len(lowest)
    tasks = [item for item in tasks if item in lowest]
    figure, axes = styled_axes(7.2, 1.8 + 0.27 * len(tasks))
    with rc_context(SETTINGS):
        places = range(len(tasks))
        axes.barh(places, [value for _, value in tasks], color=BLUE, height=0.66)
        for place, (task, value) in zip(places, tasks, strict=True):
            low, high = results.task_intervals.get(task, (value, value))
            axes.plot([low, high], [place, place], color="#111827", lw=1.4)
            end = max(value, 0 if high != high else high)
            axes.text(
                end + 0.012, place, f"{value:.2f}", va="center", fontsize=8,
                bbox={"fc": "white", "ec": "none", "pad": 0.6},
            )  # fmt: skip
        _ = axes.set_yticks(places, [shorten_name(name, 48) for name, _ in tasks], fontsize=8)
        axes.invert_yaxis()
        label = f"{trivial_word(results.score_name)}, all tasks ({results.trivial:.2f})"
        axes.axvline(results.trivial, color=ORANGE, ls="--", lw=1.3, label=label)
        axes.set_xlim(min(0.0, *(v for _, v in tasks)) - 0.02, 1.1)
        axes.set_xlabel(f"{score_word(results.score_name)} ({results.split})")
        exchanged = chosen.controls.get("shuffled")
        if exchanged is not None:
            score = exchanged.score.value
            label = f"targets exchanged, all tasks ({score:.2f})"
            axes.axvline(score, color=GREY, ls=":", lw=1.3, label=label)
        figure.legend(loc="outside lower center", ncols=2)
        cut = f" (lowest {len(tasks)} of {len(tasks) + left_out})" if left_out else ""
        axes.set_title(f"{results.target} by task{cut}, {chosen.cell.words}")
    return figure
