"""The cache gives right bytes or none, whoever fills it, dies in it or is refused by its disk."""

import errno
import hashlib
import logging
import os
import pathlib
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from jax_bridge.shards.remote.block_cache import BlockCache, Place, limit_from_environment
from jax_bridge.shards.remote.intervals import ranges, union
from jax_bridge.shards.remote.kept_object import KeptFile, KeptObject, list_path

SIZE = 1_000_000
CONTENT = np.random.default_rng(5).bytes(SIZE)
NEED = ranges([0, 5000, 999_000, 5500], [10, 9000, 1_000_000, 12_000])


class Fetching:
    """Fetches from memory and notes what."""

    def __init__(self, content=CONTENT, seconds=0.0):
        self.content, self.seconds = content, seconds
        self.rows = []

    def __call__(self, pieces, sink):
        self.rows += pieces.tolist()
        for start, stop in pieces.tolist():
            time.sleep(self.seconds)
            sink(start, self.content[start:stop])

    @property
    def bytes(self):
        return sum(stop - start for start, stop in self.rows)


def refuse(pieces, sink):
    raise AssertionError(f"{pieces.tolist()} should have been there")


def assert_right(kept, need=NEED):
    for start, stop in need.tolist():
        assert kept.bytes[start:stop].tobytes() == CONTENT[start:stop]


@pytest.fixture(params=["memory", "file"])
def make(request, tmp_path):
    return lambda: (
        KeptObject(SIZE) if request.param == "memory" else KeptFile(tmp_path / "a.bytes", SIZE)
    )


def test_what_was_filled_is_there_and_never_fetched_again(make):
    kept, fetching = make(), Fetching()
    kept.fill(NEED, fetching)
    assert_right(kept)
    assert fetching.bytes == 10 + 7000 + 1000
    kept.fill(NEED[::-1], refuse)
    kept.fill(ranges([0, 8000], [20, 12_100]), fetching)
    assert fetching.rows[-2:] == [[10, 20], [12_000, 12_100]]


def test_threads_wait_for_each_other_instead_of_fetching_twice(make):
    kept, fetching = make(), Fetching(seconds=0.01)
    windows = [ranges([i * 1000], [i * 1000 + 5000]) for i in range(40)]
    threads = [
        threading.Thread(target=kept.fill, args=(window, fetching)) for window in windows * 2
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_right(kept, np.concatenate(windows))
    assert fetching.bytes == 44_000


def test_a_thread_that_fails_leaves_the_work_to_the_one_that_waits(make):
    kept, begun = make(), threading.Event()

    def fail(pieces, sink):
        begun.set()
        time.sleep(0.05)
        raise ConnectionError("gone")

    def first():
        with pytest.raises(ConnectionError, match="gone"):
            kept.fill(NEED, fail)

    thread = threading.Thread(target=first)
    thread.start()
    begun.wait()
    kept.fill(NEED, Fetching())
    thread.join()
    assert_right(kept)


def test_a_file_outlives_its_process_and_is_shared(tmp_path):
    one, other = (KeptFile(tmp_path / "a.bytes", SIZE) for _ in range(2))
    one.fill(NEED, Fetching())
    other.fill(NEED, refuse)
    assert_right(other)
    fetching = Fetching()
    other.fill(ranges([20_000], [30_000]), fetching)
    one.fill(ranges([25_000], [26_000]), refuse)
    later = KeptFile(tmp_path / "a.bytes", SIZE)
    later.fill(np.concatenate([NEED, ranges([20_000], [30_000])]), refuse)
    assert_right(later)
    assert os.stat(tmp_path / "a.bytes").st_blocks * 512 < 100_000


@pytest.mark.parametrize("seed", range(8))
def test_whatever_a_crash_leaves_no_wrong_byte_is_read(tmp_path, seed):
    rng = random.Random(seed)
    path = tmp_path / "a.bytes"
    KeptFile(path, SIZE).fill(NEED, Fetching())
    KeptFile(path, SIZE).fill(ranges([400_000], [500_000]), Fetching())
    for file in (path, list_path(path)):
        content = bytearray(file.read_bytes())
        damage = rng.choice(["zeros", "cut", "garbage", "nothing", "gone"])
        start = rng.randrange(len(content))
        stop = min(len(content), start + rng.randrange(1, 200_000))
        if damage == "zeros":  # a block that never reached the disk
            content[start:stop] = bytes(stop - start)
        elif damage == "garbage":
            content[start:stop] = rng.randbytes(stop - start)
        elif damage == "cut":
            del content[start:]
        file.write_bytes(content)
        if damage == "gone":
            file.unlink()
    kept = KeptFile(path, SIZE)
    need = np.concatenate([NEED, ranges([390_000], [520_000])])
    kept.fill(need, Fetching())
    assert_right(kept, need)
    again = KeptFile(path, SIZE)
    again.fill(need, refuse)
    assert_right(again, need)


WORKER = """
import pathlib, sys, random, time
import numpy as np
from jax_bridge.shards.remote.block_cache import BlockCache, Place
from jax_bridge.shards.remote.intervals import ranges
folder, limit, seed, seconds = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
rng = random.Random(seed)
contents = [np.random.default_rng(i).bytes(300_000) for i in range(6)]
cache, kept = BlockCache(folder, limit), [None] * 6
print("ready", flush=True)
end = time.monotonic() + seconds
while time.monotonic() < end:
    i = rng.randrange(6)
    starts = np.array([rng.randrange(290_000) for _ in range(4)])
    need = ranges(starts, starts + rng.randrange(1, 9000))
    def fetch(pieces, sink):
        for start, stop in pieces.tolist():
            sink(start, contents[i][start:stop])
    kept[i] = cache.filled(kept[i], Place(f"object{i}", "stamp", 300_000), need, fetch)
    for start, stop in need.tolist():
        assert kept[i].bytes[start:stop].tobytes() == contents[i][start:stop], (i, start, stop)
print("good", flush=True)
"""


def start_worker(folder, *, limit, seed, seconds):
    words = [sys.executable, "-c", WORKER, str(folder), str(limit), str(seed), str(seconds)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def assert_all_listed_is_right(folder):
    for i in range(6):
        content = np.random.default_rng(i).bytes(300_000)
        for path in folder.glob(f"object{i}-*.bytes"):
            kept = KeptFile(path, 300_000)
            kept.fill(
                ranges([0], [300_000]),
                lambda p, sink, c=content: [sink(a, c[a:b]) for a, b in p.tolist()],
            )
            assert kept.bytes.tobytes() == content


def test_two_processes_share_a_small_cache_and_read_right_bytes(tmp_path):
    folder = tmp_path / "data" / "blocks"
    workers = [start_worker(folder, limit=600_000, seed=s, seconds=1.0) for s in range(2)]
    assert [worker.communicate()[0] for worker in workers] == ["good\n"] * 2
    assert_all_listed_is_right(folder)


def test_killed_while_filling_it_leaves_no_wrong_byte(tmp_path):
    folder = tmp_path / "data" / "blocks"
    for seed in range(2):
        workers = [
            start_worker(folder, limit=10**9, seed=10 * seed + i, seconds=60) for i in range(2)
        ]
        time.sleep(random.Random(seed).uniform(0.02, 0.15))
        for worker in workers:
            worker.send_signal(signal.SIGKILL)
            worker.communicate()
    assert len(list(folder.glob("*.bytes"))) == 6
    assert_all_listed_is_right(folder)


def used(folder):
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*.bytes"))


def fill_many(cache, count, size=100_000):
    for i in range(count):
        content = hashlib.sha256(str(i).encode()).digest() * (size // 32)
        whole = ranges([0], [len(content)])
        kept = cache.filled(None, Place(f"o{i}", "s", len(content)), whole, Fetching(content))
        assert kept.bytes.tobytes() == content
        yield i


def test_the_limit_holds_over_all_data_sets(tmp_path):
    one, other = (BlockCache(tmp_path / name / "blocks", 1_000_000) for name in "ab")
    for _ in zip(fill_many(one, 30), fill_many(other, 30), strict=True):
        assert used(tmp_path) <= 1_000_000 + 2 * 120_000
    assert used(tmp_path) >= 500_000
    fetching = Fetching(b"")
    one.filled(None, Place("o29", "s", 100_000), ranges([0], [99_968]), fetching)
    assert fetching.rows == []


def test_what_is_evicted_while_it_is_read_stays_readable_and_is_filled_anew(tmp_path):
    cache, place = BlockCache(tmp_path / "a" / "blocks", 1_000_000), Place("x", "s", SIZE)
    kept = cache.filled(None, place, NEED, Fetching())
    for path in (tmp_path / "a" / "blocks").iterdir():
        path.unlink()
    assert_right(kept)
    assert kept.gone
    fetching = Fetching()
    assert_right(cache.filled(kept, place, NEED, fetching))
    assert fetching.bytes == 8010


def test_another_stamp_is_another_object(tmp_path):
    cache = BlockCache(tmp_path / "a" / "blocks", 10**7)
    cache.filled(None, Place("x", "old", SIZE), NEED, Fetching(bytes(SIZE)))
    assert_right(cache.filled(None, Place("x", "new", SIZE), NEED, Fetching()))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("call", ["open", "pwrite"])
def test_a_disk_that_refuses_is_a_warning(tmp_path, monkeypatch, caplog, call, number):
    real = getattr(os, call)

    def refuse_it(first, *rest):
        if call == "pwrite" or str(tmp_path) in str(first):
            raise OSError(number, os.strerror(number))
        return real(first, *rest)

    cache, place = BlockCache(tmp_path / "a" / "blocks", 10**7), Place("x", "s", SIZE)
    monkeypatch.setattr(f"jax_bridge.shards.remote.kept_object.os.{call}", refuse_it)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            kept = cache.filled(None, place, NEED, Fetching())
            assert_right(kept)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"blocks cannot be written ({os.strerror(number)})" in caplog.text
    assert "VLA_LENS_CACHE" in caplog.text


def test_a_full_disk_still_gives_what_is_on_it(tmp_path, monkeypatch):
    place = Place("x", "s", SIZE)
    BlockCache(tmp_path / "a" / "blocks", 10**7).filled(None, place, NEED, Fetching())
    cache = BlockCache(tmp_path / "a" / "blocks", 10**7)

    def full(*words):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("jax_bridge.shards.remote.kept_object.os.pwrite", full)
    more = ranges([500_000], [500_100])
    assert_right(cache.filled(None, place, more, Fetching()), more)
    assert_right(cache.filled(None, place, NEED, refuse))


def test_a_limit_of_nothing_keeps_nothing_on_the_disk_and_little_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("jax_bridge.shards.remote.block_cache.MEMORY_BYTES", 250_000)
    cache = BlockCache(tmp_path / "a" / "blocks", 0)
    for _ in fill_many(cache, 8):
        assert sum(kept.held for kept in cache._memory.values()) <= 250_000
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("", 8 * 2**30),
        ("0", 0),
        ("1000", 1000),
        ("20G", 20 * 2**30),
        ("5 MiB", 5 * 2**20),
        ("1tb", 2**40),
    ],
)
def test_the_limit_is_read_from_the_environment(monkeypatch, text, limit):
    monkeypatch.setenv("VLA_LENS_CACHE_BYTES", text)
    assert limit_from_environment() == limit


def test_a_limit_that_is_no_size_is_refused(monkeypatch):
    monkeypatch.setenv("VLA_LENS_CACHE_BYTES", "much")
    with pytest.raises(
        ValueError,
        match="`VLA_LENS_CACHE_BYTES` must be a number of bytes such as 20G, but got 'much'",
    ):
        BlockCache(pathlib.Path("nowhere"))


def test_a_union_of_what_was_filled_is_what_is_there(make):
    kept, rng = make(), np.random.default_rng(1)
    filled = np.zeros((0, 2), np.int64)
    for _ in range(50):
        starts = rng.integers(0, SIZE - 3000, 5)
        need = ranges(starts, starts + rng.integers(1, 3000, 5))
        filled = union(np.concatenate([filled, need]))
        kept.fill(need, Fetching())
        assert kept.has(filled)
    assert_right(kept, filled)
