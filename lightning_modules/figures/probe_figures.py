"""Which figures a result has."""

from collections.abc import Callable, Iterator

from matplotlib.figure import Figure

from lightning_modules.figures.confusion_matrix import draw_confusion
from lightning_modules.figures.heatmap import draw_heatmap
from lightning_modules.figures.layer_lines import draw_layer_lines
from lightning_modules.figures.task_bars import draw_task_bars
from lightning_modules.results import ProbeResults

CAPTIONS: dict[str, str] = {
    "layers": "Score by layer. Bands: 95 % interval, by bootstrap over whole episodes (tasks, if "
    "split by task). Dashed: the trivial predictor; dotted: chance; ring: the cell chosen on "
    "validation.",
    "heatmap": "Score of every cell. Box: the cell with the lowest validation loss; "
    "line on the colour bar: the trivial predictor.",
    "tasks": "Score of the chosen cell on the samples of each task.",
    "confusion": "What the chosen cell answered (columns) where each class was true (rows); "
    "numbers are samples, colours shares of the row.",
}
"""What each figure shows, by the name of its file."""


def probe_figures(results: ProbeResults) -> Iterator[tuple[str, Figure]]:
    """Draws the figures that make sense for these results, each with its name."""
    draw: dict[str, Callable[[ProbeResults], Figure]] = {
        "heatmap": draw_heatmap,
        "tasks": draw_task_bars,
    }
    if len(results.cells) > 1:
        draw = {"layers": draw_layer_lines, **draw}
    if results.confusion:
        draw["confusion"] = draw_confusion
    for name, function in draw.items():
        yield name, function(results)
