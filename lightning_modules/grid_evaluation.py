"""Everything that is counted while a grid of probes is evaluated on one split.

Letters: b batch, c cells, k classes or dimensions, n clusters.
"""

from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn
from torchmetrics import Metric

from datamodules.clusters import Clusters
from datamodules.latent_batch import LatentBatch
from lightning_modules.controls.online import OnlineCodeSums, rows_of_prefix
from lightning_modules.metrics.cluster_sums import ClusterSums
from lightning_modules.metrics.grid_confusion import GridConfusion
from lightning_modules.metrics.grid_metric import GridMetric, MetricBatch, MetricContext
from lightning_modules.metrics.registry import metrics_for
from lightning_modules.metrics.step_sums import StepSums
from lightning_modules.objectives.objective import Objective
from lightning_modules.probe_group import GroupSpec
from lightning_modules.probe_spec import ProbeSpec


class GroupEvaluation(nn.Module):
    """Loss and score of a group's cells by cluster; of what is asked about, all metrics too."""

    def __init__(
        self,
        group: GroupSpec,
        context: MetricContext,
        objective: Objective,
    ) -> None:
        super().__init__()
        self.objective = objective
        cells, clusters = context.cells, len(context.unit_of_cluster)
        self.loss = ClusterSums(cells, clusters)
        self.score = ClusterSums(cells, clusters)
        classes = context.target.size if group.is_main and objective.classifies else 0
        self.confusion = GridConfusion(cells, classes) if classes else None
        asked = group.is_main or (group.exchanged and not group.prefix)
        kinds = metrics_for(context, control_task=group.exchanged) if asked else {}
        self.metrics = nn.ModuleDict(kinds)
        self.steps = None if group.prefix else steps_of(context)

    def update(
        self, outputs: Float[Tensor, "b c k"], targets: Shaped[Tensor, "b ..."], batch: LatentBatch
    ) -> None:
        """Counts one batch, as far as training needs it."""
        self.loss.update(self.objective.loss(outputs, targets), batch.clusters)
        self.score.update(self.objective.scores(outputs, targets), batch.clusters)

    def update_metrics(
        self, outputs: Float[Tensor, "b c k"], targets: Shaped[Tensor, "b ..."], batch: LatentBatch
    ) -> None:
        """Counts one batch for everything else that results show."""
        if self.steps is not None:
            scores = self.objective.scores(outputs, targets)
            self.steps.update(scores, batch.clusters, batch.timestep)
        if self.confusion is not None:
            self.confusion.update(outputs.argmax(-1), cast(Tensor, targets))
        given = MetricBatch(
            outputs=outputs, targets=targets, clusters=batch.clusters, timesteps=batch.timestep
        )
        for metric in self.metrics.values():
            cast(GridMetric, metric).update(given)


class GridEvaluation(nn.Module):
    """The evaluations of all groups, and of the predictors that never look at the latents."""

    def __init__(
        self,
        spec: ProbeSpec,
        objective: Objective,
        clusters: Clusters,
        *,
        blocks: Int64[np.ndarray, " n"],
        trained_for: str = "",
    ) -> None:
        """Prepares counting.

        Args:
            spec: the grid.
            objective: gives losses and scores.
            clusters: the episodes.
            blocks: the block of the online code that each of them belongs to, or -1.
            trained_for: the objective's name; the target's own where it is empty.
        """
        super().__init__()
        self.spec = spec
        self.objective = objective
        self.groups = nn.ModuleList(
            GroupEvaluation(
                group,
                MetricContext.of(len(group.cells), spec.target, clusters, objective=trained_for),
                objective,
            )
            for group in spec.groups
        )
        self.trivial = ClusterSums(1, len(clusters))
        self.control_trivial = ClusterSums(1, len(clusters))
        self.trivial_steps = StepSums(
            1, clusters.unit_of_episode, clusters.steps_of_episode, clusters.stride
        )
        self.code = OnlineCodeSums(len(spec.cells), blocks)

    def of(self, place: int) -> GroupEvaluation:
        """The evaluation of one group."""
        return cast(GroupEvaluation, self.groups[place])

    def update(
        self,
        outputs: Mapping[int, Float[Tensor, "b _c k"]],
        trivial: Float[Tensor, " k"],
        batch: LatentBatch,
        *,
        all_metrics: bool,
    ) -> None:
        """Counts one batch.

        Args:
            outputs: what the probes of each group said, by its place; groups may be left out.
            trivial: what the trivial predictor says of every sample.
            batch: the targets and clusters.
            all_metrics: whether to count more than training needs.
        """
        for place, said in outputs.items():
            targets = targets_of(self.spec.groups[place], batch)
            self.of(place).update(said, targets, batch)
            if all_metrics:
                self.of(place).update_metrics(said, targets, batch)
        blind = trivial.expand(len(batch.targets), 1, -1)
        pairs = ((self.trivial, batch.targets), (self.control_trivial, batch.control_targets))
        for metric, targets in pairs:
            metric.update(self.objective.scores(blind, targets), batch.clusters)
        if all_metrics:
            scores = self.objective.scores(blind, batch.targets)
            self.trivial_steps.update(scores, batch.clusters, batch.timestep)

    def training_loss(
        self, group: GroupSpec, outputs: Float[Tensor, "b c k"], batch: LatentBatch
    ) -> Float[Tensor, " c"]:
        """The mean loss of each cell of a group over the samples that it may train on."""
        loss = self.objective.loss(outputs, targets_of(group, batch))
        if not group.prefix:
            return loss.mean(0)
        used = rows_of_prefix(group.prefix, self.code.block, batch.clusters)
        count, ranks = used.sum(), 1
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            # Ranks' gradients are averaged: this makes it one mean over the samples of all.
            torch.distributed.all_reduce(count)
            ranks = torch.distributed.get_world_size()
        return loss[used].sum(0) * ranks / count.clamp(min=1)

    def reset(self, *, all_metrics: bool) -> None:
        """Forgets everything, for the next pass.

        Args:
            all_metrics: also those that training leaves empty.
        """
        parts = [self.of(place) for place in range(len(self.groups))]
        used = [self.trivial, self.control_trivial]
        used += [metric for part in parts for metric in (part.loss, part.score)]
        every = [module for module in self.modules() if isinstance(module, Metric)]
        for metric in every if all_metrics else used:
            metric.reset()


def steps_of(context: MetricContext) -> StepSums | None:
    """Sums by rollout step, where the episodes' lengths are known."""
    if context.steps_of_cluster is None:
        return None
    return StepSums(
        context.cells, context.unit_of_cluster, context.steps_of_cluster, context.stride
    )


def targets_of(group: GroupSpec, batch: LatentBatch) -> Shaped[Tensor, "b ..."]:
    """What a group's cells are to say."""
    return batch.control_targets if group.exchanged else batch.targets
