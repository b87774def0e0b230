"""No flipped bit, cut, swap or lie in a data set goes unseen."""

import itertools
import json
import os
import shutil

import numpy as np
import pytest

from jax_bridge.shards import (
    DamagedShardError,
    DatasetInfo,
    EpisodeWriter,
    FieldSpec,
    open_dataset,
)
from jax_bridge.shards.dataset_folder import DatasetFolder
from jax_bridge.shards.index import index_dataset
from jax_bridge.shards.index_rows import rows_from_tar
from jax_bridge.shards.manifest import read_manifest
from jax_bridge.shards.tar_layout import END, padded, tar_header
from jax_bridge.shards.verify import check_dataset_files, check_shard, verify_dataset

FIELD = "vlm.hidden_states.text.mean"
NAME = "toy-t000-e0000-0000"
FILES = ["shards/{}.tar", "shards/{}.json", "shards/{}.parquet", "index.parquet", "dataset.json"]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """One shard of one episode of two samples."""
    spec = FieldSpec(
        name=FIELD, dtype="float32", shape=(1, 2), axes=("layer", "width"), layers=(0,)
    )
    info = DatasetInfo(fields={FIELD: spec}, capture={}, model={}, environment={}, seed=0)
    path = tmp_path_factory.mktemp("small") / "data"
    with (
        EpisodeWriter(path, info) as writer,
        writer.episode(suite="toy", task_id=0, episode=0) as recorder,
    ):
        for step in range(2):
            latents = {FIELD: np.full((1, 2), step, np.float32)}
            recorder.append(timestep=step, latents=latents, state=np.full(1, step, np.float32))
        recorder.finish(success=True)
    return path


@pytest.fixture
def copy(small, tmp_path):
    return shutil.copytree(small, tmp_path / "copy")


def problems(folder, path):
    """What `verify_dataset` finds in the part of its work that looks at a file."""
    try:
        if path.parent == folder.shards:
            return check_shard(folder, NAME)
        return check_dataset_files(folder, [NAME])
    except ValueError as error:
        return [error]


def assert_every_bit_is_found(path, folder, stride):
    """Flips bits one after the other, in place."""
    content = path.read_bytes()
    looked = 0
    with path.open("r+b", buffering=0) as file:
        for place in range(0, 8 * len(content), stride):
            offset, bit = divmod(place, 8)
            os.pwrite(file.fileno(), bytes([content[offset] ^ (1 << bit)]), offset)
            found = problems(folder, path)
            os.pwrite(file.fileno(), content[offset : offset + 1], offset)
            assert found, (path.name, offset, bit)
            looked += 1
            yield offset, found
    assert looked == -(-8 * len(content) // stride)
    assert path.read_bytes() == content


@pytest.mark.parametrize("stride", [101, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("file", FILES)
def test_every_flipped_bit_is_found(copy, file, stride):
    folder = DatasetFolder(copy)
    path = copy / file.format(NAME)
    assert problems(folder, path) == []
    members = [member for member, _ in read_manifest(folder.manifest(NAME)).members]
    for offset, found in assert_every_bit_is_found(path, folder, stride):
        if path.suffix != ".tar":
            continue
        place = next((m for m in members if m.offset - 512 <= offset < m.end), None)
        problem = found[0]
        assert problem.shard == NAME
        if place is not None:
            assert (problem.key, problem.member) == (place.key, place.suffix), offset
        else:
            assert offset >= members[-1].end
        if place is not None and place.offset <= offset < place.offset + place.size:
            assert problem.offset == place.offset
        elif place is not None:
            assert place.offset - 512 <= problem.offset <= offset


@pytest.mark.parametrize("stride", [97, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("file", FILES)
def test_truncation_at_every_length_is_found(copy, file, stride):
    folder = DatasetFolder(copy)
    path = copy / file.format(NAME)
    content = path.read_bytes()
    for length in range(0, len(content), stride):
        path.write_bytes(content[:length])
        found = problems(folder, path)
        assert found, length
        if path.suffix == ".tar":
            assert all(problem.shard == NAME for problem in found)
            assert found[0].offset == length
    path.write_bytes(content)
    assert problems(folder, path) == []


def members_of(folder, name=NAME):
    return [member for member, _ in read_manifest(folder.manifest(name)).members]


def test_swapped_members_are_found_and_named(copy):
    folder = DatasetFolder(copy)
    content = folder.tar(NAME).read_bytes()
    members = members_of(folder)
    pairs = [(a, b) for a, b in itertools.combinations(members, 2) if a.size == b.size]
    assert len(pairs) >= 3
    for a, b in pairs:
        for head in (0, 512):  # the contents alone, or with their headers
            swapped = bytearray(content)
            swapped[a.offset - head : a.offset + a.size] = content[
                b.offset - head : b.offset + b.size
            ]
            swapped[b.offset - head : b.offset + b.size] = content[
                a.offset - head : a.offset + a.size
            ]
            folder.tar(NAME).write_bytes(bytes(swapped))
            found = check_shard(folder, NAME)
            assert {(p.key, p.member) for p in found} >= {(a.key, a.suffix), (b.key, b.suffix)}


def test_a_swapped_json_is_found_without_a_manifest(copy):
    folder = DatasetFolder(copy)
    content = bytearray(folder.tar(NAME).read_bytes())
    a, b = (m for m in members_of(folder) if m.suffix == "json")
    content[a.offset : a.offset + a.size], content[b.offset : b.offset + b.size] = (
        content[b.offset : b.offset + b.size],
        content[a.offset : a.offset + a.size],
    )
    message = (
        rf"{NAME}, key toy-t000-e0000-s0000, member json, offset 512: .*that of \['toy', 0, 0, 1\]"
    )
    with pytest.raises(DamagedShardError, match=message):
        rows_from_tar(bytes(content), NAME)


def block(name, content):
    return tar_header(name, len(content)) + content.ljust(padded(len(content)), b"\0")


def test_doubled_keys_and_members_are_found_and_named(copy):
    folder = DatasetFolder(copy)
    whole = folder.tar(NAME).read_bytes()[: -len(END)]
    folder.tar(NAME).write_bytes(whole + whole + END)
    found = check_shard(folder, NAME)
    assert "the tar holds toy-t000-e0000-s0000.json" in str(found[-1])
    folder.manifest(NAME).unlink()
    with pytest.raises(
        DamagedShardError, match=r"key toy-t000-e0000-s0000, offset .*: the key stands"
    ):
        index_dataset(folder)
    json_block = block("toy-t000-e0000-s0000.json", b"{}")
    folder.tar(NAME).write_bytes(json_block + json_block + END)
    with pytest.raises(
        DamagedShardError, match=r"key toy-t000-e0000-s0000, offset 512: .*no member"
    ):
        index_dataset(folder)


def header(entries):
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text


def tensor(shape, start, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


LIES = {
    "overlap": header({"a": tensor([2], 0, 8), "b": tensor([2], 4, 12)}) + bytes(12),
    "hole": header({"a": tensor([1], 0, 4), "b": tensor([1], 8, 12)}) + bytes(12),
    "too long": header({"a": tensor([4], 0, 16)}) + bytes(12),
    "too short": header({"a": tensor([2], 0, 8)}) + bytes(12),
    "backwards": header({"a": tensor([1], 8, 4)}) + bytes(8),
    "negative": header({"a": tensor([1], -4, 0)}) + bytes(4),
    "negative axis": header({"a": tensor([-1], 0, 4)}) + bytes(4),
    "shape and bytes differ": header({"a": tensor([2], 0, 4)}) + bytes(4),
    "2^63": header({"a": tensor([2**63], 0, 2**65)}) + bytes(4),
    "2^64 wraps to 0": header({"a": tensor([2**62, 4], 0, 0)}),
    "empty and enormous": header({"a": tensor([0, 2**63], 0, 0)}),
    "a thousand axes": header({"a": tensor([1] * 1000, 0, 4)}) + bytes(4),
    "deep": header(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "half deep": header(b'{"a":' + b"[" * 900 + b"]" * 900 + b"}"),
    "many digits": header(
        b'{"a":{"dtype":"F32","shape":[1' + b"0" * 9999 + b'],"data_offsets":[0,4]}}'
    ),
    "float": header(b'{"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}') + bytes(4),
    "true": header(b'{"a":{"dtype":"F32","shape":[true],"data_offsets":[0,4]}}') + bytes(4),
    "infinity": header(b'{"a":{"dtype":"F32","shape":[Infinity],"data_offsets":[0,4]}}') + bytes(4),
    "unknown dtype": header({"a": tensor([1], 0, 4, "F33")}) + bytes(4),
    "dtype is a list": header({"a": tensor([1], 0, 4, ["F32"])}) + bytes(4),
    "the same name twice": header(
        b'{"a":%b,"a":%b}' % ((json.dumps(tensor([1], 0, 4)).encode(),) * 2)
    )
    + bytes(4),
    "half a surrogate": header(b'{"\\ud800":%b}' % json.dumps(tensor([1], 0, 4)).encode())
    + bytes(4),
    "no object": header(b"[]"),
    "no JSON": header(b"{"),
    "not UTF-8": header(b'{"\xff":1}'),
    "longer than the file": (1 << 20).to_bytes(8, "little") + b"{}",
    "2^63 header": (1 << 63).to_bytes(8, "little") + b"{}",
    "2^64-1 header": b"\xff" * 8 + b"{}",
    "2^64-8 header wraps": (2**64 - 8).to_bytes(8, "little") + b"{}",
    "seven bytes": bytes(7),
    "empty": b"",
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_safetensors_header_is_refused_and_named(lie, tmp_path):
    sample = block("k.json", b"{}") + block("k.latents.safetensors", LIES[lie])
    message = (
        "Shard x"
        if "surrogate" in lie
        else r"Shard x, key k, member latents\.safetensors, offset 1536: "
    )
    with pytest.raises(DamagedShardError, match=message) as refused:
        rows_from_tar(sample + END, "x")
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize("lie", [name for name, content in LIES.items() if len(content) > 8])
def test_a_header_that_begins_to_lie_stops_a_read(copy, lie):
    dataset = open_dataset(copy)
    folder = DatasetFolder(copy)
    member = next(m for m in members_of(folder) if m.suffix == "latents.safetensors")
    content = bytearray(folder.tar(NAME).read_bytes())
    lying = LIES[lie][: member.size]
    content[member.offset : member.offset + len(lying)] = lying
    folder.tar(NAME).write_bytes(bytes(content))
    with pytest.raises(
        DamagedShardError,
        match=rf"Shard {NAME}, key toy-t000-e0000-s0000, member latents\.safetensors, offset \d+: ",
    ):
        dataset.read(FIELD)


def test_a_manifest_rows_or_index_of_another_shard_are_found(copy, toy):
    folder = DatasetFolder(copy)
    other = DatasetFolder(toy)
    name = other.names()[0]
    for mine, theirs, message in (
        (
            folder.manifest(NAME),
            other.manifest(name),
            rf"Shard {NAME}: its manifest is that of {name}",
        ),
        (
            folder.rows(NAME),
            other.rows(name),
            rf"Shard {NAME}: its index rows are not those of the tar",
        ),
        (folder.index_path, other.index_path, "index.parquet is not made of the shards' rows"),
    ):
        content = mine.read_bytes()
        mine.write_bytes(theirs.read_bytes())
        assert any(message in str(p) for p in verify_dataset(copy).problems), message
        mine.write_bytes(content)
    assert verify_dataset(copy).problems == ()


def test_samples_that_all_have_names_of_their_own_do_not_fill_the_memory():
    samples = [
        block(f"k{i}.json", b"{}")
        + block(f"k{i}.m{i}.safetensors", header({f"t{i}": tensor([0], 0, 0)}))
        for i in range(3000)
    ]
    with pytest.raises(DamagedShardError, match=r"different columns, more than a table can hold"):
        rows_from_tar(b"".join(samples) + END, "x")
