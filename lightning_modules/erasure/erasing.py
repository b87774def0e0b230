"""Erases a target from the cells of a data module, and measures what a fresh probe still finds.

The sums of one pass over the training rows give the map. Three ridge probes are then judged on the
test rows: one before; one afterwards, on the rows that the map was made from (which finds nothing,
by construction); and one afterwards on the validation rows, which the map has never seen. The last
is the honest one.

Letters: b batch, c cells, d width, k classes or dimensions.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from jaxtyping import Float, Float64
from torch import Tensor

from datamodules.cell import Cell
from datamodules.latent_batch import LatentBatch
from datamodules.latents import LatentDataModule
from lightning_modules.closed_form.gram import CellGram, GramSums
from lightning_modules.closed_form.registry import closed_form_objective
from lightning_modules.closed_form.ridge import ridge_path
from lightning_modules.erasure.affine_map import AffineMap
from lightning_modules.erasure.leace import leace, shrunk_covariance
from lightning_modules.erasure.mean_projection import mean_projection, random_projection
from lightning_modules.objectives.objective import Objective

STRENGTH = 1e-2
"""Of the ridge probes, see `lightning_modules.closed_form.ridge`."""
COPIES = 12
"""Square matrices that a cell takes at most: sums of two splits, what is solved, and factors."""
PROBES = ("before", "after", "after_unseen", "random_unseen")
"""Scores that are reported; the last one is that of `after_unseen` for random directions."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ErasedCell:
    """What was found at one cell."""

    cell: Cell
    map: AffineMap
    random: AffineMap
    scores: dict[str, float]
    """On the test rows, by the names of `PROBES`, and `trivial` for the trivial predictor."""
    removed: float
    """The share of the variance that the map takes away."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearRead:
    """A probe of raw features."""

    weight: Float64[Tensor, "d k"]
    bias: Float64[Tensor, " k"]

    def __call__(self, features: Float64[Tensor, "b d"]) -> Float64[Tensor, "b k"]:
        """Class scores or vectors."""
        return features @ self.weight + self.bias


def probe_after(sums: CellGram, mean: Float64[Tensor, " d"], change: AffineMap) -> LinearRead:
    """A ridge probe of standardised features behind a map, from sums before it.

    Args:
        sums: of raw features, centred by `mean`.
        mean: by which they were centred.
        change: the map.
    """
    gram, cross = change.congruent(sums.gram), sums.cross + change.u @ (change.v.T @ sums.cross)
    std = (gram.diagonal() / sums.rows).clamp(min=0).sqrt()
    std = torch.where(std > 1e-7 * std.max().clamp(min=1e-300), std, torch.ones_like(std))
    centre = change((mean + sums.mean_features)[None])[0]
    scaled = CellGram(
        rows=sums.rows, mean_features=torch.zeros_like(mean), mean_targets=sums.mean_targets,
        gram=gram / std / std[:, None], cross=cross / std[:, None],
    )  # fmt: skip
    weights, bias = ridge_path(scaled, [STRENGTH])
    weight = weights[0] / std[:, None]
    return LinearRead(weight=weight, bias=bias[0] - centre @ weight)


class CellEraser:
    """One cell: its map, the probes, and their scores."""

    def __init__(
        self, cell: Cell, train: CellGram, val: CellGram, mean: Float64[Tensor, " d"],
        method: str, seed: int,
    ) -> None:  # fmt: skip
        self.cell = cell
        centre = mean + train.mean_features
        covariance, cross = train.gram / train.rows, train.cross / train.rows
        if method == "leace":
            self.map = leace(shrunk_covariance(covariance, train.rows), cross, centre)
        else:
            self.map = mean_projection(cross, centre)
        self.random = random_projection(self.map, covariance, centre, seed=seed)
        self.removed = self.map.variance_of_change(covariance) / max(
            float(covariance.trace()), 1e-300
        )
        nothing = AffineMap(u=self.map.u[:, :0], v=self.map.v[:, :0], b=torch.zeros_like(mean))
        pairs = ((train, nothing), (train, self.map), (val, self.map), (val, self.random))
        self.probes = [(change, probe_after(sums, mean, change)) for sums, change in pairs]
        self.total = [0.0] * len(PROBES)

    def update(
        self, features: Float64[Tensor, "b d"], batch: LatentBatch, objective: Objective
    ) -> None:
        """Adds test rows."""
        for place, (change, probe) in enumerate(self.probes):
            said = probe(change(features)).float()[:, None]
            self.total[place] += float(objective.scores(said, batch.targets).sum())


def erase(
    data: LatentDataModule, *, method: str = "leace", memory_budget: int = 2 * 2**30, seed: int = 0
) -> Iterator[ErasedCell]:
    """Erases the target from every cell of the selection, as many cells at a time as fit.

    Args:
        data: the selection, its split and its target.
        method: `leace` or `mean`.
        memory_budget: bytes that sums may take.
        seed: of the random directions.

    Raises:
        ValueError: if the method is unknown, or a single cell does not fit into the budget.
    """
    if method not in ("leace", "mean"):
        raise ValueError(f"`method` must be leace or mean, but got {method!r}.")
    data.setup()
    objective = closed_form_objective("ridge", data.target_spec)
    for source, field in enumerate(data.fields):
        need = 8 * COPIES * field.width**2
        if need > memory_budget:
            raise ValueError(
                f"`memory_budget` must hold at least one cell, {need} bytes for width "
                f"{field.width}, but got {memory_budget}. Give more."
            )
        size = memory_budget // need
        for start in range(0, len(field.cells), size):
            places = list(range(start, min(start + size, len(field.cells))))
            yield from _erase_some(data, objective, source, places, method=method, seed=seed)


def _erase_some(
    data: LatentDataModule,
    objective: Objective,
    source: int,
    places: list[int],
    *,
    method: str,
    seed: int,
) -> Iterator[ErasedCell]:
    mean = data.statistics[source].mean[places]
    one_hot = data.target_spec.size if objective.classifies else 0
    sums = [
        _sums(loader, source, places, mean, data.target_spec.size, one_hot)
        for loader in (data.code_dataloader, data.val_dataloader)
    ]
    erasers = [
        CellEraser(data.fields[source].cells[place], train, val, centre.double(), method, seed)
        for place, train, val, centre in zip(places, *sums, mean, strict=True)
    ]
    trivial = objective.trivial_outputs(torch.tensor(data.target_spec.trivial))
    count, blind = 0, 0.0
    for batch in data.test_dataloader():
        count += len(batch.targets)
        said = trivial.expand(len(batch.targets), 1, -1)
        blind += float(objective.scores(said, batch.targets).sum())
        for place, eraser in zip(places, erasers, strict=True):
            eraser.update(batch.features[source][:, place].double(), batch, objective)
    for eraser in erasers:
        scores = {name: total / count for name, total in zip(PROBES, eraser.total, strict=True)}
        yield ErasedCell(
            cell=eraser.cell, map=eraser.map, random=eraser.random, removed=eraser.removed,
            scores={**scores, "trivial": blind / count},
        )  # fmt: skip


def _sums(
    loader: Callable[[], Iterable[LatentBatch]],
    source: int,
    places: Sequence[int],
    mean: Float[Tensor, "c d"],
    columns: int,
    one_hot: int,
) -> list[CellGram]:
    """The sums of raw features of a split, centred by the training mean."""
    sums = GramSums(mean, torch.ones_like(mean), columns)
    for batch in loader():
        targets = F.one_hot(batch.targets, one_hot).float() if one_hot else batch.targets
        sums.update(batch.features[source][:, list(places)], targets)
    return list(sums.cells())
