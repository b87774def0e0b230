"""A small data set of demonstrations with smooth actions, and statistics for it."""

import numpy as np

from jax_bridge.demos.chunks import action_chunk
from jax_bridge.demos.description import ENTRY, Demonstrations
from jax_bridge.policies.normalisation import FieldStatistics, NormStats
from jax_bridge.shards import DatasetInfo, EpisodeWriter, ShardLimits

STATE = 4


def trajectory(seed, steps, dims, still=()):
    """Sums of slow sines; the dimensions of `still` never move."""
    generator = np.random.default_rng(seed)
    time = np.linspace(0, 1, steps)[:, None]
    phases, speeds = generator.uniform(0, 6, dims), generator.uniform(1, 3, dims)
    actions = np.sin(phases + 2 * np.pi * speeds * time) * np.linspace(0.5, 2, dims)
    actions[:, list(still)] = 0.25
    return actions.astype(np.float32)


def write_demos(
    path, *, episodes=6, steps=20, horizon=8, dims=3, still=(), scale=1.0, state=True, failed=(),
    first=0, shard_bytes=2**15,
):  # fmt: skip
    sizes = Demonstrations(
        horizon=horizon, action_dim=dims, state_dim=STATE if state else None, cameras=()
    )
    info = DatasetInfo(
        fields={}, capture={}, model={}, environment={ENTRY: sizes.to_json()}, seed=0
    )
    with EpisodeWriter(path, info, ShardLimits(shard_bytes=shard_bytes)) as writer:
        for number in range(first, first + episodes):
            actions = trajectory(number, steps, dims, still) * np.float32(scale)
            states = trajectory(100 + number, steps, STATE)
            with writer.episode(
                suite="demo", task_id=number % 2, episode=number // 2, instruction="go"
            ) as episode:
                for step in range(steps):
                    chunk, padding = action_chunk(actions, step, horizon)
                    episode.append(
                        timestep=step, state=states[step] if state else None, actions=chunk,
                        action_is_pad=padding,
                    )  # fmt: skip
                episode.finish(success=number not in failed, episode_length=steps)
    return path


def statistics(dims=3, low=-2.0, high=2.0, **rows):
    def field(name, size):
        values = {"mean": 0.0, "std": 1.0, "q01": low, "q99": high, **rows}
        arrays = {
            key: np.broadcast_to(np.asarray(v, float), (size,)).copy() for key, v in values.items()
        }
        return FieldStatistics(name=name, **arrays)

    return NormStats(state=field("state", dims), actions=field("actions", dims))
