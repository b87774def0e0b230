"""A data set as of a captured π0: 18 cells of 2048 numbers and 180 of 1024, in bfloat16."""

from pathlib import Path

import ml_dtypes
import numpy as np

from jax_bridge.shards import DatasetInfo, EpisodeWriter, FieldSpec

VLM = "vlm.hidden_states.text.mean"
ACTION = "action.hidden_states.action.mean"
LAYERS = tuple(range(18))
FLOW_TIMES = tuple(round(1 - 0.1 * step, 1) for step in range(10))
TASKS = 10
STEPS = 10
"""Samples an episode."""
SHAPES = {VLM: (18, 2048), ACTION: (18, 10, 1024)}


def dataset_info() -> DatasetInfo:
    """Both fields."""
    vlm = FieldSpec(
        name=VLM, dtype="bfloat16", shape=SHAPES[VLM], axes=("layer", "width"), layers=LAYERS
    )
    action = FieldSpec(
        name=ACTION, dtype="bfloat16", shape=SHAPES[ACTION], layers=LAYERS, flow_times=FLOW_TIMES,
        axes=("layer", "flow_time", "width"),
    )  # fmt: skip
    return DatasetInfo(
        fields={VLM: vlm, ACTION: action}, capture={"preset": "sweep"}, model={"preset": "sweep"},
        environment={"name": "sweep"}, seed=0,
    )  # fmt: skip


def write_grid(path: Path, samples: int) -> None:
    """Writes noise in which every layer knows the task, the deeper the better."""
    random = np.random.default_rng(0)
    directions = {
        name: random.normal(size=(TASKS, shape[-1])).astype(np.float32)
        for name, shape in SHAPES.items()
    }
    depth = np.linspace(0.02, 0.1, len(LAYERS), dtype=np.float32)
    with EpisodeWriter(path, dataset_info()) as writer:
        for number in range(samples // STEPS):
            task = number % TASKS
            with writer.episode(
                suite="sweep", task_id=task, episode=number // TASKS, seed=number,
                task_name=f"task_{task}", instruction=None, task_instruction=f"task {task}",
            ) as episode:  # fmt: skip
                for step in range(STEPS):
                    latents = {
                        name: _latent(random, shape, depth, directions[name][task])
                        for name, shape in SHAPES.items()
                    }
                    episode.append(timestep=step, call=step, latents=latents)
                episode.finish(success=True, success_at_end=True, episode_length=STEPS)


def _latent(
    random: np.random.Generator, shape: tuple[int, ...], depth: np.ndarray, direction: np.ndarray
) -> np.ndarray:
    values = random.standard_normal(shape, np.float32)
    values += depth.reshape(-1, *[1] * (len(shape) - 1)) * direction
    return values.astype(ml_dtypes.bfloat16)
