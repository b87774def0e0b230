"""`ActivationCapture`: any torch model, looked into while it runs."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch import Callback
from torch import nn

from datamodules.frames.frame_batch import FrameBatch
from jax_bridge.shards import ShardLimits
from lightning_modules.capture.activation_hooks import ActivationHooks, on_cpu
from lightning_modules.capture.capture_point import CapturePoint, check_points
from lightning_modules.capture.captured_batch import CapturedBatch
from lightning_modules.capture.context_writer import ContextWriter


class ActivationCapture(pl.LightningModule):
    """Runs a model over frames and keeps what passes some of its modules.

    The model is called with a `FrameBatch`; a model that wants other arguments gets a module of a
    few lines around it (docs/context_vectors.md).

    Args:
        model: any torch module whose forward takes a `FrameBatch`.
        points: what is read: modules, their input or output, pooling.
        out: folder of the data set that `vla-lens predict` writes; None writes nothing.
        shard_bytes: about how large a tar grows, in bytes.
    """

    def __init__(
        self,
        model: nn.Module,
        points: list[CapturePoint],
        out: str | None = None,
        shard_bytes: int = 512 * 2**20,
    ) -> None:
        super().__init__()
        check_points(model, points)
        self.model = model.eval()
        self.points = tuple(points)
        self._out, self._limits = out, ShardLimits(shard_bytes=shard_bytes)

    def configure_callbacks(self) -> list[Callback]:
        """The writer, where there is a folder to write into."""
        if self._out is None:
            return []
        return [ContextWriter(self._out, self.points, self._limits)]

    def capture(self, batch: FrameBatch) -> CapturedBatch:
        """Runs the model once; hooks are off again when this returns or raises.

        Raises:
            ValueError: if a module was not called, or its values do not fit.
        """
        with ActivationHooks(self.model, self.points) as hooks:
            self.model(batch)
        values, ready = on_cpu(hooks.values(len(batch.samples)))
        return CapturedBatch(values=values, samples=batch.samples, ready=ready)

    def predict_step(self, batch: FrameBatch, *_: Any) -> CapturedBatch:
        """One batch of `vla-lens predict`."""
        return self.capture(batch)
