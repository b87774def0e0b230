"""What a grid of probes achieved on one split, with its uncertainty and its yardsticks."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from datamodules.cell import Cell
from datamodules.clusters import Clusters
from lightning_modules.grid_evaluation import GridEvaluation
from lightning_modules.metrics.bootstrap import cluster_bootstrap
from lightning_modules.metrics.cluster_sums import mean_by_group, mean_over_samples
from lightning_modules.metrics.grid_confusion import balanced_accuracy
from lightning_modules.probe_spec import ProbeSpec

Interval = tuple[float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CellResult:
    """One probe on one split."""

    cell: Cell
    score: float
    interval: Interval
    """95 % interval of the score, by bootstrap over episodes; NaN with fewer than two."""
    gain: Interval
    """The same of the score minus the trivial predictor's, on the same draws."""
    loss: float
    balanced_accuracy: float | None
    best_epoch: int
    """The epoch whose weights are used; -1 if none was better than the start."""
    validation_loss: float | None
    """None where the grid was never validated."""
    by_task: dict[str, float]
    """The score on the samples of each task of the split."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeResults:
    """All probes on one split."""

    split: str
    target: str
    score_name: str
    """`accuracy` or `cosine`."""
    span: Interval
    """Range of the score that figures show."""
    samples: int
    episodes: int
    trivial: float
    """Score of the majority class or mean vector of the training rows."""
    trivial_interval: Interval
    chance: float
    """1/classes, or 0 for a cosine."""
    classes: tuple[str, ...]
    cells: tuple[CellResult, ...]
    chosen: int
    """The cell with the lowest validation loss: the test data had no say in the choice."""
    confusion: tuple[tuple[int, ...], ...]
    """Of the chosen cell: true class, then predicted class; empty for vectors."""

    def to_json(self) -> dict[str, Any]:
        """Plain types; NaN becomes null."""
        return json.loads(json.dumps(dataclasses.asdict(self)), parse_constant=lambda _: None)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "ProbeResults":
        """Reads what `to_json` wrote."""
        values = dict(entry)
        values["cells"] = tuple(_cell_result(cell) for cell in entry["cells"])
        for word in ("span", "trivial_interval"):
            values[word] = _interval(entry[word])
        values["classes"] = tuple(entry["classes"])
        values["confusion"] = tuple(tuple(row) for row in entry["confusion"])
        return cls(**values)


def _interval(pair: list[float | None]) -> Interval:
    low, high = (float("nan") if value is None else value for value in pair)
    return low, high


def _cell_result(entry: Mapping[str, Any]) -> CellResult:
    values = {**entry, "cell": Cell.from_json(entry["cell"])}
    values |= {word: _interval(entry[word]) for word in ("interval", "gain")}
    return CellResult(**values)


def _pairs(intervals: np.ndarray) -> list[Interval]:
    return [(float(low), float(high)) for low, high in intervals]


def _by_task(evaluation: GridEvaluation, clusters: Clusters) -> list[dict[str, float]]:
    total, count = evaluation.score.compute()
    tasks = Tensor.new_tensor(count, clusters.task_of_episode)
    means = mean_by_group(total, count, tasks, len(clusters.tasks)).cpu().numpy()
    return [
        {task: float(m) for task, m in zip(clusters.tasks, row, strict=True) if np.isfinite(m)}
        for row in means
    ]


def summarise(
    spec: ProbeSpec,
    evaluation: GridEvaluation,
    clusters: Clusters,
    *,
    split: str,
    best_epoch: Tensor,
    best_loss: Tensor,
) -> ProbeResults:
    """Turns the sums of an evaluation into results.

    Args:
        spec: the grid.
        evaluation: the sums.
        clusters: the episodes they are kept by.
        split: `val` or `test`.
        best_epoch: of each cell.
        best_loss: validation loss of each cell's best weights.
    """
    total, count = (t.cpu().numpy() for t in evaluation.score.compute())
    blind = evaluation.trivial.compute()[0].cpu().numpy()
    scores, losses = total.sum(1) / count.sum(), mean_over_samples(*evaluation.loss.compute())
    intervals = _pairs(cluster_bootstrap(total, count))
    gains = _pairs(cluster_bootstrap(total - blind, count))
    by_task = _by_task(evaluation, clusters)
    chosen = int(best_loss.argmin())
    confusion: tuple[tuple[int, ...], ...] = ()
    balanced: list[float | None] = [None] * len(spec.cells)
    if evaluation.confusion is not None:
        counts = evaluation.confusion.compute()
        balanced = list(balanced_accuracy(counts).tolist())
        confusion = tuple(tuple(row) for row in counts[chosen].tolist())
    objective, target = evaluation.objective, spec.target
    cells = tuple(
        CellResult(
            cell=cell, score=float(scores[i]), interval=intervals[i], gain=gains[i],
            loss=float(losses[i]), balanced_accuracy=balanced[i], by_task=by_task[i],
            best_epoch=int(best_epoch[i]), validation_loss=float(best_loss[i]),
        )
        for i, cell in enumerate(spec.cells)
    )  # fmt: skip
    return ProbeResults(
        split=split, target=target.name, score_name=objective.score, span=objective.span,
        samples=int(count.sum()), episodes=int((count > 0).sum()),
        trivial=float(blind.sum() / count.sum()),
        trivial_interval=_pairs(cluster_bootstrap(blind, count))[0],
        chance=1 / target.size if objective.classifies else 0.0,
        classes=target.classes, cells=cells, chosen=chosen, confusion=confusion,
    )  # fmt: skip


def load_results(path: Path) -> ProbeResults:
    """Reads a result file that a run wrote."""
    return ProbeResults.from_json(json.loads(path.read_text(encoding="utf-8")))
