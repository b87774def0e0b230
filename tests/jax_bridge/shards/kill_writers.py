"""Kills writing processes: run as `python kill_writers.py random|points|pairs FOLDER COUNT`.

The parent imports once and forks; it starts no thread before. What a child reports as finished
it writes to FOLDER/finished before it goes on. Prints JSON lines for the test to judge.
"""

import itertools
import json
import os
import pathlib
import random
import signal
import sys
import time

import numpy as np

from jax_bridge.shards import DatasetInfo, EpisodeWriter, FieldSpec, ShardLimits
from jax_bridge.shards.file_layer import FileLayer

FIELD = "vlm.hidden_states.text.mean"
STEPS = 3
INFO = DatasetInfo(
    fields={
        FIELD: FieldSpec(
            name=FIELD, dtype="float32", shape=(2, 64), axes=("layer", "width"), layers=(0, 1)
        )
    },
    capture={},
    model={},
    environment={},
    seed=0,
)


def values(episode, timestep):
    """The content of a sample, by its numbers."""
    return np.random.default_rng([episode, timestep]).standard_normal((2, 64), np.float32)


def write(folder, episodes, files=None):
    """Writes episodes that are not there; notes each finished one in a file."""
    log = os.open(f"{folder}.finished", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    limits = ShardLimits(shard_bytes=14_000)
    with EpisodeWriter(folder, INFO, limits, files=files or FileLayer()) as writer:
        for episode in episodes:
            if ("toy", 0, episode) in writer.committed:
                continue
            with writer.episode(suite="toy", task_id=0, episode=episode) as recorder:
                for timestep in range(STEPS):
                    recorder.append(timestep=timestep, latents={FIELD: values(episode, timestep)})
                recorder.finish(success=True)
            os.write(log, b"%d\n" % episode)


def fork(work):
    """Runs work in a child and returns its process id."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    except BaseException as error:
        sys.stderr.write(f"{error!r}\n")
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def finished(folder):
    """Episodes whose `finish` returned."""
    path = pathlib.Path(f"{folder}.finished")
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def say(**line):
    """Tells the test."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def kill_at_random(folder, kills):
    """Kills a writer again and again on one folder."""
    random.seed(0)
    for _ in range(kills):
        before = len(finished(folder))
        child = fork(lambda: write(folder, range(100_000)))
        while len(finished(folder)) == before:
            time.sleep(0.002)
        time.sleep(random.uniform(0, 0.04))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL
    say(folder=str(folder), finished=finished(folder))


class DyingFiles(FileLayer):
    """Ends the process before or after the n-th change of the disk."""

    CHANGES = ("create", "write_at", "truncate", "sync", "sync_folder", "rename", "unlink")

    def __init__(self, deadline, after, on_change=lambda: None):
        self.left = deadline
        self.after = after
        self.on_change = on_change

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        return self._guarded(found) if name in DyingFiles.CHANGES else found

    def _guarded(self, change):
        def guarded(*args):
            self.left -= 1
            self.on_change()
            if self.left < 0 and not self.after:
                os._exit(9)
            result = change(*args)
            if self.left < 0:
                os._exit(9)
            return result

        return guarded


def die_at_points(folder, stride, episodes=3):
    """Lets a first writer die at each stride-th change; prints what it had finished."""
    for after in (False, True):
        point = stride // 2 if after else 0
        while True:
            here = pathlib.Path(folder) / f"{point}-{after}"
            files = DyingFiles(point, after)
            child = fork(lambda here=here, files=files: write(here, range(episodes), files))
            _, status = os.waitpid(child, 0)
            code = os.waitstatus_to_exitcode(status)
            assert code in (0, 9), code
            done = finished(here)
            child = fork(lambda here=here: write(here, ()))
            _, status = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(status) == 0
            say(folder=str(here), finished=done, died=code == 9)
            if code == 0:
                break
            point += stride


def go_on_beside(folder, gate):
    """A second writer: makes a step at each byte of a pipe, and runs free when the first died."""

    def step():
        os.read(gate, 1)

    step()
    with EpisodeWriter(folder, INFO, ShardLimits(shard_bytes=14_000)) as writer:
        for episode in range(2, 5):  # the first one is the other writer's last one
            if ("toy", 0, episode) in writer.committed:
                continue
            step()
            with writer.episode(suite="toy", task_id=0, episode=episode) as recorder:
                for timestep in range(STEPS):
                    step()
                    recorder.append(timestep=timestep, latents={FIELD: values(episode, timestep)})
                step()
                recorder.finish(success=True)
            with open(f"{folder}.finished", "a") as log:
                log.write(f"{episode}\n")
    while os.read(gate, 4096):
        pass


def start_pair(here, point, after):
    """One writer that dies, and one that goes on beside it."""
    gate, token = os.pipe()
    beside = fork(lambda: (os.close(token), go_on_beside(here, gate)))
    changes = itertools.count()

    def on_change():
        if next(changes) % 3 == 0:
            os.write(token, b"x")

    def die():
        os.close(gate)
        write(here, range(3), DyingFiles(point, after, on_change))

    dying = fork(die)
    os.close(gate)
    os.close(token)
    return dying, beside


def die_in_pairs(folder, stride):
    """Lets one of two writers die at each stride-th change, while the other goes on."""
    for after in (False, True):
        point = stride // 2 if after else 0
        while True:
            here = pathlib.Path(folder) / f"{point}-{after}"
            codes = [
                os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                for child in start_pair(here, point, after)
            ]
            assert codes in ([0, 0], [9, 0]), codes
            done = finished(here)
            child = fork(lambda here=here: write(here, ()))
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            say(folder=str(here), finished=done, died=codes[0] == 9)
            if codes[0] == 0:
                break
            point += stride


if __name__ == "__main__":
    mode, target, count = sys.argv[1:]
    modes = {"random": kill_at_random, "points": die_at_points, "pairs": die_in_pairs}
    modes[mode](target, int(count))
