"""Permutation test with refitting of linear discriminants: units exchange labels, all is solved.

A discriminant is not linear in its labels, as a ridge probe is: other classes have another scatter
within. But that is the scatter of all rows, which no label changes, minus a matrix of rank k. So
the eigenvectors of the scatter are found once, and a permutation takes a k x k system (Woodbury).
The shrinkage is chosen anew for every permutation, so the test is exact.

Letters: b batch, d width, e eigenvectors, u units, t training units, l shrinkages, k classes,
r permutations.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from lightning_modules.closed_form.cell_sums import CellSums
from lightning_modules.closed_form.lda import NEVER, SHRINKAGES
from lightning_modules.objectives.objective import Objective
from lightning_modules.statistics.refit import NUMBERS_AT_ONCE, RefitPlan


class ClassSums(NamedTuple):
    """What the classes are under some permutations."""

    rows: Float64[Tensor, "r k"]
    features: Float64[Tensor, "r e k"]
    """Centred sums of the rows of each class."""

    @property
    def offsets(self) -> Float64[Tensor, "r e k"]:
        """Each class's mean minus the mean of all; 0 for a class without rows."""
        return self.features / self.rows.clamp(min=1)[:, None]


class RefitDiscriminant:
    """One cell: the scatter of its rows, and what is summed on held-out rows."""

    def __init__(
        self,
        plan: RefitPlan,
        objective: Objective,
        sums: CellSums,
        shrinkages: Sequence[float] = SHRINKAGES,
    ) -> None:
        """Starts without held-out rows.

        Args:
            plan: the units and permutations; labels are classes.
            objective: gives loss and score.
            sums: with the training units as targets.
            shrinkages: to choose from, weakest first.
        """
        self.plan, self.objective = plan, objective
        self.width, self.training_rows = len(sums.mean_features), sums.rows
        self.sizes, self.directions = sums.eigen()
        self.middle = sums.mean_features
        self.of_units = self.directions.T @ sums.cross
        self.rows_of_unit = sums.mean_targets * sums.rows
        device = self.sizes.device
        self.codes = plan.codes.to(device)
        self.names = torch.from_numpy(plan.labels.labels).to(device)
        self.trained = torch.from_numpy(plan.training).to(device)
        self.shrinkages = torch.tensor(list(shrinkages), dtype=torch.float64, device=device)
        zeros = {"dtype": torch.float64, "device": device}
        self.losses = torch.zeros(len(shrinkages), len(self.codes), **zeros)
        self.chosen = torch.zeros(len(self.codes), dtype=torch.int64, device=device)
        self.total = torch.zeros(len(self.codes), **zeros)
        self.count = 0

    def validate(self, features: Float64[Tensor, "b d"], units: Int64[Tensor, " b"]) -> None:
        """Adds standardised rows of the validation split and their units."""
        turned = (features - self.middle) @ self.directions
        for part, classes in self._classes(len(features)):
            for place, shrinkage in enumerate(self.shrinkages):
                said = self._said(turned, classes, shrinkage.expand(len(classes.rows)))
                self.losses[place, part] += self._sum(self.objective.loss, said, part, units)

    def choose(self) -> None:
        """Chooses the shrinkage of every permutation; of equal losses the strongest."""
        self.chosen = len(self.losses) - 1 - self.losses.flip(0).argmin(0)

    def update(self, features: Float64[Tensor, "b d"], units: Int64[Tensor, " b"]) -> None:
        """Adds standardised rows of the split that is judged, and their units."""
        self.count += len(features)
        turned = (features - self.middle) @ self.directions
        for part, classes in self._classes(len(features)):
            said = self._said(turned, classes, self.shrinkages[self.chosen[part]])
            self.total[part] += self._sum(self.objective.scores, said, part, units)

    def _classes(self, rows: int) -> Iterator[tuple[slice, ClassSums]]:
        """The classes under as many permutations as are held together."""
        most = max(rows, len(self.sizes), len(self.trained)) * self.plan.classes
        step = max(1, NUMBERS_AT_ONCE // most)
        for start in range(0, len(self.codes), step):
            part = slice(start, start + step)
            labels = torch.nn.functional.one_hot(
                self.names[self.codes[part][:, self.trained]], self.plan.classes
            ).double()
            yield part, ClassSums(self.rows_of_unit @ labels, self.of_units @ labels)

    def _said(
        self, turned: Float64[Tensor, "b e"], classes: ClassSums, shrinkage: Float64[Tensor, " r"]
    ) -> Float[Tensor, "b r k"]:
        """Scores of the classes under each permutation, in float32."""
        weights, bias = self._discriminants(classes, shrinkage)
        r, e, k = weights.shape
        maps = weights.float().transpose(0, 1).reshape(e, r * k)
        return (turned.float() @ maps).view(-1, r, k) + bias.float()

    def _discriminants(
        self, classes: ClassSums, shrinkage: Float64[Tensor, " r"]
    ) -> tuple[Float64[Tensor, "r e k"], Float64[Tensor, "r k"]]:
        """As `lda_path`, in the coordinates of the eigenvectors and of centred rows.

        With A = (T + shift)⁻¹, M the class means, N their rows: (T - M N Mᵀ + shift)⁻¹ M is
        A M (1 - N Mᵀ A M)⁻¹.
        """
        offsets, n = classes.offsets, self.training_rows
        within = self.sizes.sum() - (offsets * classes.features).sum((1, 2))
        variance = within.clamp(min=0) / (n * self.width)
        variance = torch.where(variance > 0, variance, torch.ones_like(variance))
        shift = n * variance * shrinkage / (1 - shrinkage)
        scaled = offsets / (self.sizes[:, None] + shift[:, None, None])
        system = -classes.rows[:, :, None] * (offsets.transpose(1, 2) @ scaled)
        system.diagonal(dim1=1, dim2=2).add_(1)
        weights = torch.linalg.solve(system, scaled, left=False)
        weights *= (n / (1 - shrinkage))[:, None, None]
        bias = torch.log(classes.rows / n) - (offsets * weights).sum(1) / 2
        return weights, torch.where(classes.rows > 0, bias, torch.full_like(bias, NEVER))

    def _sum(
        self,
        judge: Callable[[Tensor, Tensor], Tensor],
        said: Float[Tensor, "b r k"],
        part: slice,
        units: Int64[Tensor, " b"],
    ) -> Float64[Tensor, " r"]:
        """Losses or scores of some permutations, summed over the rows.

        Rows times permutations are the batch: every pair has its own label.
        """
        b, r, k = said.shape
        wanted = self.names[self.codes[part][:, units].T]
        values = judge(said.reshape(b * r, 1, k), wanted.reshape(-1))
        return values.view(b, r).double().sum(0)
