"""Writers that die at any change of the disk or of the address lose and double nothing."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from jax_bridge.shards import open_dataset
from jax_bridge.shards.verify import verify_dataset
from tests.jax_bridge.shards.kill_writers import FIELD, STEPS, values
from tests.jax_bridge.shards.remote.kill_remote_writers import EPISODES

SCRIPT = pathlib.Path(__file__).with_name("kill_remote_writers.py")


@pytest.mark.parametrize("stride", [17, pytest.param(1, marks=pytest.mark.slow)])
def test_dying_at_any_change_loses_and_doubles_nothing(tmp_path, root, stride):
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path, str(stride)], cwd=root, capture_output=True, text=True,
        env={"PYTHONPATH": str(root), "PATH": ""}, timeout=1200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert sum(line["died"] for line in lines) > 100 // stride
    for line in lines:
        assert line["left"] == []
        assert_whole(pathlib.Path(line["folder"]))


def assert_whole(folder):
    """All episodes are there once; of the rest only tars that nobody sees."""
    shards = folder / "shards"
    for tar in shards.glob("*.tar"):
        if not tar.with_suffix(".json").exists():
            tar.unlink()
            tar.with_suffix(".parquet").unlink(missing_ok=True)
    assert [p.name for p in shards.iterdir() if p.name.startswith(".claim")] == []
    assert verify_dataset(folder).problems == ()
    dataset = open_dataset(folder)
    pairs = [tuple(p.values()) for p in dataset.index.select(["episode", "timestep"]).to_pylist()]
    assert pairs == [(e, t) for e in range(EPISODES) for t in range(STEPS)]
    due = np.stack([values(*pair) for pair in pairs])
    np.testing.assert_array_equal(dataset.read(FIELD), due)
