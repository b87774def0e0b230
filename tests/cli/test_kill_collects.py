"""`kill -9` of real `vla-lens collect` processes loses and doubles nothing that was finished."""

import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

from cli.main import main
from jax_bridge.shards import open_dataset
from jax_bridge.shards.manifest import read_manifest
from jax_bridge.shards.verify import verify_dataset

SCRIPT = pathlib.Path(__file__).with_name("kill_collects.py")
OPTIONS = [
    *("--policy.preset", "pi05_micro", "--policy.num_steps", "1", "--max-steps", "7"),
    *("--images", "none", "--tasks", "0:2", "--env.image_size", "32"),
]


@pytest.fixture(scope="module")
def environment(root, tmp_path_factory):
    """Compiled programs are kept, so that a start is short."""
    return {
        **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        "PYTHONPATH": str(root),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def kill(folder, kills, workers, root, environment, options=()):
    command = [sys.executable, SCRIPT, folder, str(kills), str(workers), *options]
    done = subprocess.run(
        command, cwd=root, capture_output=True,
        text=True, env=environment, timeout=1500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def assert_nothing_lost_or_doubled(folder, known):
    report = verify_dataset(folder)
    assert report.problems == ()
    assert report.unfinished == ()
    stood = [
        (tuple(episode), count)
        for path in (folder / "shards").glob("*.json")
        for episode, count in read_manifest(path).episodes.items()
    ]
    episodes = [episode for episode, _ in stood]
    doubled = len(episodes) - len(set(episodes))
    lost = {tuple(episode) for episode in known} - set(episodes)
    assert (doubled, lost) == (0, set())
    assert {count for _, count in stood} == {2}
    assert len(open_dataset(folder)) == 2 * len(episodes)
    return set(episodes)


@pytest.mark.parametrize(
    ("workers", "kills"),
    [
        (1, 4),
        (3, 5),
        pytest.param(1, 100, marks=pytest.mark.slow),
        pytest.param(3, 120, marks=pytest.mark.slow),
    ],
)
def test_killed_collects_lose_and_double_nothing(root, environment, tmp_path, workers, kills):
    folder = tmp_path / "data"
    start = time.monotonic()
    line = kill(folder, kills, workers, root, environment)
    episodes = assert_nothing_lost_or_doubled(folder, line["known"])
    assert line["kills"] == kills
    assert len(line["known"]) >= kills - line["early"]
    sys.stdout.write(
        f"{kills} kills of {workers}: {len(line['known'])} finished before a kill, "
        f"{len(episodes)} there, 0 lost, 0 doubled, {time.monotonic() - start:.0f} s\n"
    )


def test_what_killed_processes_wrote_is_what_one_run_writes(root, environment, tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    kill(killed, 2, 1, root, environment)
    for folder in (killed, whole):
        assert main(["collect", *OPTIONS, "--episodes", "0:4", "--out", str(folder)]) == 0
    one, other = open_dataset(whole), open_dataset(killed)
    rows = other.select({"task_id": [0, 1], "episode": range(4)})
    assert one.metadata.drop(["shard"]).equals(other.metadata.drop(["shard"]).take(rows))
    for field in one.fields:
        assert one.read(field).tobytes() == other.read(field, rows=rows).tobytes()


@pytest.mark.parametrize("kills", [2, pytest.param(60, marks=pytest.mark.slow)])
def test_killed_commands_with_workers_lose_nothing_and_leave_no_process(
    root, environment, tmp_path, kills
):
    folder = tmp_path / "data"
    options = ("--workers", "3", "--batch", "3")
    line = kill(folder, kills, 1, root, environment, options)
    episodes = assert_nothing_lost_or_doubled(folder, line["known"])
    assert len(episodes) >= len(line["known"]) >= kills - line["early"]
