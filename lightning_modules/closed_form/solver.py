"""Solves the groups of a probe grid in closed form, in as few passes as the memory allows.

Groups that read the same features (the cells that are asked about, and the same cells on the
control task) share their sums: their targets stand side by side.

Letters: b batch, c cells, d width, k classes or dimensions, m columns of all targets, l strengths.
"""

import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from jaxtyping import Float, Float64
from torch import Tensor

from datamodules.latent_batch import LatentBatch
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
from lightning_modules.closed_form.registry import ClosedForm
from lightning_modules.closed_form.strength_choice import best_strength
from lightning_modules.grid_evaluation import targets_of
from lightning_modules.grid_product import standardised_product
from lightning_modules.objectives.objective import Objective
from lightning_modules.probe_group import FeatureScaler, ProbeGroup

ITEMSIZE = 4
"""Bytes of a feature for the plan; bfloat16 takes half of what was planned."""

Solution = tuple[Float[Tensor, "l d m"], Float[Tensor, "l m"]]
"""Weights and biases of one cell."""


@dataclasses.dataclass
class Block:
    """Cells that are solved together in this pass, and the groups that they belong to."""

    source: int
    groups: tuple[int, ...]
    """Places of the groups, whose targets stand side by side."""
    cells: tuple[int, ...]
    """Places within each of the groups."""
    sums: GramSums | KeptRows
    weights: Float[Tensor, "c l d m"] | None = None
    bias: Float[Tensor, "c l m"] | None = None
    losses: list[Float64[Tensor, "c l"]] = dataclasses.field(default_factory=list)
    """Summed validation losses, by group."""


class ClosedFormSolver:
    """Accumulates training rows, solves, and keeps what predicts the validation rows best.

    A pass is: `start`, `add` for each training batch, `solve`, `validate` for each validation
    batch, `finish`.

    Args:
        form: how a cell is solved.
        objective: gives the validation loss.
        groups: the probes.
        scalers: of the sources.
        rows: how many training rows there are.
        memory_budget: bytes that sums may take.

    Raises:
        ValueError: if a single cell does not fit into the budget.
    """

    def __init__(
        self,
        form: ClosedForm,
        objective: Objective,
        groups: Sequence[ProbeGroup],
        scalers: Sequence[FeatureScaler],
        *,
        rows: int,
        memory_budget: int,
    ) -> None:
        self.form, self.objective = form, objective
        self.groups, self.scalers, self.rows = groups, scalers, rows
        self.memory_budget = memory_budget
        self.size = groups[0].best_bias.shape[1]
        shared: dict[tuple[int, str], list[int]] = {}
        for place, group in enumerate(groups):
            projection = group.spec.kind if group.projection is not None else ""
            shared.setdefault((group.spec.source, projection), []).append(place)
        self.families = [tuple(places) for places in shared.values()]
        self.cells = [
            (family, cell)
            for family in self.families
            for cell in range(len(groups[family[0]].spec.cells))
        ]
        self.passes: tuple[Pass, ...] = plan_passes(
            [groups[family[0]].spec.width for family, _ in self.cells],
            rows=rows,
            columns=self.size * max(map(len, self.families)),
            itemsize=ITEMSIZE,
            strengths=len(form.strengths),
            memory_budget=memory_budget,
        )
        self.blocks: list[Block] = []
        self.validated = 0
        """Validation rows of this pass."""

    def describe(self) -> str:
        """What will be done, for people."""
        return describe_passes(self.passes)

    # ------------------------------------------------------------------ training rows

    def start(self, number: int) -> None:
        """Prepares a pass."""
        self.validated = 0
        planned = self.passes[number % len(self.passes)]
        cells: dict[tuple[tuple[int, ...], Form], list[int]] = {}
        for place, form in zip(planned.cells, planned.forms, strict=True):
            family, cell = self.cells[place]
            cells.setdefault((family, form), []).append(cell)
        self.blocks = [
            self._block(family, tuple(members), form) for (family, form), members in cells.items()
        ]

    def _block(self, family: tuple[int, ...], cells: tuple[int, ...], form: Form) -> Block:
        group = self.groups[family[0]]
        scaler, columns = self.scalers[group.spec.source], self.size * len(family)
        mean, std = scaler.mean[list(cells)], scaler.std[list(cells)]
        if group.projection is not None:  # what is projected is standardised before
            mean = mean.new_zeros(len(cells), group.spec.width)
            std = torch.ones_like(mean)
        sums = (
            GramSums(mean, std, columns)
            if form == "sums"
            else KeptRows(mean, std, columns, rows=self.rows)
        )
        return Block(source=group.spec.source, groups=family, cells=cells, sums=sums)

    def add(self, batch: LatentBatch) -> None:
        """Adds training rows."""
        for block in self.blocks:
            targets = [self._regressed(place, batch) for place in block.groups]
            block.sums.update(self._stored(block, batch), torch.cat(targets, dim=1))

    def _stored(self, block: Block, batch: LatentBatch) -> Float[Tensor, "b c d"]:
        """As the sums take them: as stored, or standardised and projected."""
        stored = self._cells(block, batch.features[block.source])
        projection = self.groups[block.groups[0]].projection
        if projection is None:
            return stored
        every = projection.expand(len(block.cells), *projection.shape)
        return standardised_product(stored, *self._statistics(block), every)

    def _cells(self, block: Block, values: Float[Tensor, "*b _s d"]) -> Float[Tensor, "*b c d"]:
        """Those of the block among those of its source; without a copy where they adjoin."""
        first, last = block.cells[0], block.cells[-1]
        adjoin = block.cells == tuple(range(first, last + 1))
        return values[..., slice(first, last + 1) if adjoin else list(block.cells), :]

    def _statistics(self, block: Block) -> tuple[Float[Tensor, "c d"], Float[Tensor, "c d"]]:
        """Mean and deviation of the block's features as stored."""
        scaler = self.scalers[block.source]
        return self._cells(block, scaler.mean), self._cells(block, scaler.std)

    def _regressed(self, place: int, batch: LatentBatch) -> Float[Tensor, "b k"]:
        targets = targets_of(self.groups[place].spec, batch)
        if self.objective.classifies:
            return F.one_hot(targets, self.size).float()
        return targets

    # ------------------------------------------------------------------ solving

    def solve(self) -> None:
        """Solves every cell of the pass for every strength, and lets the sums go."""
        for block in self.blocks:
            weights, biases = zip(*self._solve_block(block), strict=True)
            block.weights, block.bias = torch.stack(weights), torch.stack(biases)
            block.sums = GramSums(block.sums.mean[:0], block.sums.std[:0], 0)
            shape = (len(block.cells), len(self.form.strengths))
            block.losses = [
                torch.zeros(shape, dtype=torch.float64, device=block.weights.device)
                for _ in block.groups
            ]

    def _solve_block(self, block: Block) -> list[Solution]:
        form: Form = "rows" if isinstance(block.sums, KeptRows) else "sums"
        width = block.sums.mean.shape[1]
        room = self.memory_budget - max(planned.bytes for planned in self.passes)
        workers = workers_for(
            block.sums.mean.device, work=bytes_of_solving(width, self.rows, form), room=room
        )
        return map_cells(
            lambda place: self._solve(block.sums.cell(place), len(block.groups)),
            len(block.cells),
            workers,
        )

    def _solve(self, cell: CellSums, groups: int) -> Solution:
        alone = groups == 1 or self.form.joint
        parts = [cell] if alone else [cell.columns(n * self.size, self.size) for n in range(groups)]
        solved = [self.form.path(part, self.form.strengths) for part in parts]
        return (
            torch.cat([weight for weight, _ in solved], dim=-1).float(),
            torch.cat([bias for _, bias in solved], dim=-1).float(),
        )

    def validate(self, batch: LatentBatch) -> None:
        """Adds what every strength loses on validation rows."""
        self.validated += len(batch.targets)
        for block in self.blocks:
            said = self._said(block, batch)
            for n, place in enumerate(block.groups):
                own = said[..., n * self.size : (n + 1) * self.size].flatten(1, 2)
                targets = targets_of(self.groups[place].spec, batch)
                loss = self.objective.loss(own, targets)
                block.losses[n] += loss.double().sum(0).view_as(block.losses[n])

    def _said(self, block: Block, batch: LatentBatch) -> Float[Tensor, "b c l m"]:
        """What the block's cells say of each strength."""
        assert block.weights is not None
        assert block.bias is not None
        maps = block.weights.transpose(1, 2).flatten(2)
        projection = self.groups[block.groups[0]].projection
        if projection is not None:  # (x P) W = x (P W)
            maps = torch.einsum("dr,crk->cdk", projection, maps)
        stored = self._cells(block, batch.features[block.source])
        said = standardised_product(stored, *self._statistics(block), maps)
        return said.unflatten(-1, block.bias.shape[1:]) + block.bias

    def finish(self, epoch: int) -> Float64[Tensor, " _c"]:
        """Keeps each cell's best strength; returns the validation losses of the pass's cells."""
        found = [
            self._keep(block, n, epoch) for block in self.blocks for n in range(len(block.groups))
        ]
        self.blocks = []
        return torch.cat(found)

    def _keep(self, block: Block, n: int, epoch: int) -> Float64[Tensor, " _c"]:
        assert block.weights is not None
        assert block.bias is not None
        group, cells = self.groups[block.groups[n]], list(block.cells)
        losses = block.losses[n] / self.validated
        chosen, each = best_strength(losses), torch.arange(len(cells), device=losses.device)
        columns = slice(n * self.size, (n + 1) * self.size)
        mask = torch.zeros(len(group.best_loss), dtype=torch.bool, device=losses.device)
        mask[cells] = True
        weight, bias = torch.zeros_like(group.best_weight), torch.zeros_like(group.best_bias)
        weight[cells] = block.weights[each, chosen][..., columns]
        bias[cells] = block.bias[each, chosen][..., columns]
        loss = torch.zeros_like(group.best_loss)
        loss[cells] = losses[each, chosen]
        group.set_best(mask, weight, bias, loss, epoch)
        group.penalty[cells] = losses.new_tensor(self.form.strengths)[chosen]
        return loss[cells]
