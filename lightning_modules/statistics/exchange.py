"""Permutation test with held-out predictions: units exchange labels, the probe stays.

A probe that was trained by gradients cannot be refitted a thousand times. But its predictions on
held-out units can be compared with the labels of other held-out units: if the latents say nothing
of the labels, all exchanges are equally likely. One pass sums what the predictions of each unit
score against the labels of each partner; every permutation is a look-up in these sums.

Letters: b batch, c cells, n rows, u units, a alternatives, r permutations, k classes or dimensions.
"""

import dataclasses

import numpy as np
import torch
from jaxtyping import Float, Int, Int64, Shaped
from torch import Tensor

from lightning_modules.objectives.objective import Objective
from lightning_modules.statistics.permutation import (
    PermutationTest,
    draw_permutations,
    p_values,
)
from lightning_modules.statistics.unit_labels import UnitLabels, unit_labels

PARTNERS = 64
"""Units exchange labels that change with time inside random blocks of at most so many: fewer
exchanges are as valid, and the sums stay small."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExchangePlan:
    """Which labels each row is compared with, and what each permutation picks among them."""

    rows: Int64[np.ndarray, " n"]
    """Row numbers of the split, ascending."""
    unit: Int64[np.ndarray, " n"]
    """The unit of each row, numbered without gaps."""
    values: Shaped[np.ndarray, "m ..."]
    """Labels that can be exchanged."""
    place: Int64[np.ndarray, "n a"]
    """Where in `values` each row finds its alternatives."""
    own: Int64[np.ndarray, " u"]
    """Which alternative is the unit's own label."""
    drawn: Int64[np.ndarray, "r u"]
    """Which alternative each permutation gives each unit."""

    @property
    def units(self) -> int:
        """How many there are."""
        return len(self.own)


def plan_exchange(
    rows: Int64[np.ndarray, " n"],
    values: Shaped[np.ndarray, "n ..."],
    units: Int64[np.ndarray, " n"],
    *,
    permutations: int = 1000,
    seed: int = 0,
) -> ExchangePlan:
    """Prepares the exchange of labels between the units of a split.

    Labels that change within a unit are exchanged as whole trajectories; a longer one is
    stretched over a shorter one.

    Args:
        rows: row numbers, ascending.
        values: the label of each row.
        units: the unit of each row, any numbers.
        permutations: how many.
        seed: of the permutations.
    """
    _, unit = np.unique(units, return_inverse=True)
    size = int(unit.max()) + 1
    constant = unit_labels(values, unit)
    if constant is not None:
        return _plan_of_constant(rows, unit, constant, permutations, seed)
    blocks = np.empty(size, np.int64)
    blocks[np.random.default_rng(seed).permutation(size)] = np.arange(size) // PARTNERS
    drawn = draw_permutations(blocks, permutations, seed)
    rank = np.empty(size, np.int64)  # the place of a unit in its block
    for block in range(int(blocks.max()) + 1):
        members = np.flatnonzero(blocks == block)
        rank[members] = np.arange(len(members))
    return ExchangePlan(
        rows=rows,
        unit=unit,
        values=values,
        place=_places_of_partners(unit, blocks, rank),
        own=rank,
        drawn=rank[drawn],
    )


def _plan_of_constant(
    rows: Int64[np.ndarray, " n"],
    unit: Int64[np.ndarray, " n"],
    constant: UnitLabels,
    permutations: int,
    seed: int,
) -> ExchangePlan:
    different = len(constant.labels)
    drawn = draw_permutations(np.zeros(len(constant.code), np.int64), permutations, seed)
    return ExchangePlan(
        rows=rows,
        unit=unit,
        values=constant.labels,
        place=np.broadcast_to(np.arange(different), (len(rows), different)),
        own=constant.code,
        drawn=constant.code[drawn],
    )


def _places_of_partners(
    unit: Int64[np.ndarray, " n"],
    blocks: Int64[np.ndarray, " u"],
    rank: Int64[np.ndarray, " u"],
) -> Int64[np.ndarray, "n a"]:
    """For each row, the rows of every unit of its block at the same share of the way."""
    members = [np.flatnonzero(unit == number) for number in range(len(blocks))]
    place = np.repeat(np.arange(len(unit))[:, None], int(rank.max()) + 1, axis=1)
    for here, own in enumerate(members):
        steps = np.arange(len(own))
        for partner in np.flatnonzero(blocks == blocks[here]):
            there = members[partner]
            place[own, rank[partner]] = there[steps * len(there) // len(own)]
    return place


class ExchangedScores:
    """Sums what the predictions of each unit score against each alternative."""

    def __init__(self, plan: ExchangePlan, objective: Objective, cells: int) -> None:
        self.plan, self.objective = plan, objective
        self.alternatives = plan.place.shape[1]
        self.total = torch.zeros(cells, self.alternatives, plan.units, dtype=torch.float64)
        self.count = torch.zeros(plan.units, dtype=torch.int64)

    def update(self, outputs: Float[Tensor, "b c k"], rows: Int[Tensor, " b"]) -> None:
        """Adds one batch of the split.

        Args:
            outputs: what the probes said.
            rows: the row numbers.
        """
        places = np.searchsorted(self.plan.rows, rows.cpu().numpy())
        unit = torch.from_numpy(self.plan.unit[places])
        self.count += torch.bincount(unit, minlength=self.plan.units)
        found = self.plan.place[places]
        for alternative in range(self.alternatives):
            labels = torch.from_numpy(np.ascontiguousarray(self.plan.values[found[:, alternative]]))
            scores = self.objective.scores(outputs, labels.to(outputs.device))
            self.total[:, alternative].index_add_(1, unit, scores.double().T.cpu())

    def sum_over_ranks(self, device: torch.device) -> None:
        """Adds the sums of the other ranks, which must all ask; once.

        Args:
            device: of this rank: some back ends add up on their device only.
        """
        if not torch.distributed.is_available() or not torch.distributed.is_initialized():
            return
        for name in ("total", "count"):
            there = getattr(self, name).to(device)
            torch.distributed.all_reduce(there)
            setattr(self, name, there.cpu())

    def test(self) -> PermutationTest:
        """The p-values."""
        total, samples = self.total.numpy(), int(self.count.sum())
        everywhere = np.arange(self.plan.units)
        observed = total[:, self.plan.own, everywhere].sum(-1) / samples
        permuted = np.stack(
            [cell[self.plan.drawn, everywhere].sum(-1) / samples for cell in total], axis=1
        )
        return p_values(observed, permuted, kind="held_out")
