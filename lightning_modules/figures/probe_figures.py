"""Which figures a result has."""

from collections.abc import Callable, Iterator

from matplotlib.figure import Figure

from lightning_modules.figures.confusion_matrix import draw_confusion
from lightning_modules.figures.control_bars import draw_controls
from lightning_modules.figures.fields import by_field
from lightning_modules.figures.heatmap import draw_heatmap
from lightning_modules.figures.layer_lines import draw_layer_lines
from lightning_modules.figures.metric_dots import draw_metrics
from lightning_modules.figures.reliability import draw_reliability
from lightning_modules.figures.task_bars import draw_task_bars
from lightning_modules.results import ProbeResults

CAPTIONS: dict[str, str] = {
    "layers": "Score by layer. Bands: 95 % interval, by bootstrap over whole episodes (tasks, if "
    "split by task). Thin lines: the controls of the same cells at the chosen flow time; dashed: "
    "the trivial predictor; dotted: chance; ring: the cell chosen on validation.",
    "heatmap": "First: score of every cell. Second: by how much it is above its strongest control "
    "(above the trivial predictor, where no control was trained), by the lower end of the 95 % "
    "interval: only what is above 0 is measured. Box: the cell with the lowest validation loss; "
    "line on the colour bar: the trivial predictor.",
    "controls": "The chosen cell beside its controls, with 95 % intervals by drawing whole "
    "episodes (tasks, if split by task).",
    "metrics": "Every metric of the chosen cell with its 95 % interval; grey: what a predictor "
    "that never looks at the latents gets.",
    "tasks": "Score of the chosen cell on the samples of each task, with 95 % intervals by drawing "
    "the task's episodes (none where it has one).",
    "confusion": "What the chosen cell answered (columns) where each class was true (rows); "
    "numbers are samples, colours shares of the row.",
    "curves": "Validation loss by epoch: the chosen cell, the middle 80 % of the others, and the "
    "control with exchanged targets.",
    "reliability": "Accuracy of the chosen cell's answers by the probability that it stated.",
}
"""What each figure shows, by the name of its file up to the first dash."""


def caption_of(name: str) -> str:
    """What a figure shows."""
    kind, _, field = name.partition("-")
    return CAPTIONS[kind] + (f" Here: {field}." if field else "")


def probe_figures(results: ProbeResults) -> Iterator[tuple[str, Figure]]:
    """Draws the figures that make sense for these results, each with its name.

    Of several fields, the one of the chosen cell comes first; names of the others end in theirs.
    """
    first, *others = by_field(results)
    draw: dict[str, Callable[[ProbeResults], Figure]] = {"heatmap": draw_heatmap}
    if len(first.cells) > 1:
        draw = {"layers": draw_layer_lines, **draw}
    if first.cells[first.chosen].controls:
        draw["controls"] = draw_controls
    if first.cells[first.chosen].metrics:
        draw["metrics"] = draw_metrics
    draw["tasks"] = draw_task_bars
    if first.confusion:
        draw["confusion"] = draw_confusion
    if first.reliability:
        draw["reliability"] = draw_reliability
    for name, function in draw.items():
        yield name, function(first)
    for other in others:
        field = other.cells[0].cell.field
        if len(other.cells) > 1:
            yield f"layers-{field}", draw_layer_lines(other)
        yield f"heatmap-{field}", draw_heatmap(other)
