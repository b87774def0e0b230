"""`vla-lens serve` in a process of its own, asked by openpi's published client."""

import contextlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from websockets.sync.client import connect

from cli.main import main as front
from jax_bridge.pi0 import CaptureSpec
from jax_bridge.policies.pi0_policy import Pi0Policy
from jax_bridge.serving.observation_message import read_observation
from jax_bridge.serving.wire import encode
from jax_bridge.shards import open_dataset
from jax_bridge.shards.verify import verify_dataset

CLIENT = Path(__file__).with_name("openpi_client_asks.py")
POLICY = {"preset": "pi05_micro", "num_steps": 2}
OPTIONS = [*("--policy.preset", "pi05_micro", "--policy.num_steps", "2"), "--port", "0"]


@pytest.fixture(scope="module")
def openpi_python(root):
    """Python of the environment that has openpi-client."""
    python = root / ".venv/openpi_client/bin/python"
    found = os.environ.get("VLA_LENS_OPENPI_CLIENT", str(python))
    have = [found, "-c", "import openpi_client.websocket_client_policy"]
    if not Path(found).exists() or subprocess.run(have, capture_output=True).returncode:
        pytest.skip("openpi-client is not installed: `make .venv/.openpi_client` installs it")
    return found


@contextlib.contextmanager
def serving(root, log, *options):
    """A server process; gives its port and the process."""
    command = [sys.executable, "-m", "cli.main", "serve", *OPTIONS, *options]
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONUNBUFFERED": "1"}
    with open(log, "w") as file:
        server = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=file, text=True, env=environment
        )
    assert server.stdout is not None
    try:
        port = None
        while port is None:
            line = server.stdout.readline()
            assert line, log.read_text()
            port = re.search(r"serving at ws://127.0.0.1:(\d+)", line)
        yield port[1], server
    finally:
        server.kill()
        server.wait(20)
        server.stdout.close()


def test_openpis_own_client_gets_the_policys_actions_and_latents(root, openpi_python, tmp_path):
    with serving(root, tmp_path / "log", "--out", str(tmp_path / "data")) as (port, server):
        client = subprocess.run(
            [openpi_python, CLIENT, port, tmp_path / "got.npz"],
            capture_output=True, text=True, timeout=120, cwd=tmp_path,
        )  # fmt: skip
        assert client.returncode == 0, client.stderr
        server.send_signal(signal.SIGTERM)
        said = server.stdout.read()
        assert server.wait(30) == 0, (tmp_path / "log").read_text()
    got = np.load(tmp_path / "got.npz")
    assert str(got["numpy"]).startswith("1.")
    assert_is_the_policys_own(got)
    assert "`observation/state` must be 8 finite numbers" in str(got["error"])
    # Two instructions and a return to the first, then what the broker asked.
    assert "4 episodes, 5 samples" in said
    index = open_dataset(tmp_path / "data").index
    assert index["outcome"].to_pylist().count("success") == 1


def assert_is_the_policys_own(got):
    policy, pooled = Pi0Policy(**POLICY), CaptureSpec.preset("pooled")
    assert int(got["horizon"]) == policy.action_horizon
    for number in range(2):
        seen = read_observation(sent(number), policy.convention)
        own = policy.infer(seen, capture=pooled, noise_key=("openpi", number))
        assert got[f"actions_{number}"].tobytes() == own.actions.tobytes()
        if number == 0:
            assert got["actions_with_latents"].tobytes() == own.actions.tobytes()
            names = {n.removeprefix("latents/") for n in got.files if n.startswith("latents/")}
            assert names == set(own.latents)
            for name in names:
                value = got[f"latents/{name}"]
                assert value.tobytes() == own.latents[name].astype(value.dtype).tobytes(), name
    assert got["brokered"].shape == (6, 7)


def sent(number):
    """What the client's script sends, without its package."""
    generator = np.random.default_rng(number)
    images = [generator.integers(0, 256, (224, 224, 3), dtype=np.uint8) for _ in range(2)]
    return {
        "observation/image": images[0],
        "observation/wrist_image": images[1],
        "observation/state": np.concatenate((np.linspace(-1, 1, 6), [0.04, -0.04])),
        "prompt": f"put the cup on shelf {number}",
    }


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--policy", "remote", "--policy.remote", "ws://x"], "`--policy` must be one of pi0"),
        (["--policy", "tests.jax_bridge.rollouts.worlds.RowPolicy"], "must have a `convention`"),
        (["--port", "70000"], "`port` must lie in 0 to 65535, but got 70000"),
        (["--capture", "everything"], "everything"),
        (["--images", "gif"], "`--images` must be jpg, png or none, but got 'gif'"),
        (["--capture", "none", "--out", "DATA"], "`capture` must name latents"),
    ],
)
def test_bad_options_are_one_line_and_exit_code_2(capsys, tmp_path, args, message):
    args = [str(tmp_path / "data") if arg == "DATA" else arg for arg in args]
    options = OPTIONS[4:] if "RowPolicy" in args[-1] else OPTIONS
    assert front(["serve", *options, *args]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_a_remote_policy_that_is_not_there_is_one_line(capsys, tmp_path):
    args = ["--policy.remote", "ws://127.0.0.1:9", "--policy.patience", "0"]
    assert front(["collect", *args, "--out", str(tmp_path / "data")]) == 2
    err = capsys.readouterr().err
    assert "`remote` must be a policy server that runs, but ws://127.0.0.1:9" in err
    assert err.count("\n") == 1


def test_a_killed_server_keeps_what_was_finished_and_goes_on(root, tmp_path):
    data = tmp_path / "data"
    options = ("--out", str(data), "--images", "none")

    def asked(port, *episodes, ends=True):
        """Asks two calls of each episode; the last is left open unless it ends."""
        with connect(f"ws://127.0.0.1:{port}", compression=None) as connection:
            connection.recv()
            for episode in episodes:
                name = {"suite": "kitchen", "task_id": 0, "episode": episode}
                messages = [{**sent(0), "episode": name}] * 2
                if ends or episode != episodes[-1]:
                    messages = [*messages, {"end_episode": {"success": True}}]
                for message in messages:
                    connection.send(encode(message))
                    assert isinstance(connection.recv(timeout=60), bytes)
            if not ends:
                server.kill()
                server.wait(20)

    with serving(root, tmp_path / "first", *options) as (port, server):
        asked(port, 0, 1, ends=False)
    with serving(root, tmp_path / "second", *options) as (port, server):
        asked(port, 1)
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
    index = open_dataset(data).index
    assert list(zip(*(index[n].to_pylist() for n in ("episode", "call", "outcome")), strict=True)) == [
        (0, 0, "success"), (0, 1, "success"), (1, 0, "success"), (1, 1, "success"),
    ]  # fmt: skip
    assert verify_dataset(data).problems == ()
    log = (tmp_path / "second").read_text()
    assert "client 0 came" in log
    assert "client 0 left" in log


@pytest.mark.parametrize("args", [["serve"], ["collect", "--policy.remote=ws://127.0.0.1:9"]])
def test_a_missing_extra_says_how_to_install_it(monkeypatch, capsys, args):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *a: None if name == "websockets" else find(name, *a),
    )
    assert front([*args, *OPTIONS[:2]]) == 2
    assert (
        "needs websockets. Install them: pip install 'vla-lens[serve]'" in capsys.readouterr().err
    )
