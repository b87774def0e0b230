"""Permutation test with refitting: units exchange labels, every ridge probe is solved anew.

A ridge probe is linear in its targets. So one solution whose targets are the units themselves
(1 for the rows of a unit, 0 elsewhere) gives the probe of any labels of the units: its outputs are
H L, with a row of H a sample, a column a unit, and L the labels. The strength of the penalty is
chosen anew for every permutation too, from held-out sums, so the test is exact.

Letters: b batch, c cells, d width, u units, t training units, l strengths, k classes or
dimensions, r permutations, a different labels.
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from lightning_modules.objectives.objective import Objective
from lightning_modules.statistics.permutation import (
    PermutationTest,
    draw_permutations,
    p_values,
)
from lightning_modules.statistics.unit_labels import UnitLabels

NUMBERS_AT_ONCE = 4_000_000
"""Outputs (samples times permutations times k) that are held together."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefitPlan:
    """The units, their labels, and who gets whose."""

    labels: UnitLabels
    classes: int
    """How many classes there are; 0 for vectors."""
    training: Int64[np.ndarray, " t"]
    """The units that have training rows."""
    drawn: Int64[np.ndarray, "r u"]
    """The observed assignment first, then the permutations."""

    @property
    def vectors(self) -> Float64[Tensor, "a k"]:
        """What the probe regresses on: one-hot classes, or the vectors themselves."""
        labels = torch.from_numpy(self.labels.labels)
        if not self.classes:
            return labels.double()
        return torch.nn.functional.one_hot(labels, self.classes).double()

    @property
    def codes(self) -> Int64[Tensor, "r u"]:
        """The label of each unit in each permutation, as a place among the different ones."""
        return torch.from_numpy(self.labels.code[self.drawn])


def plan_refit(
    labels: UnitLabels,
    training: Int64[np.ndarray, " t"],
    *,
    classes: int,
    permutations: int = 1000,
    seed: int = 0,
) -> RefitPlan:
    """Draws the permutations, over the units of all splits together.

    Args:
        labels: of every unit.
        training: numbers of the units that have training rows.
        classes: how many classes there are; 0 for vectors.
        permutations: how many.
        seed: of the permutations.
    """
    units = len(labels.code)
    drawn = draw_permutations(np.zeros(units, np.int64), permutations, seed)
    return RefitPlan(
        labels=labels,
        classes=classes,
        training=training,
        drawn=np.concatenate([np.arange(units)[None], drawn]),
    )


class RefitCell:
    """One cell: its solution for the units, and what is summed on held-out rows."""

    def __init__(
        self,
        plan: RefitPlan,
        objective: Objective,
        weights: Float64[Tensor, "l d t"],
        bias: Float64[Tensor, "l t"],
    ) -> None:
        """Starts without held-out rows.

        Args:
            plan: the units and permutations.
            objective: gives the score.
            weights: ridge solutions whose targets are the training units.
            bias: their biases.
        """
        self.plan, self.objective = plan, objective
        self.weights, self.bias = weights, bias
        strengths, _, units = weights.shape
        zeros = {"dtype": torch.float64, "device": weights.device}
        self.squares = torch.zeros(strengths, units, units, **zeros)
        self.cross = torch.zeros(strengths, units, len(plan.labels.code), **zeros)
        self.codes = plan.codes.to(weights.device)
        self.vectors = plan.vectors.to(weights.device)
        self.trained = torch.from_numpy(plan.training).to(weights.device)
        self.chosen = torch.zeros(len(self.codes), dtype=torch.int64, device=weights.device)
        self.total = torch.zeros(len(self.codes), **zeros)
        self.count = 0

    def validate(self, features: Float64[Tensor, "b d"], units: Int64[Tensor, " b"]) -> None:
        """Adds standardised rows of the validation split and their units."""
        for place, (weight, bias) in enumerate(zip(self.weights, self.bias, strict=True)):
            said = features @ weight + bias
            self.squares[place].addmm_(said.T, said)
            self.cross[place].index_add_(1, units, said.T)

    def choose(self) -> None:
        """Chooses the strength of every permutation by its squared error on the validation rows.

        |HL - V|² = tr(Lᵀ HᵀH L) - 2 tr(Lᵀ HᵀP L) + a number that no strength changes, with P the
        units of the rows and V = P L.
        """
        step = max(1, NUMBERS_AT_ONCE // (self.codes.shape[1] * self.vectors.shape[1]))
        for start in range(0, len(self.codes), step):
            codes = self.codes[start : start + step]
            labels = self.vectors[
                codes.T.contiguous()
            ]  # [u, r, k]: one product serves all permutations
            trained, (u, r, k) = labels[self.trained].flatten(1), labels.shape
            losses = [
                (trained * (squares @ trained - 2 * cross @ labels.view(u, r * k)))
                .view(-1, r, k)
                .sum((0, 2))
                for squares, cross in zip(self.squares, self.cross, strict=True)
            ]
            # Of equal losses the strongest penalty, as when the probe itself is fitted.
            backwards = torch.stack(losses).flip(0).argmin(0)
            self.chosen[start : start + step] = len(losses) - 1 - backwards

    def update(self, features: Float64[Tensor, "b d"], units: Int64[Tensor, " b"]) -> None:
        """Adds standardised rows of the split that is judged, and their units."""
        self.count += len(features)
        step = max(1, NUMBERS_AT_ONCE // (len(features) * self.vectors.shape[1]))
        for place, (weight, bias) in enumerate(zip(self.weights, self.bias, strict=True)):
            said = (features @ weight + bias).float()
            mine = torch.nonzero(self.chosen == place)[:, 0]
            for part in mine.split(step):
                self.total[part] += self._scores(said, self.codes[part], units)

    def _scores(
        self, said: Float[Tensor, "b t"], codes: Int64[Tensor, "r u"], units: Int64[Tensor, " b"]
    ) -> Float64[Tensor, " r"]:
        """Summed scores of some permutations."""
        labels = self.vectors.float()[codes[:, self.trained].T.contiguous()]  # [t, r, k]
        _, r, k = labels.shape
        outputs = (said @ labels.flatten(1)).view(len(said), r, k)
        names = torch.from_numpy(self.plan.labels.labels).to(codes.device)
        wanted = names[codes[:, units].T.contiguous()]  # [b, r] classes, or [b, r, k] vectors
        # Samples times permutations are the batch: every pair has its own label.
        scores = self.objective.scores(outputs.reshape(-1, 1, k), wanted.flatten(0, 1))
        return scores.view(len(said), r).double().sum(0)


@runtime_checkable
class Judged(Protocol):
    """A cell whose held-out rows were all added."""

    total: Float64[Tensor, " r"]
    count: int


def refit_test(cells: Sequence[Judged]) -> PermutationTest:
    """The p-values, once all rows were added."""
    scores = np.stack([(cell.total / cell.count).cpu().numpy() for cell in cells], axis=1)
    return p_values(scores[0], scores[1:], kind="refit")
