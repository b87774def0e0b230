"""Ctrl-C at any moment, once or twice, keeps what was finished; so does a folder that refuses."""

import contextlib
import itertools
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from jax_bridge.shards import EpisodeWriter, ShardLimits, ShardWriteError, open_dataset
from jax_bridge.shards.file_layer import FileLayer
from jax_bridge.shards.repair import repair_dataset
from jax_bridge.shards.verify import verify_dataset

CHANGES = ("create", "write_at", "truncate", "sync", "sync_folder", "rename", "unlink")


class InterruptedFiles(FileLayer):
    """Raises KeyboardInterrupt before or after some of the changes of the disk."""

    def __init__(self, points, after):
        self.points = points
        self.after = after
        self.count = itertools.count()
        self.interrupts = 0

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        return self._guarded(found) if name in CHANGES else found

    def _guarded(self, change):
        def guarded(*args):
            hit = next(self.count) in self.points
            self.interrupts += hit
            if hit and not self.after:
                raise KeyboardInterrupt
            result = change(*args)
            if hit:
                raise KeyboardInterrupt
            return result

        return guarded


def write_three(sandbox, folder, files, finished):
    limits = ShardLimits(shard_bytes=9_000)
    with EpisodeWriter(folder, sandbox.info, limits, files=files) as writer:
        for episode in range(3):
            sandbox.write_episode(writer, 0, episode)
            finished.append(episode)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("later", [(), (1,), (2,), (5,), (1, 2)])
@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_ctrl_c_at_any_change_of_the_disk_keeps_what_was_finished(
    sandbox, tmp_path, later, after, stride
):
    for point in itertools.count(step=stride):
        folder = tmp_path / str(point)
        files = InterruptedFiles({point, *(point + n for n in later)}, after)
        finished = []
        with contextlib.suppress(KeyboardInterrupt):
            write_three(sandbox, folder, files, finished)
        with EpisodeWriter(folder, sandbox.info) as again:
            kept = sorted(episode for _, _, episode in again.committed)
        assert kept in (finished, [*finished, len(finished)])
        if kept:
            sandbox.assert_whole(open_dataset(folder), [(0, episode) for episode in kept])
        report = verify_dataset(folder)
        assert (report.problems, report.unfinished) == ((), ())
        shutil.rmtree(folder)
        if not files.interrupts:
            break
    assert point > 30


@pytest.fixture
def unprivileged():
    """A folder that can be forbidden, even where the tests run as root."""
    folder = Path(tempfile.mkdtemp(prefix="vla-lens-"))
    folder.chmod(0o755)
    root = os.geteuid() == 0

    @contextlib.contextmanager
    def read_only(path):
        places = [path, path / "shards"]
        for place in places:
            place.chmod(0o555)
        if root:
            os.seteuid(65534)
        try:
            yield
        finally:
            if root:
                os.seteuid(0)
            for place in places:
                place.chmod(0o755)

    yield folder, read_only
    shutil.rmtree(folder)


def test_a_read_only_folder_can_be_read_and_refuses_to_be_written(sandbox, unprivileged):
    folder, read_only = unprivileged
    data = sandbox.write(folder / "data", tasks=1, episodes=2)
    with read_only(data):
        sandbox.assert_whole(open_dataset(data), [(0, 0), (0, 1)])
        assert verify_dataset(data).problems == ()
        with pytest.raises(
            ShardWriteError, match=rf"Cannot write to {data}.*: writing is not allowed\. Choose"
        ):
            EpisodeWriter(data, sandbox.info)
        with pytest.raises(
            ShardWriteError, match=rf"Cannot write to {data}.*: writing is not allowed\. Choose"
        ):
            repair_dataset(data)
    (data / "index.parquet").unlink()
    with read_only(data):
        sandbox.assert_whole(open_dataset(data), [(0, 0), (0, 1)])
    assert not (data / "index.parquet").exists()


def test_a_folder_that_becomes_read_only_keeps_what_was_finished(sandbox, unprivileged):
    folder, read_only = unprivileged
    data = folder / "data"
    writer = EpisodeWriter(data, sandbox.info)
    sandbox.write_episode(writer, 0, 0)
    with (
        read_only(data),
        pytest.raises(ShardWriteError, match=r"writing is not allowed.*\(1 committed"),
    ):
        writer.close()
    with EpisodeWriter(data, sandbox.info) as again:
        assert {episode for _, _, episode in again.committed} == {0}
    sandbox.assert_whole(open_dataset(data), [(0, 0)])


@pytest.mark.parametrize("moment", ["in an episode", "between episodes"])
def test_a_folder_that_vanishes_and_comes_back_keeps_what_was_finished(sandbox, tmp_path, moment):
    data, away = tmp_path / "data", tmp_path / "away"

    def write():
        with EpisodeWriter(data, sandbox.info, ShardLimits(shard_bytes=9_000)) as writer:
            sandbox.write_episode(writer, 0, 0)
            if moment == "between episodes":
                data.rename(away)
            with writer.episode(suite="toy", task_id=0, episode=1) as recorder:
                recorder.append(timestep=0, latents=sandbox.values(0, 1, 0))
                data.rename(away)
                recorder.finish(success=True)

    with pytest.raises(
        ShardWriteError, match=r"Cannot write to .*: the folder has vanished\. Bring it back"
    ):
        write()
    away.rename(data)
    with EpisodeWriter(data, sandbox.info) as writer:
        kept = {episode for _, _, episode in writer.committed}
    assert 0 in kept
    report = verify_dataset(data)
    assert (report.problems, report.unfinished) == ((), ())
