"""A small data set of demonstrations with pictures, statistics and FAST targets."""

import dataclasses

import numpy as np

from jax_bridge.demos.chunk_stream import ChunkStream
from jax_bridge.demos.chunks import action_chunk
from jax_bridge.demos.description import ENTRY, Demonstrations
from jax_bridge.fast.attach import FastWriter
from jax_bridge.fast.learn import learn_tokenizer
from jax_bridge.fast.normalised import normalised_chunks
from jax_bridge.pi0 import Pi0Config
from jax_bridge.policies.normalisation import FieldStatistics, NormStats
from jax_bridge.shards import DatasetInfo, EpisodeWriter, ImageFormat, open_dataset

HORIZON, DIMS, STATE = 4, 7, 8
CODES = 300


def tiny_model(**changes) -> Pi0Config:
    config = Pi0Config.preset(
        "pi05_micro", max_token_len=96, action_horizon=HORIZON, action_dim=8, **changes
    )
    vision = dataclasses.replace(config.vision, image_size=32, width=16, mlp_dim=32)
    thin = dataclasses.replace(config.vlm, depth=1, width=16, mlp_dim=32, heads=2, head_dim=8)
    return dataclasses.replace(config, vision=vision, vlm=thin, action=thin)


def statistics(**rows) -> NormStats:
    def field(name, size):
        values = {"mean": 0.0, "std": 1.0, "q01": -2.0, "q99": 2.0, **rows}
        return FieldStatistics(
            name=name, **{k: np.full(size, v, np.float64) for k, v in values.items()}
        )

    return NormStats(state=field("state", STATE), actions=field("actions", DIMS))


def write_frames(
    path, *, episodes=5, steps=6, seed=0, cameras=("base", "left_wrist"), horizon=HORIZON
):
    sizes = Demonstrations(horizon=horizon, action_dim=DIMS, state_dim=STATE, cameras=cameras)
    info = DatasetInfo(
        fields={}, capture={}, model={}, environment={ENTRY: sizes.to_json()}, seed=seed
    )
    random = np.random.default_rng(seed)
    with EpisodeWriter(path, info, images=ImageFormat(kind="png")) as writer:
        for number in range(episodes):
            actions = random.uniform(-1, 1, (steps, DIMS)).astype(np.float32)
            with writer.episode(
                suite=f"demo{seed}", task_id=number % 2, episode=number // 2,
                instruction=f"do {number % 2}",
            ) as episode:  # fmt: skip
                for step in range(steps):
                    chunk, padding = action_chunk(actions, step, horizon)
                    episode.append(
                        timestep=step, state=random.uniform(-1, 1, STATE).astype(np.float32),
                        actions=chunk, action_is_pad=padding,
                        images={c: random.integers(0, 256, (32, 32, 3), np.uint8) for c in cameras},
                    )  # fmt: skip
                episode.finish(success=True, episode_length=steps)
    return path


def attach(path, tokenizer, norm_stats=None):
    FastWriter(ChunkStream.of(open_dataset(path)), tokenizer, norm_stats or statistics()).run()
    return path


def learn(path):
    chunks = np.concatenate([c for _, c in ChunkStream.of(open_dataset(path)).chunks()])
    return learn_tokenizer(normalised_chunks(chunks, statistics().actions), vocab_size=CODES)
