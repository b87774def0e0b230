"""Kills writers at an address: run as `python kill_remote_writers.py FOLDER STRIDE`.

A first writer dies at each stride-th change, be it of the staging folder or of the address. Then,
every other time, another machine goes on, and at last the first one. Prints JSON lines for the
test to judge. The address is one of a local folder, so that a child starts no thread but ours.
"""

import os
import pathlib
import sys

from jax_bridge.shards import ShardLimits
from jax_bridge.shards.file_layer import FileLayer
from jax_bridge.shards.remote import claims
from jax_bridge.shards.remote.remote_writer import RemoteEpisodeWriter
from jax_bridge.shards.remote.store import RemoteStore
from tests.jax_bridge.shards.kill_writers import (
    FIELD,
    INFO,
    STEPS,
    DyingFiles,
    finished,
    fork,
    say,
    values,
)

EPISODES = 4


class DyingStore(RemoteStore):
    """Counts the changes of the address among those of the files."""

    def __init__(self, address, files):
        super().__init__(address)
        self._guarded = files._guarded

    def upload(self, local, name, *, new=False):
        put = super().upload
        self._guarded(lambda: put(local, name, new=new))()

    def write(self, name, content):
        self._guarded(super().write)(name, content)

    def remove(self, name):
        self._guarded(super().remove)(name)


def write(folder, staging, files=None):
    """Writes the episodes that are not there; notes each finished one in a file."""
    log = os.open(f"{folder}.finished", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    address = f"file://{folder}"
    store = None if files is None else DyingStore(address, files)
    with RemoteEpisodeWriter(
        address, INFO, ShardLimits(shard_bytes=14_000), files=files or FileLayer(),
        staging=staging, store=store,
    ) as writer:  # fmt: skip
        for episode in range(EPISODES):
            if ("toy", 0, episode) in writer.committed:
                continue
            with writer.episode(suite="toy", task_id=0, episode=episode) as recorder:
                for timestep in range(STEPS):
                    recorder.append(timestep=timestep, latents={FIELD: values(episode, timestep)})
                recorder.finish(success=True)
            os.write(log, b"%d\n" % episode)


def ended(work):
    """The exit code of a child that does some work."""
    _, status = os.waitpid(fork(work), 0)
    return os.waitstatus_to_exitcode(status)


def run(root, stride):
    """Lets writers die, before and after changes."""
    for after in (False, True):
        point = stride // 2 if after else 0
        while True:
            here = pathlib.Path(root) / f"{point}-{after}"
            staging = pathlib.Path(f"{here}.staging")
            code = ended(lambda h=here, s=staging, p=point, a=after: write(h, s, DyingFiles(p, a)))
            assert code in (0, 9), code
            done = finished(here)
            if point // stride % 2:
                assert ended(lambda h=here: write(h, f"{h}.other")) == 0
            assert ended(lambda h=here, s=staging: write(h, s)) == 0
            left = [p.name for p in (staging / "shards").iterdir() if p.name[0] != "."]
            say(folder=str(here), finished=done, died=code == 9, left=left)
            if code == 0:
                break
            point += stride


if __name__ == "__main__":
    claims.DEAD_SECONDS = 0.5  # whoever was killed here is dead indeed
    run(sys.argv[1], int(sys.argv[2]))
