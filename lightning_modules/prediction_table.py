"""Per-sample predictions of every cell as one Parquet file.

Letters: b batch, c cells, k classes or dimensions.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from torch import Tensor

from datamodules.latent_batch import LatentBatch
from lightning_modules.linear_probe import LinearProbe
from lightning_modules.nearest_row import nearest_names


def prediction_columns(
    outputs: Float[Tensor, "b c k"],
    batch: LatentBatch,
    module: LinearProbe,
    texts: Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """One row a sample and cell: what was said, what is true, how well it fits.

    Args:
        outputs: of every cell.
        batch: the samples.
        module: whose outputs they are.
        texts: what each sample is, where the target has a table of named vectors.
    """
    assert module.spec is not None
    b, c, _ = outputs.shape
    scores = module.objective.scores(outputs, batch.targets)
    columns = {
        "score": scores.reshape(-1).cpu().numpy(),
        "cell": np.tile(np.array([cell.name for cell in module.spec.cells]), b),
    }
    for name in ("rows", "task_id", "episode", "timestep"):
        columns[name] = getattr(batch, name).cpu().numpy().repeat(c)
    if not module.objective.classifies:
        if texts is not None:
            nearest = nearest_names(outputs, list(texts), module.spec.target)
            columns["target"] = np.array(texts).repeat(c)
            columns["prediction"] = np.array(nearest).reshape(-1)
        return columns
    names = np.array(module.spec.target.classes)
    probabilities = torch.softmax(outputs, -1).max(-1)
    columns["target"] = names[batch.targets.cpu().numpy()].repeat(c)
    columns["prediction"] = names[probabilities.indices.reshape(-1).cpu().numpy()]
    columns["probability"] = probabilities.values.reshape(-1).cpu().numpy()
    return columns


class PredictionTable(pl.Callback):
    """Streams the predictions of `vla-lens predict` into RUN/predictions.parquet.

    Each rank writes a part of its own; at the end rank 0 puts them together in the order in
    which one process would have written them.
    """

    def __init__(self) -> None:
        self.path: Path | None = None
        self._writer: pq.ParquetWriter | None = None

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Finds the folder, which rank 0 tells the others."""
        self.path = Path(trainer.log_dir or trainer.default_root_dir) / "predictions.parquet"
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def _part(self, rank: int) -> Path:
        assert self.path is not None
        return self.path.with_suffix(f".{rank}.part")

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Appends the rows of one batch, with each sample's key and split."""
        if len(batch.rows) == 0:
            return
        assert isinstance(pl_module, LinearProbe)
        assert pl_module.spec is not None
        data: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        target = pl_module.spec.target
        texts = None
        if target.table_names:  # named by a column of the index
            texts = data.dataset.index.take(batch.rows.cpu().numpy())[target.name].to_pylist()
            texts = [text or "" for text in texts]
        columns: dict[str, Any] = dict(prediction_columns(outputs, batch, pl_module, texts))
        rows = columns.pop("rows")
        table = pa.table(
            {"key": _strings(data.keys(rows)), "split": _strings(data.splits_of(rows))} | columns
        )
        if self._writer is None:
            part = self._part(trainer.global_rank)
            self._writer = pq.ParquetWriter(part, table.schema, compression="zstd")
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Closes the file and gives it its name: an interrupted one never bears it."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        trainer.strategy.barrier("predictions")
        parts = [part for part in map(self._part, range(trainer.world_size)) if part.exists()]
        if trainer.is_global_zero and parts and self.path is not None:
            join_parts(parts, self.path)


def join_parts(parts: Sequence[Path], path: Path) -> None:
    """Puts the ranks' parts together, a batch of each in turn, and removes them.

    Args:
        parts: one file a rank, with one row group a batch.
        path: of the whole; it appears when it is complete.
    """
    if len(parts) > 1:
        whole = path.with_suffix(".part")
        files = [pq.ParquetFile(part) for part in parts]
        with pq.ParquetWriter(whole, files[0].schema_arrow, compression="zstd") as writer:
            for step in range(files[0].num_row_groups):
                for file in files:
                    if step < file.num_row_groups:
                        writer.write_table(file.read_row_group(step))
        for file in files:
            file.close()
        whole.replace(path)
    else:
        parts[0].replace(path)
    for part in parts:
        part.unlink(missing_ok=True)


def _strings(values: Sequence[str]) -> pa.Array:
    return pa.array(list(values), pa.string())
