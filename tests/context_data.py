"""Small data sets of context vectors, as a capture would write them."""

from collections.abc import Sequence
from pathlib import Path

import ml_dtypes
import numpy as np

from jax_bridge.shards import DatasetInfo, EpisodeWriter, FieldSpec
from lightning_modules.context.output_norm import KEY, OutputNorm

CONTEXT = "context.act_head.input.tokens"
PROFILE = {"name": "upstream", "size": 224}
PROMPTS = ("put the red cube in the bowl", "push the button")


def context_info(
    width: int, dtype: str, profile: dict, digest: str, norm: OutputNorm | None = None
) -> DatasetInfo:
    spec = FieldSpec(name=CONTEXT, dtype=dtype, shape=(1, width), axes=("token", "width"))
    return DatasetInfo(
        fields={CONTEXT: spec},
        capture={"profile": profile, "points": [{"module": "act_head", "name": None}]},
        model={
            "class": "tests.Tiny",
            "params_digest": digest * 64,
            **({KEY: norm.to_json()} if norm else {}),
        },
        environment={"name": "frames"},
        seed=0,
    )


def write_vectors(
    path: Path,
    episodes: Sequence[np.ndarray],
    *,
    dtype: str = "float32",
    profile: dict = PROFILE,
    digest: str = "0",
    prompts: Sequence[str] = PROMPTS,
    first: int = 0,
    norm: OutputNorm | None = None,
) -> Path:
    """One [frames, width] array an episode; tasks take turns."""
    stored = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    info = context_info(episodes[0].shape[1], dtype, dict(profile), digest, norm)
    with EpisodeWriter(path, info) as writer:
        for number, frames in enumerate(episodes):
            task = number % len(prompts)
            with writer.episode(
                suite="frames", task_id=task, episode=first + number // len(prompts),
                task_name=f"task{task}", instruction=prompts[task],
                task_instruction=prompts[task], seed=0,
            ) as episode:  # fmt: skip
                for step, vector in enumerate(frames):
                    latents = {CONTEXT: vector[None].astype(stored)}
                    episode.append(timestep=step, call=step, latents=latents)
                episode.finish(success=None, success_at_end=None, episode_length=len(frames))
    return path


def independent(
    rows: int, width: int, *, seed: int, shift: float = 0.0, moved: int = 0
) -> list[np.ndarray]:
    """Episodes of one frame; the first `moved` dimensions lie `shift` higher."""
    found = np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)
    found[:, :moved] += shift
    return list(found[:, None])


def correlated(
    episodes: int, frames: int, width: int, *, seed: int, shift: float = 0.0, moved: int = 0
) -> list[np.ndarray]:
    """Frames that share nine tenths of their variance with their episode."""
    random = np.random.default_rng(seed)
    centre = random.normal(size=(episodes, 1, width)) * 0.9**0.5
    found = centre + random.normal(size=(episodes, frames, width)) * 0.1**0.5
    found[..., :moved] += shift
    return list(found.astype(np.float32))
