"""Everything that is counted while a grid of probes is evaluated on one split.

Letters: b batch, c cells, k classes or dimensions, n clusters.
"""

from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from datamodules.latent_batch import LatentBatch
from lightning_modules.metrics.cluster_sums import ClusterSums
from lightning_modules.metrics.grid_confusion import GridConfusion
from lightning_modules.objectives.objective import Objective
from lightning_modules.probe_spec import ProbeSpec


class GridEvaluation(nn.Module):
    """Loss and score by cluster, those of the trivial predictor, and confusion matrices."""

    def __init__(self, spec: ProbeSpec, objective: Objective, clusters: int) -> None:
        super().__init__()
        self.objective = objective
        cells = len(spec.cells)
        self.loss = ClusterSums(cells, clusters)
        self.score = ClusterSums(cells, clusters)
        self.trivial = ClusterSums(1, clusters)
        classes = spec.target.size if objective.classifies else 0
        self.confusion = GridConfusion(cells, classes) if classes else None

    def update(
        self,
        outputs: Float[Tensor, "b c k"],
        trivial: Float[Tensor, " k"],
        batch: LatentBatch,
    ) -> Float[Tensor, "b c"]:
        """Counts one batch and returns the losses.

        Args:
            outputs: what the probes said.
            trivial: what the trivial predictor says of every sample.
            batch: the targets and clusters.
        """
        targets, clusters = batch.targets, batch.clusters
        loss = self.objective.loss(outputs, targets)
        self.loss.update(loss, clusters)
        self.score.update(self.objective.scores(outputs, targets), clusters)
        blind = trivial.expand(len(outputs), 1, -1)
        self.trivial.update(self.objective.scores(blind, targets), clusters)
        if self.confusion is not None:
            self.confusion.update(outputs.argmax(-1), cast(Tensor, targets))
        return loss

    def reset(self) -> None:
        """Forgets everything, for the next pass."""
        for metric in (self.loss, self.score, self.trivial, self.confusion):
            if metric is not None:
                metric.reset()
