"""Kills `vla-lens collect` processes: `python kill_collects.py FOLDER KILLS WORKERS [OPTIONS]`.

The parent imports once and forks; each child runs the command line, is killed with SIGKILL, and
runs again. What was finished before a kill is read from manifests and journals, which any process
can see. OPTIONS are added to every command; processes that a killed command started must end as
well. Prints JSON lines for the test to judge.
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
ROOM = 10_000
"""Episodes of a worker's range; more than it ever gets to."""
PATIENCE = 120.0


def collect(folder, episodes):
    """A forked process that runs the command line, in silence."""
    child = os.fork()
    if child:
        return child
    with open(f"{folder}.log", "ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    code = 70
    try:
        words = [*OPTIONS, *sys.argv[4:], "--episodes", episodes, "--out", str(folder)]
        code = main(["collect", *words])
    finally:
        os._exit(code)


def committed(folder):
    """Episodes that stand in manifests."""
    found = set()
    for path in (pathlib.Path(folder) / "shards").glob("[!.]*.json"):
        found |= {tuple(entry[:3]) for entry in json.loads(path.read_bytes())["episodes"]}
    return found


def journalled(folder):
    """Episodes that stand in whole lines of journals."""
    found = set()
    for path in (pathlib.Path(folder) / "shards").glob(".part-*.jsonl"):
        try:
            lines = path.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:  # somebody recovers it just now
            continue
        entries = [json.loads(line) for line in lines]
        found |= {(e["suite"], e["task_id"], e["episode"]) for e in entries if "suite" in e}
    return found


def finished(folder):
    """All that must survive: the journals first, since their episodes move into manifests."""
    seen = journalled(folder)
    return seen | committed(folder)


def mine(episodes, worker):
    """The part of a worker's range."""
    return {e for e in episodes if worker * ROOM <= e[2] < (worker + 1) * ROOM}


def descendants(pid):
    """Processes that a process started, and theirs."""
    try:
        text = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [found for child in text.split() for found in (int(child), *descendants(int(child)))]


def wait_until_gone(pids):
    """Returns when none of some processes runs."""
    deadline = time.monotonic() + PATIENCE
    while any(pathlib.Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, f"left behind: {pids}"
        time.sleep(0.01)


def wait_and_kill(folder, child, worker, before, rng):
    """Kills a child soon after its start, or after it finished something; says which."""
    early = rng.random() < 0.3
    if early:
        time.sleep(rng.uniform(0, 0.8))
    else:
        deadline = time.monotonic() + PATIENCE
        while len(mine(journalled(folder), worker) - before) == 0:
            assert time.monotonic() < deadline, pathlib.Path(f"{folder}.log").read_text()[-2000:]
            assert os.waitpid(child, os.WNOHANG) == (0, 0), "the command ended by itself"
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.15))
    known = finished(folder)
    started = descendants(child)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    wait_until_gone(started)
    assert os.WIFSIGNALED(status), status
    assert os.WTERMSIG(status) == signal.SIGKILL
    return known, early


def run(folder, kills, workers):
    """Kills the workers in turn, each after a random time, and starts each again."""
    rng = random.Random(0)
    ranges = [f"{w * ROOM}:{(w + 1) * ROOM}" for w in range(workers)]
    children = [collect(folder, episodes) for episodes in ranges]
    known, early = set(), 0
    for kill in range(kills):
        worker = kill % workers
        seen, was_early = wait_and_kill(folder, children[worker], worker, mine(known, worker), rng)
        known |= seen
        early += was_early
        if kill < kills - workers:
            children[worker] = collect(folder, ranges[worker])
    # The same command with a range that was run already recovers what the last one left.
    code = os.waitstatus_to_exitcode(os.waitpid(collect(folder, "0:1"), 0)[1])
    assert code == 0, pathlib.Path(f"{folder}.log").read_text()[-2000:]
    sys.stdout.write(json.dumps({"kills": kills, "early": early, "known": sorted(known)}) + "\n")


if __name__ == "__main__":
    assert cli.collect
    assert jax_bridge.environments.tabletop
    run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
