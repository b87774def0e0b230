"""From the sums of an evaluation to its results."""

import numpy as np
from jaxtyping import Float64, Int64
from torch import Tensor

from datamodules.clusters import Clusters
from lightning_modules.grid_evaluation import GridEvaluation
from lightning_modules.metrics.bootstrap import cluster_bootstrap
from lightning_modules.metrics.cluster_sums import ClusterSums, mean_by_group, mean_over_samples
from lightning_modules.metrics.grid_confusion import balanced_accuracy
from lightning_modules.probe_spec import ProbeSpec
from lightning_modules.results import CellResult, Interval, ProbeResults


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
    units = clusters.unit_of_episode
    total, count = regroup(evaluation.score, units)
    _, by_episode = evaluation.score.compute()  # over all ranks; the metric's state is this one's
    blind, _ = regroup(evaluation.trivial, units)
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
        split=split, target=target.name, score_name=objective.score,
        samples=int(count.sum()), unit=clusters.unit, units=int((count > 0).sum()),
        episodes=int((by_episode > 0).sum()),
        trivial=float(blind.sum() / count.sum()),
        trivial_interval=_pairs(cluster_bootstrap(blind, count))[0],
        chance=1 / target.size if objective.classifies else 0.0,
        classes=target.classes, cells=cells, chosen=chosen, confusion=confusion,
    )  # fmt: skip
