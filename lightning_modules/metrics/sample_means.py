"""Metrics that are means of a value a sample: accuracy, cosine, retrieval, by phase too.

Letters: b batch, c cells, k classes or dimensions, g groups of units, r draws, m rows of the table,
v values a sample, p phases.
"""

from abc import abstractmethod
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from lightning_modules.metrics.grid_metric import (
    GridMetric,
    MetricBatch,
    MetricContext,
    add_by_group,
)

SIMILARITIES_AT_ONCE = 16_000_000
"""Numbers of the comparison of outputs with a table that are held in memory together."""
SAME = 1e-5
"""Rows of a table whose cosine to the target differs from 1 by less are the target itself."""
PHASES = ("early", "middle", "late")
"""Thirds of the episode."""


class SampleMeans(GridMetric):
    """Means over samples of one value a sample, cell and name."""

    total: Tensor
    samples: Tensor

    def __init__(self, context: MetricContext) -> None:
        super().__init__(context)
        self.add_sum("total", self.groups, context.cells, len(self.names))
        self.add_sum("samples", self.groups, len(self.names), dtype=torch.int64)

    @classmethod
    def bytes_a_group(cls, context: MetricContext) -> int:
        """The sums of every cell and name."""
        return context.cells * len(cls.names) * 8

    @abstractmethod
    def values(self, batch: MetricBatch) -> Float[Tensor, "b c v"]:
        """The values whose means are wanted."""

    def counted(self, batch: MetricBatch) -> Bool[Tensor, "b v"]:
        """Which samples count for which name; by default all."""
        return torch.ones(
            len(batch.outputs), len(self.names), dtype=torch.bool, device=batch.outputs.device
        )

    def add(self, batch: MetricBatch, group: Int[Tensor, " b"]) -> None:
        """Adds one batch."""
        counted = self.counted(batch)
        add_by_group(self.total, self.values(batch).double() * counted[:, None], group)
        add_by_group(self.samples, counted, group)

    def weighted(
        self, weights: Float64[np.ndarray, "r g"]
    ) -> dict[str, Float64[np.ndarray, "c r"]]:
        """Weighted means; NaN where nothing counts."""
        total, samples = self.total.cpu().numpy(), self.samples.cpu().numpy()
        found = {}
        for place, name in enumerate(self.names):
            count = weights @ samples[:, place]
            with np.errstate(invalid="ignore", divide="ignore"):
                found[name] = (weights @ total[:, :, place] / count[:, None]).T
        return found


def sample_scores(batch: MetricBatch, context: MetricContext) -> Float[Tensor, "b c"]:
    """1 where the class is right, or the cosine similarity."""
    if context.classifies:
        return (batch.outputs.argmax(-1) == batch.targets[:, None]).float()
    return F.cosine_similarity(batch.outputs, batch.targets[:, None], dim=-1)


class Accuracy(SampleMeans):
    """The share of samples whose largest output is the true class."""

    names: ClassVar = ("accuracy",)

    @classmethod
    def applies(cls, context: MetricContext) -> bool:
        """To classes."""
        return context.classifies

    @property
    def chance(self) -> dict[str, float | None]:
        """One class guessed at random."""
        return {"accuracy": 1 / self.context.target.size}

    def values(self, batch: MetricBatch) -> Float[Tensor, "b c 1"]:
        """1 where the class is right."""
        return sample_scores(batch, self.context)[..., None]


class CosineSimilarity(SampleMeans):
    """Cosine similarity of the outputs and the targets as embedded, and after centring both.

    Embeddings of sentences share most of their direction: their raw cosine is high whatever was
    said. What is left after the mean of the training targets is taken away is what differs.
    """

    names: ClassVar = ("cosine_raw", "cosine_centred")

    @classmethod
    def applies(cls, context: MetricContext) -> bool:
        """To vectors of more than one dimension."""
        return not context.target.classes and context.target.size > 1

    @property
    def chance(self) -> dict[str, float | None]:
        """A random direction, after centring."""
        return {"cosine_raw": None, "cosine_centred": 0.0}

    def values(self, batch: MetricBatch) -> Float[Tensor, "b c 2"]:
        """Both cosines."""
        raw, targets = batch.outputs, batch.targets[:, None]
        mean = raw.new_tensor(self.context.target.trivial)
        offset = 0.0 if self.context.offset is None else self.context.offset.to(raw)
        return torch.stack(
            [
                F.cosine_similarity(raw + offset, targets + offset, dim=-1),
                F.cosine_similarity(raw - mean, targets - mean, dim=-1),
            ],
            dim=-1,
        )


def target_ranks(
    outputs: Float[Tensor, "b c k"], targets: Float[Tensor, "b k"], table: Float[Tensor, "m k"]
) -> Float[Tensor, "b c"]:
    """The place of the true row among all rows of the table, 1 the nearest by cosine.

    Rows that equal the target (two instructions with the same embedding) count once. Of rows that
    are just as near as the true one, half count as nearer, so that a constant output is at chance.
    """
    rows, truth = F.normalize(table, dim=-1), F.normalize(targets, dim=-1)
    other = (truth @ rows.T < 1 - SAME)[:, None]
    parts = []
    step = max(1, SIMILARITIES_AT_ONCE // max(1, len(outputs) * len(rows)))
    for start in range(0, outputs.shape[1], step):
        said = F.normalize(outputs[:, start : start + step], dim=-1)
        own = (said * truth[:, None]).sum(-1, keepdim=True)
        every = torch.einsum("bck,mk->bcm", said, rows)
        nearer = (every > own + SAME) & other
        equal = ((every - own).abs() <= SAME) & other
        parts.append(1 + nearer.sum(-1) + equal.sum(-1) / 2)
    return torch.cat(parts, dim=1)


class Retrieval(SampleMeans):
    """How often the true instruction is the nearest, or among the five nearest; mean 1/rank."""

    names: ClassVar = ("retrieval@1", "retrieval@5", "mrr")

    @classmethod
    def applies(cls, context: MetricContext) -> bool:
        """Where there is a table of two rows or more to choose from."""
        table = context.table
        return not context.target.classes and table is not None and len(table) > 1

    @property
    def chance(self) -> dict[str, float | None]:
        """A row guessed at random."""
        assert self.context.table is not None
        rows = len(self.context.table)
        harmonic = sum(1 / place for place in range(1, rows + 1))
        return dict(zip(self.names, (1 / rows, min(1.0, 5 / rows), harmonic / rows), strict=True))

    def values(self, batch: MetricBatch) -> Float[Tensor, "b c 3"]:
        """Hits and reciprocal ranks, centred on the mean of the training targets."""
        assert self.context.table is not None
        mean = batch.outputs.new_tensor(self.context.target.trivial)
        table = self.context.table.to(batch.outputs)
        ranks = target_ranks(batch.outputs - mean, batch.targets - mean, table - mean)
        return torch.stack([(ranks < 2).float(), (ranks < 6).float(), 1 / ranks], dim=-1)


class PhaseScores(SampleMeans):
    """Accuracy or cosine in the first, second and last third of the episodes."""

    names: ClassVar = tuple(f"phase_{phase}" for phase in PHASES)
    last: Tensor

    def __init__(self, context: MetricContext) -> None:
        super().__init__(context)
        assert context.steps_of_cluster is not None
        self.register_buffer("last", torch.from_numpy(context.steps_of_cluster), persistent=False)

    @classmethod
    def applies(cls, context: MetricContext) -> bool:
        """Where the episodes' lengths are known."""
        return context.steps_of_cluster is not None and context.target.size > 1

    def phases(self, batch: MetricBatch) -> Int[Tensor, " b"]:
        """0, 1 or 2 for each sample."""
        steps = self.last[batch.clusters].clamp(min=1)
        return (len(PHASES) * batch.timesteps // steps).clamp(0, len(PHASES) - 1)

    def counted(self, batch: MetricBatch) -> Bool[Tensor, "b v"]:
        """Each sample counts in its own phase."""
        return F.one_hot(self.phases(batch), len(PHASES)).bool()

    def values(self, batch: MetricBatch) -> Float[Tensor, "b c v"]:
        """The score, whichever phase it is."""
        return sample_scores(batch, self.context)[..., None].expand(-1, -1, len(PHASES))
