"""A small data set with a known answer: which layer and flow time knows the task."""

from pathlib import Path

import ml_dtypes
import numpy as np

from jax_bridge.shards import DatasetInfo, EpisodeWriter, FieldSpec, ShardLimits, open_dataset

TEXT = "vlm.hidden_states.text.mean"
MASKED = "vlm.hidden_states.image_right_wrist.mean"
SOMETIMES = "vlm.hidden_states.image_left_wrist.mean"
ACTION = "action.hidden_states.action.mean"
VELOCITY = "action.velocity.action.tokens"
LAYERS, FLOW_TIMES = (0, 2, 5), (1.0, 0.79999995, 0.1)
WIDTH = 12
COLOURS, BOWLS = ("red", "green", "blue", "yellow"), ("white", "black")
PLANTED_LAYER = 2
"""The only layer of the text field that knows the task."""


def planted_info(dtype: str = "float32") -> DatasetInfo:
    shape = (len(LAYERS), WIDTH)
    vlm = {"dtype": dtype, "shape": shape, "axes": ("layer", "width"), "layers": LAYERS}
    fields = [
        FieldSpec(name=TEXT, **vlm),
        FieldSpec(name=MASKED, **vlm),
        FieldSpec(name=SOMETIMES, **vlm),
        FieldSpec(
            name=ACTION, dtype=dtype, shape=(len(LAYERS), len(FLOW_TIMES), WIDTH),
            axes=("layer", "flow_time", "width"), layers=LAYERS, flow_times=FLOW_TIMES,
        ),
        FieldSpec(
            name=VELOCITY, dtype="float32", shape=(len(FLOW_TIMES), 2, 4),
            axes=("flow_time", "horizon", "dim"), flow_times=FLOW_TIMES,
        ),
        *(
            FieldSpec(name=f"valid.{region}", dtype="bool", shape=(), axes=())
            for region in ("text", "image_left_wrist", "image_right_wrist")
        ),
    ]  # fmt: skip
    return DatasetInfo(
        fields={field.name: field for field in fields},
        capture={"preset": "planted"},
        model={"preset": "planted", "params_digest": "0" * 64},
        environment={"name": "planted"},
        seed=0,
    )


class PlantedLatents:
    """Noise everywhere; the task stands in one layer, and the more clearly the less noise t.

    With `fingerprints`, layer 0 of the text field knows the episode and nothing else.
    """

    def __init__(
        self, tasks: int, dtype: str, noise: float, seed: int, fingerprints: bool = False
    ) -> None:
        self.random = np.random.default_rng(seed)
        self.directions = np.random.default_rng(99).normal(size=(tasks, WIDTH))
        self.dtype = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
        self.noise = noise
        self.fingerprints = fingerprints

    def sample(self, task: int, timestep: int, episode: int = 0) -> dict[str, np.ndarray]:
        normal = self.random.normal
        text = normal(size=(len(LAYERS), WIDTH))
        text[1] = self.directions[task] + self.noise * text[1]
        if self.fingerprints:
            text[0] = np.random.default_rng(episode).normal(size=WIDTH) + self.noise * text[0]
        action = normal(size=(len(LAYERS), len(FLOW_TIMES), WIDTH))
        action[1] += self.directions[task] * (1 - np.array(FLOW_TIMES)[:, None]) * 3
        latents = {TEXT: text, MASKED: text * 0, SOMETIMES: text, ACTION: action}
        latents = {name: (5 + 2 * x).astype(self.dtype) for name, x in latents.items()}
        return {
            **latents,
            VELOCITY: normal(size=(len(FLOW_TIMES), 2, 4)).astype(np.float32),
            "valid.text": np.array(True),
            "valid.image_left_wrist": np.array(timestep > 0),
            "valid.image_right_wrist": np.array(False),
        }


def write_planted(
    path: Path,
    *,
    tasks: int = 4,
    episodes: int = 10,
    samples: int = 4,
    dtype: str = "float32",
    noise: float = 0.1,
    seed: int = 0,
    suite: str = "planted",
    random_labels: bool = False,
    instructions: bool = True,
    broken: str = "",
    fingerprints: bool = False,
    late_tasks: bool = False,
    shard_bytes: int = 2**30,
) -> Path:
    """Writes the data set.

    `random_labels` gives each episode the latents of a random task; the sample whose key is
    `broken` holds NaN in its latents and its state; `late_tasks` starts the clock of each task
    where that of the one before has ended.
    """
    latents = PlantedLatents(tasks, dtype, noise, seed, fingerprints)
    states = np.random.default_rng(seed + 1)
    limits = ShardLimits(shard_bytes=shard_bytes)
    with EpisodeWriter(path, planted_info(dtype), limits) as writer:
        for task in range(tasks):
            text = f"put the {COLOURS[task // 2 % 4]} cube in the {BOWLS[task % 2]} bowl"
            for number in range(episodes):
                shown = int(states.integers(tasks)) if random_labels else task
                with writer.episode(
                    suite=suite, task_id=task, episode=number, task_name=text.replace(" ", "_"),
                    instruction=text if instructions else None, task_instruction=text, seed=number,
                ) as episode:  # fmt: skip
                    for step in range(samples):
                        state = states.normal(size=5).astype(np.float32)
                        state[4] = 1.0
                        sample = latents.sample(shown, step, episodes * task + number)
                        if broken == f"{suite}-t{task:03d}-e{number:04d}-s{5 * step:04d}":
                            state[0] = sample[TEXT][0, 0] = np.nan
                        start = 5 * samples * task if late_tasks else 0
                        episode.append(
                            timestep=start + 5 * step, call=step, latents=sample, state=state
                        )  # fmt: skip
                    episode.finish(
                        success=True, success_at_end=True, episode_length=start + 5 * samples
                    )
    return path


def damage_sample(path: Path, row: int, member: str = "latents.safetensors") -> str:
    """Overwrites the header of a member, so that it cannot be read; returns the sample's key."""
    entry = open_dataset(path).index.take([int(row)]).to_pylist()[0]
    with (path / "shards" / f"{entry['shard']}.tar").open("r+b") as tar:
        tar.seek(entry[f"member.{member}.offset"])
        tar.write(b"!" * 9)  # also the length that safetensors begin with
    return entry["key"]
