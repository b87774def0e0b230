"""Muon moves matrices by orthogonal steps and leaves the rest to Adam, of one schedule."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jax_bridge.ki.matrices import matrix_axes
from jax_bridge.ki.optimiser import (
    UPDATED,
    OptimiserConfig,
    make_optimiser,
    schedule,
    update_groups,
)
from jax_bridge.pi0.config import Pi0Config
from jax_bridge.pi0.parameters import init_params as draw
from jax_bridge.pi0.parameters import leaves, param_shapes, unflatten

MUON = OptimiserConfig(
    peak_learning_rate=1e-3, warmup_steps=0, weight_decay=0.0, muon_learning_rate=1e-2
)


def as_matrices(path, leaf):
    """A stack of [inputs, outputs], read from openpi's layout by name, not by the code's table."""
    if path.startswith("lora/"):
        return leaf
    if path.endswith("PaliGemma/img/embedding/kernel"):
        return leaf.reshape(-1, leaf.shape[-1])
    name = path.split("/")[-2]
    if name in ("query", "key", "value"):
        return leaf.reshape(*leaf.shape[:2], -1)
    if name == "out" or name.startswith("attn_vec_einsum"):
        return leaf.reshape(leaf.shape[0], -1, leaf.shape[-1])
    if name.startswith("q_einsum"):
        return np.moveaxis(leaf, 1, 2).reshape(leaf.shape[0], leaf.shape[2], -1)
    return leaf


KINDS = (
    "img/embedding/kernel", "pos_embedding", "key/kernel", "encoderblock/.*out/kernel",
    "encoder_norm/scale", "head/kernel", "input_embedding", "q_einsum/w", "kv_einsum_1/w",
    "attn_vec_einsum_1/w", "mlp/gating_einsum", "Dense_0/bias", "action_in_proj", "action_out_proj",
)  # fmt: skip


def one_of_each(config, key):
    flat = dict(leaves(draw(config, key)))
    found = [[path for path in flat if re.search(kind, path)] for kind in KINDS]
    return unflatten({path: flat[path] for paths in found for path in paths[:1]})


def clipped(gradient):
    groups = update_groups(gradient, None)
    norms = {
        group: sum(
            float(jnp.square(leaf).sum())
            for leaf, own in zip(jax.tree.leaves(gradient), jax.tree.leaves(groups), strict=True)
            if own == group
        )
        ** 0.5
        for group in UPDATED
    }
    return jax.tree.map(lambda leaf, own: leaf / max(1, norms[own]), gradient, groups)


def first_update(config, params, gradient):
    optimiser = make_optimiser(config, params)
    return jax.jit(lambda g, p: optimiser.update(g, optimiser.init(p), p)[0])(gradient, params)


def test_every_matrix_moves_by_an_orthogonal_step_and_the_rest_by_nadam():
    params, gradient = (one_of_each(Pi0Config.preset("pi05_micro"), key) for key in (0, 1))
    nadam = optax.nadam(1e-3, b1=MUON.b1, b2=MUON.b2, eps=MUON.eps)
    moved = dict(leaves(first_update(MUON, params, gradient)))
    rest = jax.jit(lambda g, p: nadam.update(g, nadam.init(p), p)[0])(clipped(gradient), params)
    usual = dict(leaves(rest))
    kept = ("scale", "bias", "pos_embedding", "input_embedding", "action_out_proj/kernel")
    for path, leaf in moved.items():
        if path.endswith(kept):
            np.testing.assert_allclose(leaf, usual[path], rtol=1e-5, err_msg=path)
            continue
        update = as_matrices(path, np.asarray(leaf))
        *_, inputs, outputs = update.shape
        values = np.linalg.svd(update, compute_uv=False) / 1e-2
        values /= max(1, outputs / inputs) ** 0.5
        # Five steps of Newton-Schulz leave singular values near one, not at it.
        assert 0.6 < np.median(values) < 1.25, path
        assert values.max() < 1.3, path


def test_low_rank_changes_are_matrices_of_their_last_two_axes():
    for factor, shape in (("a", (3, 64, 4)), ("b", (3, 4, 64))):
        axes = matrix_axes(f"lora/PaliGemma/llm/layers/attn/q_einsum/w/{factor}")
        assert axes is not None
        assert [shape[axes.reduction_axis], shape[axes.output_axis]] == list(shape[1:])


def test_matrices_follow_the_schedule_of_the_rest():
    tree = unflatten({"action_in_proj/kernel": jnp.eye(4), "action_in_proj/bias": jnp.ones(4)})
    config = OptimiserConfig(
        peak_learning_rate=1e-3, final_learning_rate=1e-4, warmup_steps=2, decay_steps=8,
        weight_decay=0.0, muon_learning_rate=1e-2,
    )  # fmt: skip
    optimiser = make_optimiser(config, tree)
    state, sizes = optimiser.init(tree), []
    for _ in range(10):
        update, state = optimiser.update(tree, state, tree)
        sizes.append(float(jnp.linalg.norm(update["action_in_proj"]["kernel"])))
    rates = np.array([schedule(config)(step) for step in range(10)])
    np.testing.assert_allclose(np.array(sizes) / sizes[2], rates / rates[2], rtol=1e-3)


def test_the_backbones_rates_have_a_factor_of_their_own():
    paths = ("action_in_proj/bias", "PaliGemma/img/head/bias", "PaliGemma/img/head/kernel")
    tree = unflatten({path: jnp.eye(4) for path in paths})
    usual = dict(leaves(first_update(MUON, tree, tree)))
    slower = first_update(dataclasses.replace(MUON, backbone_factor=0.25), tree, tree)
    for path, leaf in leaves(slower):
        factor = 1 if path.startswith("action") else 0.25
        np.testing.assert_allclose(leaf, factor * usual[path], rtol=1e-6, err_msg=path)
    with pytest.raises(ValueError, match="`backbone_factor` must be positive, but got 0"):
        OptimiserConfig(backbone_factor=0.0)


def test_no_gradient_is_no_move_and_a_rate_of_nothing_is_refused():
    shapes = {p: jnp.ones(s) for p, s in param_shapes(Pi0Config.preset("pi0_micro")).items()}
    tree = unflatten({path: leaf for path, leaf in shapes.items() if "action_" in path})
    moved = first_update(MUON, tree, jax.tree.map(jnp.zeros_like, tree))
    assert all(bool((leaf == 0).all()) for leaf in jax.tree.leaves(moved))
    with pytest.raises(ValueError, match="`muon_learning_rate` must be positive, but got 0"):
        OptimiserConfig(muon_learning_rate=0.0)
