"""Synthetic demonstrations for `benchmarks.ki`, written and read as `ki fit` reads real ones."""

import pathlib

import numpy as np

from jax_bridge.demos.chunk_stream import ChunkStream
from jax_bridge.demos.chunks import action_chunk
from jax_bridge.demos.dataset_statistics import dataset_statistics, write_statistics
from jax_bridge.demos.description import ENTRY, Demonstrations
from jax_bridge.fast.attach import FastWriter
from jax_bridge.fast.learn import learn_tokenizer
from jax_bridge.fast.normalised import normalised_chunks
from jax_bridge.ki.data.augmentation import AugmentConfig
from jax_bridge.ki.data.data_config import DataConfig
from jax_bridge.ki.data.opening import TrainingData, open_training_data
from jax_bridge.pi0 import Pi0Config
from jax_bridge.shards import DatasetInfo, EpisodeWriter, open_dataset

DIMS, STATE, CAMERAS, SIDE, STEPS = 7, 8, ("base", "left_wrist"), 256, 64
CODES = 512


def write_demonstrations(folder: pathlib.Path, samples: int, horizon: int) -> pathlib.Path:
    """LIBERO's shape: two cameras of 256 pixels, smooth actions; statistics and FAST targets."""
    sizes = Demonstrations(horizon=horizon, action_dim=DIMS, state_dim=STATE, cameras=CAMERAS)
    info = DatasetInfo(
        fields={}, capture={}, model={}, environment={ENTRY: sizes.to_json()}, seed=0
    )
    with EpisodeWriter(folder, info) as writer:
        for number in range(-(-samples // STEPS)):
            _write_episode(writer, number, horizon)
    stream = ChunkStream.of(open_dataset(folder))
    found = dataset_statistics(stream)
    write_statistics(folder / "norm_stats.json", found, stream, widened=True)
    chunks = np.concatenate([chunk for _, chunk in stream.chunks()])
    actions = found.usable().norm_stats.actions
    tokenizer = learn_tokenizer(normalised_chunks(chunks, actions), vocab_size=CODES)
    FastWriter(stream, tokenizer, found.usable().norm_stats, "clip").run()
    return folder


def _write_episode(writer: EpisodeWriter, number: int, horizon: int) -> None:
    random = np.random.default_rng(number)
    turns = random.uniform(0, 6, DIMS) + np.linspace(0, 6, STEPS)[:, None]
    actions = np.sin(turns).astype(np.float32)
    coarse = random.integers(0, 256, (len(CAMERAS), SIDE // 8, SIDE // 8, 3), np.uint8)
    pictures = coarse.repeat(8, axis=1).repeat(8, axis=2)
    with writer.episode(
        suite="synthetic", task_id=number % 10, episode=number // 10, instruction="pick it up"
    ) as episode:
        for step in range(STEPS):
            chunk, padding = action_chunk(actions, step, horizon)
            images = {c: np.roll(pictures[n], step, axis=1) for n, c in enumerate(CAMERAS)}
            state = np.resize(actions[step], STATE)
            episode.append(
                timestep=step, state=state, actions=chunk, action_is_pad=padding, images=images
            )
        episode.finish(success=True, episode_length=STEPS)


def open_demonstrations(
    folder: pathlib.Path, model: Pi0Config, *, batch: int, fast: int, threads: int, workers: int
) -> TrainingData:
    """What `ki fit` would train on, augmentation included."""
    data = DataConfig(
        paths=str(folder), tokenizer="bytes", max_fast_len=fast, overflow="leave_out",
        held_out=0.0, threads=threads, workers=workers,
    )  # fmt: skip
    return open_training_data(
        data, model, batch_size=batch, seed=0, mode="insulate", augment=AugmentConfig()
    )
