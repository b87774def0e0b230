"""A small data set whose every value follows from its key."""

import dataclasses

import numpy as np
import pytest

from jax_bridge.shards import DatasetInfo, EpisodeWriter, FieldSpec, ShardLimits
from jax_bridge.shards.file_layer import LOCAL_FILES

TEXT = "vlm.hidden_states.text.mean"
ACTION = "action.hidden_states.action.mean"
VALID = "valid.text"


def specs():
    return (
        FieldSpec(
            name=TEXT, dtype="bfloat16", shape=(4, 8), axes=("layer", "width"), layers=(0, 2, 4, 6)
        ),
        FieldSpec(
            name=ACTION,
            dtype="float32",
            shape=(4, 3, 5),
            axes=("layer", "flow_time", "width"),
            layers=(0, 2, 4, 6),
            flow_times=(1.0, 0.9, 0.79999995),
        ),
        FieldSpec(name=VALID, dtype="bool", shape=(), axes=()),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sandbox:
    """Makes data sets of one kind."""

    info: DatasetInfo
    timesteps: tuple[int, ...] = (0, 3, 6)

    def values(self, task_id, episode, timestep):
        """The latents of a sample, by its numbers."""
        rng = np.random.default_rng([task_id, episode, timestep])
        return {
            name: np.asarray(rng.standard_normal(s.shape) * 3).astype(s.numpy_dtype)
            for name, s in self.info.fields.items()
        }

    def write_episode(self, writer, task_id, episode, *, finish=True, **extra):
        """Writes one episode."""
        numbers = {"suite": "toy", "task_id": task_id, "episode": episode}
        words = {"instruction": f"do {task_id}", "task_instruction": f"do {task_id}"}
        with writer.episode(**numbers, **words, task_name=f"task{task_id}", seed=7) as recorder:
            for call, timestep in enumerate(self.timesteps):
                recorder.append(
                    timestep=timestep,
                    call=call if call % 2 == 0 else None,
                    latents=self.values(task_id, episode, timestep),
                    state=np.full(8, timestep, np.float32),
                    actions=np.full((2, 7), episode, np.float32),
                    executed=np.full(7, task_id, np.float32),
                    truth={"cube": [0.1, float(timestep)], "on": {"bowl": False}},
                    **extra,
                )
            if finish:
                recorder.finish(success=episode % 2 == 0, success_at_end=False, episode_length=9)

    def write(self, path, *, tasks=2, episodes=3, shard_bytes=25_000, files=LOCAL_FILES, **extra):
        """Writes what is not there yet."""
        limits = ShardLimits(shard_bytes=shard_bytes)
        with EpisodeWriter(path, self.info, limits, files=files) as writer:
            for task_id in range(tasks):
                for episode in range(episodes):
                    if ("toy", task_id, episode) not in writer.committed:
                        self.write_episode(writer, task_id, episode, **extra)
        return path

    def expected(self, dataset, field, rows=None):
        """What `dataset.read` must give."""
        rows = np.arange(len(dataset)) if rows is None else rows
        numbers = dataset.index.select(["task_id", "episode", "timestep"]).take(rows).to_pylist()
        return np.stack([self.values(**n)[field] for n in numbers])

    def assert_whole(self, dataset, episodes):
        """Every episode is there once, with every sample and every byte."""
        keys = dataset.index.select(["task_id", "episode", "timestep"]).to_pylist()
        found = [tuple(key.values()) for key in keys]
        assert found == sorted((*e, t) for e in episodes for t in self.timesteps)
        for field in self.info.fields:
            np.testing.assert_array_equal(dataset.read(field), self.expected(dataset, field))


@pytest.fixture(scope="session")
def sandbox():
    return Sandbox(
        info=DatasetInfo(
            fields={spec.name: spec for spec in specs()},
            capture={"preset": "pooled"},
            model={"preset": "toy", "checkpoint": "/somewhere", "params_digest": "abc"},
            environment={"name": "toy", "settle": 10},
            seed=0,
        )
    )


@pytest.fixture(scope="session")
def toy(sandbox, tmp_path_factory):
    """A finished data set of 2 tasks x 3 episodes x 3 samples; nobody may change it."""
    return sandbox.write(tmp_path_factory.mktemp("toy") / "data")


@pytest.fixture
def copy_of_toy(toy, tmp_path):
    """One to break."""
    import shutil

    return shutil.copytree(toy, tmp_path / "copy")
