"""A store gives the bytes that are there, over every kind of server, or one plain sentence."""

import pickle

import numpy as np
import pytest

from jax_bridge.shards.remote.refusals import ChangedObjectError
from jax_bridge.shards.remote.retry import Retries
from jax_bridge.shards.remote.store import RemoteStore
from tests.jax_bridge.shards.remote.servers import BROKEN, is_listing

BODY = np.random.default_rng(0).bytes(300_000)
QUICK = Retries(attempts=12, first_wait=0.001)
ONCE = Retries(attempts=1)
RANGES = np.array([[0, 3], [299_990, 300_000], [5, 5], [10_000, 90_000], [95_000, 96_000], [2, 9]])
PIECES = [BODY[start:stop] for start, stop in RANGES]


@pytest.fixture(params=["memory", "file", "s3", "http"])
def store(request, tmp_path):
    """A store that holds `x/a`."""
    (tmp_path / "x").mkdir()
    (tmp_path / "x/a").write_bytes(BODY)
    match request.param:
        case "http":
            server = request.getfixturevalue("file_server")(tmp_path)
            return RemoteStore(server.url, retries=QUICK)
        case "s3":
            address = request.getfixturevalue("s3").address
        case "memory":
            address = f"memory://{tmp_path.name}"
        case _:
            address = f"file://{tmp_path}"
    store = RemoteStore(address, retries=QUICK)
    store.upload(tmp_path / "x/a", "x/a")
    return store


def test_bytes_are_those_of_the_object(store):
    assert store.read("x/a") == BODY
    assert store.size("x/a") == len(BODY)
    assert store.read_ranges("x/a", *RANGES.T, stamp=store.stamp("x/a")) == PIECES
    assert pickle.loads(pickle.dumps(store)).read_ranges("x/a", [7], [9]) == [BODY[7:9]]


def test_near_ranges_come_in_one_request(store):
    store.read("x/a")
    before, moved = store.requests, store.bytes_read
    store.read_ranges("x/a", [1000, 2000, 3001], [2000, 3000, 4000])
    assert store.requests - before == 1
    assert store.bytes_read - moved == 3000
    store.read_ranges("x/a", [1000, 100_000], [2000, 101_000])
    assert store.requests - before == 3
    assert store.bytes_read - moved == 5000


def test_a_download_gives_every_byte_once(store):
    parts = {}
    assert store.download("x/a", parts.__setitem__) == len(BODY)
    assert b"".join(parts[start] for start in sorted(parts)) == BODY


def test_what_is_not_there_is_one_sentence(store):
    for read in (store.read, store.size, lambda name: store.read_ranges(name, [0], [1])):
        with pytest.raises(
            FileNotFoundError, match=r"`path` must be an address that exists, but .*x/b does not"
        ):
            read("x/b")


def test_a_range_behind_the_end_is_an_object_that_has_changed(store):
    with pytest.raises(ChangedObjectError, match=r"300000 bytes now|shorter than"):
        store.read_ranges("x/a", [299_000], [300_001])


def test_a_changed_object_is_noticed(store, tmp_path):
    stamp = store.stamp("x/a")
    (tmp_path / "other").write_bytes(BODY[::-1])
    if store.lists:
        store.upload(tmp_path / "other", "x/a")
    else:
        (tmp_path / "other").rename(tmp_path / "x/a")
    assert store.stamp("x/a") != stamp
    with pytest.raises(ChangedObjectError, match="x/a has changed while it was read"):
        store.read_ranges("x/a", [0], [10], stamp=stamp)


def test_a_folder_lists_its_objects_with_their_stamps(store):
    if not store.lists:
        with pytest.raises(PermissionError, match="HTTP has no folders"):
            store.names("x")
        return
    store.write("x/b", b"b")
    store.write("x/deeper/c", b"c")
    assert store.names("x") == ["a", "b"]
    assert store.names("nowhere") == []
    assert store.listing("x")["a"] == store.about("x/a")
    store.remove("x/b")
    store.remove("x/b")
    assert store.names("x") == ["a"]


def test_http_is_not_written(tmp_path, file_server):
    store = RemoteStore(file_server(tmp_path).url)
    for write in (lambda: store.write("a", b""), lambda: store.remove("a")):
        with pytest.raises(
            ValueError, match="must be an address that can be written, but got http"
        ):
            write()


def test_what_comes_behind_a_question_mark_goes_with_every_request(tmp_path, file_server):
    (tmp_path / "a").write_bytes(BODY)
    server = file_server(tmp_path)
    store = RemoteStore(f"{server.url}?signature=1")
    assert store.read("a") == BODY
    assert server.requests == ["GET /a?signature=1"]


@pytest.mark.parametrize(
    "manners",
    [{"drop_rate": 0.5}, {"failures": 5}, {"failures": 3, "failure_status": 429}],
    ids=str,
)
def test_a_bad_server_is_asked_again(tmp_path, file_server, manners):
    (tmp_path / "a").write_bytes(BODY)
    server = file_server(tmp_path, **manners)
    store = RemoteStore(server.url, retries=QUICK)
    for _ in range(3):
        assert store.read_ranges("a", *RANGES.T) == PIECES
    assert store.read("a") == BODY
    assert len(server.requests) > 13


def test_a_server_without_ranges_is_read_in_one_pass(tmp_path, file_server):
    (tmp_path / "a").write_bytes(BODY)
    server = file_server(tmp_path, ranges=False)
    store = RemoteStore(server.url, retries=QUICK)
    assert store.read_ranges("a", *RANGES.T) == PIECES
    server.reset()
    assert store.read_ranges("a", *RANGES.T, stamp=store.stamp("a")) == PIECES
    assert [line for line in server.requests if line.startswith("GET")] == ["GET /a"]
    assert not store.obeys_ranges


def test_a_server_without_ranges_that_drops_connections_is_read_too(tmp_path, file_server):
    (tmp_path / "a").write_bytes(BODY)
    server = file_server(tmp_path, ranges=False, drop_rate=0.5, seed=3)
    store = RemoteStore(server.url, retries=QUICK)
    for _ in range(5):
        assert store.read_ranges("a", *RANGES.T) == PIECES
    assert server.drops


@pytest.mark.parametrize("lie", [-6, 6])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_wrong_length_is_never_believed(tmp_path, file_server, lie, ranges):
    (tmp_path / "a").write_bytes(BODY)
    store = RemoteStore(
        file_server(tmp_path, length_lie=lie, ranges=ranges).url,
        retries=Retries(attempts=2, first_wait=0.0),
    )
    try:
        assert store.read_ranges("a", [10], [400]) == [BODY[10:400]]
    except OSError as error:
        assert "cannot be read" in str(error)  # noqa: PT017


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_says_how_to_log_in(tmp_path, file_server, status):
    server = file_server(tmp_path, status=status)
    store = RemoteStore(server.url, retries=QUICK)
    for read in (store.read, store.stamp):
        with pytest.raises(
            PermissionError, match=rf"refuses \({status}.*credentials.*FSSPEC_HTTPS"
        ):
            read("a")
    assert len(server.requests) == 2


def test_a_bucket_that_refuses_says_which_variables_to_set(s3):
    s3.put("data/a", BODY)
    s3.fail(lambda environ: True, 403)
    store = RemoteStore(s3.address, retries=QUICK)
    for read in (store.read, store.stamp, store.names):
        with pytest.raises(PermissionError, match=r"refuses .*AWS_ACCESS_KEY_ID and AWS_SECRET"):
            read("a")


def test_a_bucket_without_list_permission_can_be_read(s3):
    s3.put("data/a", BODY)
    s3.fail(is_listing, 403)
    store = RemoteStore(s3.address, retries=QUICK)
    assert store.read_ranges("a", *RANGES.T, stamp=store.stamp("a")) == PIECES
    with pytest.raises(PermissionError, match="`path` must be an address that may be listed"):
        store.names("")


def test_a_bucket_that_is_not_there_is_one_sentence(s3):
    with pytest.raises(FileNotFoundError, match="s3://no-such-bucket/data/a does not"):
        RemoteStore("s3://no-such-bucket/data", retries=QUICK).read("a")


def test_no_keys_at_all_are_one_sentence(s3, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(PermissionError, match="Set AWS_ACCESS_KEY_ID"):
        RemoteStore(s3.address, retries=ONCE).read("a")


def test_s3_bodies_that_break_off_are_asked_for_again(s3):
    s3.put("data/a", BODY)
    broken = iter([True, False] * 20)
    s3.fail(lambda environ: environ["REQUEST_METHOD"] == "GET" and next(broken), BROKEN)
    store = RemoteStore(s3.address, retries=QUICK)
    assert store.read_ranges("a", *RANGES.T) == PIECES
    assert store.read("a") == BODY


@pytest.mark.parametrize("address", ["nosuch://x", "/local/path"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ValueError, match=f"must be .*, but got '?{address}"):
        RemoteStore(address)


def test_a_store_that_is_not_reached_says_so():
    with pytest.raises(OSError, match=r"http://127.0.0.1:1/a cannot be read: .*Check the address"):
        RemoteStore("http://127.0.0.1:1", retries=ONCE).read("a")


def test_a_server_that_is_asked_at_once_and_does_not_answer_is_named():
    with pytest.raises(OSError, match=r"ftp://127.0.0.1:1/x cannot be read: .*Check the address"):
        RemoteStore("ftp://127.0.0.1:1/x")
