"""FAST targets beside a data set: what is written, found again, refused and gone on with."""

import errno
import tarfile

import numpy as np
import pytest

from jax_bridge.demos.chunk_stream import ChunkStream
from jax_bridge.fast.attach import FastWriter
from jax_bridge.fast.files import load_tokenizer
from jax_bridge.fast.learn import learn_tokenizer
from jax_bridge.fast.normalised import normalised_chunks
from jax_bridge.fast.targets import open_fast_targets
from jax_bridge.policies.normalisation import load_norm_stats
from jax_bridge.shards import open_dataset
from jax_bridge.shards.file_layer import FileLayer
from tests.jax_bridge.demos.demo_data import statistics, write_demos

STATISTICS = statistics()


def all_chunks(dataset, **options):
    return np.concatenate([c for _, c in ChunkStream.of(dataset, **options).chunks()])


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    dataset = open_dataset(write_demos(tmp_path_factory.mktemp("learn") / "d"))
    return learn_tokenizer(normalised_chunks(all_chunks(dataset), STATISTICS.actions))


def attach(path, tokenizer, norm_stats=STATISTICS, **options):
    mask = options.pop("delta_mask", None)
    stream = ChunkStream.of(open_dataset(path), delta_mask=mask)
    return FastWriter(stream, tokenizer, norm_stats, **options).run()


def test_each_sample_has_the_codes_of_its_chunk(tmp_path, tokenizer):
    path = write_demos(tmp_path / "d")
    report = attach(path, tokenizer)
    dataset = open_dataset(path)
    assert (report.samples, report.clipped, report.shards) == (120, 0, 6)
    targets = open_fast_targets(dataset)
    rows = np.array([7, 0, 100])
    decoded = targets.tokenizer.decode(targets.codes(rows), steps=8, dims=3).actions
    expected = normalised_chunks(dataset.read_robot("actions", rows=rows), STATISTICS.actions)
    assert np.abs(decoded - expected).max() <= 0.2
    assert targets.longest == max(map(len, targets.codes(range(120)))) == max(report.lengths)
    assert (targets.horizon, targets.action_dim, targets.delta_mask) == (8, 3, None)


def test_the_folder_holds_plain_tars_with_the_same_keys_tokenizer_and_statistics(
    tmp_path, tokenizer
):
    path = write_demos(tmp_path / "d")
    attach(path, tokenizer)
    keys = set()
    for shard in (path / "fast").glob("*.tar"):
        with tarfile.open(shard) as tar:
            keys |= {name.removesuffix(".fast.npy") for name in tar.getnames()}
    assert keys == set(open_dataset(path).index["key"].to_pylist())
    assert load_tokenizer(str(path / "fast")).describe() == tokenizer.describe()
    assert load_norm_stats(str(path / "fast/norm_stats.json")).digest == STATISTICS.digest


def test_a_run_that_was_cut_and_a_data_set_that_grew_are_gone_on_with(tmp_path, tokenizer):
    path = write_demos(tmp_path / "d")
    attach(path, tokenizer)
    whole = {p.name: p.read_bytes() for p in (path / "fast").iterdir()}
    first, *_ = sorted((path / "fast").glob("*.tar"))
    first.unlink()
    (path / "fast" / "codes.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="has none or unfinished ones"):
        open_fast_targets(open_dataset(path))
    report = attach(path, tokenizer)
    assert (report.shards, report.kept) == (1, 5)
    assert {p.name: p.read_bytes() for p in (path / "fast").iterdir()} == whole
    write_demos(path, episodes=2, first=6)
    with pytest.raises(ValueError, match="40 of 160 have none"):
        open_fast_targets(open_dataset(path))
    attach(path, tokenizer)
    assert (open_fast_targets(open_dataset(path)).lengths > 0).all()


def test_targets_that_are_damaged_or_of_other_samples_are_made_again(tmp_path, tokenizer):
    path = write_demos(tmp_path / "d")
    attach(path, tokenizer)
    whole = {p.name: p.read_bytes() for p in (path / "fast").iterdir()}
    cut, swapped, source, *_ = sorted((path / "fast").glob("*.tar"))
    cut.write_bytes(cut.read_bytes()[:3000])
    swapped.write_bytes(source.read_bytes())
    assert attach(path, tokenizer).shards == 2
    assert {p.name: p.read_bytes() for p in (path / "fast").iterdir()} == whole


def test_relative_actions_are_taken_from_the_state_of_their_sample(tmp_path, tokenizer):
    path = write_demos(tmp_path / "d")
    dataset = open_dataset(path)
    chunks = all_chunks(dataset, delta_mask=(True, False))
    actions, state = (dataset.read_robot(n).astype(float) for n in ("actions", "state"))
    assert np.array_equal(chunks[..., 0], actions[..., 0] - state[:, None, 0])
    assert np.array_equal(chunks[..., 1:], actions[..., 1:])
    attach(path, tokenizer, delta_mask=(True, False), out_of_range="clip")
    assert open_fast_targets(dataset).delta_mask == (True, False)


@pytest.mark.parametrize("out_of_range", ["clip", "skip"])
def test_what_does_not_fit_is_an_error_or_counted(tmp_path, tokenizer, out_of_range):
    path = write_demos(tmp_path / "d", scale=8)
    with pytest.raises(ValueError, match=r"demo-t000-e0000-s00\d\d: .*must have DCT coefficients"):
        attach(path, tokenizer)
    report = attach(path, tokenizer, out_of_range=out_of_range)
    assert 0 < report.clipped <= 120
    empty = int((open_fast_targets(open_dataset(path)).lengths == 0).sum())
    with pytest.raises(ValueError, match="others: out_of_range differ"):
        attach(path, tokenizer)
    assert empty == report.left_out == (report.clipped if out_of_range == "skip" else 0)


def test_a_dimension_that_never_moves_is_fine_and_one_that_seldom_does_is_named(
    tmp_path, tokenizer
):
    rows = {"q01": [-2, 0.25, -2], "q99": [2, 0.25, 2]}
    attach(write_demos(tmp_path / "still", still=(1,)), tokenizer, statistics(**rows))
    decoded = open_fast_targets(open_dataset(tmp_path / "still"))
    values = decoded.tokenizer.decode(decoded.codes([5]), steps=8, dims=3).actions
    assert np.allclose(values[..., 1], -1, atol=0.2)
    moving = write_demos(tmp_path / "moving")
    with pytest.raises(ValueError, match=r"q01 and q99 of actions apart in dimension 1, but both"):
        attach(moving, tokenizer, statistics(**rows))


def test_targets_of_other_settings_sizes_or_data_are_refused(tmp_path, tokenizer):
    path = write_demos(tmp_path / "d")
    attach(path, tokenizer)
    with pytest.raises(ValueError, match=r"others: norm_stats differ\. Remove that folder"):
        attach(path, tokenizer, statistics(low=-3.0))
    other = write_demos(tmp_path / "other", horizon=5)
    with pytest.raises(
        ValueError, match="chunks of 5 steps, those of the data set, but got one of 8"
    ):
        attach(other, tokenizer)
    (path / "fast").rename(other / "fast")
    with pytest.raises(ValueError, match="belong to another one"):
        open_fast_targets(open_dataset(other))
    with pytest.raises(FileNotFoundError, match="vla-lens fast attach"):
        open_fast_targets(open_dataset(path))


def test_a_full_disk_is_said_and_what_was_written_is_gone_on_with(tmp_path, tokenizer, monkeypatch):
    path = write_demos(tmp_path / "d")
    whole = FileLayer.write_whole

    def full(self, place, content):
        if place.name.startswith("demo-t001") and place.suffix == ".tar":
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(self, place, content)

    monkeypatch.setattr(FileLayer, "write_whole", full)
    with pytest.raises(OSError, match=r"fast: the disk is full\. Free some space and run the same"):
        attach(path, tokenizer)
    monkeypatch.undo()
    report = attach(path, tokenizer)
    assert report.kept > 0
    assert (open_fast_targets(open_dataset(path)).lengths > 0).all()
