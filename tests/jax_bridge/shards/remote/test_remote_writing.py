"""Writing at an address: whole or invisible, never lost, never doubled, never replaced."""

import json
import pathlib
import shutil
import threading

import pytest

from jax_bridge.shards import FingerprintError, ShardLimits, ShardWriteError
from jax_bridge.shards.dataset_folder import DatasetFolder
from jax_bridge.shards.manifest import Manifest
from jax_bridge.shards.remote.remote_writer import WAITING, RemoteEpisodeWriter
from jax_bridge.shards.remote.retry import Retries
from jax_bridge.shards.remote.store import RemoteStore
from jax_bridge.shards.remote.upload import ShardUploads
from jax_bridge.shards.verify import verify_dataset
from tests.jax_bridge.shards.remote.servers import is_listing

ONCE = Retries(attempts=1)


@pytest.fixture
def remote(s3, sandbox, tmp_path):
    return Remote(s3, sandbox, tmp_path / "staging")


class Bucket:
    """A local folder that is taken for a bucket: another file system of fsspec, and a fast one."""

    def __init__(self, folder):
        self.folder, self.address = folder, f"file://{folder}/data"

    def objects(self):
        return files_of(self.folder, dots=True)

    def clear(self):
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def local_remote(sandbox, tmp_path):
    return Remote(Bucket(tmp_path / "bucket"), sandbox, tmp_path / "staging")


class Remote:
    """Writes the toy data set to a bucket, as `sandbox.write` does to a folder."""

    def __init__(self, s3, sandbox, staging):
        self.s3, self.sandbox, self.staging = s3, sandbox, staging

    def writer(self, *, staging=None, info=None, store=None, shard_bytes=25_000, **words):
        return RemoteEpisodeWriter(
            self.s3.address, info or self.sandbox.info, ShardLimits(shard_bytes=shard_bytes),
            staging=staging or self.staging, store=store or RemoteStore(self.s3.address, retries=ONCE),
            **words,
        )  # fmt: skip

    def write(self, *, tasks=2, episodes=3, **words):
        with self.writer(**words) as writer:
            for task_id in range(tasks):
                for episode in range(episodes):
                    if ("toy", task_id, episode) not in writer.committed:
                        self.sandbox.write_episode(writer, task_id, episode)

    def objects(self):
        return {k.removeprefix("data/"): v for k, v in self.s3.objects().items()}

    def folder(self, tmp_path):
        """The objects as a local data set."""
        for name, content in self.objects().items():
            path = tmp_path / "fetched" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return tmp_path / "fetched"

    def staged(self):
        return sorted(p.name for p in (self.staging / "shards").iterdir() if p.name[0] != ".")


def files_of(folder, *, dots=False):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and (dots or not p.name.startswith("."))
    }


def test_what_is_uploaded_is_what_a_local_run_writes(remote, toy):
    remote.write()
    assert remote.objects() == files_of(toy)
    assert remote.staged() == []


def test_nothing_is_written_twice_when_all_is_there(remote, toy):
    remote.write()
    remote.s3.server.reset()
    remote.write(staging=remote.staging.with_name("another-machine"))
    assert remote.objects() == files_of(toy)
    assert [r for r in remote.s3.server.requests if r[:3] != "GET" and "?" not in r[:4]] == [
        r for r in remote.s3.server.requests if r.startswith("HEAD")
    ]


class Stopped(BaseException):
    """As a kill: nobody catches it."""


class StoppingStore(RemoteStore):
    """Ends before or after the n-th change at the address."""

    def stop_at(self, point, *, after):
        self.left, self.after = point, after
        return self

    def upload(self, local, name, **words):
        self._guard(lambda: super(StoppingStore, self).upload(local, name, **words))

    def write(self, name, content):
        self._guard(lambda: super(StoppingStore, self).write(name, content))

    def remove(self, name):
        self._guard(lambda: super(StoppingStore, self).remove(name))

    def _guard(self, change):
        self.left -= 1
        if self.left < 0 and not self.after:
            raise Stopped
        change()
        if self.left < 0:
            raise Stopped


def assert_only_whole_shards_are_visible(objects, toy_files):
    for name, content in objects.items():
        if name.startswith("shards/.claim-"):
            continue
        assert toy_files[name] == content
        if name.startswith("shards/") and name.endswith(".json"):
            assert name.replace(".json", ".tar") in objects
            assert name.replace(".json", ".parquet") in objects


def upload_all(remote, store):
    uploads = ShardUploads(store, DatasetFolder(remote.staging))
    try:
        uploads.begin(remote.sandbox.info)
        uploads.upload_all()
        uploads.finish()
    finally:
        uploads.close()


@pytest.mark.parametrize(
    ("where", "after", "episodes"), [("local_remote", False, 3), ("remote", True, 1)]
)
def test_an_upload_stopped_at_any_call_is_never_visible_and_goes_on(
    where, after, episodes, request, sandbox, tmp_path
):
    remote = request.getfixturevalue(where)
    due = files_of(sandbox.write(tmp_path / "local", tasks=1, episodes=episodes))
    point, stops = 0, 0
    while True:
        remote.s3.clear()
        sandbox.write(remote.staging, tasks=1, episodes=episodes)
        store = StoppingStore(remote.s3.address, retries=ONCE).stop_at(point, after=after)
        try:
            upload_all(remote, store)
        except Stopped:
            stops += 1
            assert_only_whole_shards_are_visible(remote.objects(), due)
        else:
            break
        upload_all(remote, RemoteStore(remote.s3.address))
        assert remote.objects() == due
        assert remote.staged() == []
        point += 1
    shards = sum(name.endswith(".tar") for name in due)
    # Of each shard tar, rows, claim, manifest and the claim's end; dataset.json, index.parquet.
    assert stops == 5 * shards + 2


def test_what_had_arrived_before_a_stop_is_not_sent_again(remote, sandbox):
    sandbox.write(remote.staging)
    with pytest.raises(Stopped):
        upload_all(remote, StoppingStore(remote.s3.address).stop_at(1, after=True))  # the tar
    remote.s3.server.reset()
    upload_all(remote, RemoteStore(remote.s3.address))
    put = [r for r in remote.s3.server.requests if r.startswith("PUT") and r.endswith(".tar")]
    assert len(put) == len([n for n in remote.objects() if n.endswith(".tar")]) - 1


def test_another_machine_goes_on_without_the_staging_folder(remote, sandbox, tmp_path):
    sandbox.write(remote.staging)
    with pytest.raises(Stopped):
        upload_all(remote, StoppingStore(remote.s3.address).stop_at(5, after=False))
    remote.write(staging=tmp_path / "another-machine")
    assert_right(remote, tmp_path, sandbox)
    # The first machine comes back with shards that were made again elsewhere.
    assert remote.staged() != []
    remote.write()
    assert remote.staged() == []
    assert_right(remote, tmp_path, sandbox)


def assert_right(remote, tmp_path, sandbox, episodes=None):
    """Every episode is there once, whole, and the index says so."""
    from jax_bridge.shards import open_dataset

    folder = remote.folder(tmp_path)
    shards = folder / "shards"
    for tar in shards.glob("*.tar"):  # of uploads that were never finished
        if not tar.with_suffix(".json").exists():
            tar.unlink()
            tar.with_suffix(".parquet").unlink(missing_ok=True)
    assert verify_dataset(folder).problems == ()
    episodes = episodes or [(t, e) for t in range(2) for e in range(3)]
    sandbox.assert_whole(open_dataset(folder), episodes)


def test_two_machines_that_overlap_double_nothing(remote, sandbox, tmp_path):
    with remote.writer() as one, remote.writer(staging=tmp_path / "other") as two:
        sandbox.write_episode(one, 0, 0)
        sandbox.write_episode(two, 0, 0)
        sandbox.write_episode(two, 0, 1)
        sandbox.write_episode(one, 0, 2)
    assert_right(remote, tmp_path, sandbox, [(0, 0), (0, 1), (0, 2)])


def test_two_processes_of_one_machine_share_the_staging_folder(remote, sandbox, tmp_path):
    with remote.writer(shard_bytes=1) as one, remote.writer(shard_bytes=1) as two:
        for episode in range(6):
            sandbox.write_episode(one if episode % 2 else two, 0, episode)
    assert_right(remote, tmp_path, sandbox, [(0, e) for e in range(6)])
    assert remote.staged() == []


def test_a_tar_of_other_content_keeps_its_name(remote, sandbox, tmp_path):
    sandbox.write(remote.staging, tasks=1)
    name = next(n for n in remote.staged() if n.endswith(".tar"))
    remote.s3.put(f"data/shards/{name}", b"somebody else's")
    upload_all(remote, RemoteStore(remote.s3.address))
    objects = remote.objects()
    assert objects[f"shards/{name}"] == b"somebody else's"
    other = next(n for n in objects if n.startswith(f"shards/{name[:-4]}-"))
    assert Manifest.from_bytes(objects[f"{other.split('.')[0]}.json"], pathlib.Path(other).stem)
    assert_right(remote, tmp_path, sandbox, [(0, e) for e in range(3)])


def test_a_tar_that_appears_during_the_upload_is_not_replaced(remote, sandbox, tmp_path):
    sandbox.write(remote.staging, tasks=1)
    name = next(n for n in remote.staged() if n.endswith(".tar"))

    class Raced(RemoteStore):
        def upload(self, local, key, **words):
            if key == f"shards/{name}":
                remote.s3.put(f"data/{key}", b"somebody else's")
            super().upload(local, key, **words)

    upload_all(remote, Raced(remote.s3.address))
    assert remote.objects()[f"shards/{name}"] == b"somebody else's"
    assert_right(remote, tmp_path, sandbox, [(0, e) for e in range(3)])


def test_episodes_that_somebody_finished_meanwhile_are_left_out(remote, sandbox, tmp_path):
    sandbox.write(remote.staging, tasks=1, shard_bytes=10**9)
    other = Remote(remote.s3, sandbox, tmp_path / "other")

    class Raced(RemoteStore):
        def upload(self, local, key, **words):
            super().upload(local, key, **words)
            if key.endswith(".tar") and not other.staging.exists():
                other.write(tasks=1, episodes=2)

    upload_all(remote, Raced(remote.s3.address))
    assert_right(remote, tmp_path, sandbox, [(0, e) for e in range(3)])


def test_settings_that_differ_are_refused_with_the_address(remote, sandbox):
    import dataclasses

    remote.write(tasks=1, episodes=1)
    before = remote.objects()
    other = dataclasses.replace(sandbox.info, seed=1)
    with pytest.raises(FingerprintError, match=rf"{remote.s3.address} differs: seed is 0 there, 1"):
        remote.writer(info=other)
    assert remote.objects() == before


def test_staged_shards_of_other_settings_are_never_mixed_in(remote, sandbox):
    import dataclasses

    sandbox.write(remote.staging, tasks=1)
    other = dataclasses.replace(sandbox.info, seed=1)
    with pytest.raises(ValueError, match="never uploaded"):
        remote.writer(info=other)
    upload_all(remote, RemoteStore(remote.s3.address))
    remote.s3.clear()
    remote.writer(info=other).close()
    assert json.loads(remote.objects()["dataset.json"])["seed"] == 1


def is_put(environ):
    return environ["REQUEST_METHOD"] == "PUT" and environ["PATH_INFO"].endswith(".tar")


def test_an_upload_that_fails_for_good_keeps_what_is_staged_and_says_so_once(
    remote, sandbox, tmp_path, caplog
):
    remote.s3.fail(is_put, 403)
    with pytest.raises(ShardWriteError, match=rf"kept in {remote.staging}; the same command"):
        remote.write()
    assert any(name.endswith(".tar") for name in remote.staged())
    assert [n for n in remote.objects() if n.endswith((".tar", ".json"))] == ["dataset.json"]
    assert "kept in" not in caplog.text
    remote.s3.server.reset()
    remote.write()
    assert remote.staged() == []
    assert_right(remote, tmp_path, sandbox)


def test_a_server_that_knows_no_conditions_is_written_to_all_the_same(remote, toy):
    remote.s3.fail(lambda environ: "HTTP_IF_NONE_MATCH" in environ, 501)
    remote.write()
    assert remote.objects() == files_of(toy)
    sent = [r for r in remote.s3.server.requests if r.startswith("PUT") and r.endswith(".tar")]
    assert len(sent) == 2 * sum(name.endswith(".tar") for name in remote.objects())


def test_a_passing_failure_is_tried_again(remote, toy):
    failures = iter([503, 503])
    remote.s3.server.fault = lambda e: next(failures, None) if is_put(e) else None
    remote.write(store=RemoteStore(remote.s3.address, retries=Retries(first_wait=0.01)))
    assert remote.objects() == files_of(toy)


def test_an_address_that_cannot_be_listed_is_refused_before_anything_is_written(remote):
    remote.s3.fail(is_listing, 403)
    with pytest.raises(PermissionError, match="may be listed"):
        remote.writer()
    remote.s3.server.reset()
    assert remote.objects() == {}


def test_uploads_overlap_writing_and_the_disk_holds_few_shards(remote, sandbox, tmp_path):
    gate, waits, most = threading.Event(), [], [0]

    class Slow(RemoteStore):
        def upload(self, local, name, **words):
            gate.wait(30)
            super().upload(local, name, **words)

    def on_wait(count):
        waits.append(count)
        if len(waits) > 2:
            gate.set()

    store = Slow(remote.s3.address)
    with remote.writer(shard_bytes=1, store=store, on_wait=on_wait) as writer:
        for episode in range(8):
            sandbox.write_episode(writer, 0, episode)
            staged = sum(name.endswith(".tar") for name in remote.staged())
            most[0] = max(most[0], staged)
            # The first ones are written while the first upload still waits.
            assert gate.is_set() == (episode > WAITING)
    assert most[0] <= WAITING + 1
    assert waits
    assert_right(remote, tmp_path, sandbox, [(0, e) for e in range(8)])


def test_failed_episodes_are_noted_at_the_address_by_all_machines(remote, tmp_path):
    with remote.writer() as one, remote.writer(staging=tmp_path / "other") as two:
        one.record_error(suite="toy", task_id=0, episode=7, message="fell")
        two.record_error(suite="toy", task_id=0, episode=8, message="fell too")
    numbers = [json.loads(x)["episode"] for x in remote.objects()["errors.jsonl"].splitlines()]
    assert sorted(numbers) == [7, 8]
    with remote.writer(staging=tmp_path / "third") as third:
        assert third.errors == {("toy", 0, 7), ("toy", 0, 8)}


def test_ctrl_c_uploads_what_is_finished(remote, sandbox, tmp_path, caplog):
    def interrupted():
        with remote.writer() as writer:
            sandbox.write_episode(writer, 0, 0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert f"Ctrl-C again leaves it in {remote.staging}" in caplog.text
    assert_right(remote, tmp_path, sandbox, [(0, 0)])


def test_a_second_ctrl_c_leaves_the_rest_for_the_next_run(remote, sandbox, tmp_path):
    gate = threading.Event()

    class Stuck(RemoteStore):
        def upload(self, local, name, **words):
            gate.wait(30)
            raise ConnectionResetError("the process is gone")

    def impatient(_):
        raise KeyboardInterrupt

    def interrupted():
        store = Stuck(remote.s3.address)
        with remote.writer(store=store, on_wait=impatient) as writer:
            sandbox.write_episode(writer, 0, 0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    gate.set()
    assert [n for n in remote.staged() if n.endswith(".tar")] == ["toy-t000-e0000-0000.tar"]
    remote.write(tasks=1, episodes=1)
    assert_right(remote, tmp_path, sandbox, [(0, 0)])


def test_http_can_only_be_read(file_server, sandbox, tmp_path):
    server = file_server(tmp_path)
    with pytest.raises(OSError, match="HTTP"):
        RemoteEpisodeWriter(f"{server.url}/data", sandbox.info, staging=tmp_path / "staging")
