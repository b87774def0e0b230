"""`vla-lens collect` when the folder goes away and when a person loses patience."""

import itertools
import os
import signal
import subprocess
import sys
import time

import pytest

from cli.main import main
from jax_bridge.shards import open_dataset
from jax_bridge.shards.verify import verify_dataset

OPTIONS = [
    *("--policy.preset", "pi05_micro", "--policy.num_steps", "1", "--max-steps", "7"),
    *("--images", "none", "--tasks", "0", "--env.image_size", "32"),
]


def test_a_folder_that_vanishes_is_one_line_and_comes_back_whole(tmp_path, capsys, monkeypatch):
    from jax_bridge.environments.tabletop import Tabletop

    steps = itertools.count()
    step = Tabletop.step
    out, away = tmp_path / "data", tmp_path / "away"

    def unplugged(self, action):
        if next(steps) == 16:  # in the third episode of 7 steps
            out.rename(away)
        return step(self, action)

    monkeypatch.setattr(Tabletop, "step", unplugged)
    command = ["collect", *OPTIONS, "--episodes", "0:4", "--out", str(out)]
    assert main(command) == 2
    err = capsys.readouterr().err
    assert f"Cannot write to {out}" in err
    assert "the folder has vanished. Bring it back (a lost mount?) and run again" in err
    assert not out.exists()
    away.rename(out)
    assert main(command) == 0
    assert "were there already" in capsys.readouterr().out
    assert open_dataset(out).index["episode"].to_pylist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert verify_dataset(out).problems == ()


def interrupt(root, out, delays):
    """Starts the command, presses Ctrl-C once something is finished, and again after each delay."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "collect", *OPTIONS, "--episodes", "0:9999", "--out", out],
        cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(out.glob("shards/.part-*.jsonl")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    finished = sum(p.read_bytes().count(b"\n") for p in out.glob("shards/.part-*.jsonl"))
    process.send_signal(signal.SIGINT)
    for delay in delays:
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
    try:
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, err, finished


@pytest.mark.parametrize(
    "delays",
    [
        (),
        (0.02,),
        pytest.param((0.0,), marks=pytest.mark.slow),
        pytest.param((0.005,), marks=pytest.mark.slow),
        pytest.param((0.1,), marks=pytest.mark.slow),
        pytest.param((0.01, 0.01, 0.01), marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_once_and_twice_keeps_what_was_finished(root, tmp_path, capsys, delays):
    out = tmp_path / "data"
    code, err, finished = interrupt(root, out, delays)
    # A process that dies of SIGINT is 130 to the shell as well.
    assert code == 130 or (delays and code == -signal.SIGINT)
    if not delays:
        assert f"interrupted: finished episodes are kept in {out}" in err
        assert "Traceback" not in err
        assert list(out.glob("shards/.part-*")) == []
    assert finished >= 1
    assert main(["collect", *OPTIONS, "--episodes", "0", "--out", str(out)]) == 0
    assert "(1 were there already)" in capsys.readouterr().out
    episodes = open_dataset(out).index["episode"].to_pylist()
    assert episodes == sorted([*range(len(episodes) // 2)] * 2)
    assert len(episodes) // 2 >= finished
    report = verify_dataset(out)
    assert (report.problems, report.unfinished) == ((), ())
