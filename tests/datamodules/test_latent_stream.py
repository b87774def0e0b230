import functools
import operator

import numpy as np
import pytest
import torch

from datamodules.latents import LatentDataModule
from datamodules.statistics import Moments
from jax_bridge.shards import open_dataset
from tests.planted import ACTION, TEXT, write_planted


def rows_of(loader) -> list[list[int]]:
    return [batch.rows.tolist() for batch in loader]


def test_a_batch_holds_what_the_data_set_holds(planted):
    data = LatentDataModule(str(planted), expert="action", layer=[2, 5], batch_size=7)
    dataset = open_dataset(planted)
    for batch in data.train_dataloader():
        rows = batch.rows.numpy()
        expected = dataset.read(ACTION, layers=[2, 5], rows=rows).reshape(len(rows), 6, 12)
        np.testing.assert_array_equal(batch.features[0].numpy(), expected)
        index = dataset.index.take(rows)
        for name in ("task_id", "episode", "timestep"):
            assert getattr(batch, name).tolist() == index[name].to_pylist()
        assert batch.targets.tolist() == index["task_id"].to_pylist()


def test_every_split_is_read_exactly_once(planted):
    data = LatentDataModule(str(planted), batch_size=7)
    for split in ("train", "val", "test"):
        loader = getattr(data, f"{split}_dataloader")()
        batches = rows_of(loader)
        assert len(batches) == len(loader)
        assert sorted(functools.reduce(operator.iadd, batches, [])) == data.rows[split].tolist()
    assert functools.reduce(operator.iadd, rows_of(data.predict_dataloader()), []) == list(
        range(160)
    )


def test_the_order_is_the_seeds_alone_and_changes_with_the_epoch(planted):
    def order(seed: int, epoch: int) -> list[list[int]]:
        data = LatentDataModule(str(planted), batch_size=16, seed=seed)
        data._split["seed"] = seed
        data._clock.epoch = lambda: epoch
        return rows_of(data.train_dataloader())

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)


def test_workers_change_nothing(planted):
    alone = LatentDataModule(str(planted), batch_size=9)
    helped = LatentDataModule(str(planted), batch_size=9, num_workers=2)
    loader = helped.train_dataloader()
    epochs = [0, 0]
    for data in (alone, helped):
        data._clock.epoch = lambda: epochs[0]
    expected, found = alone.train_dataloader(), helped.train_dataloader()
    for epoch in (0, 1):
        epochs[0] = epoch
        pairs = list(zip(expected, found, strict=True))
        assert all(torch.equal(a.features[0], b.features[0]) for a, b in pairs)
        assert [a.rows.tolist() for a, _ in pairs] == [b.rows.tolist() for _, b in pairs]
    assert len(loader) == len(expected)


def test_bfloat16_stays_bit_for_bit(tmp_path):
    path = write_planted(tmp_path / "data", tasks=2, dtype="bfloat16")
    batch = next(iter(LatentDataModule(str(path)).val_dataloader()))
    stored = open_dataset(path).read(TEXT, rows=batch.rows.numpy())
    assert batch.features[0].dtype == torch.bfloat16
    np.testing.assert_array_equal(
        batch.features[0].view(torch.int16).numpy(), stored.view(np.int16).reshape(-1, 3, 12)
    )


def test_statistics_are_those_of_the_training_rows_alone(planted):
    data = LatentDataModule(str(planted), batch_size=7)
    statistics = data.statistics[0]
    values = open_dataset(planted).read(TEXT, rows=data.rows["train"]).astype(np.float64)
    np.testing.assert_allclose(statistics.mean, values.mean(0), rtol=1e-6)
    np.testing.assert_allclose(statistics.std, values.std(0), rtol=1e-6)


def test_statistics_do_not_depend_on_how_the_stream_is_cut():
    values = torch.randn(101, 2, 3, generator=torch.Generator().manual_seed(0)) * 1e-3 + 1e3
    whole, cut = Moments(), Moments()
    whole.update(values)
    for part in values.split(7):
        cut.update(part)
    assert whole.squares is not None
    assert cut.squares is not None
    torch.testing.assert_close(whole.squares, cut.squares, rtol=1e-9, atol=0)


def test_a_constant_feature_is_left_unscaled_and_counted():
    moments = Moments()
    moments.update(torch.tensor([[[3.0, 1.0]], [[3.0, 2.0]]]))
    assert moments.statistics().std.tolist() == [[1.0, 0.5]]
    assert moments.statistics().constant == 1


def test_statistics_are_cached_outside_the_data_and_follow_its_content(planted, cache, tmp_path):
    before = sorted(planted.rglob("*"))
    first = LatentDataModule(str(planted)).statistics[0]
    assert len(list(cache.rglob("*.safetensors"))) == 3  # latents, robot state, time
    again = LatentDataModule(str(planted)).statistics[0]
    assert torch.equal(first.mean, again.mean)
    assert len(list(cache.rglob("*.safetensors"))) == 3  # latents, robot state, time
    # The same fingerprint and keys, but other latents.
    other = LatentDataModule(str(write_planted(tmp_path / "other", seed=5))).statistics[0]
    assert not torch.equal(first.mean, other.mean)
    assert sorted(planted.rglob("*")) == before


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_latent_that_is_not_finite_is_named_in_whichever_split_it_is(planted, tmp_path, split):
    whole = LatentDataModule(str(planted), task_range="0:2")
    whole.setup()
    key = whole.keys(whole.rows[split][5:6])[0]
    path = write_planted(tmp_path / "data", tasks=2, broken=key)
    with pytest.raises(ValueError, match=f"text.mean of sample {key} in .* is NaN or infinite"):
        _ = LatentDataModule(str(path), batch_size=7).statistics


def test_a_damaged_cache_is_made_anew_and_one_that_cannot_be_written_is_said(
    planted, cache, tmp_path
):
    first = LatentDataModule(str(planted)).statistics[0]
    files = list(cache.rglob("*.safetensors"))
    for file in files:
        file.write_bytes(b"cut")
    assert torch.equal(LatentDataModule(str(planted)).statistics[0].mean, first.mean)
    assert min(file.stat().st_size for file in files) > 100
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="are not kept for the next run"):
        _ = LatentDataModule(str(planted), cache_dir=str(tmp_path / "file")).statistics


def test_a_worker_that_cannot_read_says_where_in_one_sentence(tmp_path):
    path = write_planted(tmp_path / "data", tasks=2, samples=1)
    data = LatentDataModule(str(path), num_workers=1)
    data.setup()
    for tar in path.glob("shards/*.tar"):
        tar.write_bytes(tar.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"^Shard [^\n]*$"):
        list(data.train_dataloader())
