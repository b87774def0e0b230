"""Linear probes for every cell of a grid, trained together as one batched matrix product.

A cell never sees another one: it has its own seed, its own weights, its own (element-wise)
optimiser state, and the loss is a sum over cells. So each cell ends where it would have ended
alone, up to the rounding of batched matrix products.

Letters: b batch, c cells, d width, k classes or dimensions.
"""

import hashlib
from typing import Any, Protocol, cast, runtime_checkable

import lightning.pytorch as pl
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor, nn

from datamodules.cell import Cell
from datamodules.clusters import Clusters
from datamodules.latent_batch import LatentBatch
from datamodules.statistics import FeatureStatistics
from datamodules.target_spec import TargetSpec
from lightning_modules.grid_evaluation import GridEvaluation
from lightning_modules.metrics.cluster_sums import mean_over_samples
from lightning_modules.objectives.registry import OBJECTIVES
from lightning_modules.probe_spec import ProbeSpec

REFERENCE_WIDTH = 1024
"""The width (of the action expert of the released models) at which `learning_rate` is given."""


@runtime_checkable
class ProbeData(Protocol):
    """What a probe needs of its data module, once that is set up."""

    cells: tuple[Cell, ...]
    width: int
    target_spec: TargetSpec
    clusters: Clusters
    statistics: FeatureStatistics
    fingerprint: str
    split: dict[str, Any]


def initial_weight(cell: Cell, width: int, size: int, seed: int) -> Float[Tensor, "d k"]:
    """Small random weights that depend on the cell's name and the seed alone."""
    digest = hashlib.sha256(f"{seed}/{cell.name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return torch.randn(width, size, generator=generator) * 0.1 * width**-0.5


class LinearProbe(pl.LightningModule):
    """A grid of linear probes with best weights and early stopping kept for each cell.

    The cells, their width, the target and the features' statistics come from the data module
    when training starts, and from the checkpoint afterwards.

    Args:
        objective: `cross_entropy`, `cosine`, or `auto`: what suits the target.
        learning_rate: of AdamW at width 1024; scaled by sqrt(1024 / width), so that a step moves
            the outputs about as far at any width.
        weight_decay: of AdamW, decoupled.
        patience: a cell stops after so many epochs without a better validation loss.
        min_delta: what counts as better, in units of the loss.
        seed: of the initial weights.
    """

    weight: nn.Parameter
    bias: nn.Parameter
    mean: Float[Tensor, "c d"]
    std: Float[Tensor, "c d"]
    best_weight: Float[Tensor, "c d k"]
    best_bias: Float[Tensor, "c k"]
    best_loss: Float64[Tensor, " c"]
    best_epoch: Int[Tensor, " c"]
    stale: Int[Tensor, " c"]

    def __init__(
        self,
        objective: str = "auto",
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        patience: int = 10,
        min_delta: float = 1e-4,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if objective not in ("auto", *OBJECTIVES):
            raise ValueError(
                f"`objective` must be auto or one of {', '.join(OBJECTIVES)}, but got "
                f"{objective!r}."
            )
        for word, value in (("learning_rate", learning_rate), ("patience", patience)):
            if value <= 0:
                raise ValueError(f"`{word}` must be positive, but got {value}.")
        self.save_hyperparameters()
        self.objective_name = objective
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.patience = patience
        self.min_delta = min_delta
        self.seed = seed
        self.spec: ProbeSpec | None = None
        self.evaluation: GridEvaluation | None = None

    # ------------------------------------------------------------------ building

    def build(self, spec: ProbeSpec) -> None:
        """Creates the parameters for these cells and this target.

        Raises:
            ValueError: if the objective does not suit the target.
        """
        target, cells, d, k = spec.target, spec.cells, spec.width, spec.target.size
        name = target.objective if self.objective_name == "auto" else self.objective_name
        self.objective = OBJECTIVES[name]()
        if self.objective.classifies != bool(target.classes):
            raise ValueError(
                f"`objective` must suit the target {target.name}, but got {name!r}. "
                f"Use {target.objective!r} or auto."
            )
        self.spec = spec
        weight = torch.stack([initial_weight(cell, d, k, self.seed) for cell in cells])
        bias = torch.zeros(len(cells), k)
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        buffers: dict[str, Tensor] = {
            "mean": torch.zeros(len(cells), d),
            "std": torch.ones(len(cells), d),
            "best_weight": weight.clone(),
            "best_bias": bias.clone(),
            "best_loss": torch.full((len(cells),), torch.inf, dtype=torch.float64),
            "best_epoch": torch.full((len(cells),), -1),
            "stale": torch.zeros(len(cells), dtype=torch.int64),
            "trivial": self.objective.trivial_outputs(torch.tensor(target.trivial)),
        }
        for word, value in buffers.items():
            self.register_buffer(word, value)

    @property
    def active(self) -> Bool[Tensor, " c"]:
        """Which cells still train."""
        return self.stale < self.patience

    def setup(self, stage: str) -> None:
        """Builds the grid from the data module, or checks that the data suit the grid.

        Raises:
            ValueError: if the data have other cells, width or target than the checkpoint.
        """
        data = cast(ProbeData, getattr(self.trainer, "datamodule"))  # noqa: B009 - untyped there
        spec = ProbeSpec(
            cells=data.cells, width=data.width, target=data.target_spec,
            fingerprint=data.fingerprint, split=data.split,
        )  # fmt: skip
        if self.spec is None:
            self.build(spec)
            self.mean.copy_(data.statistics.mean)
            self.std.copy_(data.statistics.std)
        else:
            self.spec.check_data(spec)
        self.evaluation = GridEvaluation(spec, self.objective, len(data.clusters))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Puts the grid's description into the checkpoint, in plain types."""
        assert self.spec is not None
        checkpoint["probe_spec"] = self.spec.to_json()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Builds the grid that the checkpoint describes.

        Raises:
            ValueError: if the checkpoint is not of a linear probe, or of another grid.
        """
        if "probe_spec" not in checkpoint:
            raise ValueError(
                "`ckpt_path` must be a checkpoint of LinearProbe, but got one without "
                "`probe_spec`. Give the file that `vla-lens fit` wrote into RUN/checkpoints."
            )
        spec = ProbeSpec.from_json(checkpoint["probe_spec"])
        if self.spec is None:
            self.build(spec)
        else:
            spec.check_data(self.spec)

    # ------------------------------------------------------------------ computing

    def outputs(
        self,
        features: Float[Tensor, "b c d"],
        weight: Float[Tensor, "c d k"],
        bias: Float[Tensor, "c k"],
    ) -> Float[Tensor, "b c k"]:
        """Applies one linear map a cell to normalised features."""
        normal = (features.to(weight.dtype) - self.mean) / self.std
        return torch.einsum("bcd,cdk->bck", normal, weight) + bias

    def forward(self, features: Float[Tensor, "b c d"]) -> Float[Tensor, "b c k"]:
        """Class scores or vectors by the best weights of each cell."""
        return self.outputs(features, self.best_weight, self.best_bias)

    def training_step(self, batch: LatentBatch, batch_idx: int) -> Float[Tensor, ""]:
        """The sum over cells, so that no cell's gradient depends on how many there are."""
        outputs = self.outputs(batch.features, self.weight, self.bias)
        loss = self.objective.loss(outputs, batch.targets).mean(0)
        self.log(
            "train/loss", loss.detach().mean(), prog_bar=True, on_step=False, on_epoch=True,
            batch_size=len(outputs), sync_dist=True,
        )  # fmt: skip
        return loss.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW, whose state is element-wise and so keeps cells apart."""
        return torch.optim.AdamW(
            [self.weight, self.bias],
            lr=self.learning_rate * (REFERENCE_WIDTH / self.weight.shape[1]) ** 0.5,
            weight_decay=self.weight_decay,
        )

    # ------------------------------------------------------------------ evaluating

    def on_validation_epoch_start(self) -> None:
        """Starts counting anew."""
        assert self.evaluation is not None
        self.evaluation.reset()

    on_test_epoch_start = on_validation_epoch_start

    def validation_step(self, batch: LatentBatch, batch_idx: int) -> None:
        """Counts with the current weights while fitting, with the best ones otherwise."""
        fitting = self.trainer.state.fn == "fit"
        outputs = (
            self.outputs(batch.features, self.weight, self.bias)
            if fitting
            else self(batch.features)
        )
        assert self.evaluation is not None
        self.evaluation.update(outputs, self.get_buffer("trivial"), batch)

    def test_step(self, batch: LatentBatch, batch_idx: int) -> None:
        """Counts with the best weights."""
        assert self.evaluation is not None
        self.evaluation.update(self(batch.features), self.get_buffer("trivial"), batch)

    def on_validation_epoch_end(self) -> None:
        """Keeps the best weights of each cell, and stops when no cell improves any more."""
        loss = self._log_means("val")
        if self.trainer.state.fn != "fit" or self.trainer.sanity_checking:
            return
        self.keep_best(loss)
        self.log("val/active_cells", self.active.sum().float(), sync_dist=True)
        if not self.active.any():
            self.trainer.should_stop = True

    def on_test_epoch_end(self) -> None:
        """Logs the means over the cells."""
        self._log_means("test")

    def keep_best(self, loss: Float64[Tensor, " c"]) -> None:
        """Takes the current weights of every active cell whose validation loss is better."""
        better = self.active & (loss < self.best_loss - self.min_delta)
        self.stale += (self.active & ~better).long()
        self.stale[better] = 0
        self.best_loss[better] = loss[better]
        self.best_epoch[better] = self.current_epoch
        self.best_weight[better] = self.weight.detach()[better]
        self.best_bias[better] = self.bias.detach()[better]

    def _log_means(self, split: str) -> Float64[Tensor, " c"]:
        assert self.evaluation is not None
        loss = mean_over_samples(*self.evaluation.loss.compute())
        score = mean_over_samples(*self.evaluation.score.compute())
        name = self.objective.score
        # The metrics are those of all ranks already; Lightning wants to hear that it is so.
        self.log(f"{split}/loss", loss.mean().float(), prog_bar=True, sync_dist=True)
        self.log(f"{split}/{name}", score.mean().float(), prog_bar=True, sync_dist=True)
        return loss

    def predict_step(self, batch: LatentBatch, batch_idx: int) -> Float[Tensor, "b c k"]:
        """Class scores or vectors by the best weights of each cell."""
        return self(batch.features)
