"""Low-rank changes: what is learnt, what stays, and what is saved."""

import dataclasses

import jax
import numpy as np
import pytest

from jax_bridge.ki.optimiser import FROZEN, OptimiserConfig, update_groups
from jax_bridge.ki.train_step import StepConfig
from jax_bridge.ki.training.lora import LoraConfig, add_lora, merge_lora, with_lora_frozen
from jax_bridge.ki.training.parameter_table import count_parameters
from jax_bridge.ki.training.programs import build_programs
from jax_bridge.ki.training.trainer import Trainer
from jax_bridge.pi0 import Pi0, load_params
from jax_bridge.pi0.parameters import differences, leaves

LORA = LoraConfig(rank=2, alpha=4.0)


@pytest.fixture(scope="module")
def params(settings_of):
    return Pi0(settings_of().model).init(1)


def test_nothing_changes_at_the_start_and_the_sum_is_the_papers(params):
    whole = add_lora(params, LORA, seed=0)
    merged = dict(leaves(merge_lora(whole, LORA)))
    for path, leaf in leaves(params):
        np.testing.assert_array_equal(merged[path], leaf, err_msg=path)
    place = whole["lora"]["PaliGemma"]["llm"]["layers"]["attn"]["q_einsum"]["w"]
    place["b"] = np.ones_like(place["b"])
    found = merge_lora(whole, LORA)["PaliGemma"]["llm"]["layers"]["attn"]["q_einsum"]["w"]
    base = np.asarray(params["PaliGemma"]["llm"]["layers"]["attn"]["q_einsum"]["w"])
    change = 2.0 * np.einsum("lnwr,lnrh->lnwh", place["a"], place["b"])
    np.testing.assert_allclose(found, base + change, rtol=1e-5, atol=1e-6)


def test_adapted_leaves_are_frozen_and_their_changes_never(params):
    tree = add_lora(params, LORA, seed=0)
    config = OptimiserConfig(freeze="^PaliGemma/img/|final_norm")
    words = dict(leaves(update_groups(tree, with_lora_frozen(config, LORA).freeze)))
    for path, word in words.items():
        adapted = "/layers/attn/" in path or "/layers/mlp" in path
        frozen = adapted or "PaliGemma/img/" in path or "final_norm" in path
        assert (word == FROZEN) == (frozen and not path.startswith("lora/")), path
    groups = {words[p] for p in words if p.startswith("lora/") and "_1" in p}
    assert groups == {"expert"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"rank": 99},
            "`rank` must be at most 8, the smaller side of .*attn_vec_einsum/w, but got 99",
        ),
        ({"pattern": "nothing_here"}, "`pattern` must match some leaves, but 'nothing_here'"),
    ],
)
def test_changes_that_fit_no_leaf_are_refused(params, changes, message):
    with pytest.raises(ValueError, match=message):
        add_lora(params, dataclasses.replace(LORA, **changes), seed=0)


@pytest.mark.slow
def test_a_run_with_low_rank_changes_saves_whole_weights_and_goes_on(
    tmp_path, settings_of, memory_stream
):
    """With a moving average and frozen vision: all that a state can hold."""
    freeze = dataclasses.replace(settings_of().optimiser, freeze="^PaliGemma/img/")
    settings = settings_of(
        lora=LORA, optimiser=freeze, step=StepConfig(ema_decay=0.5),
        run={"steps": 4, "save_every": 2, "insulation_every": 0},
    )  # fmt: skip
    model = settings.model
    start = dict(leaves(Pi0(model).init(settings.run.seed)))
    Trainer(settings, memory_stream(model), tmp_path / "whole").run()
    saved = load_params(tmp_path / "whole/checkpoints/4/params", config=model)
    assert differences(saved, model) == []
    for path, leaf in leaves(saved):
        same = (np.asarray(leaf) == np.asarray(start[path])).all()
        assert same == path.startswith("PaliGemma/img/"), path
    half = dataclasses.replace(settings, run=dataclasses.replace(settings.run, steps=2))
    Trainer(half, memory_stream(model), tmp_path / "half").run()
    Trainer(settings, memory_stream(model), tmp_path / "half").run()
    again = dict(leaves(load_params(tmp_path / "half/checkpoints/4/params", config=model)))
    for path, leaf in leaves(saved):
        np.testing.assert_array_equal(again[path], leaf, err_msg=path)


def test_frozen_and_adapted_leaves_have_no_moments(settings_of):
    settings = settings_of(lora=LORA)
    (device,) = jax.devices()[:1]
    mesh = jax.sharding.Mesh(np.asarray([[device]]), ("data", "fsdp"))
    shapes = build_programs(settings, mesh, lambda key, batch: batch).shapes
    held = [
        jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(shapes.optimiser)
    ]
    assert any("'lora'" in path for path in held)
    assert not any("'attn'" in path and "'lora'" not in path for path in held)


def test_the_table_counts_what_moves(settings_of):
    settings = settings_of(optimiser=OptimiserConfig(freeze="^PaliGemma/img/"))
    table = count_parameters(settings)
    assert table["vision"][1] == 0 < table["vision"][0]
    assert table["expert"][0] == table["expert"][1]
    assert table["all"][0] == sum(table[g][0] for g in ("vision", "embedder", "backbone", "expert"))
    adapted = count_parameters(settings_of(lora=LORA))
    assert 0 < adapted["backbone"][1] < table["backbone"][1]
