"""A data set at an address is the one of the folder, and moves few bytes more than it needs."""

import concurrent.futures
import dataclasses
import json
import logging
import pickle
import shutil
import time

import fsspec
import numpy as np
import pytest

from jax_bridge.shards import DamagedShardError, FieldSpec, open_dataset
from jax_bridge.shards.dataset_folder import DatasetFolder
from jax_bridge.shards.errors_file import append_error
from jax_bridge.shards.index import index_dataset
from jax_bridge.shards.inspection import inspect_dataset
from jax_bridge.shards.remote.retry import Retries
from jax_bridge.shards.sample_key import EpisodeId
from tests.jax_bridge.shards.conftest import ACTION, TEXT
from tests.jax_bridge.shards.remote.servers import is_listing

FIRST = "toy-t000-e0000-0001"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of one test, and retries that do not wait."""
    monkeypatch.setenv("VLA_LENS_CACHE", str(tmp_path / "cache"))
    quick = Retries(attempts=30, first_wait=0.0)
    monkeypatch.setattr(
        "jax_bridge.shards.remote.store.RemoteStore.__init__.__kwdefaults__", {"retries": quick}
    )
    return tmp_path / "cache"


@pytest.fixture
def put(request, tmp_path):
    """Puts a folder at an address of a kind."""

    def at(kind, folder):
        if kind == "s3":
            s3 = request.getfixturevalue("s3")
            s3.put_folder(folder)
            return s3.address
        if kind == "memory":
            memory = fsspec.filesystem("memory")
            for path in folder.rglob("*"):
                if path.is_file():
                    memory.pipe_file(
                        f"/{tmp_path.name}/{path.relative_to(folder)}", path.read_bytes()
                    )
            return f"memory://{tmp_path.name}"
        if kind == "file":
            return f"file://{folder}"
        manners = {"http": {}, "http-whole": {"ranges": False}, "http-drops": {"drop_rate": 0.3}}
        return request.getfixturevalue("file_server")(folder, **manners[kind]).url

    return at


KINDS = ("s3", "memory", "file", "http", "http-whole", "http-drops")


def assert_same(there, here):
    """Everything that can be read is the same bit for bit."""
    assert there.index.equals(here.index)
    assert there.info == here.info
    rows = np.random.default_rng(0).permutation(len(here))[:11]
    for field, spec in here.fields.items():
        for words in ({}, {"rows": rows}, {"where": {"episode": 1}}):
            assert_bits(there.read(field, **words), here.read(field, **words))
        if spec.layers:
            assert_bits(there.read(field, layers=[4, 0]), here.read(field, layers=[4, 0]))
    assert_bits(there.read(ACTION, flow_times=0.9), here.read(ACTION, flow_times=0.9))
    assert_bits(
        there.read(ACTION, layers=2, flow_times=[1.0, 0.8]),
        here.read(ACTION, layers=2, flow_times=[1.0, 0.8]),
    )
    for name in ("state", "actions", "executed"):
        assert_bits(there.read_robot(name), here.read_robot(name))
    batches = zip(
        there.iter_batches([TEXT, ACTION], batch_size=4, layers=2),
        here.iter_batches([TEXT, ACTION], batch_size=4, layers=2),
        strict=True,
    )
    for one, other in batches:
        for name in one:
            assert_bits(one[name], other[name])


def assert_bits(one, other):
    assert one.dtype == other.dtype
    assert one.shape == other.shape
    assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_data_set_at_an_address_is_that_of_the_folder(toy, put, kind):
    here, there = open_dataset(toy), open_dataset(put(kind, toy))
    assert_same(there, here)
    assert there.content_digest == here.content_digest
    assert there.errors == here.errors
    assert_same(pickle.loads(pickle.dumps(there)), here)


@pytest.mark.parametrize("limit", ["0", "5K"])
def test_a_cache_that_holds_nothing_changes_nothing(toy, put, monkeypatch, limit):
    monkeypatch.setenv("VLA_LENS_CACHE_BYTES", limit)
    assert_same(open_dataset(put("http", toy)), open_dataset(toy))


def test_a_cache_that_cannot_be_written_is_a_warning(toy, put, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VLA_LENS_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        assert_same(open_dataset(put("memory", toy)), open_dataset(toy))
    assert {r.message.partition(" cannot be written (")[1] for r in caplog.records} != {""}
    assert len(caplog.records) == 2


def test_what_was_read_moves_nothing_a_second_time(toy, s3):
    s3.put_folder(toy)
    open_dataset(s3.address).read(TEXT)
    s3.server.reset()
    dataset = open_dataset(s3.address)
    listings = s3.server.bytes_sent
    dataset.read(TEXT)
    dataset.read(TEXT, layers=2, rows=[5, 1])
    assert s3.server.bytes_sent == listings
    assert all("list-type" in line for line in s3.server.requests)
    assert len(s3.server.requests) == 2


CHOICES = (
    (TEXT, {"layers": 8}),
    (ACTION, {"layers": 8, "flow_times": 0.9}),
    (TEXT, {}),
)


@pytest.fixture(scope="module")
def reasonable(sandbox, tmp_path_factory):
    """240 samples with layers of 4 KiB, as of a width of 2048."""
    layers, times = tuple(range(0, 18, 2)), (1.0, 0.9, 0.8)
    fields = (
        FieldSpec(
            name=TEXT, dtype="bfloat16", shape=(9, 2048), axes=("layer", "width"), layers=layers
        ),
        FieldSpec(
            name=ACTION,
            dtype="bfloat16",
            shape=(9, 3, 1024),
            axes=("layer", "flow_time", "width"),
            layers=layers,
            flow_times=times,
        ),
    )
    info = dataclasses.replace(sandbox.info, fields={field.name: field for field in fields})
    made = dataclasses.replace(sandbox, info=info, timesteps=tuple(range(20)))
    return made.write(
        tmp_path_factory.mktemp("reasonable") / "data", tasks=4, episodes=3, shard_bytes=6_000_000
    )


def test_reading_moves_little_more_than_it_needs(reasonable, s3, tmp_path, monkeypatch):
    """Bodies of all answers are counted: listings, index and headers, too."""
    s3.put_folder(reasonable)
    here = open_dataset(reasonable)
    for i, (field, choice) in enumerate(CHOICES):
        monkeypatch.setenv("VLA_LENS_CACHE", str(tmp_path / f"fresh{i}"))
        s3.server.reset()
        wanted = here.read(field, **choice)
        assert_bits(open_dataset(s3.address).read(field, **choice), wanted)
        assert wanted.nbytes <= s3.server.bytes_sent <= 1.3 * wanted.nbytes, (field, choice)


def test_samples_of_other_layouts_in_one_shard_are_found(sandbox, tmp_path, put):
    """Members of one size whose tensors stand elsewhere: the header that was read is not theirs."""
    path = sandbox.write(tmp_path / "data", tasks=1, episodes=2, shard_bytes=10**6)
    tar = path / "shards" / f"{FIRST}.tar"
    content = bytearray(tar.read_bytes())
    dataset = open_dataset(path)
    column = dataset.index.column("member.latents.safetensors.offset")
    at = column[4].as_py()
    size = int.from_bytes(content[at : at + 8], "little")
    # One sample's tensors stand in another order: its member is as long as the others'.
    header = json.loads(content[at + 8 : at + 8 + size])
    names = [TEXT, ACTION, "valid.text"]
    blocks = {
        n: bytes(content[at + 8 + size + header[n]["data_offsets"][0] :][: _size(header[n])])
        for n in names
    }
    position, entries = 0, {}
    for name in names:
        entries[name] = {**header[name], "data_offsets": [position, position + _size(header[name])]}
        position += _size(header[name])
    text = json.dumps(entries, separators=(",", ":")).encode().ljust(size)
    content[at + 8 : at + 8 + size + position] = text + b"".join(blocks[n] for n in names)
    tar.write_bytes(content)
    (path / "shards" / f"{FIRST}.json").unlink()
    index_dataset(DatasetFolder(path))
    here = open_dataset(path)
    np.testing.assert_array_equal(here.read(TEXT), sandbox.expected(here, TEXT))
    assert_same(open_dataset(put("http", path)), here)


def _size(entry):
    start, stop = entry["data_offsets"]
    return stop - start


@pytest.mark.parametrize("kind", ["s3", "http", "memory"])
def test_a_tar_that_was_cut_is_named(copy_of_toy, put, kind):
    tar = copy_of_toy / "shards" / f"{FIRST}.tar"
    tar.write_bytes(tar.read_bytes()[:15_000])
    dataset = open_dataset(put(kind, copy_of_toy))
    with pytest.raises(
        DamagedShardError, match=f"Shard {FIRST}, offset 15000: the tar has 15000 bytes"
    ):
        dataset.read(TEXT)
    assert len(dataset.read(TEXT, on_error="skip")) == 12
    assert sorted(dataset.damaged) == list(range(6))


@pytest.mark.parametrize("kind", ["s3", "http"])
def test_a_tar_that_is_missing_is_named(copy_of_toy, put, kind):
    (copy_of_toy / "shards" / f"{FIRST}.tar").unlink()
    dataset = open_dataset(put(kind, copy_of_toy))
    if kind == "s3":
        assert len(dataset) == 12  # as of a folder without it
    else:
        with pytest.raises(DamagedShardError, match=f"Shard {FIRST}: the tar is missing"):
            dataset.read(TEXT)


def test_an_object_that_changes_under_a_reader_is_named(copy_of_toy, s3):
    s3.put_folder(copy_of_toy)
    dataset = open_dataset(s3.address)
    dataset.read(TEXT, rows=[0])
    key = f"data/shards/{FIRST}.tar"
    content = bytearray(s3.get(key))
    content[-2000:-1000] = bytes(1000)
    s3.put(key, bytes(content))
    with pytest.raises(DamagedShardError, match=f"Shard {FIRST}: the tar changed or vanished"):
        dataset.read(ACTION)


def test_a_changed_object_is_read_anew_when_the_data_set_is_opened_again(
    copy_of_toy, s3, sandbox, tmp_path
):
    s3.put_folder(copy_of_toy)
    old = open_dataset(s3.address).read(TEXT)
    other = dataclasses.replace(sandbox, timesteps=(0, 3, 9))
    s3.put_folder(other.write(tmp_path / "other"))
    dataset = open_dataset(s3.address)
    np.testing.assert_array_equal(dataset.read(TEXT), other.expected(dataset, TEXT))
    assert dataset.read(TEXT).tobytes() != old.tobytes()


def test_a_damaged_header_is_named(copy_of_toy, put):
    dataset = open_dataset(copy_of_toy)
    column = dataset.index.column("member.latents.safetensors.offset")
    tar = copy_of_toy / "shards" / f"{FIRST}.tar"
    content = bytearray(tar.read_bytes())
    content[column[0].as_py() + 20] ^= 255
    tar.write_bytes(content)
    with pytest.raises(
        DamagedShardError, match=f"Shard {FIRST}, key toy-t000-e0000-s0000, member latents"
    ):
        open_dataset(put("http", copy_of_toy)).read(TEXT)


# ---------------------------------------------------------------------- the index


def test_shards_that_the_index_does_not_cover_are_read_too(sandbox, tmp_path, s3):
    path = sandbox.write(tmp_path / "data", tasks=1)
    open_dataset(path)
    old = (path / "index.parquet").read_bytes()
    sandbox.write(path, tasks=2)
    (path / "index.parquet").write_bytes(old)
    sorted(path.glob("shards/toy-t001*.parquet"))[0].unlink()
    s3.put_folder(path)
    there = open_dataset(s3.address)
    assert_same(there, open_dataset(path))
    assert_same(open_dataset(s3.address), open_dataset(path))


def test_a_data_set_without_an_index_is_read_where_it_can_be_listed(copy_of_toy, put, toy):
    (copy_of_toy / "index.parquet").unlink(missing_ok=True)
    assert_same(open_dataset(put("memory", copy_of_toy)), open_dataset(toy))


def test_a_shard_without_its_manifest_is_not_there_yet(copy_of_toy, s3):
    (copy_of_toy / "shards" / f"{FIRST}.json").unlink()
    s3.put_folder(copy_of_toy)
    assert len(open_dataset(s3.address)) == 12


def test_without_an_index_http_says_how_to_make_one(copy_of_toy, put):
    (copy_of_toy / "index.parquet").unlink(missing_ok=True)
    with pytest.raises(
        FileNotFoundError, match=r"`path` must have an index where it cannot be listed"
    ):
        open_dataset(put("http", copy_of_toy))


def test_a_damaged_index_is_made_anew_from_the_rows(copy_of_toy, put, toy):
    open_dataset(copy_of_toy)
    path = copy_of_toy / "index.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    assert_same(open_dataset(put("memory", copy_of_toy)), open_dataset(toy))


# ---------------------------------------------------------------------- bad addresses


def test_a_bucket_without_list_permission_is_read_by_its_index(toy, s3):
    s3.put_folder(toy)
    s3.fail(is_listing, 403)
    here, there = open_dataset(toy), open_dataset(s3.address)
    assert_same(there, here)
    assert there.content_digest == here.content_digest


def test_a_bucket_that_needs_credentials_says_so(toy, s3):
    s3.put_folder(toy)
    s3.fail(lambda environ: True, 403)
    with pytest.raises(PermissionError, match="AWS_ACCESS_KEY_ID"):
        open_dataset(s3.address)


@pytest.mark.parametrize("kind", ["s3", "http", "memory"])
def test_an_address_without_a_data_set_says_so(tmp_path, put, kind):
    (tmp_path / "data").mkdir()
    with pytest.raises(
        FileNotFoundError,
        match=r"`path` must be the address of a data set, but .* has no dataset.json",
    ):
        open_dataset(put(kind, tmp_path / "data"))


def test_tars_of_somebody_else_are_counted(tmp_path, put, toy):
    (tmp_path / "data").mkdir()
    shutil.copy(toy / "shards" / f"{FIRST}.tar", tmp_path / "data" / "000.tar")
    with pytest.raises(FileNotFoundError, match="There are 1 tars of somebody else's making"):
        open_dataset(put("memory", tmp_path / "data"))


def test_a_version_from_the_future_is_refused_with_its_address(copy_of_toy, put):
    path = copy_of_toy / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 9}))
    with pytest.raises(ValueError, match=r"`version` of dataset.json must be 1, but got 9"):
        open_dataset(put("memory", copy_of_toy))
    path.write_text("{")
    url = put("http", copy_of_toy)
    with pytest.raises(ValueError, match=f"{url}/dataset.json cannot be read"):
        open_dataset(url)


# ---------------------------------------------------------------------- around


@pytest.mark.parametrize("kind", ["http", "s3"])
def test_inspecting_moves_no_tar(toy, put, kind, request):
    address = put(kind, toy)
    found = inspect_dataset(address)
    assert found.path == address
    assert found.episodes == 6
    requests = request.getfixturevalue("s3").server.requests if kind == "s3" else []
    assert not [line for line in requests if line.startswith("GET") and ".tar" in line]


def test_errors_are_read_from_the_address(copy_of_toy, put):
    append_error(DatasetFolder(copy_of_toy), EpisodeId("toy", 7, 7), "it failed")
    dataset = open_dataset(put("http", copy_of_toy))
    assert dataset.errors == {EpisodeId("toy", 7, 7)}


def test_rows_that_come_next_are_fetched_meanwhile(reasonable, put, request, tmp_path):
    server = request.getfixturevalue("file_server")(reasonable)
    here, there = open_dataset(reasonable), open_dataset(server.url)
    there.read_ahead([0, 1])  # nothing was read yet: nothing to go by
    there.read(TEXT, layers=2, rows=[0, 100])
    there.read_ahead([40, 200, 7])
    deadline = time.monotonic() + 20
    while there._ahead._on_their_way and time.monotonic() < deadline:
        time.sleep(0.01)
    server.reset()
    assert_bits(there.read(TEXT, layers=2, rows=[7, 40]), here.read(TEXT, layers=2, rows=[7, 40]))
    assert server.bytes_sent == 0


def test_many_threads_read_one_data_set(reasonable, put):
    here, there = open_dataset(reasonable), open_dataset(put("http", reasonable))
    rng = np.random.default_rng(0)
    jobs = [(rng.permutation(len(here))[:20], int(rng.choice([0, 4, 16]))) for _ in range(24)]
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        parts = list(pool.map(lambda job: there.read(TEXT, layers=job[1], rows=job[0]), jobs))
    for part, (rows, layer) in zip(parts, jobs, strict=True):
        assert_bits(part, here.read(TEXT, layers=layer, rows=rows))
