"""Kills `vla-lens collect --out ADDRESS`: `python kill_remote_collects.py ADDRESS STAGING KILLS`.

The parent imports once, opens no connection, and forks; each child runs the command line, is
killed with SIGKILL, and runs again. Prints the episodes that were finished before a kill.
"""

import json
import os
import pathlib
import random
import signal
import sys
import time

# Imported before the forks: a child then starts in a fraction of a second.
import cli.collect
import cli.progress
import jax_bridge.environments.tabletop
import jax_bridge.policies.pi0_policy
import jax_bridge.rollouts.collect
from cli.main import main

OPTIONS = [
    *("--policy.preset", "pi05_micro", "--policy.num_steps", "1", "--max-steps", "7"),
    *("--images", "none", "--tasks", "0:2", "--env.image_size", "32"),
]
PATIENCE = 120.0


def collect(address, staging, episodes):
    """A forked process that runs the command line, in silence."""
    child = os.fork()
    if child:
        return child
    with open(f"{staging}.log", "ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    code = 70
    try:
        words = ["--episodes", episodes, "--out", address, "--staging", str(staging)]
        code = main(["collect", *OPTIONS, *words])
    finally:
        os._exit(code)


def finished(staging):
    """Episodes of the staging folder's journals and manifests; they may move on while it looks."""
    found = set()
    for path in sorted((pathlib.Path(staging) / "shards").glob("*.json*")) + sorted(
        (pathlib.Path(staging) / "shards").glob(".part-*.jsonl")
    ):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            continue
        if path.suffix == ".json":
            found |= {tuple(entry[:3]) for entry in json.loads(content)["episodes"]}
            continue
        entries = [json.loads(line) for line in content.split(b"\n")[:-1]]
        found |= {(e["suite"], e["task_id"], e["episode"]) for e in entries if "suite" in e}
    return found


def wait_and_kill(staging, child, known, rng):
    """Kills a child while it uploads what the last one left, or after it finished something."""
    if rng.random() < 0.5 and known:
        time.sleep(rng.uniform(0, 1.5))
    else:
        deadline = time.monotonic() + PATIENCE
        while not finished(staging) - known:
            assert time.monotonic() < deadline, pathlib.Path(f"{staging}.log").read_text()[-2000:]
            assert os.waitpid(child, os.WNOHANG) == (0, 0), "the command ended by itself"
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.15))
    seen = finished(staging)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), pathlib.Path(f"{staging}.log").read_text()[-2000:]
    return seen


def run(address, staging, kills):
    """Kills and starts again; at last lets one come to its end."""
    rng = random.Random(0)
    known = set()
    for _ in range(kills):
        known |= wait_and_kill(staging, collect(address, staging, "0:10000"), known, rng)
    code = os.waitstatus_to_exitcode(os.waitpid(collect(address, staging, "0:1"), 0)[1])
    assert code == 0, pathlib.Path(f"{staging}.log").read_text()[-2000:]
    sys.stdout.write(json.dumps(sorted(known)) + "\n")


if __name__ == "__main__":
    assert cli.collect
    assert jax_bridge.environments.tabletop
    run(sys.argv[1], sys.argv[2], int(sys.argv[3]))
