"""`ContextStatistics`: what the vectors of a data set look like, in one pass over all of them.

It is run by `vla-lens test -c context_statistics`, on any field of the shards: the vectors of a
torch model (context.act_head.input.tokens) or a policy's latents, all layers together.

Letters: b batch, c cells, d dimensions.
"""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from datamodules.cell import Cell
from datamodules.content_digest import content_digest
from datamodules.latent_batch import LatentBatch
from datamodules.latents import LatentDataModule
from lightning_modules.context.card import Card, CellCard
from lightning_modules.context.card_folder import write_card
from lightning_modules.context.cell_statistics import CellStatistics, plan_bins
from lightning_modules.context.kept_vectors import KeptVectors
from lightning_modules.context.output_norm import norm_before, without_numbers
from lightning_modules.provenance import package_versions

KEPT_SHARE = 4
"""Kept vectors take at most a part of so many of the memory."""


class ContextStatistics(pl.LightningModule):
    """Streaming statistics of every cell; writes a card when the test ends.

    Args:
        out: folder that is written: card.md, card.json, dimensions/*.csv, figures, tensorboard.
        covariance: whether to look at pairs of dimensions: effective rank, principal directions.
        kept: vectors that are kept for pictures and for the curve of stability.
        memory_budget: bytes that sums, bins and kept vectors may take.
        tensorboard: whether to write scalars, histograms, figures and points for TensorBoard.
        seed: of what is kept and drawn.
    """

    def __init__(
        self,
        out: str,
        covariance: bool = True,
        kept: int = 5000,
        memory_budget: int = 4 * 2**30,
        tensorboard: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if kept < 0:
            raise ValueError(f"`kept` must not be negative, but got {kept}.")
        if Path(out).exists() and not Path(out).is_dir():
            raise ValueError(f"`out` must be a folder, but {out} is a file. Choose another.")
        self.out, self.covariance, self.seed = Path(out), covariance, seed
        self.kept, self.memory_budget, self.tensorboard = kept, memory_budget, tensorboard
        self.cells: list[Cell] = []
        self.sums: list[CellStatistics] = []
        self.sample: list[KeptVectors] = []
        """One a source: its vectors have one width."""
        self.card: Card | None = None

    def on_test_start(self) -> None:
        """Makes room.

        Raises:
            ValueError: if the data come from elsewhere, or the memory does not suffice.
        """
        data = self._data()
        sources = [source for source in data.sources if source.kind == "main"]
        self.cells = [cell for source in sources for cell in source.cells]
        widths = [source.width for source in sources for _ in source.cells]
        budget = self.memory_budget * (KEPT_SHARE - 1) // KEPT_SHARE
        bins = plan_bins(widths, covariance=self.covariance, memory_budget=budget)
        self.sums = [CellStatistics(w, bins=bins, covariance=self.covariance) for w in widths]
        room = self.memory_budget // KEPT_SHARE // (8 * sum(widths))
        self.sample = [KeptVectors(min(self.kept, room), self.seed) for _ in sources]

    def _data(self) -> LatentDataModule:
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, LatentDataModule):
            raise ValueError(
                f"`data` must be a WholeDataset or a LatentDataModule, but got "
                f"{type(data).__name__}. `-c context_statistics` shows one."
            )
        return data

    def test_step(self, batch: LatentBatch, batch_idx: int) -> None:
        """Adds a batch to every cell's sums."""
        rows, units = batch.rows.cpu().numpy(), batch.clusters.cpu().numpy()
        place = 0
        for source, kept in enumerate(self.sample):
            features = plain(batch.features[source])
            for cell in range(features.shape[1]):
                self.sums[place].update(features[:, cell], rows)
                place += 1
            finite = np.isfinite(features).all(axis=(1, 2))
            kept.update(features[finite], rows[finite], units[finite])

    def on_test_epoch_end(self) -> None:
        """Adds up what all processes have seen; the first one writes."""
        for part in self.sums:
            part.flush()
        for sums, sample in gathered((self.sums, self.sample)):
            for own, other in zip(self.sums, sums, strict=True):
                own.merge(other)
            for own, other in zip(self.sample, sample, strict=True):
                own.merge(other)
        for kept in self.sample:
            kept.sort()
        unreadable = self._data().unreadable("test")
        if self.trainer.is_global_zero:
            self._write(unreadable)

    def _write(self, unreadable: dict[str, str]) -> None:
        data = self._data()
        kept = [(v, k.units, k.rows) for k in self.sample for v in k.by_cell()]
        cards = []
        for place, (cell, sums) in enumerate(zip(self.cells, self.sums, strict=True)):
            if sums.vectors.count < 2:
                raise ValueError(
                    f"`path` must hold at least 2 finite vectors of {cell.name}, but it has "
                    f"{sums.vectors.count}, and {sums.not_finite.samples} that are not finite. "
                    "Capture them again."
                )
            bad = data.keys(np.asarray(sums.not_finite.first, np.int64))
            norm = norm_before(data.dataset.info, cell, sums.vectors.width)
            cards.append(CellCard.of(cell, sums, kept[place], bad, self.seed, norm))
        described = {**described_rows(data, "test"), "unreadable": unreadable}
        self.card = Card(cells=tuple(cards), data=described, versions=package_versions())
        write_card(self.out, self.card, tensorboard=self.tensorboard)
        self.print(f"card: {self.out / 'card.md'}")


def described_rows(data: LatentDataModule, split: str) -> dict[str, Any]:
    """What was looked at, in plain types."""
    info, rows = data.dataset.info, data.rows[split]
    return {
        "path": str(data.path),
        "fingerprint": data.fingerprint,
        "content": content_digest(data.dataset),
        "model": without_numbers(info.model),
        "profile": info.capture.get("profile"),
        "samples": len(rows),
        "episodes": len(np.unique(data.reader.columns.cluster[rows])),
        "dropped_without_valid_token": data.dropped,
        "dtypes": {field.name: field.spec.dtype for field in data.fields},
    }


def plain(features: Float[Tensor, "b c d"]) -> np.ndarray:
    """As float32 for numpy, which does not know torch's bfloat16."""
    return features.detach().cpu().float().contiguous().numpy()


def gathered(part: Any) -> list[Any]:
    """What the other processes hold, on the first one, in the order of ranks; all must ask."""
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_initialized():
        return []
    rank, size = distributed.get_rank(), distributed.get_world_size()
    found: list[Any] | None = [None] * size if rank == 0 else None
    distributed.gather_object(part, found)
    return found[1:] if found else []
