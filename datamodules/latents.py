"""`LatentDataModule`: the latents of a data set of shards, as batches for probes."""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import lightning.pytorch as pl
import numpy as np
import torch
from jaxtyping import Bool, Int64, Shaped

from datamodules.cell import Cell
from datamodules.clusters import Clusters, clusters_of_index
from datamodules.content_digest import content_digest
from datamodules.control_task import control_rows
from datamodules.damaged_rows import DamagedRows, OnError
from datamodules.feature_source import MAIN, FeatureSource, SourceSpec
from datamodules.field_choice import FieldChoice
from datamodules.finite_features import FiniteFeatures
from datamodules.known_rows import known_rows
from datamodules.plan_loader import PlanLoader
from datamodules.row_choice import RowChoice
from datamodules.source_choice import SourceChoice
from datamodules.statistics import (
    FeatureStatistics,
    cache_folder,
    feature_statistics,
    load_statistics,
    save_statistics,
    statistics_file,
)
from datamodules.stream import BatchReader, RowColumns
from datamodules.target_spec import TargetSpec
from datamodules.targets.registry import check_target, make_target
from datamodules.targets.target import Target, TargetOptions
from datamodules.trainer_clock import TrainerClock
from jax_bridge.shards import ReadPlan, ShardDataset, open_dataset, split_rows

_log = logging.getLogger(__name__)
Rows = Int64[np.ndarray, "_"]
SPLITS = ("train", "val", "test")
MASKS_AT_ONCE = 4096
"""Rows whose masks are read together."""


def check_settings(target: str, batch_size: int, num_workers: int, on_error: str) -> None:
    """Refuses settings that no data could make right.

    Raises:
        ValueError: if one is unknown or out of range.
    """
    check_target(target)
    if batch_size < 1 or num_workers < 0:
        raise ValueError(
            f"`batch_size` must be positive and `num_workers` not negative, but got "
            f"{batch_size} and {num_workers}."
        )
    if on_error not in ("raise", "skip"):
        raise ValueError(f"`on_error` must be raise or skip, but got {on_error!r}.")


def fold_settings(folds: int | None, fold: int) -> dict[str, int]:
    """What `split_rows` must know of folds; nothing where there are none.

    Raises:
        ValueError: if a fold is named but not of how many.
    """
    if folds is None and fold:
        raise ValueError(f"`folds` must say of how many `fold` {fold} is one, but got none.")
    return {} if folds is None else {"folds": folds, "fold": fold}


class LatentDataModule(pl.LightningDataModule):
    """Streams cells, targets and metadata of the chosen samples; split by episode by default.

    Args:
        path: folder of the data set, or its address such as s3://bucket/data.
        expert: `vlm`, `action`, or `text_only`, which means (vlm, region text).
        site: what is read in a block: hidden_states, post_attn_embedding, ...
        region: whose tokens; by default text for vlm and action for action.
        pool: how tokens were pooled; `tokens` puts them side by side.
        layer: a layer, a list of them, or all that were captured.
        flow_time: a flow time, a list of them, or all; for expert action.
        fields: several fields in one grid, by name (vlm.hidden_states.text.mean), in place of
            expert, site, region and pool.
        control_data: folder of the same samples from an untrained policy, for that control.
        rollout_step: a timestep or a list of them; all by default.
        suite: the suite, where the data set holds several.
        task_range: half-open, 0:5.
        episode_range: half-open, of each task's episodes.
        target: what is to be predicted: task_id, instruction, success, ... (docs/targets.md), or
            a column of the index, column:NAME (class:NAME takes numbers as names).
        encoder: of instructions: tfidf, or a folder or hub name such as t5-small.
        whiten: gives every direction of embedded instructions the same variance.
        split_by: episode, task (unseen instructions) or suite (unseen scenes); sample leaks.
        fractions: of training, validation and test.
        folds: cuts into so many equal parts in place of `fractions`.
        fold: the part that is tested; the next one validates.
        allow_leakage: allows split_by sample, and says so wherever results are shown.
        batch_size: samples a batch.
        num_workers: processes that read; 0 reads in the training process, which is fastest for
            local data.
        seed: of the split and of the order.
        cache_dir: where the statistics of the features are kept; by default $VLA_LENS_CACHE or
            the user's cache folder.
        on_error: what happens where a sample is damaged: `raise`, or `skip`, by which training
            reads another sample in its place and an evaluation leaves it out; counted and shown.
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
        fields: list[str] | None = None,
        control_data: str | None = None,
        rollout_step: int | list[int] | None = None,
        suite: str | None = None,
        task_range: str | list[int] | None = None,
        episode_range: str | list[int] | None = None,
        target: str = "task_id",
        encoder: str = "tfidf",
        whiten: bool = False,
        split_by: Literal["episode", "task", "suite", "sample"] = "episode",
        fractions: tuple[float, float, float] = (0.6, 0.2, 0.2),
        folds: int | None = None,
        fold: int = 0,
        allow_leakage: bool = False,
        batch_size: int = 128,
        num_workers: int = 0,
        seed: int = 0,
        cache_dir: str | None = None,
        on_error: OnError = "raise",
    ) -> None:
        super().__init__()
        check_settings(target, batch_size, num_workers, on_error)
        self.path = path
        words: dict[str, Any] = {
            "expert": expert, "site": site, "region": region, "pool": pool, "layer": layer,
            "flow_time": flow_time,
        }  # fmt: skip
        self._source_choice = SourceChoice(words=words, names=fields, control_data=control_data)
        self._row_choice = RowChoice(
            suite=suite, task_range=task_range, episode_range=episode_range,
            rollout_step=rollout_step,
        )  # fmt: skip
        self._target_name = target
        self._split: dict[str, Any] = {
            "by": split_by, "fractions": fractions, "seed": seed, "allow_leakage": allow_leakage,
            **fold_settings(folds, fold),
        }  # fmt: skip
        self.batch_size = batch_size
        self._num_workers = num_workers
        self._cache = Path(cache_dir) if cache_dir else cache_folder()
        self._target_options = TargetOptions(encoder=encoder, whiten=whiten, cache=self._cache)
        self._dataset: ShardDataset | None = None
        self._statistics: tuple[FeatureStatistics, ...] | None = None
        self.rows: dict[str, Rows] = {}
        """Row numbers of each split, and of all of them under `all`."""
        self._on_error: OnError = on_error
        self.damaged = {split: DamagedRows() for split in (*SPLITS, "all")}
        """Rows that this process could not read so far, and why, by the split being read."""
        self._clock = TrainerClock(self)
        self._training_loader: PlanLoader | None = None
        self._resume: dict[str, Any] = {}

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
        self.fields: tuple[FieldChoice, ...] = self._source_choice.fields(dataset)
        self.cells: tuple[Cell, ...] = tuple(cell for field in self.fields for cell in field.cells)
        self.target: Target = make_target(self._target_name, self._target_options)
        valid, self.dropped = self._valid_rows(self._row_choice.rows(dataset))
        rows, unknown = known_rows(self.target, dataset, valid, self._on_error)
        self.without_value = len(valid) - len(rows)
        self.without_target = unknown
        parts = self._split_rows(rows)
        self.target_spec: TargetSpec = self.target.fit(
            dataset, rows=self.targeted(rows), training=self.targeted(parts["train"])
        )
        for note in self.target_spec.notes:
            _log.warning("%s", note)
        self.clusters: Clusters
        by = self._split["by"]
        self.clusters, episode_of_row = clusters_of_index(
            dataset.metadata, unit="episode" if by == "sample" else by
        )
        numbers = {
            name: dataset.index[name].to_numpy().astype(np.int64)
            for name in ("task_id", "episode", "timestep")
        }
        control = control_rows(
            episode_of_row, self.clusters.episodes, parts, seed=self._split["seed"]
        )
        sources = list(self._source_choice.sources(dataset, rows, numbers["timestep"]))
        self.sources: tuple[SourceSpec, ...] = tuple(
            SourceSpec(kind=kind, cells=source.cells, width=source.width)
            for kind, source in sources
        )
        self.reader = BatchReader(
            dataset.again(),
            sources=[source for _, source in sources],
            target=self.target,
            columns=RowColumns(cluster=episode_of_row, control=control, **numbers),
        )
        self.rows = {**parts, "all": rows}

    def targeted(self, rows: Rows) -> Rows:
        """Those of some rows whose target could be read; of the others, reading says why not."""
        return rows[~np.isin(rows, self.without_target)]

    def _valid_rows(self, rows: Rows) -> tuple[Rows, int]:
        kept = rows
        for region in dict.fromkeys(cell.region for cell in self.cells):
            kept = self._rows_of_region(kept, region)
        return kept, len(rows) - len(kept)

    def _rows_of_region(self, rows: Rows, region: str) -> Rows:
        known = [
            name for name in (f"valid.{region}", f"mask.{region}") if name in self.dataset.fields
        ]
        if not known:
            return rows
        batches = self.dataset.iter_batches(
            known[0], batch_size=MASKS_AT_ONCE, rows=rows, on_error=self._on_error
        )
        invalid = [
            batch["rows"][~batch[known[0]].reshape(len(batch["rows"]), -1).any(axis=1)]
            for batch in batches
        ]
        # What cannot be read stays: it is counted when its features cannot be read either.
        dropped: Bool[np.ndarray, " n"] = np.isin(rows, np.concatenate(invalid))
        kept = rows[~dropped]
        if len(kept) == 0:
            raise ValueError(
                f"`region` must have valid tokens, but {region} has none in any of "
                f"the {len(rows)} selected samples (a camera that the robot has not is masked). "
                "Choose another region."
            )
        return kept

    def _split_rows(self, rows: Rows) -> dict[str, Rows]:
        by = self._split["by"]
        if self.target.needs_seen_tasks and by in ("task", "suite"):
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
                f"of {len(rows)} samples with {self._how_split()} by {by}. "
                "Select more episodes, or larger fractions."
            )
        return parts

    def _how_split(self) -> str:
        folds = self._split.get("folds")
        return f"fold {self._split['fold']} of {folds}" if folds else f"{self._split['fractions']}"

    def prepare_data(self) -> None:
        """Reads the statistics once, before other ranks need them; they find them in the cache."""
        if self.trainer is None or self.trainer.state.fn == "fit":
            _ = self.statistics

    @property
    def statistics(self) -> tuple[FeatureStatistics, ...]:
        """Mean and deviation of each source's features over the training rows; cached.

        Raises:
            ValueError: if a feature of any selected row is NaN or infinite; names the sample.
        """
        self.setup()
        if self._statistics is None:
            self._statistics = tuple(map(self._cached_statistics, self.reader.sources))
        return self._statistics

    def _cached_statistics(self, source: FeatureSource) -> FeatureStatistics:
        file = statistics_file(self._cache, *self._statistics_key(source))
        found = load_statistics(file)
        if found is None:
            features = FiniteFeatures(
                dataset=self.dataset, source=source, batch_size=self.batch_size,
                on_error=self._on_error,
            )  # fmt: skip
            found = feature_statistics(features.training(self.rows["train"], self.rows["all"]))
            if not features.damaged:  # else they are not those of these rows
                save_statistics(file, found)
        return found

    def _statistics_key(self, source: FeatureSource) -> list[str]:
        keys = ["\n".join(self.keys(self.rows[split])) for split in ("train", "all")]
        rows = hashlib.sha256("\0".join(keys).encode()).hexdigest()
        return [self.dataset.fingerprint, content_digest(self.dataset), source.identity, rows]

    # ------------------------------------------------------------------ batches

    def _loader(self, split: str, *, evaluating: bool = False, alone: bool = False) -> PlanLoader:
        self.setup()
        training = split == "train" and not evaluating
        return PlanLoader(
            ReadPlan(self.rows[split], seed=self._split["seed"], shuffle=training),
            self.reader,
            batch_size=self.batch_size,
            num_workers=self._num_workers,
            on_error=self._on_error,
            clock=self._clock if training else None,
            damaged=self.damaged[split],
            alone=alone,
        )

    def train_dataloader(self) -> PlanLoader:
        """Training batches, shuffled anew every epoch; equal steps on all ranks.

        Raises:
            ValueError: if there are too few samples for one step of all ranks, or the position
                that was loaded means nothing in this selection.
        """
        loader = self._loader("train")
        if len(loader) == 0:
            raise ValueError(
                f"`batch_size` must leave a step for every rank, but got {self.batch_size}, and "
                f"there are {len(self.rows['train'])} training samples for all of them together. "
                "Take smaller batches or fewer devices."
            )
        loader.load_state_dict(self._resume)
        self._resume, self._training_loader = {}, loader
        return loader

    def state_dict(self) -> dict[str, Any]:
        """How far the training samples are read: one epoch and one integer."""
        if self._resume or self._training_loader is None:
            return self._resume
        return self._training_loader.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Goes on there, with any number of workers and ranks; only training is gone on with."""
        if self.trainer is None or self.trainer.state.fn == "fit":
            self._resume = dict(state_dict)

    def val_dataloader(self) -> PlanLoader:
        """Validation batches in the order of the index."""
        return self._loader("val")

    def test_dataloader(self) -> PlanLoader:
        """Test batches in the order of the index."""
        return self._loader("test")

    def code_dataloader(self) -> PlanLoader:
        """Training batches in the order of the index, each once: what an online code sends."""
        return self._loader("train", evaluating=True)

    def whole_split(self, split: str) -> PlanLoader:
        """A split in the order of the index, all of it on each rank."""
        return self._loader(split, evaluating=True, alone=True)

    @property
    def training_clusters(self) -> Int64[np.ndarray, "_"]:
        """The episodes that have training samples."""
        return np.unique(self.reader.columns.cluster[self.rows["train"]])

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

    def unreadable(self, split: str) -> dict[str, str]:
        """Keys of the samples of a split that could not be read so far, and why.

        The same on all ranks, which must all ask. Of `all`, those that predicting met.
        """
        found: list[Any] = [dict(self.damaged[split])]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            found = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(found, dict(self.damaged[split]))
        merged = {row: why for part in found for row, why in part.items()}
        rows = np.asarray(sorted(merged), np.int64)
        return {key: merged[int(row)] for key, row in zip(self.keys(rows), rows, strict=True)}

    def teardown(self, stage: str) -> None:
        """Says how many samples could not be read."""
        for split, damaged in self.damaged.items():
            if damaged:
                what = "replaced by others" if split == "train" else "left out"
                keys = self.keys(np.asarray(sorted(damaged)[:3], np.int64))
                _log.warning(
                    "%d of %d samples of split %s cannot be read and were %s: %s%s",
                    len(damaged), len(self.rows[split]), split, what, ", ".join(keys),
                    ", ..." if len(damaged) > len(keys) else ".",
                )  # fmt: skip

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
            "field": ", ".join(field.cells[0].field for field in self.fields),
            "dtype": ", ".join(dict.fromkeys(field.spec.dtype for field in self.fields)),
            "width": max(field.width for field in self.fields),
            "fields": [field.describe() for field in self.fields],
            "control_data": self._source_choice.control_data,
            "constant_features": sum(
                statistics.constant
                for source, statistics in zip(self.sources, self.statistics, strict=True)
                if source.kind == MAIN
            ),
            "target": self._target_name,
            "target_notes": list(self.target_spec.notes),
            "untrained_classes": list(self.target_spec.untrained),
            "suite": choice.suite,
            "tasks": choice.task_range,
            "episodes": choice.episode_range,
            "rollout_step": choice.rollout_step,
            "split": self.split,
            "leaky": self._split["by"] == "sample",
            "splits": splits,
            "dropped_without_valid_token": self.dropped,
            "dropped_without_value": self.without_value,
        }
