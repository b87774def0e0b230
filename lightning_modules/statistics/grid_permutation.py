"""The permutation test of a whole grid while it is tested.

Closed forms of labels that stay the same within a unit are refitted for every permutation, which
reads all samples again; of several ranks each does the same, since closed forms need the sums of
all rows. All other probes are judged by their held-out predictions, in the same pass as everything
else; ranks add up their sums.

Letters: b batch, c cells, n rows, t training units, k classes or dimensions.
"""

import dataclasses
import logging
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, Int64, Shaped
from torch import Tensor

from datamodules.latent_batch import LatentBatch
from datamodules.latents import LatentDataModule
from lightning_modules.closed_form.by_threads import map_cells, workers_for
from lightning_modules.closed_form.cell_sums import CellSums
from lightning_modules.closed_form.gram import GramSums
from lightning_modules.closed_form.kept_rows import KeptRows
from lightning_modules.closed_form.passes import (
    Form,
    Pass,
    bytes_of_solving,
    describe_passes,
    plan_passes,
)
from lightning_modules.closed_form.registry import CLOSED_FORMS
from lightning_modules.closed_form.ridge import STRENGTHS, ridge_path
from lightning_modules.objectives.objective import Objective
from lightning_modules.probe_group import FeatureScaler, ProbeGroup
from lightning_modules.statistics.exchange import ExchangedScores, plan_exchange
from lightning_modules.statistics.permutation import PermutationTest
from lightning_modules.statistics.refit import RefitCell, RefitPlan, plan_refit, refit_test
from lightning_modules.statistics.refit_discriminant import RefitDiscriminant
from lightning_modules.statistics.unit_labels import UnitLabels, unit_labels

_log = logging.getLogger(__name__)
Refitted = RefitCell | RefitDiscriminant
"""One cell while its permutations are judged."""
ITEMSIZE = 4
"""Bytes of a feature for the plan of the passes."""


class PermutedSamples:
    """What the test needs of a data module.

    Args:
        data: a `LatentDataModule` that is set up.
    """

    def __init__(self, data: LatentDataModule) -> None:
        self.data = data
        self.clusters, self.target_spec = data.clusters, data.target_spec
        self.rows = {split: data.targeted(rows) for split, rows in data.rows.items()}

    def labels(self, rows: Int64[np.ndarray, " n"]) -> Shaped[np.ndarray, "n ..."]:
        """What is to be predicted of these rows."""
        return self.data.target.values(self.data.dataset, rows)

    def units(self, rows: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """The unit of the split that each of these rows belongs to."""
        return self.clusters.unit_of_episode[self.data.reader.columns.cluster[rows]]

    def batches(self, split: str) -> Iterator[LatentBatch]:
        """The batches of a split, each sample once, and all of them on each rank."""
        yield from self.data.whole_split(split)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PermutationSettings:
    """How the test is made."""

    permutations: int
    """How many; 0 for no test."""
    seed: int
    closed_form: str
    """The name of the closed form that is refitted; empty where probes are trained."""
    memory_budget: int
    """Bytes that refitting may take for sums and solutions."""


class GridPermutation:
    """Counts while a grid is tested, then gives its p-values."""

    def __init__(
        self,
        data: PermutedSamples,
        groups: Sequence[ProbeGroup],
        scalers: Sequence[FeatureScaler],
        objective: Objective,
        settings: PermutationSettings,
    ) -> None:
        """Decides between refitting and held-out predictions.

        Args:
            data: the samples.
            groups: those that are asked about.
            scalers: of the sources.
            objective: gives the score.
            settings: how many permutations, and what refitting may take.
        """
        self.data, self.groups, self.scalers = data, groups, scalers
        self.objective, self.settings = objective, settings
        rows = np.unique(np.concatenate([data.rows[s] for s in ("train", "val", "test")]))
        self.refit: RefitPlan | None = None
        self.exchange: ExchangedScores | None = None
        if settings.closed_form:
            used, unit = np.unique(data.units(rows), return_inverse=True)
            labels = unit_labels(data.labels(rows), unit)
            if labels is not None and len(used) > 1:
                self.used = used
                self.refit = self._plan_refit(labels)
                return
        test = np.sort(data.rows["test"])
        unit = data.units(test)
        if len(np.unique(unit)) > 1:
            plan = plan_exchange(
                test, data.labels(test), unit, permutations=settings.permutations,
                seed=settings.seed,
            )  # fmt: skip
            cells = sum(len(group.spec.cells) for group in groups)
            self.exchange = ExchangedScores(plan, objective, cells)

    def update(self, outputs: Float[Tensor, "b c k"], rows: Int[Tensor, " b"]) -> None:
        """Counts one tested batch of what is asked about."""
        if self.exchange is not None:
            self.exchange.update(outputs, rows)

    def result(self) -> PermutationTest | None:
        """The p-values of all cells; None where a single unit cannot be exchanged."""
        if self.refit is not None:
            return self._refit()
        if self.exchange is None:
            return None
        self.exchange.sum_over_ranks(self.scalers[0].mean.device)
        return self.exchange.test()

    # ------------------------------------------------------------------ refitting

    def _plan_refit(self, labels: UnitLabels) -> RefitPlan:
        spec = self.data.target_spec
        training = np.unique(self.data.units(self.data.rows["train"]))
        return plan_refit(
            labels,
            np.searchsorted(self.used, training),
            classes=spec.size if spec.classes else 0,
            permutations=self.settings.permutations,
            seed=self.settings.seed,
        )

    def _refit(self) -> PermutationTest:
        assert self.refit is not None
        cells = [
            (place, cell)
            for place, group in enumerate(self.groups)
            for cell in range(len(group.spec.cells))
        ]
        passes = plan_passes(
            [self.groups[place].spec.width for place, _ in cells],
            rows=len(self.data.rows["train"]),
            columns=len(self.refit.training),
            itemsize=ITEMSIZE,
            strengths=len(CLOSED_FORMS[self.settings.closed_form].strengths),
            memory_budget=self.settings.memory_budget,
        )
        _log.info("permutation test by refitting: %s", describe_passes(passes))
        return refit_test([cell for p in passes for cell in self._refit_pass(p, cells)])

    def _refit_pass(self, planned: Pass, cells: list[tuple[int, int]]) -> list[Refitted]:
        """Solves and judges the cells of one pass, in their order."""
        assert self.refit is not None
        blocks: dict[tuple[int, Form], list[int]] = {}
        for place, form in zip(planned.cells, planned.forms, strict=True):
            group, cell = cells[place]
            blocks.setdefault((group, form), []).append(cell)
        found: list[Refitted] = []
        judged: list[tuple[int, list[int], list[Refitted]]] = []
        for key, sums in self._sums(blocks).items():
            mine = self._solve(sums, len(blocks[key]), planned)
            judged.append((key[0], blocks[key], mine))
            found += mine
        for batch, units in self._batches("val"):
            for cell, features in self._features(judged, batch):
                cell.validate(features, units)
        for cell in found:
            cell.choose()
        for batch, units in self._batches("test"):
            for cell, features in self._features(judged, batch):
                cell.update(features, units)
        return found

    def _solve(self, sums: GramSums | KeptRows, cells: int, planned: Pass) -> list[Refitted]:
        """The cells of one group, for every strength."""
        plan, width = self.refit, sums.mean.shape[1]
        assert plan is not None
        form: Form = "rows" if isinstance(sums, KeptRows) else "sums"
        work = bytes_of_solving(width, len(self.data.rows["train"]), form)
        room = self.settings.memory_budget - planned.bytes
        return map_cells(
            lambda place: self._refitted(plan, sums.cell(place)),
            cells,
            workers_for(sums.mean.device, work=work, room=room),
        )

    def _refitted(self, plan: RefitPlan, cell: CellSums) -> Refitted:
        if self.settings.closed_form == "lda":
            return RefitDiscriminant(plan, self.objective, cell)
        return RefitCell(plan, self.objective, *ridge_path(cell, STRENGTHS))

    def _sums(
        self, blocks: dict[tuple[int, Form], list[int]]
    ) -> dict[tuple[int, Form], GramSums | KeptRows]:
        """Reads the training rows; the targets are the training units."""
        assert self.refit is not None
        columns, sums = len(self.refit.training), {}
        for (group, form), members in blocks.items():
            scaler = self.scalers[self.groups[group].spec.source]
            mean, std = scaler.mean[members], scaler.std[members]
            rows = len(self.data.rows["train"])
            sums[group, form] = (
                GramSums(mean, std, columns)
                if form == "sums"
                else KeptRows(mean, std, columns, rows=rows)
            )
        column = torch.full((len(self.used),), -1)
        column[torch.from_numpy(self.refit.training)] = torch.arange(columns)
        for batch, units in self._batches("train"):
            own = torch.nn.functional.one_hot(column.to(units.device)[units], columns).float()
            for (group, form), members in blocks.items():
                features = batch.features[self.groups[group].spec.source][:, members]
                sums[group, form].update(features.to(own.device), own)
        return sums

    def _batches(self, split: str) -> Iterator[tuple[LatentBatch, Int64[Tensor, " b"]]]:
        """The batches of a split with the units of their rows, numbered among the used ones."""
        units = np.searchsorted(self.used, self.data.clusters.unit_of_episode)
        place = torch.from_numpy(units)
        device = self.scalers[0].mean.device
        for batch in self.data.batches(split):
            yield batch, place[batch.clusters.cpu()].to(device)

    def _features(
        self, judged: list[tuple[int, list[int], list[Refitted]]], batch: LatentBatch
    ) -> Iterator[tuple[Refitted, Float[Tensor, "b d"]]]:
        """Each cell with its standardised features."""
        for group, members, found in judged:
            source = self.groups[group].spec.source
            scaler = self.scalers[source]
            for cell, judge in zip(members, found, strict=True):
                stored = batch.features[source][:, cell].to(scaler.mean.device).double()
                yield judge, (stored - scaler.mean[cell].double()) / scaler.std[cell].double()
