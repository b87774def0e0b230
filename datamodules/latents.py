"""`LatentDataModule`: the latents of a data set of shards, as batches for probes."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, cast

import lightning.pytorch as pl
import numpy as np
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from datamodules.cell import Cell
from datamodules.clusters import Clusters, clusters_of_index
from datamodules.field_choice import FieldChoice, choose_field
from datamodules.row_choice import RowChoice
from datamodules.statistics import (
    FeatureStatistics,
    cache_folder,
    feature_statistics,
    load_statistics,
    save_statistics,
    statistics_file,
)
from datamodules.stream import BatchReader, PlanLoader, RowColumns
from datamodules.target_spec import TargetSpec
from datamodules.targets.registry import TARGETS
from datamodules.targets.target import Target
from jax_bridge.shards import ReadPlan, ShardDataset, open_dataset, split_rows

Rows = Int64[np.ndarray, "_"]
SPLITS = ("train", "val", "test")
MASKS_AT_ONCE = 4096
"""Rows whose masks are read together."""


class LatentDataModule(pl.LightningDataModule):
    """Streams cells, targets and metadata of the chosen samples; split by episode by default.

    Args:
        path: folder of the data set.
        expert: `vlm`, `action`, or `text_only`, which means (vlm, region text).
        site: what is read in a block: hidden_states, post_attn_embedding, ...
        region: whose tokens; by default text for vlm and action for action.
        pool: how tokens were pooled; `tokens` puts them side by side.
        layer: a layer, a list of them, or all that were captured.
        flow_time: a flow time, a list of them, or all; for expert action.
        rollout_step: a timestep or a list of them; all by default.
        suite: the suite, where the data set holds several.
        task_range: half-open, 0:5.
        episode_range: half-open, of each task's episodes.
        target: task_id, instruction or robot_state.
        split_by: episode, task (unseen instructions) or suite (unseen scenes); sample leaks.
        fractions: of training, validation and test.
        allow_leakage: allows split_by sample, and says so wherever results are shown.
        batch_size: samples a batch.
        num_workers: processes that read; 0 reads in the training process, which is fastest for
            local data.
        seed: of the split and of the order.
        cache_dir: where the statistics of the features are kept; by default $VLA_LENS_CACHE or
            the user's cache folder.
    """

    def __init__(
        self,
        path: str,
        expert: str = "vlm",
        site: str = "hidden_states",
        region: str | None = None,
        pool: str = "mean",
        layer: int | list[int] | Literal["all"] = "all",
        flow_time: float | list[float] | Literal["all"] = "all",
        rollout_step: int | list[int] | None = None,
        suite: str | None = None,
        task_range: str | list[int] | None = None,
        episode_range: str | list[int] | None = None,
        target: str = "task_id",
        split_by: Literal["episode", "task", "suite", "sample"] = "episode",
        fractions: tuple[float, float, float] = (0.6, 0.2, 0.2),
        allow_leakage: bool = False,
        batch_size: int = 128,
        num_workers: int = 0,
        seed: int = 0,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__()
        if target not in TARGETS:
            raise ValueError(f"`target` must be one of {', '.join(TARGETS)}, but got {target!r}.")
        if batch_size < 1 or num_workers < 0:
            raise ValueError(
                f"`batch_size` must be positive and `num_workers` not negative, but got "
                f"{batch_size} and {num_workers}."
            )
        self.path = path
        self._field_words: dict[str, Any] = {
            "expert": expert, "site": site, "region": region, "pool": pool, "layer": layer,
            "flow_time": flow_time,
        }  # fmt: skip
        self._row_choice = RowChoice(
            suite=suite,
            task_range=task_range,
            episode_range=episode_range,
            rollout_step=rollout_step,
        )
        self._target_name = target
        self._split: dict[str, Any] = {
            "by": split_by, "fractions": fractions, "seed": seed, "allow_leakage": allow_leakage,
        }  # fmt: skip
        self.batch_size = batch_size
        self._num_workers = num_workers
        self._cache = Path(cache_dir) if cache_dir else cache_folder()
        self._dataset: ShardDataset | None = None
        self._statistics: FeatureStatistics | None = None
        self.rows: dict[str, Rows] = {}
        """Row numbers of each split, and of all of them under `all`."""
        self.dropped = 0
        """Rows without a valid token in the region (a masked camera)."""

    # ------------------------------------------------------------------ setting up

    @property
    def dataset(self) -> ShardDataset:
        """The data set, opened when first needed."""
        if self._dataset is None:
            self._dataset = open_dataset(self.path)
        return self._dataset

    def setup(self, stage: str | None = None) -> None:
        """Resolves the selection, splits it, fits the target; once.

        Raises:
            ValueError: if the selection asks for what is not there, or leaves nothing.
            FileNotFoundError: if there is no data set.
        """
        if self.rows:
            return
        dataset = self.dataset
        self.field: FieldChoice = choose_field(dataset.fields, **self._field_words)
        self.cells: tuple[Cell, ...] = self.field.cells
        self.width: int = self.field.width
        self.target: Target = TARGETS[self._target_name]()
        rows, self.dropped = self._valid_rows(self._row_choice.rows(dataset))
        parts = self._split_rows(rows)
        self.target_spec: TargetSpec = self.target.fit(dataset, rows=rows, training=parts["train"])
        self.clusters: Clusters
        by = self._split["by"]
        self.clusters, episode_of_row = clusters_of_index(
            dataset.metadata, unit="episode" if by == "sample" else by
        )
        numbers = {
            name: dataset.index[name].to_numpy().astype(np.int64)
            for name in ("task_id", "episode", "timestep")
        }
        self.reader = BatchReader(
            self.path,
            field=self.field,
            target=self.target,
            columns=RowColumns(cluster=episode_of_row, **numbers),
        )
        self.rows = {**parts, "all": rows}

    def _valid_rows(self, rows: Rows) -> tuple[Rows, int]:
        region = self.cells[0].region
        known = [
            name for name in (f"valid.{region}", f"mask.{region}") if name in self.dataset.fields
        ]
        if not known:
            return rows, 0
        batches = self.dataset.iter_batches(known[0], batch_size=MASKS_AT_ONCE, rows=rows)
        parts = [batch[known[0]].reshape(len(batch["rows"]), -1).any(axis=1) for batch in batches]
        valid: Bool[np.ndarray, " n"] = np.concatenate(parts)
        kept = rows[valid]
        if len(kept) == 0:
            raise ValueError(
                f"`region` must have valid tokens, but {region} has none in any of "
                f"the {len(rows)} selected samples (a camera that the robot has not is masked). "
                "Choose another region."
            )
        return kept, len(rows) - len(kept)

    def _split_rows(self, rows: Rows) -> dict[str, Rows]:
        target, by = TARGETS[self._target_name], self._split["by"]
        if target.needs_seen_tasks and by in ("task", "suite"):
            raise ValueError(
                f"`split_by` must be episode with target {self._target_name}, but got {by!r}: a "
                "class that was never trained cannot be recognised. Use target instruction."
            )
        parts = split_rows(self.dataset.metadata.take(rows), **self._split)
        parts = {name: rows[parts[name]] for name in SPLITS}
        empty = [name for name in SPLITS if len(parts[name]) == 0]
        if empty:
            raise ValueError(
                f"`fractions` must leave samples in every split, but {', '.join(empty)} got none "
                f"of {len(rows)} samples with {self._split['fractions']} by {by}. "
                "Select more episodes, or larger fractions."
            )
        return parts

    @property
    def statistics(self) -> FeatureStatistics:
        """Mean and deviation of each feature over the training rows; cached.

        Raises:
            ValueError: if a feature of any selected row is NaN or infinite; names the sample.
        """
        self.setup()
        if self._statistics is None:
            self._statistics = self._cached_statistics()
        return self._statistics

    def _cached_statistics(self) -> FeatureStatistics:
        file = statistics_file(self._cache, *self._statistics_key())
        found = load_statistics(file)
        if found is None:
            found = feature_statistics(self._training_features())
            save_statistics(file, found)
        return found

    def _statistics_key(self) -> list[str]:
        keys = ["\n".join(self.keys(self.rows[split])) for split in ("train", "all")]
        cells = ",".join(cell.name for cell in self.cells)
        rows = hashlib.sha256("\0".join(keys).encode()).hexdigest()
        return [self.dataset.fingerprint, content_digest(self.dataset), cells, rows]

    def _training_features(self) -> Iterator[Float[Tensor, "b c d"]]:
        """Reads all selected rows, so that what is not finite is found before training starts."""
        yield from self._finite_features(self.rows["train"])
        for _ in self._finite_features(np.setdiff1d(self.rows["all"], self.rows["train"])):
            pass

    def _finite_features(self, rows: Rows) -> Iterator[Float[Tensor, "b c d"]]:
        for start in range(0, len(rows), self.batch_size):
            part = rows[start : start + self.batch_size]
            features = self.field.read(self.dataset, part)
            finite = features.isfinite().flatten(1).all(1)
            if not finite.all():
                bad = int((~finite).nonzero()[0, 0])
                raise ValueError(
                    f"`path` must hold finite latents, but {self.field.spec.name} of sample "
                    f"{self.keys(part[[bad]])[0]} in {self.path} is NaN or infinite. "
                    "Leave that episode out, or capture it again."
                )
            yield features

    # ------------------------------------------------------------------ batches

    def _loader(self, split: str) -> PlanLoader:
        self.setup()
        training = split == "train"
        plan = ReadPlan(self.rows[split], seed=self._split["seed"], shuffle=training)
        return PlanLoader(
            plan,
            self.reader,
            batch_size=self.batch_size,
            num_workers=self._num_workers,
            equal_steps=training,
            current_epoch=self._current_epoch if training else int,
        )

    def _current_epoch(self) -> int:
        if self.trainer is None:
            return 0
        # Not `current_epoch`: a fit that goes on asks for batches before that one is put right.
        progress: Any = self.trainer.fit_loop.epoch_progress.current
        return progress.processed

    def train_dataloader(self) -> PlanLoader:
        """Training batches, shuffled anew every epoch."""
        return self._loader("train")

    def val_dataloader(self) -> PlanLoader:
        """Validation batches in the order of the index."""
        return self._loader("val")

    def test_dataloader(self) -> PlanLoader:
        """Test batches in the order of the index."""
        return self._loader("test")

    def predict_dataloader(self) -> PlanLoader:
        """All selected samples in the order of the index."""
        return self._loader("all")

    # ------------------------------------------------------------------ saying what it holds

    @property
    def fingerprint(self) -> str:
        """Of how the data set was made."""
        return self.dataset.fingerprint

    @property
    def split(self) -> dict[str, Any]:
        """How the rows are split, in plain types."""
        return {**self._split, "fractions": list(self._split["fractions"])}

    def keys(self, rows: Shaped[np.ndarray, " n"]) -> list[str]:
        """The samples' keys."""
        return cast(list[str], self.dataset.index.take(rows)["key"].to_pylist())

    def splits_of(self, rows: Shaped[np.ndarray, " n"]) -> list[str]:
        """The split of each row."""
        names = np.full(self.dataset.index.num_rows, "none", "<U5")
        for split in SPLITS:
            names[self.rows[split]] = split
        return names[rows].tolist()

    def describe(self) -> dict[str, Any]:
        """The data, the selection and the splits, in plain types, for a run's provenance."""
        self.setup()
        columns = self.reader.columns
        splits = {
            split: {
                "samples": len(self.rows[split]),
                "episodes": len(np.unique(columns.cluster[self.rows[split]])),
            }
            for split in SPLITS
        }
        choice = self._row_choice
        return {
            "path": str(self.path),
            "fingerprint": self.fingerprint,
            "content": content_digest(self.dataset),
            "model": self.dataset.info.model,
            "environment": self.dataset.info.environment,
            "field": self.cells[0].field,
            "read_from": self.field.spec.name,
            "dtype": self.field.spec.dtype,
            "layers": self.field.layers and list(self.field.layers),
            "flow_times": self.field.flow_times and list(self.field.flow_times),
            "width": self.width,
            "constant_features": self.statistics.constant,
            "target": self._target_name,
            "untrained_classes": list(self.target_spec.untrained),
            "suite": choice.suite,
            "tasks": choice.task_range,
            "episodes": choice.episode_range,
            "rollout_step": choice.rollout_step,
            "split": self.split,
            "leaky": self._split["by"] == "sample",
            "splits": splits,
            "dropped_without_valid_token": self.dropped,
        }


def content_digest(dataset: ShardDataset) -> str:
    """A digest of the shards' manifests, which hold the digest of every member."""
    digest = hashlib.sha256()
    for manifest in sorted(Path(dataset.path).glob("shards/*.json")):
        digest.update(hashlib.sha256(manifest.read_bytes()).digest())
    return digest.hexdigest()
