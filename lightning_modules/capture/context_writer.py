"""`ContextWriter`: turns the batches of `vla-lens predict` into episode shards."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from datamodules.frames.frame_data_module import FrameDataModule
from jax_bridge.shards import DatasetInfo, FieldSpec, ShardLimits
from jax_bridge.shards.committed import committed_episodes
from jax_bridge.shards.dataset_folder import DatasetFolder
from jax_bridge.shards.remote.address import is_address
from lightning_modules.capture.capture_point import CapturePoint
from lightning_modules.capture.captured_batch import CapturedBatch
from lightning_modules.capture.episode_stream import EpisodeStream, NotFinite
from lightning_modules.capture.model_digest import describe_model

_log = logging.getLogger(__name__)


class ContextWriter(Callback):
    """Writes whole episodes; a run that was stopped goes on where it stopped.

    Each process writes shards of its own into one folder.

    Args:
        out: folder of the data set.
        points: what is captured.
        limits: when a new shard begins.
    """

    def __init__(
        self, out: str, points: Sequence[CapturePoint], limits: ShardLimits | None = None
    ) -> None:
        super().__init__()
        if is_address(out):
            raise ValueError(
                f"`out` must be a folder, but got {out}. Copy the data set there afterwards."
            )
        self.out = out
        self._points = tuple(points)
        self._limits = limits
        self.stream: EpisodeStream | None = None
        self._shown: dict[str, Any] = {}
        self._skipped: dict[str, str] = {}
        self._model: dict[str, Any] = {}
        self.episodes_before = 0
        """Episodes that were there already."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Tells the data module which episodes are there already.

        Raises:
            ValueError: if the data do not come from a FrameDataModule.
            FingerprintError: if what is there was made in another way.
        """
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, FrameDataModule):
            raise ValueError(
                f"`data` must be a FrameDataModule, but got {type(data).__name__}. "
                "`vla-lens predict -c capture_robovlms` shows one."
            )
        self._shown, self._skipped = data.describe(), dict(data.source.skipped)
        self._model = describe_model(pl_module.get_submodule("model"))
        folder = DatasetFolder(self.out)
        if folder.info_path.exists():
            stored = folder.read_info()
            self._info(stored.fields).require_same(stored, self.out)
        wanted = {chosen.episode.id for chosen in data.episodes}
        data.done = committed_episodes(self.out) & wanted
        self.episodes_before = len(data.done)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the way to the disk."""
        self.stream = EpisodeStream(self.out, self._info, self._limits)

    def _info(self, fields: dict[str, FieldSpec]) -> DatasetInfo:
        shown = dict(self._shown)
        source = shown.pop("source")
        return DatasetInfo(
            fields=fields,
            capture={"points": [point.to_json() for point in self._points], **shown},
            model=self._model,
            environment={"name": "frames", "source": source},
            seed=0,
        )

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Hands the batch to the thread that writes."""
        assert self.stream is not None
        assert isinstance(outputs, CapturedBatch)
        self.stream.put(outputs)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Commits what is left.

        Raises:
            ValueError: if the last batches did not fit.
            OSError: if the disk refused.
        """
        assert self.stream is not None
        self.stream.close()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Says what there is; this is reached even where nothing was left to do."""
        pl_module.print(self.summary(trainer.world_size))

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Commits the episodes that are whole."""
        if self.stream is None:
            return
        try:
            self.stream.close()
        except (ValueError, OSError) as error:
            if error is not exception:
                _log.warning("%s", error)

    def summary(self, processes: int = 1) -> str:
        """What was written, and which vectors are not finite; of this process alone."""
        by = f" by the first of {processes} processes" * (processes > 1)
        written = self.stream.written if self.stream else 0
        done = f"; {self.episodes_before} episodes were there already" * bool(self.episodes_before)
        lines = [f"captured: {written} samples into {Path(self.out)}{by}{done}"]
        if self._skipped:
            name, why = next(iter(self._skipped.items()))
            lines.append(f"{len(self._skipped)} could not be read, as {name}: {why}")
        bad = self.stream.not_finite if self.stream else NotFinite()
        if bad.samples:
            lines.append(
                f"not finite: {bad.numbers} numbers in {bad.samples} samples, as "
                f"{', '.join(bad.first)}; column `not_finite` of the index says how many in each"
            )
        return "\n".join(lines)
