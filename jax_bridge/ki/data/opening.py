"""`open_training_data`: from settings to batches; whatever does not fit is said here."""

import dataclasses
import json

import numpy as np

from jax_bridge.fast.files import BPE, PROCESSOR
from jax_bridge.ki.data.answers import TextIds, check_text_lengths
from jax_bridge.ki.data.augmentation import AugmentConfig, make_prepare
from jax_bridge.ki.data.data_config import DataConfig
from jax_bridge.ki.data.fast_ids import FastIds
from jax_bridge.ki.data.fitting import check_lengths
from jax_bridge.ki.data.mixture import Mixture, MixtureSource
from jax_bridge.ki.data.opened_sets import OpenedSets, open_sets
from jax_bridge.ki.data.sample_stream import HeldOutSamples, SampleStream
from jax_bridge.ki.data.samples import SampleMaker
from jax_bridge.ki.train_step import Prepare
from jax_bridge.ki.training.stream import DataFacts, HeldOut
from jax_bridge.pi0.config import Pi0Config
from jax_bridge.policies.conventions import Convention, Recipe, get_convention
from jax_bridge.policies.processor import Processor
from jax_bridge.policies.tokenizers import SAID_FIRST, make_tokenizer
from jax_bridge.shards import ShardDataset, split_rows

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
    has_actions: bool
    """Whether a robot acts in some of it."""
    maker: SampleMaker
    """Between the robot's units and the model's, and what ids stand for which codes."""


def open_training_data(
    data: DataConfig, model: Pi0Config, *, batch_size: int, seed: int, mode: str,
    augment: AugmentConfig, rank: int = 0, world_size: int = 1,
) -> TrainingData:  # fmt: skip
    """Opens data sets, and FAST targets and answers unless the mode is `flow_only`.

    Raises:
        FileNotFoundError: if a data set, its FAST targets or statistics are not there.
        ValueError: if something does not fit the model, the robot or the rest of the mixture.
    """
    if batch_size % world_size:
        raise ValueError(
            f"`batch_size` must be a multiple of the {world_size} processes, but got {batch_size}."
        )
    convention = get_convention(data.convention)
    opened = open_sets(data, model, convention, mode)
    processor, name = _processor(data, model, convention, opened)
    maker = SampleMaker(
        processor=processor, cameras=opened.cameras, targets=opened.targets,
        fast=_fast_ids(data, processor, opened),
        text=None if mode == "flow_only" else _text_ids(data, processor, opened),
    )  # fmt: skip
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
    if any(len(rows) for rows in held):
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
        has_actions=bool(opened.sizes),
        maker=maker,
    )  # fmt: skip


def _fast_ids(data: DataConfig, processor: Processor, opened: OpenedSets) -> FastIds | None:
    if opened.fast is None:
        return None
    fast = FastIds.of(
        processor.tokenizer, opened.fast.tokenizer.settings.vocab_size,
        rows=processor.config.vocab_size, skip=data.layout.skip, size=data.max_fast_len,
        start=SAID_FIRST[data.layout.prompt],
    )  # fmt: skip
    robots = [opened.datasets[number] for number in opened.targets]
    check_lengths(robots, list(opened.targets.values()), fast, data.overflow)
    return fast


def _text_ids(data: DataConfig, processor: Processor, opened: OpenedSets) -> TextIds | None:
    if not opened.questions:
        return None
    text = TextIds(
        tokenizer=processor.tokenizer, size=data.max_text_len,
        prompt_size=processor.config.max_token_len,
    )  # fmt: skip
    for dataset in opened.questions:
        check_text_lengths(dataset, text, data.overflow)
    return text


def _processor(
    data: DataConfig, model: Pi0Config, convention: Convention, opened: OpenedSets
) -> tuple[Processor, str]:
    """How inputs are prepared, and the name of the prompts' tokenizer."""
    recipe = convention.recipe(pi05=model.pi05, trained=True)
    in_prompt = model.pi05 if data.layout.state_in_prompt is None else data.layout.state_in_prompt
    delta = opened.fast.delta_mask if opened.fast else recipe.delta_mask
    recipe = Recipe(
        normalisation=recipe.normalisation, delta_mask=delta, state_in_prompt=in_prompt,
        action_horizon=model.action_horizon,
    )  # fmt: skip
    name = data.tokenizer or ("bytes" if model.vocab_size < PALIGEMMA_ROWS else "paligemma")
    processor = Processor(
        config=model, convention=convention, recipe=recipe, tokenizer=make_tokenizer(name),
        norm_stats=opened.statistics, prompt_layout=data.layout.prompt,
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
    opened: OpenedSets, tokenizer: str,
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
    statistics, fast = opened.statistics, opened.fast
    assets = {}
    if statistics is not None:
        text = json.dumps(statistics.to_json(), indent=1)
        assets[f"{convention.asset_id}/norm_stats.json"] = text.encode()
    if fast is not None:
        beside = f"{convention.asset_id}/fast"
        assets |= {f"{beside}/{name}": fast.folder.read(name) for name in (PROCESSOR, BPE)}
    free = ("paths", "threads", "workers")  # where it lies and who reads it change no batch
    settings = {k: v for k, v in dataclasses.asdict(data).items() if k not in free}
    return DataFacts(
        description={
            "datasets": described,
            "settings": settings,
            "augment": dataclasses.asdict(augment),
            "norm_stats": statistics.digest if statistics is not None else None,
            "fast": fast.info.tokenizer if fast is not None else None,
            "prompt_tokenizer": processor.tokenizer.describe(),
        },
        assets=assets,
        policy={
            "tokenizer": tokenizer,
            "convention": data.convention,
            "recipe": dataclasses.asdict(processor.recipe),
            "fast_skip": data.layout.skip,
            "fast_length": data.max_fast_len,
            "prompt_layout": data.layout.prompt,
            "cameras": list(opened.cameras),
        },
    )
