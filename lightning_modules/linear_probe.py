"""Linear probes for every cell of a grid, trained together as one batched matrix product.

A cell never sees another one: it has its own seed, its own weights, its own (element-wise)
optimiser state, and the loss is a sum over cells. So each cell ends where it would have ended
alone, up to the rounding of batched matrix products. Controls are more cells in the same pass.

Letters: b batch, c cells, d width, k classes or dimensions.
"""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any, cast

import lightning.pytorch as pl
import torch
from jaxtyping import Float, Float64, Int
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from datamodules.latent_batch import LatentBatch
from lightning_modules import probe_setup, rounds
from lightning_modules.closed_form.registry import CLOSED_FORMS, closed_form_objective
from lightning_modules.closed_form.solver import ClosedFormSolver
from lightning_modules.controls.online import blocks_of_clusters
from lightning_modules.controls.registry import Controls, Grid, control_names, plan_groups
from lightning_modules.grid_evaluation import GridEvaluation
from lightning_modules.grid_product import said_by
from lightning_modules.metrics.cluster_sums import mean_over_samples
from lightning_modules.objectives.registry import OBJECTIVES
from lightning_modules.probe_data import ProbeData
from lightning_modules.probe_group import FeatureScaler, ProbeGroup
from lightning_modules.probe_spec import ProbeSpec
from lightning_modules.statistics.grid_permutation import GridPermutation, PermutationSettings
from lightning_modules.statistics.permutation import PermutationTest

_log = logging.getLogger(__name__)
REFERENCE_WIDTH = 1024
"""The width (of the action expert of the released models) at which `learning_rate` is given."""


class LinearProbe(pl.LightningModule):
    """A grid of linear probes with best weights and early stopping kept for each cell.

    The cells, their widths, the target and the features' statistics come from the data module
    when training starts, and from the checkpoint afterwards.

    Args:
        objective: `cross_entropy`, `cosine`, or `auto`: what suits the target; or a closed form,
            `ridge` or `lda`, which is solved in as few passes as `memory_budget` allows.
        learning_rate: of AdamW at width 1024; scaled by sqrt(1024 / width), so that a step moves
            the outputs about as far at any width.
        weight_decay: of AdamW, decoupled.
        patience: a cell stops after so many epochs without a better validation loss.
        min_delta: what counts as better, in units of the loss.
        seed: of the initial weights.
        controls: `all` that the data can give, `none`, or a list out of shuffled,
            random_projection, untrained, proprioception, time, mdl.
        memory_budget: bytes that the weights, gradients and moments of the cells that train
            together may take, or the sums of a closed form; what does not fit takes more rounds.
        permutations: of the units' labels, for the p-values of a test; 0 for none.
    """

    scalers: nn.ModuleList
    """A `FeatureScaler` a source."""
    groups: nn.ModuleList
    """A `ProbeGroup` a group of the spec, in its order."""

    def __init__(
        self,
        objective: str = "auto",
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        patience: int = 10,
        min_delta: float = 1e-4,
        seed: int = 0,
        controls: Controls = "all",
        memory_budget: int = 2 * 2**30,
        permutations: int = 1000,
    ) -> None:
        super().__init__()
        if objective not in ("auto", *OBJECTIVES, *CLOSED_FORMS):
            raise ValueError(
                f"`objective` must be auto or one of {', '.join((*OBJECTIVES, *CLOSED_FORMS))}, "
                f"but got {objective!r}."
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
        self.controls = control_names(controls)
        self.memory_budget = memory_budget
        self.permutations = permutations
        self.permuting: GridPermutation | None = None
        self.permuted: PermutationTest | None = None
        """P-values of the last test; None where there was no permutation test."""
        self.automatic_optimization = objective not in CLOSED_FORMS
        self.solver: ClosedFormSolver | None = None
        """While a closed form is fitted."""
        self.spec: ProbeSpec | None = None
        self.rounds = rounds.RoundClock()
        self.left_out: dict[str, str] = {}
        """Controls that the data cannot give, and why."""
        self.evaluation: GridEvaluation | None = None

    # ------------------------------------------------------------------ building

    def build(self, spec: ProbeSpec) -> None:
        """Creates the parameters for these cells and this target.

        Raises:
            ValueError: if the objective does not suit the target.
        """
        target = spec.target
        name = target.objective if self.objective_name == "auto" else self.objective_name
        self.trained_for = f"{name}_classes" if name == "ridge" and target.classes else name
        closed = name in CLOSED_FORMS
        self.objective = closed_form_objective(name, target) if closed else OBJECTIVES[name]()
        if self.objective.classifies != bool(target.classes):
            raise ValueError(
                f"`objective` must suit the target {target.name}, but got {name!r}. "
                f"Use {target.objective!r} or auto."
            )
        self.spec = spec
        self.scalers = nn.ModuleList(
            FeatureScaler(len(source.cells), source.width) for source in spec.sources
        )
        self.groups = nn.ModuleList(
            ProbeGroup(group, size=target.size, seed=self.seed) for group in spec.groups
        )
        self.register_buffer(
            "trivial", self.objective.trivial_outputs(torch.tensor(target.trivial))
        )

    @property
    def probe_groups(self) -> list[ProbeGroup]:
        """The groups, those that are asked about first."""
        return [cast(ProbeGroup, group) for group in self.groups]

    @property
    def feature_scalers(self) -> list[FeatureScaler]:
        """One a source."""
        return [cast(FeatureScaler, scaler) for scaler in self.scalers]

    @property
    def best_loss(self) -> Float64[Tensor, " c"]:
        """Validation loss of the best weights of each cell that is asked about."""
        return torch.cat([g.best_loss for g in self.probe_groups if g.spec.is_main])

    @property
    def best_epoch(self) -> Int[Tensor, " c"]:
        """The epoch that they are of."""
        return torch.cat([g.best_epoch for g in self.probe_groups if g.spec.is_main])

    def setup(self, stage: str) -> None:
        """Builds the grid from the data module, or checks that the data suit the grid.

        Raises:
            ValueError: if the data have other cells, width or target than the checkpoint.
        """
        data = cast(ProbeData, getattr(self.trainer, "datamodule"))  # noqa: B009 - untyped there
        spec = self.spec_of(data)
        if self.spec is None:
            self.build(spec)
            for scaler, statistics in zip(self.scalers, data.statistics, strict=True):
                cast(FeatureScaler, scaler).set(statistics)
        else:
            self.spec.check_data(spec)
        assert self.spec is not None
        if stage == "fit" and self.objective_name in CLOSED_FORMS:
            self.solver = self.closed_form_solver(data)
        elif stage == "fit":
            self.plan_rounds()
        self.evaluation = GridEvaluation(
            self.spec, self.objective, data.clusters, blocks=self.blocks,
            trained_for=self.trained_for,
        )  # fmt: skip

    def closed_form_solver(self, data: ProbeData) -> ClosedFormSolver:
        """Plans the passes of a closed form, and says how many there are."""
        solver = probe_setup.closed_form_solver(
            self.objective_name, self.objective, self.probe_groups, self.feature_scalers,
            rows=len(data.rows["train"]), memory_budget=self.memory_budget, trainer=self.trainer,
        )  # fmt: skip
        _log.info("%s", solver.describe())
        return solver

    def spec_of(self, data: ProbeData) -> ProbeSpec:
        """What this probe would be on these data; says which controls they cannot give."""
        self.blocks = blocks_of_clusters(data.clusters, data.training_clusters, seed=self.seed)
        name = self.objective_name
        grid = Grid(
            sources=data.sources,
            objective=data.target_spec.objective if name == "auto" else name,
            blocks=int(self.blocks.max()) + 1,
        )
        groups, self.left_out = plan_groups(grid, self.controls)
        if self.objective_name not in CLOSED_FORMS:
            size, budget = data.target_spec.size, self.memory_budget
            groups = rounds.deal_rounds(groups, size=size, memory_budget=budget)
        return ProbeSpec(
            sources=data.sources, groups=groups, target=data.target_spec,
            fingerprint=data.fingerprint, split=data.split,
        )  # fmt: skip

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Puts the grid's description into the checkpoint, in plain types."""
        assert self.spec is not None
        checkpoint["probe_spec"] = self.spec.to_json()
        checkpoint["probe_round"] = self.rounds.to_json()

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
        saved = rounds.RoundClock(**checkpoint.get("probe_round", {}))
        self.rounds = dataclasses.replace(saved, epochs=self.rounds.epochs)

    # ------------------------------------------------------------------ rounds

    def trains(self, group: ProbeGroup) -> bool:
        """Whether the group trains in this round."""
        return group.spec.round == self.rounds.number

    def plan_rounds(self) -> None:
        """Allows every round as many epochs as were asked for.

        Raises:
            ValueError: if several processes would train several rounds.
        """
        assert self.spec is not None
        count, epochs = rounds.count_rounds(self.spec.groups), self.trainer.max_epochs
        rounds.check_rounds(count, self.trainer.world_size, self.memory_budget)
        if count > 1 and epochs is not None and epochs >= 0:
            self.rounds.epochs = epochs
            self.trainer.fit_loop.max_epochs = epochs * count

    def begin_due_round(self) -> None:
        """Goes on with the next cells where those of this round have ended."""
        assert self.spec is not None
        training = (group for group in self.probe_groups if self.trains(group))
        active = any(bool(group.active(self.patience).any()) for group in training)
        last = self.rounds.number + 1 == rounds.count_rounds(self.spec.groups)
        if last or not self.rounds.over(self.current_epoch, active=active):
            return
        self.rounds.next(self.current_epoch)
        optimizer = cast(LightningOptimizer, self.optimizers()).optimizer
        rounds.replace_parameters(optimizer, self.learning_rates())

    # ------------------------------------------------------------------ computing

    def outputs(self, batch: LatentBatch, *, best: bool) -> dict[int, Float[Tensor, "b _c k"]]:
        """What the cells of each group say, by the group's place.

        Args:
            batch: the features.
            best: all groups by their best maps, or those that train now by their current ones.
        """
        groups = {
            place: group
            for place, group in enumerate(self.probe_groups)
            if best or self.trains(group)
        }
        said = said_by(list(groups.values()), self.feature_scalers, batch.features, best=best)
        return dict(zip(groups, said, strict=True))

    def forward(self, features: Sequence[Float[Tensor, "b _c _d"]]) -> Float[Tensor, "b c k"]:
        """Class scores or vectors by the best maps of each cell that is asked about."""
        asked = [group for group in self.probe_groups if group.spec.is_main]
        return torch.cat(said_by(asked, self.feature_scalers, features, best=True), dim=1)

    def on_train_epoch_start(self) -> None:
        """Starts a pass of a closed form, or the next round where one is over."""
        if self.solver is not None:
            self.solver.start(self.current_epoch)
        else:
            self.begin_due_round()

    def training_step(self, batch: LatentBatch, batch_idx: int) -> Float[Tensor, ""] | None:
        """The sum over cells, so that no cell's gradient depends on how many there are.

        A closed form adds the batch to its sums and has no loss yet.
        """
        if self.solver is not None:
            self.solver.add(batch)
            # There is nothing to step; but Lightning counts steps, and saves when they advance.
            cast(LightningOptimizer, self.optimizers()).step()
            return None
        assert self.evaluation is not None
        losses = {
            place: self.evaluation.training_loss(self.probe_groups[place].spec, said, batch)
            for place, said in self.outputs(batch, best=False).items()
        }
        self.log(
            "train/loss", self.mean_asked(losses).detach(), prog_bar=True, on_step=False,
            on_epoch=True, batch_size=len(batch.targets), sync_dist=True,
        )  # fmt: skip
        return torch.stack([loss.sum() for loss in losses.values()]).sum()

    def mean_asked(self, values: Mapping[int, Float[Tensor, " _c"]]) -> Float[Tensor, ""]:
        """The mean over the cells that are asked about; over all, in a round of controls alone."""
        groups = self.probe_groups
        asked = [value for place, value in values.items() if groups[place].spec.is_main]
        return torch.cat(asked or list(values.values())).mean().float()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW, whose state is element-wise and so keeps cells apart."""
        return torch.optim.AdamW(self.learning_rates(), weight_decay=self.weight_decay, fused=True)

    def learning_rates(self) -> list[dict[str, Any]]:
        """The parameters that train in this round, and no other ones."""
        for group in self.probe_groups:
            for parameter in (group.weight, group.bias):
                parameter.requires_grad_(self.trains(group))
                parameter.grad = None
        return [
            {
                "params": [group.weight, group.bias],
                "lr": self.learning_rate * (REFERENCE_WIDTH / group.spec.width) ** 0.5,
            }
            for group in self.probe_groups
            if self.trains(group)
        ]

    # ------------------------------------------------------------------ evaluating

    @property
    def solving(self) -> bool:
        """Whether validation rows are to choose a closed form's strengths now."""
        return self.solver is not None and self.trainer.state.fn == "fit"

    def send_code(self) -> None:
        """Sends the training rows by the probes on prefixes, with the best weights."""
        assert self.evaluation is not None
        senders = [group for group in self.probe_groups if group.spec.prefix]
        data: Any = getattr(self.trainer, "datamodule")  # noqa: B009 - untyped there
        # Other data than those of the training have other blocks.
        if not senders or data.fingerprint != cast(ProbeSpec, self.spec).fingerprint:
            return
        for batch in data.code_dataloader():
            here = self.transfer_batch_to_device(batch, self.device, 0)
            self.evaluation.code.update(senders, self.feature_scalers, self.objective, here)

    def on_validation_epoch_start(self) -> None:
        """Starts counting anew; a closed form is solved."""
        assert self.evaluation is not None
        self.evaluation.reset(all_metrics=self.trainer.state.fn != "fit")
        if self.solving:
            assert self.solver is not None
            self.solver.solve()

    def on_test_epoch_start(self) -> None:
        """Starts counting anew, for the permutation test too."""
        self.on_validation_epoch_start()
        self.permuted = None
        self.permuting = probe_setup.grid_permutation(
            getattr(self.trainer, "datamodule"),  # noqa: B009 - untyped there
            self.probe_groups, self.feature_scalers, self.objective,
            PermutationSettings(
                permutations=self.permutations, seed=self.seed,
                closed_form="" if self.automatic_optimization else self.objective_name,
                memory_budget=self.memory_budget,
            ),
        )  # fmt: skip

    def validation_step(self, batch: LatentBatch, batch_idx: int) -> None:
        """Counts with the current weights while fitting, with the best ones otherwise."""
        if len(batch.rows) == 0:  # a rank without samples, which must take part all the same
            return
        if self.solving:
            assert self.solver is not None
            self.solver.validate(batch)
            return
        fitting = self.trainer.state.fn == "fit"
        outputs = self.outputs(batch, best=not fitting)
        assert self.evaluation is not None
        self.evaluation.update(outputs, self.get_buffer("trivial"), batch, all_metrics=not fitting)

    def test_step(self, batch: LatentBatch, batch_idx: int) -> None:
        """Counts with the best weights."""
        outputs = self.outputs(batch, best=True)
        assert self.evaluation is not None
        self.evaluation.update(outputs, self.get_buffer("trivial"), batch, all_metrics=True)
        if self.permuting is not None:
            asked = [
                said for place, said in outputs.items() if self.probe_groups[place].spec.is_main
            ]
            self.permuting.update(torch.cat(asked, dim=1), batch.rows)

    def on_validation_epoch_end(self) -> None:
        """Keeps the best weights of each cell, and stops when no cell improves any more."""
        if self.solving:
            self._finish_pass()
            return
        losses = self._log_means("val")
        if self.trainer.state.fn != "fit":
            self.send_code()
        if self.trainer.state.fn != "fit" or self.trainer.sanity_checking:
            return
        active = self.keep_best(losses)
        self.log("val/active_cells", float(active), sync_dist=True)
        if not active:
            self.trainer.should_stop = True

    def _finish_pass(self) -> None:
        assert self.solver is not None
        losses = self.solver.finish(self.current_epoch)
        self.log("val/loss", losses.mean().float(), prog_bar=True)
        if self.current_epoch + 1 >= len(self.solver.passes):
            self.trainer.should_stop = True

    def on_test_epoch_end(self) -> None:
        """Logs the means over the cells."""
        self._log_means("test")
        self.send_code()
        if self.permuting is not None:
            self.permuted, self.permuting = self.permuting.result(), None

    def keep_best(self, losses: Mapping[int, Float64[Tensor, " _c"]]) -> int:
        """Takes the current weights where they are better; returns how many cells still train.

        Args:
            losses: of the groups that train, by their places.
        """
        epoch = self.current_epoch - self.rounds.first_epoch
        for place, loss in losses.items():
            self.probe_groups[place].keep_best(
                loss, epoch=epoch, patience=self.patience, min_delta=self.min_delta
            )
        return sum(
            int(group.active(self.patience).sum())
            for group in self.probe_groups
            if group.spec.round >= self.rounds.number
        )

    def _log_means(self, split: str) -> dict[int, Float64[Tensor, " _c"]]:
        """Logs the means over the cells that are asked about; returns the losses by group."""
        assert self.evaluation is not None
        fitting = self.trainer.state.fn == "fit"
        places = [
            i for i, group in enumerate(self.probe_groups) if not fitting or self.trains(group)
        ]
        counted = {place: self.evaluation.of(place) for place in places}
        losses = {i: mean_over_samples(*part.loss.compute()) for i, part in counted.items()}
        scores = {i: mean_over_samples(*part.score.compute()) for i, part in counted.items()}
        # The metrics are those of all ranks already; Lightning wants to hear that it is so.
        for word, values in (("loss", losses), (self.objective.score, scores)):
            self.log(f"{split}/{word}", self.mean_asked(values), prog_bar=True, sync_dist=True)
        return losses

    def predict_step(self, batch: LatentBatch, batch_idx: int) -> Float[Tensor, "b c k"]:
        """Class scores or vectors by the best weights of each cell."""
        return self(batch.features)
