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
from lightning_modules.figures.rollout_steps import draw_rollout_steps
from lightning_modules.figures.similarity_matrix import draw_similarity
from lightning_modules.figures.task_bars import draw_task_bars
from lightning_modules.results import CellResult, ProbeResults

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
    "numbers are samples, colours shares of the row. Right: the share of each class that was "
    "recognised, with 95 % intervals by drawing whole units of the split (none where one unit "
    "holds the class), beside the same cell "
    "trained on exchanged targets.",
    "steps": "Left: score of every cell by rollout step; between the red lines: the chosen cell. "
    "Right: by how much it is above the strongest control of the same step (above the trivial "
    "predictor, where that is stronger), by the lower end of the 95 % interval.",
    "similarity": "Mean cosine of the chosen cell's readings of each instruction (rows) to every "
    "instruction's embedding (columns), both centred, beside the same cell trained on exchanged "
    "instructions, and beside what perfect readings would give. Empty rows: not in this split. "
    "±: half the width of the 95 % interval by drawing whole units of the split (none where one "
    "unit holds the instruction).",
    "curves": "Validation loss by epoch: the chosen cell, the middle 80 % of all cells, and the "
    "control with exchanged targets. Bands: 95 % intervals by drawing whole units of the split.",
    "reliability": "Accuracy of the chosen cell's answers by the probability that it stated, with "
    "95 % intervals by drawing whole units of the split (none where one unit fills the bin), "
    "beside the same cell trained on exchanged targets.",
}
"""What each figure shows, by the name of its file up to the first dash."""


def caption_of(name: str) -> str:
    """What a figure shows."""
    kind, _, field = name.partition("-")
    return CAPTIONS[kind] + (f" Here: {field}." if field else "")


Draw = Callable[[ProbeResults], Figure]
Applies = Callable[[ProbeResults, CellResult], bool]
FIGURES: dict[str, tuple[Applies, Draw]] = {
    "layers": (lambda results, _: len(results.cells) > 1, draw_layer_lines),
    "heatmap": (lambda *_: True, draw_heatmap),
    "controls": (lambda _, chosen: bool(chosen.controls), draw_controls),
    "metrics": (lambda _, chosen: bool(chosen.metrics), draw_metrics),
    "tasks": (lambda *_: True, draw_task_bars),
    "steps": (lambda _, chosen: bool(chosen.by_step), draw_rollout_steps),
    "similarity": (lambda results, _: results.similarity is not None, draw_similarity),
    "confusion": (lambda results, _: bool(results.confusion), draw_confusion),
    "reliability": (lambda results, _: bool(results.reliability), draw_reliability),
}
"""When a figure makes sense, given the results and their chosen cell, and what draws it."""
OF_EVERY_FIELD = ("layers", "heatmap", "steps")


def probe_figures(results: ProbeResults) -> Iterator[tuple[str, Figure]]:
    """Draws the figures that make sense for these results, each with its name.

    Of several fields, the one of the chosen cell comes first; names of the others end in theirs.
    """
    first, *others = by_field(results)
    for name, (applies, draw) in FIGURES.items():
        if applies(first, first.cells[first.chosen]):
            yield name, draw(first)
    for other in others:
        chosen = other.cells[other.chosen]
        for name in OF_EVERY_FIELD:
            applies, draw = FIGURES[name]
            if applies(other, chosen):
                yield f"{name}-{chosen.cell.field}", draw(other)
