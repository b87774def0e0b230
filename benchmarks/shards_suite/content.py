"""The content that every side of `benchmarks.shards` reads or writes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.numpy
import safetensors.torch

from jax_bridge.shards import DatasetInfo, EpisodeWriter, FieldSpec, ShardLimits

FIELD = "vlm.hidden_states.text.mean"
LAYERS = 18
LAYER_BYTES = 32 * 1024
EPISODE_SAMPLES = 40
TASKS = 5
BATCH = 128


def decoder(dtype: str) -> Callable[[bytes], dict]:
    """How a safetensors member is decoded elsewhere; numpy does not know bfloat16."""
    return safetensors.numpy.load if dtype == "float32" else safetensors.torch.load


def dataset_info(dtype: str) -> DatasetInfo:
    """One field of 18 layers."""
    width = LAYER_BYTES // (4 if dtype == "float32" else 2)
    spec = FieldSpec(
        name=FIELD,
        dtype=dtype,
        shape=(LAYERS, width),
        axes=("layer", "width"),
        layers=tuple(range(LAYERS)),
    )
    return DatasetInfo(fields={FIELD: spec}, capture={}, model={}, environment={}, seed=0)


def write_ours(path: Path, info: DatasetInfo, samples: int, shard_bytes: int = 512 * 2**20) -> int:
    """Whole episodes through the writer; returns how many samples."""
    spec = info.fields[FIELD]
    rng = np.random.default_rng(0)
    values = rng.standard_normal((2, *spec.shape), np.float32).astype(spec.numpy_dtype)
    robot = {"state": np.zeros(8), "actions": np.zeros((10, 7)), "executed": np.zeros(7)}
    with EpisodeWriter(path, info, ShardLimits(shard_bytes=shard_bytes)) as writer:
        for number in range(samples // EPISODE_SAMPLES):
            task_id, episode = number % TASKS, number // TASKS
            text = f"task {task_id}"
            with writer.episode(
                suite="bench", task_id=task_id, episode=episode, instruction=text
            ) as record:
                for timestep in range(EPISODE_SAMPLES):
                    latents = {FIELD: values[timestep % 2]}
                    record.append(timestep=timestep, call=timestep, latents=latents, **robot)
                record.finish(success=True, success_at_end=True, episode_length=EPISODE_SAMPLES)
    return samples // EPISODE_SAMPLES * EPISODE_SAMPLES
