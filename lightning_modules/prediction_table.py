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


def prediction_columns(
    outputs: Float[Tensor, "b c k"], batch: LatentBatch, module: LinearProbe
) -> dict[str, np.ndarray]:
    """One row a sample and cell: what was said, what is true, how well it fits."""
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
        return columns
    names = np.array(module.spec.target.classes)
    probabilities = torch.softmax(outputs, -1).max(-1)
    columns["target"] = names[batch.targets.cpu().numpy()].repeat(c)
    columns["prediction"] = names[probabilities.indices.reshape(-1).cpu().numpy()]
    columns["probability"] = probabilities.values.reshape(-1).cpu().numpy()
    return columns


class PredictionTable(pl.Callback):
    """Streams the predictions of `vla-lens predict` into RUN/predictions.parquet."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self._writer: pq.ParquetWriter | None = None

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
        assert isinstance(pl_module, LinearProbe)
        assert pl_module.spec is not None
        data: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        columns: dict[str, Any] = dict(prediction_columns(outputs, batch, pl_module))
        rows = columns.pop("rows")
        table = pa.table(
            {"key": _strings(data.keys(rows)), "split": _strings(data.splits_of(rows))} | columns
        )
        if self._writer is None:
            self.path = Path(trainer.log_dir or trainer.default_root_dir) / "predictions.parquet"
            self.path.parent.mkdir(parents=True, exist_ok=True)
            part = self.path.with_suffix(".part")
            self._writer = pq.ParquetWriter(part, table.schema, compression="zstd")
        self._writer.write_table(table)

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Closes the file and gives it its name: an interrupted one never bears it."""
        if self._writer is not None and self.path is not None:
            self._writer.close()
            self._writer = None
            self.path.with_suffix(".part").replace(self.path)


def _strings(values: Sequence[str]) -> pa.Array:
    return pa.array(list(values), pa.string())
