"""Killed writers lose at most the episode in flight, and nothing is ever doubled."""

import importlib.util
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from jax_bridge.shards import EpisodeWriter, open_dataset
from jax_bridge.shards.verify import verify_dataset

SCRIPT = pathlib.Path(__file__).with_name("kill_writers.py")


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("kill_writers", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(mode, folder, count, root):
    done = subprocess.run(
        [sys.executable, SCRIPT, mode, folder, str(count)], cwd=root, capture_output=True, text=True,
        env={"PYTHONPATH": str(root), "PATH": ""}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_whole(script, folder, finished):
    """Finished episodes are there once, whole, and at most one more that was in flight."""
    dataset = open_dataset(folder)
    pairs = dataset.index.select(["episode", "timestep"]).to_pylist()
    found = [(pair["episode"], pair["timestep"]) for pair in pairs]
    episodes = sorted({episode for episode, _ in found})
    assert found == [(e, t) for e in episodes for t in range(script.STEPS)]
    assert set(finished) <= set(episodes)
    if found:
        due = np.stack([script.values(*pair) for pair in found])
        np.testing.assert_array_equal(dataset.read(script.FIELD), due)
    report = verify_dataset(folder)
    assert report.problems == ()
    assert report.unfinished == ()
    left = {path.suffix for path in (pathlib.Path(folder) / "shards").iterdir()}
    assert left <= {".tar", ".json", ".parquet", ""}
    return episodes


def test_twenty_kills_lose_only_the_episode_in_flight(script, tmp_path, root):
    folder = tmp_path / "data"
    (line,) = run("random", folder, 20, root)
    EpisodeWriter(folder, script.INFO).close()
    episodes = assert_whole(script, folder, line["finished"])
    assert len(line["finished"]) >= 20
    # An episode may have become durable although nobody was told any more.
    assert len(episodes) <= len(line["finished"]) + 20
    assert episodes == list(range(len(episodes)))


@pytest.mark.parametrize("stride", [8, pytest.param(1, marks=pytest.mark.slow)])
def test_dying_at_any_change_of_the_disk_loses_no_finished_episode(script, tmp_path, root, stride):
    lines = run("points", tmp_path, stride, root)
    assert sum(line["died"] for line in lines) > 100 // stride
    for line in lines:
        episodes = assert_whole(script, line["folder"], line["finished"])
        assert len(episodes) <= len(line["finished"]) + 1


@pytest.mark.parametrize("stride", [8, pytest.param(1, marks=pytest.mark.slow)])
def test_dying_beside_another_writer_loses_and_doubles_nothing(script, tmp_path, root, stride):
    lines = run("pairs", tmp_path, stride, root)
    assert sum(line["died"] for line in lines) > 100 // stride
    for line in lines:
        episodes = assert_whole(script, line["folder"], line["finished"])
        assert set(episodes) >= {2, 3, 4}
        assert len(episodes) <= len(set(line["finished"])) + 1
