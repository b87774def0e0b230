import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from datamodules.latents import LatentDataModule
from lightning_modules.grid_product import said_by
from lightning_modules.linear_probe import LinearProbe
from lightning_modules.run_folder import results_of


@pytest.fixture(scope="module")
def sent(planted, tmp_path_factory):
    """A grid with an online code, tested; its data and results."""
    import lightning.pytorch as pl

    def trainer(epochs: int) -> pl.Trainer:
        return pl.Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip

    cache = str(tmp_path_factory.mktemp("cache"))
    data = LatentDataModule(str(planted), batch_size=16, cache_dir=cache)
    probe = LinearProbe(controls=["mdl"], learning_rate=0.01)
    trainer(15).fit(probe, datamodule=data)
    trainer(1).test(probe, datamodule=data, verbose=False)
    return probe, data, results_of(probe, "test", data.clusters)


def test_labels_take_few_bits_only_where_a_layer_knows_them(sent):
    _, data, results = sent
    by_layer = {cell.cell.layer: cell.code for cell in results.cells}
    assert {code.samples for code in by_layer.values()} == {len(data.rows["train"])}
    assert by_layer[2].uniform == pytest.approx(2 * by_layer[2].samples)
    assert by_layer[2].compression > 1.5
    assert max(by_layer[0].compression, by_layer[5].compression) < 1.1


def test_each_block_is_sent_by_the_probe_of_the_units_before_it(sent):
    probe, data, results = sent
    rows = data.rows["train"]
    batch = data.reader.read(rows)
    block = torch.from_numpy(probe.blocks)[batch.clusters]
    bits = (block == 0).sum() * math.log2(4) * torch.ones(3, dtype=torch.float64)
    for group in probe.probe_groups[1:]:
        here = block == group.spec.prefix
        (said,) = said_by([group], probe.feature_scalers, batch.features, best=True)
        said = said[here]
        for cell in range(3):
            loss = F.cross_entropy(said[:, cell], batch.targets[here], reduction="sum")
            bits[cell] += loss.item() / math.log(2)
    found = [cell.code.bits for cell in results.cells]
    np.testing.assert_allclose(found, bits, rtol=1e-5)


def test_blocks_are_whole_units_and_prefixes_grow(sent):
    probe, data, _ = sent
    training = data.training_clusters
    assert set(np.flatnonzero(probe.blocks >= 0)) == set(training)
    counts = np.bincount(probe.blocks[training])
    assert counts[0] == 1
    assert counts.sum() == 24
    prefixes = [group.spec.prefix for group in probe.probe_groups[1:]]
    assert prefixes == list(range(1, len(counts)))


def test_a_prefix_learns_nothing_from_the_units_behind_it(sent):
    probe, data, _ = sent
    batch = data.reader.read(data.rows["train"])
    group = probe.probe_groups[1]
    behind = torch.from_numpy(probe.blocks)[batch.clusters] >= group.spec.prefix
    other = batch._replace(targets=torch.where(behind, 3 - batch.targets, batch.targets))
    whole = probe.probe_groups[0]
    said, every = said_by([group, whole], probe.feature_scalers, batch.features, best=False)
    losses, given = (
        [probe.evaluation.training_loss(spec, words, x) for x in (batch, other)]
        for spec, words in ((group.spec, said), (whole.spec, every))
    )
    assert torch.equal(*losses)
    assert not torch.equal(*given)


def test_vectors_cannot_be_sent(planted):
    data = LatentDataModule(str(planted), target="instruction")
    data.setup()
    probe = LinearProbe()
    assert not probe.spec_of(data).prefixes
    assert probe.left_out["mdl"] == "an online code needs classes, cross-entropy and two units"
