"""From the sums of an evaluation to its results.

Letters: c cells, n clusters, g groups of clusters (units of the split).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from datamodules.clusters import Clusters
from lightning_modules.grid_evaluation import GridEvaluation, GroupEvaluation
from lightning_modules.metrics.bootstrap import cluster_bootstrap
from lightning_modules.metrics.by_task import task_intervals
from lightning_modules.metrics.calibration import Calibration
from lightning_modules.metrics.class_recall import BalancedAccuracy
from lightning_modules.metrics.cluster_sums import ClusterSums, mean_by_group, mean_over_samples
from lightning_modules.metrics.estimate import Estimate
from lightning_modules.metrics.grid_confusion import balanced_accuracy
from lightning_modules.metrics.grid_metric import GridMetric, estimate_all
from lightning_modules.metrics.similarity import SimilarityGap
from lightning_modules.probe_spec import ProbeSpec
from lightning_modules.results import (
    CellResult,
    CodeLength,
    ControlResult,
    Interval,
    ProbeResults,
    SimilarityMatrix,
)
from lightning_modules.step_summary import step_scores

Kind = TypeVar("Kind", bound=GridMetric)


def _pairs(intervals: np.ndarray) -> list[Interval]:
    return [(float(low), float(high)) for low, high in intervals]


def regroup(
    metric: ClusterSums, group_of_cluster: Int64[np.ndarray, " n"]
) -> tuple[Float64[np.ndarray, "c g"], Int64[np.ndarray, " g"]]:
    """Sums and counts of a metric by groups of clusters, on the CPU."""
    total, count = (values.cpu().numpy() for values in metric.compute())
    size = int(group_of_cluster.max()) + 1
    grouped, counts = np.zeros((len(total), size)), np.zeros(size, np.int64)
    np.add.at(grouped.T, group_of_cluster, total.T)
    np.add.at(counts, group_of_cluster, count)
    return grouped, counts


@dataclasses.dataclass(frozen=True)
class UnitSums:
    """Sums of scores by unit: of some cells, over one count of samples."""

    total: Float64[np.ndarray, "c g"]
    count: Int64[np.ndarray, " g"]

    def estimates(self) -> list[Estimate]:
        """The mean of each cell with its interval."""
        means = self.total.sum(1) / self.count.sum()
        ends = cluster_bootstrap(self.total, self.count)
        return [
            Estimate(value=float(mean), low=float(low), high=float(high))
            for mean, (low, high) in zip(means, ends, strict=True)
        ]

    def minus(self, other: Float64[np.ndarray, "#c g"]) -> "UnitSums":
        """The difference to other sums over the same samples: intervals are on the same draws."""
        return UnitSums(self.total - other, self.count)


def control_results(
    spec: ProbeSpec, evaluation: GridEvaluation, units: Int64[np.ndarray, " n"], asked: UnitSums
) -> list[dict[str, ControlResult]]:
    """The controls beside each cell that is asked about.

    A control with one cell (robot state, time) stands beside every cell; another one beside the
    cell of its name.
    """
    found: list[dict[str, ControlResult]] = [{} for _ in spec.cells]
    blind = {
        exchanged: regroup(metric, units)[0]
        for exchanged, metric in ((False, evaluation.trivial), (True, evaluation.control_trivial))
    }
    place_of = {cell.name: place for place, cell in enumerate(spec.cells)}
    for number, group in enumerate(spec.groups):
        if group.is_main or group.prefix:
            continue
        own = UnitSums(*regroup(evaluation.of(number).score, units))
        beside = [place_of.get(cell.name) for cell in group.cells]
        pairs = [(i, place) for i, place in enumerate(beside) if place is not None]
        if len(group.cells) == 1 and not pairs:
            pairs = [(0, place) for place in range(len(spec.cells))]
        mine, theirs = [i for i, _ in pairs], [place for _, place in pairs]
        lists = (
            own.estimates(),
            own.minus(blind[group.exchanged]).estimates(),
            UnitSums(asked.total[theirs], asked.count).minus(own.total[mine]).estimates(),
        )
        for n, (i, place) in enumerate(pairs):
            found[place][group.kind] = ControlResult(
                score=lists[0][i], gain=lists[1][i], margin=lists[2][n]
            )
    return found


def _by_task(parts: Sequence[GroupEvaluation], clusters: Clusters) -> list[dict[str, float]]:
    sums = [part.score.compute() for part in parts]
    total, count = torch.cat([total for total, _ in sums]), sums[0][1]
    tasks = Tensor.new_tensor(count, clusters.task_of_episode)
    means = mean_by_group(total, count, tasks, len(clusters.tasks)).cpu().numpy()
    return [
        {task: float(m) for task, m in zip(clusters.tasks, row, strict=True) if np.isfinite(m)}
        for row in means
    ]


def _metrics(parts: Sequence[GroupEvaluation]) -> list[dict[str, Estimate]]:
    cells = []
    for part in parts:
        kinds = [metric for metric in part.metrics.values() if isinstance(metric, GridMetric)]
        found = estimate_all(kinds)
        cells += [
            {name: estimates.cell(place) for name, estimates in found.items()}
            for place in range(part.score.total.shape[0])
        ]
    return cells


def _confusion(
    parts: Sequence[GroupEvaluation], chosen: int
) -> tuple[list[float | None], tuple[tuple[int, ...], ...]]:
    """The balanced accuracy of every cell, and the matrix of the chosen one."""
    counts = [part.confusion.compute() for part in parts if part.confusion is not None]
    if not counts:
        return [None] * sum(part.score.total.shape[0] for part in parts), ()
    whole = torch.cat(counts)
    return balanced_accuracy(whole).tolist(), tuple(map(tuple, whole[chosen].tolist()))


def _of_chosen(
    spec: ProbeSpec, evaluation: GridEvaluation, clusters: Clusters, chosen: int
) -> dict[str, Any]:
    """What is kept of the chosen cell alone: tasks, classes, instructions, calibration."""
    groups = [(i, group) for i, group in enumerate(spec.groups) if group.is_main]
    places = [(i, group, place) for i, group in groups for place in range(len(group.cells))]
    number, group, chosen = places[chosen]
    part = evaluation.of(number)
    same = [
        evaluation.of(i)
        for i, other in enumerate(spec.groups)
        if other.exchanged and not other.prefix and other.cells == group.cells
    ]
    control = same[0] if same else None
    total, count = (values.cpu().numpy() for values in part.score.compute())
    ends = task_intervals(
        total[chosen : chosen + 1], count, clusters.task_of_episode, len(clusters.tasks)
    )[0]
    seen = np.bincount(clusters.task_of_episode, count, minlength=len(clusters.tasks)) > 0
    named = zip(clusters.tasks, _pairs(ends), seen, strict=True)
    return {
        "task_intervals": {task: interval for task, interval, there in named if there},
        **_reliability(part, control, chosen),
        **_recalls(part, control, chosen),
        **_similarity(part, control, chosen),
    }


def _metric(part: GroupEvaluation | None, kind: type[Kind]) -> Kind | None:
    found = [] if part is None else [m for m in part.metrics.values() if isinstance(m, kind)]
    return found[0] if found else None


def _reliability(
    part: GroupEvaluation, control: GroupEvaluation | None, chosen: int
) -> dict[str, Any]:
    own, other = (_metric(p, Calibration) for p in (part, control))
    return {
        "reliability": () if own is None else tuple(own.table(chosen)),
        "control_reliability": () if other is None else tuple(other.table(chosen, draws=0)),
    }


def _recalls(part: GroupEvaluation, control: GroupEvaluation | None, chosen: int) -> dict[str, Any]:
    own, other = (_metric(p, BalancedAccuracy) for p in (part, control))
    if own is None:
        return {}
    names = own.context.target.classes
    theirs = {} if other is None else other.recalls(chosen, draws=1)
    return {
        "class_recall": {names[i]: e for i, e in own.recalls(chosen).items()},
        "control_recall": {names[i]: e.value for i, e in theirs.items()},
    }


def _similarity(
    part: GroupEvaluation, control: GroupEvaluation | None, chosen: int
) -> dict[str, Any]:
    own, other = (_metric(p, SimilarityGap) for p in (part, control))
    if own is None:
        return {}
    low, high = own.matrix_ends(chosen)
    return {
        "similarity": SimilarityMatrix(
            names=own.instructions, low=_rows(low), high=_rows(high),
            read=_rows(own.matrix(chosen)), perfect=_rows(own.embeddings()),
            control=() if other is None else _rows(other.matrix(chosen)),
        )
    }  # fmt: skip


def _rows(matrix: np.ndarray) -> tuple[tuple[float | None, ...], ...]:
    return tuple(tuple(float(x) if np.isfinite(x) else None for x in row) for row in matrix)


def _codes(spec: ProbeSpec, evaluation: GridEvaluation) -> list[CodeLength | None]:
    code = evaluation.code.code(spec.target.size) if spec.prefixes else None
    if code is None:
        return [None] * len(spec.cells)
    return [
        CodeLength(bits=float(bits), uniform=code.uniform, samples=code.samples)
        for bits in code.bits
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
        best_epoch: of each cell that is asked about.
        best_loss: validation loss of each one's best weights.
    """
    units = clusters.unit_of_episode
    parts = [evaluation.of(i) for i, group in enumerate(spec.groups) if group.is_main]
    sums = [regroup(part.score, units) for part in parts]
    asked = UnitSums(np.concatenate([total for total, _ in sums]), sums[0][1])
    blind = UnitSums(*regroup(evaluation.trivial, units))
    scores, gains, trivial = (x.estimates() for x in (asked, asked.minus(blind.total), blind))
    losses = torch.cat([mean_over_samples(*part.loss.compute()) for part in parts])
    controls, by_task = control_results(spec, evaluation, units, asked), _by_task(parts, clusters)
    metrics, chosen = _metrics(parts), int(best_loss.argmin())
    balanced, confusion = _confusion(parts, chosen)
    codes, by_step = _codes(spec, evaluation), step_scores(spec, evaluation)
    objective, target = evaluation.objective, spec.target
    cells = tuple(
        CellResult(
            cell=cell, score=scores[i].value, interval=(scores[i].low, scores[i].high),
            gain=(gains[i].low, gains[i].high), loss=float(losses[i]),
            balanced_accuracy=balanced[i], by_task=by_task[i], best_epoch=int(best_epoch[i]),
            validation_loss=float(best_loss[i]), controls=controls[i], metrics=metrics[i],
            code=codes[i], by_step=by_step[i],
        )
        for i, cell in enumerate(spec.cells)
    )  # fmt: skip
    return ProbeResults(
        split=split, target=target.name, score_name=objective.score,
        samples=int(asked.count.sum()), unit=clusters.unit, units=int((asked.count > 0).sum()),
        episodes=int((parts[0].score.compute()[1] > 0).sum()),
        trivial=trivial[0].value, trivial_interval=(trivial[0].low, trivial[0].high),
        chance=1 / target.size if objective.classifies else 0.0,
        classes=target.classes, cells=cells, chosen=chosen, confusion=confusion,
        split_by=spec.split.get("by", "episode"), **_of_chosen(spec, evaluation, clusters, chosen),
    )  # fmt: skip
