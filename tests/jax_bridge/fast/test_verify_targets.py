"""`shards verify` looks at FAST targets, too; and targets may lie at an address."""

import fsspec
import numpy as np
import pytest

from cli.main import main
from jax_bridge.demos.chunk_stream import ChunkStream
from jax_bridge.fast.attach import FastWriter
from jax_bridge.fast.learn import learn_tokenizer
from jax_bridge.fast.normalised import normalised_chunks
from jax_bridge.fast.targets import open_fast_targets
from jax_bridge.fast.verify import verify_targets
from jax_bridge.shards import open_dataset
from tests.jax_bridge.demos.demo_data import statistics, write_demos

STATISTICS = statistics()
FLIPS = 100


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    """A data set with targets, and the tokenizer."""
    path = write_demos(tmp_path_factory.mktemp("verified") / "d", episodes=3)
    dataset = open_dataset(path)
    chunks = np.concatenate([c for _, c in ChunkStream.of(dataset).chunks()])
    tokenizer = learn_tokenizer(normalised_chunks(chunks, STATISTICS.actions))
    FastWriter(ChunkStream.of(dataset), tokenizer, STATISTICS).run()
    return path, tokenizer


def test_every_flipped_bit_in_fast_targets_is_found_and_its_file_named(demos):
    dataset, folder = open_dataset(demos[0]), demos[0] / "fast"
    report = verify_targets(dataset)
    assert report is not None
    assert (report.shards, report.problems) == (3, ())
    random = np.random.default_rng(0)
    files = sorted(folder.iterdir())
    assert {path.suffix for path in files} == {".tar", ".json", ".parquet"}
    for number in range(FLIPS):
        path = files[number % len(files)]
        whole = path.read_bytes()
        flipped = bytearray(whole)
        place = int(random.integers(len(whole)))
        flipped[place] ^= 1 << int(random.integers(8))
        path.write_bytes(bytes(flipped))
        problems = verify_targets(dataset).problems
        path.write_bytes(whole)
        assert problems, (path.name, place)
        named = {f"fast/{path.name}", "fast/dataset.json", "fast/tokenizer.json"}
        assert {problem.shard for problem in problems} & named, (path.name, place, problems)


def test_missing_cut_and_foreign_files_are_found(demos):
    dataset, folder = open_dataset(demos[0]), demos[0] / "fast"
    first, second, *_ = sorted(folder.glob("*.tar"))
    whole = {path: path.read_bytes() for path in (first, second)}
    first.unlink()
    second.write_bytes(whole[second][:1000])
    (folder / "stray.tar").write_bytes(b"")
    said = {problem.shard: problem.reason for problem in verify_targets(dataset).problems}
    (folder / "stray.tar").unlink()
    for path, content in whole.items():
        path.write_bytes(content)
    assert said.keys() == {f"fast/{p.name}" for p in (first, second)} | {"fast/stray.tar"}
    assert "missing" in said[f"fast/{first.name}"]
    assert verify_targets(dataset).problems == ()


def test_the_command_looks_at_targets_and_fails_where_they_are_damaged(demos, capsys):
    assert main(["shards", "verify", str(demos[0])]) == 0
    assert "FAST targets of 3 shards: all bytes are as written" in capsys.readouterr().out
    tar = next((demos[0] / "fast").glob("*.tar"))
    whole = tar.read_bytes()
    tar.write_bytes(whole[:700] + bytes([whole[700] ^ 1]) + whole[701:])
    assert main(["shards", "verify", str(demos[0])]) == 1
    tar.write_bytes(whole)
    said = capsys.readouterr().out
    assert f"Shard fast/{tar.name}, offset 700: a byte is not what was written" in said
    assert "FAST targets of 3 shards: 1 problems" in said


def test_targets_are_written_and_read_at_an_address(demos, tmp_path, capsys):
    path, tokenizer = demos
    address = f"memory://{tmp_path.name}/demos"
    memory = fsspec.filesystem("memory")
    for file in sorted(path.rglob("*")):
        if file.is_file() and "fast" not in file.relative_to(path).parts:
            memory.pipe_file(f"{address}/{file.relative_to(path)}", file.read_bytes())
    dataset = open_dataset(address)
    with pytest.raises(FileNotFoundError, match=f"but {address}/fast has none or unfinished ones"):
        open_fast_targets(dataset)
    assert verify_targets(dataset) is None
    for written, kept in ((3, 0), (0, 3)):
        report = FastWriter(ChunkStream.of(dataset), tokenizer, STATISTICS).run()
        assert (report.shards, report.kept, report.samples) == (written, kept, 60)
    for file in (path / "fast").iterdir():
        assert memory.cat_file(f"{address}/fast/{file.name}") == file.read_bytes(), file.name
    there, here = open_fast_targets(dataset), open_fast_targets(open_dataset(path))
    for a, b in zip(there.codes(range(60)), here.codes(range(60)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert there.tokenizer.describe() == here.tokenizer.describe()
    assert there.norm_stats.digest == STATISTICS.digest
    assert main(["shards", "verify", address]) == 0
    assert "FAST targets of 3 shards: all bytes" in capsys.readouterr().out
