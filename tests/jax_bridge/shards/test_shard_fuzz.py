"""Readers meet any bytes with our own errors: no crash, no hang, no memory beyond the file's."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tracemalloc

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from jax_bridge.shards import DamagedShardError, EpisodeWriter, open_dataset
from jax_bridge.shards.dataset_folder import DatasetFolder
from jax_bridge.shards.errors_file import read_errors
from jax_bridge.shards.index_rows import rows_from_tar
from jax_bridge.shards.journal import read_journal
from jax_bridge.shards.manifest import Manifest, manifest_from_tar
from jax_bridge.shards.repair import repair_dataset
from jax_bridge.shards.safetensors_header import encode_tensors, parse_header
from jax_bridge.shards.tar_layout import END, padded, tar_header
from jax_bridge.shards.verify import verify_dataset

TEXT = "vlm.hidden_states.text.mean"
CHECKED = (HealthCheck.too_slow, HealthCheck.function_scoped_fixture)
TIMES = int(os.environ.get("VLA_LENS_FUZZ", "0"))
"""Set it for a longer search with other examples each time: so many times as many."""
bounded = settings(
    max_examples=150 * max(1, TIMES),
    deadline=5000,
    derandomize=not TIMES,
    database=None,
    suppress_health_check=CHECKED,
)
per_folder = settings(bounded, max_examples=25 * max(1, TIMES))

numbers = st.one_of(
    st.integers(-2, 70), st.sampled_from([2**31, 2**62, 2**63, 2**64, 10**30, -(2**63)])
)
words = st.one_of(
    st.text(max_size=6),
    st.sampled_from(
        ["toy", "\ud800", "dtype", "shape", "data_offsets", "suite", "task_id", "truth"]
    ),
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, words, st.floats()),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(words, inner, max_size=5)),
    max_leaves=12,
)
texts = st.one_of(
    st.binary(max_size=200),
    values.map(lambda value: json.dumps(value).encode()),
    st.builds(lambda n, c: c * n, st.integers(0, 100_000), st.sampled_from([b"[", b'{"a":', b"1"])),
)


@st.composite
def edits(draw, content):
    """Content with a few bytes changed, cut out, doubled or moved."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(content) - 1)))
        length = draw(st.sampled_from([1, 2, 8, 100, 512, 1024]))
        kind = draw(st.sampled_from(["flip", "write", "cut", "double", "end"]))
        if kind == "flip" and content:
            content[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "write":
            content[place : place + 8] = draw(st.binary(min_size=1, max_size=8))
        elif kind == "cut":
            del content[place : place + length]
        elif kind == "double":
            content[place:place] = content[place : place + length]
        else:
            del content[place:]
    return bytes(content)


def bounded_memory(size, read, *, factor=40):
    """Reads; any error but ours goes through, and the memory is that of some bytes a byte."""
    tracemalloc.start()
    try:
        return read()
    except ValueError as error:
        return error
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**20 + factor * size, (peak, size)


def test_metadata_that_would_fill_the_memory_is_refused_before_it_is_read():
    text = b'{"a": [' + b"[]," * 10**6 + b"[]]}"
    tar = block("k.json", text, None) + END
    error = bounded_memory(len(tar), lambda: rows_from_tar(tar, "x"), factor=2)
    assert "may take" in str(error)
    assert "Shard x, key k, member json, offset 512" in str(error)
    head = b'{"' + b"a" * 100 + b'":[' + b"{}," * 10**6 + b"{}]}"
    content = len(head).to_bytes(8, "little") + head
    error = bounded_memory(len(content), lambda: parse_header(content, len(content) + 10), factor=2)
    assert "more than the" in str(error)


def assert_short(answer):
    if isinstance(answer, Exception):
        assert len(str(answer)) < 2000


def assert_refused_or_read(size, read, *, factor=40):
    answer = bounded_memory(size, read, factor=factor)
    assert_short(answer)
    if isinstance(answer, Exception):
        assert isinstance(answer, DamagedShardError)


tensors = st.dictionaries(
    words,
    st.one_of(
        values,
        st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(["F32", "BF16", "BOOL", "F33", ["F32"]]),
                "shape": st.lists(numbers, max_size=4),
                "data_offsets": st.lists(numbers, min_size=1, max_size=3),
            }
        ),
    ),
    max_size=4,
)
headers = st.one_of(texts, tensors.map(lambda entries: json.dumps(entries).encode()))
safetensors = st.one_of(
    st.binary(max_size=64),
    st.builds(
        lambda text, shift, rest: max(0, len(text) + shift).to_bytes(8, "little") + text + rest,
        headers,
        st.sampled_from([0, 0, 0, 1, -1, 2**40, 2**63]),
        st.binary(max_size=40),
    ),
    st.sampled_from([b"\xff" * 8, (1 << 62).to_bytes(8, "little"), b"\0" * 8]),
)


@bounded
@given(content=safetensors)
def test_a_safetensors_header_is_read_or_refused(content):
    parsed = bounded_memory(len(content), lambda: parse_header(content, len(content)), factor=2)
    assert_short(parsed)
    if isinstance(parsed, dict):
        for entry in parsed.values():
            assert 0 <= entry.start <= entry.start + entry.size <= len(content)


names = st.one_of(
    st.sampled_from(
        [
            "k.json",
            "k.latents.safetensors",
            "toy-t000-e0000-s0000.json",
            "a/b.json",
            ".x",
            "k",
            "k.",
        ]
    ),
    st.text("abc./-_", min_size=1, max_size=30),
)


def block(name, content, size):
    """A member whose header may lie about its size, with the right checksum."""
    return tar_header(name, len(content) if size is None else size) + content.ljust(
        padded(len(content)), b"\0"
    )


blocks = st.builds(
    block,
    names,
    st.one_of(texts, safetensors),
    st.one_of(st.none(), st.none(), st.sampled_from([0, 1, 511, 513, 8**11 - 1])),
)
tars = st.one_of(
    st.binary(max_size=1500),
    st.builds(
        lambda parts, end: b"".join(parts) + end,
        st.lists(blocks, max_size=6),
        st.sampled_from([END, b"", END[:700], END + b"x"]),
    ),
)


@bounded
@given(content=tars)
def test_any_tar_is_read_or_refused(content):
    assert_refused_or_read(len(content), lambda: rows_from_tar(content, "x"), factor=4)
    assert_refused_or_read(len(content), lambda: manifest_from_tar(content, "x"))


@bounded
@given(data=st.data())
def test_an_edited_tar_is_read_or_refused(toy, data):
    path = next(toy.glob("shards/*.tar"))
    content = data.draw(edits(path.read_bytes()))
    assert_refused_or_read(len(content), lambda: rows_from_tar(content, "x"), factor=4)


lines = st.one_of(
    texts,
    st.builds(
        lambda key, rest: json.dumps([key, *rest]).encode(), words, st.lists(values, max_size=5)
    ),
)
manifests = st.one_of(
    texts,
    st.fixed_dictionaries(
        {
            "name": st.just("x"),
            "bytes": numbers,
            "framing_sha256": words,
            "members": st.lists(values, max_size=4),
        }
    ).map(lambda entry: json.dumps(entry).encode()),
)


@bounded
@given(content=manifests)
@example(content=b'{"name":"x","bytes":0,"framing_sha256":"\\ud800","members":[]}')
def test_any_manifest_is_read_or_refused(content):
    manifest = bounded_memory(len(content), lambda: Manifest.from_bytes(content, "x"))
    if isinstance(manifest, Manifest):
        assert isinstance(bounded_memory(len(content), manifest.to_bytes), bytes)
    else:
        assert_short(manifest)


@bounded
@given(
    content=st.one_of(
        texts,
        lines,
        st.lists(st.one_of(lines, values.map(lambda v: json.dumps(v).encode())), max_size=4).map(
            b"\n".join
        ),
    )
)
def test_any_journal_and_list_of_errors_are_read_as_far_as_they_can_be(tmp_path_factory, content):
    folder = DatasetFolder(tmp_path_factory.getbasetemp() / "fuzzed-lines")
    folder.create()
    folder.errors_path.write_bytes(content + b"\n")
    read_errors(folder)
    journal = read_journal(folder.errors_path)
    assert 0 <= journal.size <= len(content) + 1


@bounded
@given(content=st.one_of(texts, st.data()))
def test_any_dataset_json_is_read_or_refused(toy, tmp_path_factory, content):
    folder = DatasetFolder(tmp_path_factory.getbasetemp() / "fuzzed-info")
    folder.create()
    whole = (toy / "dataset.json").read_bytes()
    if not isinstance(content, bytes):
        entry = json.loads(whole)
        place = content.draw(st.sampled_from(sorted(entry)))
        if place == "fields" and content.draw(st.booleans()):
            inner = entry["fields"][TEXT]
            inner[content.draw(st.sampled_from(sorted(inner)))] = content.draw(values)
        else:
            entry[place] = content.draw(values)
        content = json.dumps(entry).encode()
    folder.info_path.write_bytes(content)
    assert_short(bounded_memory(len(content), folder.read_info))
    bounded_memory(len(whole) + 100_000, lambda: verify_dataset(folder.path))


@pytest.fixture(scope="module")
def parquet(root):
    def run(file, count):
        script = pathlib.Path(__file__).with_name("fuzz_parquet.py")
        return subprocess.run(
            [sys.executable, script, file, str(count)], cwd=root, capture_output=True, text=True,
            env={"PYTHONPATH": str(root), "PATH": ""}, timeout=600,
        )  # fmt: skip

    return run


@pytest.mark.parametrize("count", [300, pytest.param(20_000, marks=pytest.mark.slow)])
def test_any_parquet_file_is_read_or_refused(parquet, copy_of_toy, count):
    done = parquet(copy_of_toy / "index.parquet", count)
    assert done.returncode == 0, done.stderr[-2000:]
    refused = int(done.stdout.split()[0])
    assert refused > 0.5 * count


def anything(folder, sandbox):
    """What a person may do with a data set."""
    dataset = open_dataset(folder)
    dataset.read(TEXT, layers=[2], on_error="skip")
    dataset.read(TEXT)
    dataset.read_robot("state")


@per_folder
@given(data=st.data())
def test_a_data_set_with_an_edited_file_is_read_or_refused_and_repaired(
    toy, sandbox, tmp_path_factory, data
):
    folder = tmp_path_factory.mktemp("edited") / "data"
    shutil.copytree(toy, folder)
    files = sorted(p for p in folder.rglob("*.*") if p.name not in (".lock", "dataset.json"))
    path = data.draw(st.sampled_from(files))
    before = path.read_bytes()
    path.write_bytes(data.draw(edits(before)))
    changed = path.read_bytes() != before
    if data.draw(st.booleans()):  # also where nothing was indexed yet
        for derived in folder.rglob("*.parquet"):
            if derived != path:
                derived.unlink()
    if data.draw(st.booleans()):
        bounded_memory(100_000, lambda: anything(folder, sandbox))
    found = verify_dataset(folder).problems
    assert found or not changed or path.suffix in (".parquet", ".json")
    report = repair_dataset(folder)
    assert verify_dataset(folder).problems == ()
    missing = {(e.task_id, e.episode) for e in report.missing}
    kept = [(t, e) for t in range(2) for e in range(3) if (t, e) not in missing]
    sandbox.assert_whole(open_dataset(folder), kept)
    with EpisodeWriter(folder, sandbox.info) as writer:
        assert {e[1:] for e in writer.committed} == set(kept)
    shutil.rmtree(folder)


def test_the_fuzzed_header_is_not_always_refused():
    import numpy as np

    content = encode_tensors({"a": np.zeros((2, 3), np.float32)})
    assert parse_header(content, len(content))["a"].shape == (2, 3)
