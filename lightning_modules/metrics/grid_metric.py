"""The contract of a metric of a whole grid: bounded sums by group of units, then pure functions.

Every state is a sum over samples, kept apart by group of units. So memory does not grow with the
stream, ranks add up exactly, and the bootstrap over units is a weighted sum of the states.

Letters: b batch, c cells, k classes or dimensions, n clusters (episodes), g groups of units,
r draws, m rows of the table of targets.
"""

import dataclasses
from abc import abstractmethod
from collections.abc import Iterable
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int64, Shaped
from torch import Tensor
from torchmetrics import Metric

from datamodules.clusters import Clusters
from datamodules.target_spec import TargetSpec
from lightning_modules.metrics.estimate import GridEstimates
from lightning_modules.metrics.unit_groups import MOST_GROUPS, deal_units, draw_weights

CLASSIFYING = ("cross_entropy", "lda", "ridge_classes")
"""Objectives whose outputs are one number a class."""
STATE_BYTES = 128 * 2**20
"""What one metric may keep, by having fewer groups of units."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetricContext:
    """What metrics must know of the grid before the first batch."""

    cells: int
    target: TargetSpec
    objective: str = ""
    """What the probes were trained for; the target's own objective where it is empty."""
    unit_of_cluster: Int64[np.ndarray, " n"]
    """The split's unit of each episode."""
    steps_of_cluster: Int64[np.ndarray, " n"] | None = None
    """Length of each episode: its last timestep + 1; None leaves the phases out."""
    stride: int = 1
    """What divides every sample's timestep."""
    table: Float[Tensor, "m k"] | None = None
    """Every target vector that there is (one an instruction); None leaves retrieval out."""
    offset: Float[Tensor, " k"] | None = None
    """What the target has already taken away from the embeddings (their mean); a raw cosine puts
    it back. None where nothing was taken away."""

    @classmethod
    def of(
        cls, cells: int, target: TargetSpec, clusters: Clusters, **options: object
    ) -> "MetricContext":
        """The context of a split's clusters."""
        return cls(
            cells=cells, target=target, unit_of_cluster=clusters.unit_of_episode,
            steps_of_cluster=clusters.steps_of_episode, stride=clusters.stride,
            table=torch.tensor(target.table) if target.table else None,
            **options,  # pyright: ignore[reportArgumentType] - passed through
        )  # fmt: skip

    @property
    def trained_for(self) -> str:
        """The objective by name."""
        return self.objective or self.target.objective

    @property
    def classifies(self) -> bool:
        """Whether outputs are one number a class."""
        return self.trained_for in CLASSIFYING

    def groups(self, bytes_a_group: int) -> Int64[np.ndarray, " n"]:
        """The group of each cluster, as many as the memory allows."""
        most = int(np.clip(STATE_BYTES // max(bytes_a_group, 1), 8, MOST_GROUPS))
        return deal_units(self.unit_of_cluster, most)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetricBatch:
    """One evaluated batch."""

    outputs: Float[Tensor, "b c k"]
    targets: Shaped[Tensor, "b ..."]
    clusters: Int[Tensor, " b"]
    timesteps: Int[Tensor, " b"]


class GridMetric(Metric):
    """A metric, or several that share their sums, of every cell at once."""

    full_state_update = False
    names: ClassVar[tuple[str, ...]]
    """What `weighted` returns."""
    count: Tensor
    group_of_cluster: Tensor

    def __init__(self, context: MetricContext) -> None:
        super().__init__()
        self.context = context
        group = context.groups(self.bytes_a_group(context))
        self.register_buffer("group_of_cluster", torch.from_numpy(group), persistent=False)
        self.groups = int(group.max(initial=-1)) + 1
        self.add_sum("count", self.groups, dtype=torch.int64)

    def add_sum(self, name: str, *shape: int, dtype: torch.dtype = torch.float64) -> None:
        """Adds a state that ranks add up."""
        self.add_state(name, torch.zeros(shape, dtype=dtype), dist_reduce_fx="sum")

    @classmethod
    def applies(cls, context: MetricContext) -> bool:
        """Whether this metric makes sense for the target."""
        return True

    @classmethod
    def bytes_a_group(cls, context: MetricContext) -> int:
        """What one group of units takes."""
        return context.cells * 8

    @property
    def chance(self) -> dict[str, float | None]:
        """What a predictor without the latents would get, by name."""
        return dict.fromkeys(self.names)

    def update(self, batch: MetricBatch) -> None:
        """Adds one batch."""
        group = self.group_of_cluster[batch.clusters]
        self.count += torch.bincount(group, minlength=self.groups)
        self.add(batch, group)

    @abstractmethod
    def add(self, batch: MetricBatch, group: Int[Tensor, " b"]) -> None:
        """Adds one batch to the sums of the groups of its samples."""

    @abstractmethod
    def weighted(
        self, weights: Float64[np.ndarray, "r g"]
    ) -> dict[str, Float64[np.ndarray, "c r"]]:
        """The metric where each group counts as often as its weight says."""

    def compute(self) -> dict[str, Float64[np.ndarray, " c"]]:
        """The metric of every cell."""
        return {name: x[:, 0] for name, x in self.weighted(np.ones((1, self.groups))).items()}

    def estimates(self, *, draws: int = 1000, seed: int = 0) -> dict[str, GridEstimates]:
        """The metric of every cell with draws over the units."""
        values = self.compute()
        with self.sync_context():  # the sums of all ranks, which must all ask
            count = self.count.cpu().numpy()
            drawn = self.weighted(draw_weights(count, draws=draws, seed=seed))
        return {
            name: GridEstimates(
                value=values[name], draws=drawn[name], chance=self.chance[name],
                units=int((count > 0).sum()),
            )
            for name in values
        }  # fmt: skip


def add_by_group(state: Tensor, values: Shaped[Tensor, "b ..."], group: Int[Tensor, " b"]) -> None:
    """Adds each sample's values to the row of its group; the group is the state's first axis."""
    state.index_add_(0, group, values.to(state.dtype))


def estimate_all(
    metrics: Iterable[GridMetric], *, draws: int = 1000, seed: int = 0
) -> dict[str, GridEstimates]:
    """The estimates of several metrics by name."""
    found: dict[str, GridEstimates] = {}
    for metric in metrics:
        found |= metric.estimates(draws=draws, seed=seed)
    return found
