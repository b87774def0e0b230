"""`vla-lens test -c context_statistics`: the card of a data set's vectors."""

import contextlib
import csv
import io
import json
import re
from unittest import mock

import numpy as np
import pytest

from cli.main import main
from datamodules.cell import Cell
from datamodules.whole_dataset import WholeDataset
from jax_bridge.shards import open_dataset
from lightning_modules.context import card_folder
from lightning_modules.context.context_statistics import ContextStatistics
from lightning_modules.context.output_norm import OutputNorm, norm_before
from lightning_modules.figures import context_figures
from tests.context_data import CONTEXT, correlated, write_vectors
from tests.planted import ACTION, write_planted
from tests.ranks import run_ranks

WIDTH = 16
NORM = OutputNorm(
    module="text.layer_norm", reaches="act_head",
    weight=np.array([-0.01, *np.geomspace(0.5, 2, WIDTH - 1)], np.float32),
    bias=np.linspace(-1, 1, WIDTH, dtype=np.float32),
)  # fmt: skip


@pytest.fixture(scope="module")
def vectors():
    found = correlated(12, 7, WIDTH, seed=0)
    found[3][2, 4] = np.nan
    return found


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, vectors):
    return write_vectors(tmp_path_factory.mktemp("context") / "data", vectors, norm=NORM)


def statistics(trainer, path, out, fields=(CONTEXT,), batch_size=16, **options):
    module = ContextStatistics(out=str(out), tensorboard=False, **options)
    data = WholeDataset(str(path), list(fields), batch_size=batch_size)
    trainer(1).test(module, datamodule=data, verbose=False)
    return module


@pytest.fixture(scope="module")
def card(dataset, tmp_path_factory):
    """What the command leaves behind."""
    out = tmp_path_factory.mktemp("command") / "card"
    args = ["test", "-c", "context_statistics", "--data.init_args.path", str(dataset)]
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main([*args, "--out", str(out), "--trainer.enable_progress_bar", "false"]) == 0
    assert f"card: {out}/card.md" in said.getvalue()
    return out


def undrawn():
    """Figures take longer than all else together, and show nothing of what is asked."""
    return mock.patch.object(card_folder, "card_figures", return_value=())


def test_the_card_of_every_vector_is_that_of_numpy(card, dataset, vectors):
    whole = np.concatenate(vectors).astype(np.float64)
    whole = whole[np.isfinite(whole).all(1)]
    written = json.loads((card / "card.json").read_text())
    facts = written["cells"][f"{CONTEXT}/all"]
    assert facts["count"] == 12 * 7 - 1
    lengths = np.linalg.norm(whole, axis=1)
    assert facts["length_mean"] == pytest.approx(lengths.mean(), rel=1e-6)
    assert facts["not_finite_samples"] == 1
    assert 3 < facts["design_effect"] < 8  # 7 frames that share nine tenths: 6.4
    bad = open_dataset(dataset).index["key"].to_pylist()
    assert facts["not_finite_first"][0] in bad
    text = (card / "card.md").read_text()
    assert (
        f"1 vectors hold NaN or infinity (1 numbers) and are left out: {facts['not_finite_first'][0]}"
        in text
    )
    assert "worth about" in text
    for name in re.findall(r"\]\((figures/.+?)\)", text):
        assert (card / name).stat().st_size > 5000
    [file] = (card / "dimensions").glob("*.csv")
    lines = list(csv.DictReader(file.read_text().splitlines()))
    table = {name: np.array([float(x[name]) for x in lines]) for name in
             ("mean", "std", "norm_weight", "norm_bias")}  # fmt: skip
    np.testing.assert_allclose(table["mean"], whole.mean(0), rtol=1e-10)
    np.testing.assert_allclose(table["std"], whole.std(0, ddof=1), rtol=1e-10)
    assert table["norm_weight"].tolist() == NORM.weight.tolist()
    assert table["norm_bias"].tolist() == NORM.bias.tolist()
    assert "the LayerNorm `text.layer_norm`: |weight| 0.01 to 2, median 0.9" in text
    assert "(1 below 1/20 of it), bias -1 to 1." in text
    assert "![layer_norm](figures/" in text
    follows = np.corrcoef(whole.std(0), np.abs(NORM.weight))[0, 1]
    assert facts["std_follows_weight"] == pytest.approx(follows, abs=1e-6)
    assert written["data"]["model"]["output_norm"] == "text.layer_norm"


def test_a_layer_norm_belongs_to_the_input_of_the_module_that_it_reaches(dataset):
    info, point = open_dataset(dataset).info, {"expert": "context", "pool": "tokens"}
    cell = Cell(site="act_head", region="input", **point)
    found = norm_before(info, cell, WIDTH)
    assert found.module == "text.layer_norm"
    np.testing.assert_array_equal(found.weight, NORM.weight)
    assert norm_before(info, cell, WIDTH + 1) is None
    assert norm_before(info, Cell(site="act_head", region="output", **point), WIDTH) is None
    assert norm_before(info, Cell(site="layers_3", region="input", **point), WIDTH) is None


def test_the_batch_size_changes_nothing(trainer, dataset, tmp_path):
    texts = []
    for size in (5, 64):
        with undrawn():
            statistics(trainer, dataset, tmp_path / str(size), batch_size=size)
        texts.append((tmp_path / str(size) / "card.json").read_text())
    assert texts[0] == texts[1]


def test_all_layers_and_flow_times_of_a_policy_have_their_own_numbers(
    trainer, tmp_path, monkeypatch
):
    monkeypatch.setattr(context_figures, "MOST_FIGURES", 0)  # the one over all cells is drawn
    path = write_planted(tmp_path / "data", tasks=2, episodes=4, dtype="bfloat16")
    module = ContextStatistics(out=str(tmp_path / "card"), tensorboard=False, kept=0)
    data = WholeDataset(str(path), [ACTION], layer=[0, 5])
    trainer(1).test(module, datamodule=data, verbose=False)
    values = open_dataset(path).read(ACTION, layers=[0, 5]).astype(np.float64)
    means = np.stack([cell.table.mean for cell in module.card.cells]).reshape(2, 3, -1)
    np.testing.assert_allclose(means, values.mean(0), rtol=1e-10)
    assert (tmp_path / "card" / "figures" / "over_layers.png").is_file()


def on_rank(rank, path, out):
    import lightning.pytorch as pl

    trainer = pl.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    module = ContextStatistics(out=out, tensorboard=False)
    with undrawn():
        trainer.test(module, datamodule=WholeDataset(path, [CONTEXT], batch_size=8), verbose=False)


def test_two_processes_find_what_one_finds(trainer, dataset, tmp_path):
    run_ranks(on_rank, 2, tmp_path / "ranks", str(dataset), str(tmp_path / "two"))
    with undrawn():
        statistics(trainer, dataset, tmp_path / "one", batch_size=8)
    one, two = (json.loads((tmp_path / n / "card.json").read_text()) for n in ("one", "two"))
    facts, other = (x["cells"][f"{CONTEXT}/all"] for x in (one, two))
    assert facts.keys() == other.keys()
    for name, value in facts.items():
        if isinstance(value, float):
            assert other[name] == pytest.approx(value, rel=1e-10), name
        else:
            assert other[name] == value, name


def test_the_command_writes_a_card_for_tensorboard_too(card):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(card / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert f"effective_rank/{CONTEXT}/all" in tags["scalars"]
    assert f"std_of_dimensions/{CONTEXT}/all" in tags["histograms"]
    assert any("dimensions" in tag for tag in tags["images"])
    assert list((card / "tensorboard").rglob("tensors.tsv"))


def test_a_folder_that_is_a_file_and_a_field_that_is_not_there_are_refused(
    dataset, tmp_path, capsys
):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"`out` must be a folder, but .*file is a file"):
        ContextStatistics(out=str(tmp_path / "file"))
    with pytest.raises(ValueError, match="`kept` must not be negative, but got -1"):
        ContextStatistics(out="x", kept=-1)
    with pytest.raises(
        ValueError, match=f"but got context.head.input.tokens. The data set holds {CONTEXT}"
    ):
        WholeDataset(str(dataset), ["context.head.input.tokens"]).setup()
