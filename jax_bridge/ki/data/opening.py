"""`open_training_data`: from settings to batches; whatever does not fit is said here."""

import dataclasses
import json

import numpy as np

from jax_bridge.demos.description import Demonstrations, demonstrations_of
from jax_bridge.fast.files import BPE, PROCESSOR
from jax_bridge.fast.targets import FastTargets, open_fast_targets
from jax_bridge.ki.data.augmentation import AugmentConfig, make_prepare
from jax_bridge.ki.data.data_config import DataConfig
from jax_bridge.ki.data.fast_ids import FastIds
from jax_bridge.ki.data.fitting import (
    check_demonstrations,
    check_lengths,
    check_targets,
    chosen_statistics,
)
from jax_bridge.ki.data.mixture import Mixture, MixtureSource
from jax_bridge.ki.data.sample_stream import HeldOutSamples, SampleStream
from jax_bridge.ki.data.samples import SampleMaker
from jax_bridge.ki.train_step import Prepare
from jax_bridge.ki.training.stream import DataFacts, HeldOut
from jax_bridge.pi0.config import Pi0Config
from jax_bridge.policies.conventions import Convention, Recipe, get_convention
from jax_bridge.policies.normalisation import NormStats
from jax_bridge.policies.processor import Processor
from jax_bridge.policies.tokenizers import SAID_FIRST, make_tokenizer
from jax_bridge.shards import ShardDataset, open_dataset, split_rows
from jax_bridge.shards.sample_choice import SampleChoice
from jax_bridge.vocabulary import CAMERAS

HELD_OUT_BATCHES = 8
"""Most batches of held-out samples."""
PALIGEMMA_ROWS = 257152
"""Rows of an embedding table that PaliGemma's tokens fit."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What a trainer is given."""

    stream: SampleStream
    held_out: HeldOut | None
    """None where nothing is held out."""
    prepare: Prepare
    maker: SampleMaker
    """Between the robot's units and the model's, and what ids stand for which codes."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Opened:
    """The data sets of the mixture."""

    datasets: list[ShardDataset]
    sizes: list[Demonstrations]
    targets: tuple[FastTargets, ...]
    statistics: NormStats

    @property
    def cameras(self) -> tuple[str, ...]:
        """Cameras of the model that some data set has, in the model's order."""
        there = {name for sizes in self.sizes for name in sizes.cameras}
        return tuple(camera.name for camera in CAMERAS if camera.name in there)

    def choices(self) -> list[SampleChoice]:
        """What is read of a sample of each data set.

        Raises:
            ValueError: if a data set lacks a part of it.
        """
        robot = ("state", "actions", "action_is_pad")
        made = [
            SampleChoice(robot=robot, images=own.cameras, metadata=("instruction",))
            for own in self.sizes
        ]
        for choice, dataset in zip(made, self.datasets, strict=True):
            choice.check(dataset)
        return made


def open_training_data(
    data: DataConfig, model: Pi0Config, *, batch_size: int, seed: int, mode: str,
    augment: AugmentConfig, rank: int = 0, world_size: int = 1,
) -> TrainingData:  # fmt: skip
    """Opens data sets, and their FAST targets unless the mode is `flow_only`.

    Raises:
        FileNotFoundError: if a data set, its FAST targets or statistics are not there.
        ValueError: if something does not fit the model, the robot or the rest of the mixture.
    """
    if batch_size % world_size:
        raise ValueError(
            f"`batch_size` must be a multiple of the {world_size} processes, but got {batch_size}."
        )
    convention = get_convention(data.convention)
    opened = _open(data, model, convention, with_targets=mode != "flow_only")
    processor, name = _processor(data, model, convention, opened)
    fast = None
    if opened.targets:
        settings = opened.targets[0].tokenizer.settings
        fast = FastIds.of(
            processor.tokenizer, settings.vocab_size, rows=model.vocab_size, skip=data.skip,
            size=data.max_fast_len, start=SAID_FIRST[data.prompt_layout],
        )  # fmt: skip
        check_lengths(opened.datasets, opened.targets, fast, data.overflow)
    maker = SampleMaker(
        processor=processor, cameras=opened.cameras, targets=opened.targets, fast=fast
    )
    train, held = _rows(opened.datasets, data.held_out)
    choices = opened.choices()
    weights = data.weights or [float(len(rows)) for rows in train]
    mixture = Mixture(train, weights, seed)
    dims = np.arange(model.action_dim) < convention.action_dim

    def source_at(step: int, order: Mixture = mixture) -> MixtureSource:
        return MixtureSource(
            opened.datasets, order, choices, batch_size=batch_size, rank=rank,
            world_size=world_size, step=step,
        )  # fmt: skip

    held_out = None
    if all(len(rows) for rows in held):
        looked_at = source_at(0, Mixture(held, [float(len(rows)) for rows in held], 0))
        batches = min(HELD_OUT_BATCHES, -(-sum(map(len, held)) // batch_size))
        held_out = HeldOutSamples(looked_at, maker, batches=batches, action_dims=dims)
    return TrainingData(
        stream=SampleStream(
            source_at, maker, _facts(data, augment, convention, processor, opened, name),
            action_dims=dims, threads=data.threads, workers=data.workers,
        ),
        held_out=held_out,
        prepare=make_prepare(augment),
        maker=maker,
    )  # fmt: skip


def _open(
    data: DataConfig, model: Pi0Config, convention: Convention, *, with_targets: bool
) -> _Opened:
    if not data.datasets:
        raise ValueError("`data.paths` must name a data set. Add --data.paths DIR.")
    datasets = [open_dataset(path) for path in data.datasets]
    sizes = [demonstrations_of(dataset.info, dataset.path) for dataset in datasets]
    for dataset, own in zip(datasets, sizes, strict=True):
        check_demonstrations(dataset, own, model, convention)
    targets = tuple(open_fast_targets(dataset) for dataset in datasets) if with_targets else ()
    check_targets(datasets, sizes, targets)
    statistics = chosen_statistics(data.norm_stats, datasets, targets)
    return _Opened(datasets=datasets, sizes=sizes, targets=targets, statistics=statistics)


def _processor(
    data: DataConfig, model: Pi0Config, convention: Convention, opened: _Opened
) -> tuple[Processor, str]:
    """How inputs are prepared, and the name of the prompts' tokenizer."""
    recipe = convention.recipe(pi05=model.pi05, trained=True)
    in_prompt = model.pi05 if data.state_in_prompt is None else data.state_in_prompt
    delta = opened.targets[0].delta_mask if opened.targets else recipe.delta_mask
    recipe = Recipe(
        normalisation=recipe.normalisation, delta_mask=delta, state_in_prompt=in_prompt,
        action_horizon=model.action_horizon,
    )  # fmt: skip
    name = data.tokenizer or ("bytes" if model.vocab_size < PALIGEMMA_ROWS else "paligemma")
    processor = Processor(
        config=model, convention=convention, recipe=recipe, tokenizer=make_tokenizer(name),
        norm_stats=opened.statistics, prompt_layout=data.prompt_layout,
    )  # fmt: skip
    return processor, name


def _rows(datasets: list[ShardDataset], share: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Training and held-out rows of each data set, by episode."""
    train, held = [], []
    for dataset in datasets:
        parts = split_rows(dataset.index, fractions=(1 - share, share, 0.0))
        train.append(parts["train"])
        held.append(parts["val"])
        if not len(parts["train"]):
            raise ValueError(
                f"`held_out` must leave samples to train on, but with {share} none of the "
                f"{len(dataset)} of {dataset.path} is left."
            )
    return train, held


def _facts(
    data: DataConfig, augment: AugmentConfig, convention: Convention, processor: Processor,
    opened: _Opened, tokenizer: str,
) -> DataFacts:  # fmt: skip
    """What the checkpoint and the run folder say of the data."""
    described = [
        {
            "fingerprint": dataset.fingerprint,
            "content": dataset.content_digest,
            "samples": len(dataset),
        }
        for dataset in opened.datasets
    ]
    statistics = json.dumps(opened.statistics.to_json(), indent=1).encode()
    assets = {f"{convention.asset_id}/norm_stats.json": statistics}
    for name in (PROCESSOR, BPE) if opened.targets else ():
        content = opened.targets[0].folder.read(name)
        assets[f"{convention.asset_id}/fast/{name}"] = content
    free = ("paths", "threads", "workers")  # where it lies and who reads it change no batch
    settings = {k: v for k, v in dataclasses.asdict(data).items() if k not in free}
    return DataFacts(
        description={
            "datasets": described,
            "settings": settings,
            "augment": dataclasses.asdict(augment),
            "norm_stats": opened.statistics.digest,
            "fast": opened.targets[0].info.tokenizer if opened.targets else None,
            "prompt_tokenizer": processor.tokenizer.describe(),
        },
        assets=assets,
        policy={
            "tokenizer": tokenizer,
            "convention": data.convention,
            "recipe": dataclasses.asdict(processor.recipe),
            "fast_skip": data.skip,
            "fast_length": data.max_fast_len,
            "prompt_layout": data.prompt_layout,
        },
    )
