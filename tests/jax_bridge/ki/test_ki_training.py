"""The proofs of the specification that concern steps of training and decoding."""

import dataclasses
import functools
import importlib.util
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jax_bridge.ki import sharding
from jax_bridge.ki.backbone import run_backbone, score_tokens
from jax_bridge.ki.decoding import decode_fast
from jax_bridge.ki.objective import Objective
from jax_bridge.ki.optimiser import OptimiserConfig, make_optimiser, schedule, update_groups
from jax_bridge.ki.parameter_groups import BACKBONE_GROUPS, group_of
from jax_bridge.ki.sequence import targets_of
from jax_bridge.ki.train_step import StepConfig, initial_state, make_train_step
from jax_bridge.pi0 import Pi0
from jax_bridge.pi0.parameters import leaves

_spec = importlib.util.spec_from_file_location(
    "ki_conftest", pathlib.Path(__file__).with_name("conftest.py")
)
_conftest = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_conftest)
make_batch = _conftest.make_batch

pytestmark = pytest.mark.parametrize("small", ["pi05_micro"], indirect=True)
FAST = OptimiserConfig(
    peak_learning_rate=3e-3, final_learning_rate=1e-3, warmup_steps=5, decay_steps=400
)


@functools.lru_cache(maxsize=8)
def trainer(config, objective, optimiser_config, step_config):
    shapes = Pi0(config).init(0)
    optimiser = make_optimiser(optimiser_config, shapes)
    step = jax.jit(make_train_step(config, objective, optimiser, step_config))
    return step, initial_state(shapes, optimiser, step_config)


PLAIN = StepConfig()


def train(small, steps, objective=None, optimiser=FAST, step=PLAIN, batch=None, state=None):
    run, start = trainer(small.config, objective or Objective(), optimiser, step)
    state, reports = state or start, []
    for _ in range(steps):
        state, report = run(state, batch or small.batch, jax.random.key(3))
        reports.append(report)
    return state, reports


def parameters(state):
    return {path: np.asarray(leaf) for path, leaf in leaves(state.params)}


def test_4_the_backbones_update_does_not_depend_on_the_flow_weight(small):
    one, said = train(small, 2, Objective())
    eight, told = train(small, 2, Objective(flow_weight=8.0))
    one, eight = parameters(one), parameters(eight)
    start = {path: np.asarray(leaf) for path, leaf in leaves(small.params)}
    for path in one:
        if group_of(path) in BACKBONE_GROUPS:
            np.testing.assert_array_equal(one[path], eight[path], err_msg=path)
            assert (one[path] != start[path]).any(), path
    assert float(told[0].gradient_norm["expert"]) == 8 * float(said[0].gradient_norm["expert"])


OVERFITTING = dataclasses.replace(FAST, decay_steps=300)


@functools.partial(jax.jit, static_argnames="config")
def decode(params, observation, config, end):
    return decode_fast(params, observation, config, length=9, end=jnp.asarray(end)[None])


@functools.lru_cache(maxsize=1)
def overfitted(config):
    """A model that has learnt one batch (images, prompts, FAST; no text) by heart."""
    batch = make_batch(config)
    observation = dataclasses.replace(
        batch.observation, text_target_tokens=None, text_target_mask=None
    )
    batch = dataclasses.replace(batch, observation=observation, actions=np.tanh(batch.actions))
    run, state = trainer(config, Objective(flow_samples=4), OVERFITTING, PLAIN)
    reports = []
    for _ in range(300):
        state, report = run(state, batch, jax.random.key(3))
        reports.append(report.losses)
    return batch, state, reports


def test_16_decoding_with_a_cache_equals_teacher_forcing(small):
    batch, state, _ = overfitted(small.config)
    given = batch.observation
    said = decode(state.params, given, small.config, -1)
    assert said.mask.all()
    asked = dataclasses.replace(
        given, fast_action_tokens=np.asarray(said.tokens), fast_action_mask=np.asarray(said.mask)
    )

    @jax.jit
    def best(params, observation):
        done = run_backbone(params, observation, small.config)
        return score_tokens(params, done.predicting, targets_of(observation).tokens).best

    np.testing.assert_array_equal(best(state.params, asked), said.tokens)
    # What was learnt is said, and it is not one token again and again.
    for item, size in ((0, 7), (1, 3)):
        np.testing.assert_array_equal(
            said.tokens[item, :size], given.fast_action_tokens[item, :size]
        )
    assert len(np.unique(said.tokens[0])) > 5


def test_16_a_sample_that_has_said_its_end_mark_says_no_more(small):
    free = np.asarray(decode(small.params, small.batch.observation, small.config, -1).tokens)
    end = int(free[0, 2])
    first = int(np.argmax(free[0] == end))
    said = decode(small.params, small.batch.observation, small.config, end)
    np.testing.assert_array_equal(said.tokens[0, : first + 1], free[0, : first + 1])
    assert not said.mask[0, first + 1 :].any()
    assert not said.tokens[0, first + 1 :].any()


def test_19_a_step_on_eight_devices_equals_one_device(small):
    script = pathlib.Path(__file__).with_name("on_eight_devices.py")
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.stdout.strip() == "equal", done.stderr[-2000:]


def test_19_going_on_from_a_saved_state_is_bitwise_an_uninterrupted_run(small):
    whole, reports = train(small, 4)
    half, _ = train(small, 2)
    stored = jax.tree.map(np.asarray, half)
    resumed, later = train(small, 2, state=jax.tree.map(jnp.asarray, stored))
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [float(r.losses.total) for r in reports[2:]] == [float(r.losses.total) for r in later]


def test_20_one_batch_can_be_overfitted(small):
    batch, state, losses = overfitted(small.config)
    assert float(losses[0].fast_accuracy) < 0.5
    assert float(losses[-1].fast_accuracy) == 1.0
    assert float(losses[-1].exact_chunks) == 1.0
    flow = np.array([loss.flow for loss in losses])
    assert flow[-20:].mean() < 0.2 * flow[:5].mean()
    sampled = Pi0(small.config).sample_actions(
        state.params, batch.observation.without_targets(), key=jax.random.key(1)
    )
    error = np.square(np.asarray(sampled) - batch.actions).mean()
    assert error < 0.15 * np.square(batch.actions).mean()


def test_micro_batches_give_the_gradient_of_the_whole_batch(small):
    """Where every sample has the same kinds of targets, so that means of means are means."""
    ones = np.ones((3, 7), bool)
    batch = small.observe(fast_action_mask=ones, text_target_tokens=None, text_target_mask=None)
    whole, said = train(small, 1, batch=batch)
    parts, told = train(small, 1, step=StepConfig(micro_batches=3), batch=batch)
    np.testing.assert_allclose(told[0].losses.total, said[0].losses.total, rtol=1e-5)
    for group, norm in said[0].gradient_norm.items():
        np.testing.assert_allclose(told[0].gradient_norm[group], norm, rtol=1e-4)
    # The first moment is linear in the gradient; the update, of Adam, is not.
    moments = [first_moments(state) for state in (whole, parts)]
    assert moments[0].keys() == moments[1].keys()
    for path, leaf in moments[0].items():
        limit = 1e-4 * max(np.abs(moment).max() for moment in moments[0].values())
        np.testing.assert_allclose(moments[1][path], leaf, rtol=0, atol=limit, err_msg=path)


def first_moments(state):
    flat = jax.tree_util.tree_leaves_with_path(state.optimiser)
    found = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in flat}
    return {path: leaf for path, leaf in found.items() if ".mu" in path and leaf.size > 1}


def test_frozen_leaves_stay_and_a_pattern_that_matches_nothing_is_refused(small):
    frozen = dataclasses.replace(FAST, freeze="^PaliGemma/img/")
    optimiser = make_optimiser(frozen, small.params)
    gradient = jax.tree.map(jnp.ones_like, small.params)
    moved, _ = jax.jit(optimiser.update)(gradient, optimiser.init(small.params), small.params)
    for path, leaf in leaves(moved):
        assert bool((leaf == 0).all()) == (group_of(path) == "vision"), path
    with pytest.raises(ValueError, match="'vision' matches none"):
        update_groups(small.params, "vision")
    with pytest.raises(ValueError, match="matches all"):
        update_groups(small.params, ".")


def test_activations_are_bfloat16_while_all_that_is_kept_stays_float32(small):
    half = dataclasses.replace(small.config, dtype="bfloat16")
    optimiser = make_optimiser(FAST, small.params)
    step = make_train_step(half, Objective(), optimiser, PLAIN)
    state = jax.eval_shape(lambda p: initial_state(p, optimiser, PLAIN), small.params)
    traced, after = jax.make_jaxpr(step, return_shape=True)(state, small.batch, jax.random.key(0))
    kept = jax.tree.leaves(after[0])
    assert {leaf.dtype for leaf in kept if leaf.ndim} == {jnp.dtype("float32")}
    products = [line for line in str(traced).splitlines() if "dot_general" in line]
    widened = [line for line in products if ":f32[" in line and "preferred_element_type" in line]
    assert len([line for line in products if ":bf16[" in line]) > len(widened)


def test_the_average_follows_the_parameters(small):
    assert PLAIN.ema_decay == 0.99
    state, _ = train(small, 1)
    start = {path: np.asarray(leaf) for path, leaf in leaves(small.params)}
    for path, leaf in leaves(state.average):
        moved = parameters(state)[path] - start[path]
        assert moved.any(), path
        limit = 2.5e-7 * np.abs(start[path]).max() + 1e-9
        np.testing.assert_allclose(leaf - start[path], 0.01 * moved, rtol=1e-3, atol=limit)


def test_the_learning_rate_rises_and_falls_as_set(small):
    rate = schedule(FAST)
    assert float(rate(0)) == pytest.approx(3e-3 / 6)
    assert float(rate(5)) == pytest.approx(3e-3)
    assert float(rate(400)) == pytest.approx(1e-3)
    with pytest.raises(ValueError, match="`warmup_steps` must lie in"):
        OptimiserConfig(warmup_steps=10, decay_steps=10)


def test_large_leaves_are_cut_and_small_ones_are_not(small):
    mesh = sharding.make_mesh(1)
    assert sharding.leaf_sharding((64, 64), mesh, smallest=1).spec == PartitionSpec()
    with pytest.raises(ValueError, match="must divide the number of devices, 1, but got 3"):
        sharding.make_mesh(3)
