"""The proofs of the specification that concern the loss and its gradients (float32, small)."""

import dataclasses
import functools
import importlib.util
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_bridge.ki import backbone, flow, objective, sequence
from jax_bridge.ki.objective import Objective, losses_of
from jax_bridge.ki.parameter_groups import BACKBONE_GROUPS, GROUPS, group_of
from jax_bridge.pi0 import Pi0, param_shapes
from jax_bridge.pi0.parameters import leaves

_spec = importlib.util.spec_from_file_location(
    "single_pass", pathlib.Path(__file__).with_name("single_pass.py")
)
single_pass = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(single_pass)
pytestmark = pytest.mark.usefixtures("quick_programs")
INSULATE, JOINT = Objective(), Objective(mode="joint")


PARTS = ("total", "tokens", "fast", "flow")


class Seen(NamedTuple):
    """What a pass over a batch gives."""

    losses: objective.Losses
    predicting: Any
    """Outputs that predict the learnt tokens."""
    velocities: Any


def _see(params, batch, draws, config, settings):
    if not settings.has_tokens:
        batch = batch.without_targets()
    done = backbone.run_backbone(params, batch.observation, config)
    velocities = flow.velocities(params, done.context, batch, draws, config)
    return Seen(losses_of(params, batch, draws, config, settings), done.predicting, velocities)


see = jax.jit(_see, static_argnames=("config", "settings"))


@functools.lru_cache(maxsize=32)
def compiled(config, settings):
    """Gradients of any weighted sum of the parts: the weights are numbers that come with the call.

    One program for all parts: compiling is most of what these tests cost.
    """

    def loss(params, batch, draws, weights):
        losses = losses_of(params, batch, draws, config, settings)
        return sum(weight * getattr(losses, part) for part, weight in weights.items()), losses

    return jax.jit(jax.grad(loss, has_aux=True))


def pull(small, settings, weights, batch=None, draws=None):
    """Gradients by path, and all losses."""
    function = compiled(small.config, settings)
    chosen = {part: np.float32(weights.get(part, 0.0)) for part in PARTS}
    found, losses = function(small.params, batch or small.batch, draws or small.draws, chosen)
    return {path: np.asarray(leaf) for path, leaf in leaves(found)}, losses


def gradients(small, settings=None, part="total", batch=None):
    found, losses = pull(small, settings or INSULATE, {part: 1.0}, batch)
    return float(getattr(losses, part)), found


def looked_at(small, batch=None, draws=None):
    """What an insulated pass gives."""
    given = batch or small.batch, draws or small.draws
    return see(small.params, *given, small.config, INSULATE)


def assert_close_gradients(found, wanted, relative):
    """Each leaf to a share of its own size; rounding of the whole where a leaf is zero by maths.

    (A key's bias moves all scores of a query alike: its gradient is rounding and nothing else.)
    """
    whole = max(np.abs(leaf).max() for leaf in wanted.values())
    for path, leaf in wanted.items():
        limit = 2 * relative * np.abs(leaf).max() + 1e-7 * whole
        np.testing.assert_allclose(found[path], leaf, rtol=0, atol=limit, err_msg=path)


def in_groups(found, groups):
    return {path: leaf for path, leaf in found.items() if group_of(path) in groups}


def test_1_the_flow_loss_leaves_every_backbone_leaf_untouched_when_insulated(small):
    _, found = gradients(small, INSULATE, "flow")
    for path, leaf in in_groups(found, BACKBONE_GROUPS).items():
        assert not leaf.any(), path
    assert all(leaf.any() for leaf in in_groups(found, ("expert",)).values())


def test_2_joint_training_sends_the_flow_into_keys_and_values_of_all_layers(small):
    _, found = gradients(small, JOINT, "flow")
    key_value = found["PaliGemma/llm/layers/attn/kv_einsum/w"]
    assert all(layer.any() for layer in key_value.reshape(small.config.depth * 2, -1))
    assert found["PaliGemma/llm/embedder/input_embedding"].any()
    assert all(leaf.any() for leaf in in_groups(found, ("vision",)).values())
    # What only the last layer's output and the final norm would need gets nothing.
    for name in ("attn/q_einsum", "attn/attn_vec_einsum"):
        assert not found[f"PaliGemma/llm/layers/{name}/w"][-1].any()
    assert not found["PaliGemma/llm/layers/mlp/linear"][-1].any()
    assert not found["PaliGemma/llm/final_norm/scale"].any()


def test_3_the_token_loss_leaves_the_expert_untouched_and_groups_are_complete(small):
    _, found = gradients(small, INSULATE, "tokens")
    for path, leaf in in_groups(found, ("expert",)).items():
        assert not leaf.any(), path
    for path, leaf in in_groups(found, BACKBONE_GROUPS).items():
        assert leaf.any(), path
    counts = {
        group: sum(group_of(p) == group for p in param_shapes(small.config)) for group in GROUPS
    }
    assert sum(counts.values()) == len(param_shapes(small.config))
    assert all(counts.values())
    expert = {p for p in found if group_of(p) == "expert"}
    assert all("_1" in p or not p.startswith("PaliGemma/") for p in expert)


def test_4_backbone_gradients_do_not_depend_on_the_flow_weight_and_expert_ones_scale(small):
    _, one = gradients(small, INSULATE)
    _, eight = gradients(small, Objective(flow_weight=8.0))
    for path in one:
        factor = 8 if group_of(path) == "expert" else 1
        np.testing.assert_array_equal(eight[path], factor * one[path], err_msg=path)


def predicting(small, batch):
    return np.asarray(looked_at(small, batch).predicting)


def velocities(small, batch):
    return np.asarray(looked_at(small, batch).velocities)


def test_5_fast_logits_do_not_see_actions_noise_or_time(small):
    before = looked_at(small)
    other = dataclasses.replace(small.batch, actions=small.batch.actions + 1)
    draws = flow.FlowDraws(small.draws.noise * 2, small.draws.time / 2)
    after = looked_at(small, other, draws)
    assert float(before.losses.flow) != float(after.losses.flow)
    np.testing.assert_array_equal(before.predicting, after.predicting)
    for name in ("tokens", "fast", "text", "fast_accuracy"):
        np.testing.assert_array_equal(getattr(before.losses, name), getattr(after.losses, name))


@functools.lru_cache(maxsize=4)
def with_longer_padding(small):
    """The model for longer prompts, and what it gives for the same batch with longer padding."""

    def longer(array, more):
        return np.pad(array, ((0, 0), (0, more)))

    given = small.batch.observation
    added = {"tokenized_prompt": 9, "text_target": 3, "fast_action": 5}
    changes = {
        name: longer(getattr(given, name), more)
        for stem, more in added.items()
        for name in TOKENS[stem]
    }
    config = dataclasses.replace(small.config, max_token_len=small.config.max_token_len + 9)
    return see(small.params, small.observe(**changes), small.draws, config, INSULATE)


TOKENS = {
    "tokenized_prompt": ("tokenized_prompt", "tokenized_prompt_mask"),
    "text_target": ("text_target_tokens", "text_target_mask"),
    "fast_action": ("fast_action_tokens", "fast_action_mask"),
}


def test_6_the_velocity_does_not_see_fast_tokens(small):
    given = small.batch.observation
    reference = velocities(small, small.batch)
    other = (given.fast_action_tokens + 17) * given.fast_action_mask
    changed = small.observe(fast_action_tokens=other)
    np.testing.assert_array_equal(reference, velocities(small, changed))
    fewer = given.fast_action_mask.copy()
    fewer[0, 2:] = False
    changed = small.observe(fast_action_mask=fewer)
    np.testing.assert_array_equal(reference, velocities(small, changed))
    longer = np.asarray(with_longer_padding(small).velocities)
    np.testing.assert_allclose(longer, reference, rtol=0, atol=1e-6 * np.abs(reference).max())


def without_text(small):
    nothing = np.zeros_like(small.batch.observation.text_target_mask)
    return small.observe(text_target_mask=nothing)


def test_7_training_and_inference_have_the_same_velocity(small):
    """Inference has neither FAST nor text; its prefix pass is the policy's own."""
    batch = without_text(small)
    training = flow.squared_errors(jnp.asarray(velocities(small, batch)), batch, small.draws)
    loss = Pi0(small.config).flow_loss
    for k in range(2):
        inference = loss(
            small.params, batch.without_targets().observation, batch.actions,
            noise=small.draws.noise[k], time=small.draws.time[k],
        )  # fmt: skip
        np.testing.assert_allclose(
            np.asarray(training)[k].mean(-1), inference, rtol=1e-5, atol=1e-5
        )


def test_8_insulation_changes_no_value_and_flow_only_is_openpis_loss(small):
    joint = see(small.params, small.batch, small.draws, small.config, JOINT)
    for a, b in zip(looked_at(small).losses, joint.losses, strict=True):
        np.testing.assert_array_equal(a, b)
    alone = see(small.params, small.batch, small.draws, small.config, Objective(mode="flow_only"))
    plain = small.batch.without_targets().observation
    expected = [
        np.mean(
            Pi0(small.config).flow_loss(
                small.params, plain, small.batch.actions,
                noise=small.draws.noise[k], time=small.draws.time[k],
            )
        )
        for k in range(2)
    ]  # fmt: skip
    np.testing.assert_allclose(alone.losses.flow, np.mean(expected), rtol=1e-5)
    assert float(alone.losses.tokens) == 0


def reference(config, batch):
    """Gradients and losses of the single pass, by (params, noise, time, insulate)."""
    if config not in REFERENCES:

        def total(params, noise, time, insulate):
            losses = single_pass.losses(
                params, batch, noise, time, config, insulate=insulate, weight=0.7, flow_weight=1.3
            )
            return losses[0], losses

        REFERENCES[config] = jax.jit(jax.grad(total, has_aux=True))
    return REFERENCES[config]


REFERENCES: dict[Any, Any] = {}


@pytest.mark.parametrize("settings", [INSULATE, JOINT], ids=lambda settings: settings.mode)
def test_9_two_passes_equal_one_pass_with_stopped_gradients(small, settings):
    noise, time = small.draws
    twice = flow.FlowDraws(noise[jnp.array([0, 0])], time[jnp.array([0, 0])])
    found, here = pull(small, settings, {"tokens": 0.7, "flow": 1.3}, draws=twice)
    insulate = jnp.asarray(settings is INSULATE)
    with jax.default_matmul_precision("highest"):
        wanted, losses = reference(small.config, small.batch)(
            small.params, noise[0], time[0], insulate
        )
    np.testing.assert_allclose(here.tokens, losses[1], rtol=1e-5)
    np.testing.assert_allclose(here.flow, losses[2], rtol=1e-5)
    assert_close_gradients(found, {path: np.asarray(leaf) for path, leaf in leaves(wanted)}, 1e-5)


def test_10_the_whole_mask_is_the_table_of_the_specification(small):
    groups, valid, positions = single_pass.sequence_of(small.config, small.batch)
    table = (
        single_pass.table_of_the_specification(groups)[None] & valid[:, None] & valid[:, :, None]
    )
    targets = sequence.targets_of(small.batch.observation)
    size = small.config.image_tokens + small.batch.observation.tokenized_prompt.shape[1]
    prefix = jnp.asarray(valid[:, :size])
    n = groups.index("A" if small.config.pi05 else "S")
    np.testing.assert_array_equal(sequence.backbone_attention(prefix, targets), table[:, :n, :n])
    found = np.asarray(sequence.backbone_positions(prefix, targets))
    np.testing.assert_array_equal(found[valid[:, :n]], positions[:, :n][valid[:, :n]])
    assert not table[:, :n, n:].any()  # nothing on the backbone attends to the expert
    context = n - targets.fast.shape[1]
    from jax_bridge.pi0 import embedding

    mask = sequence.context_mask(prefix, targets)
    own = np.concatenate([table[:, n:, :context], table[:, n:, n:]], axis=-1)
    np.testing.assert_array_equal(embedding.suffix_attention(mask, small.config), own)
    assert not table[:, n:, context:n].any()  # and the expert never attends to FAST
    np.testing.assert_array_equal(embedding.suffix_positions(mask, small.config), positions[:, n:])


def test_11_text_and_fast_are_causal(small):
    reference, given = predicting(small, small.batch), small.batch.observation
    text = given.text_target_tokens.shape[1]
    changed = given.fast_action_tokens.copy()
    changed[0, 4] += 3
    after = predicting(small, small.observe(fast_action_tokens=changed))
    same = (reference == after).all(-1)[0]
    # The output that predicts token j has seen the tokens before j.
    assert same[text : text + 5].all()
    assert not same[text + 5]
    words = given.text_target_tokens.copy()
    words[2, 1] += 3
    after = predicting(small, small.observe(text_target_tokens=words))
    same = (reference == after).all(-1)[2]
    assert same[:2].all()
    assert not same[2]


def test_12_longer_padding_and_what_a_masked_camera_shows_change_nothing(small):
    before = looked_at(small).losses.total
    np.testing.assert_allclose(with_longer_padding(small).losses.total, before, rtol=1e-6)
    given = small.batch.observation
    shown = {**given.images, "right_wrist_0_rgb": given.images["right_wrist_0_rgb"].copy()}
    shown["right_wrist_0_rgb"][2] = 0.5  # masked in sample 2
    after = looked_at(small, small.observe(images=shown)).losses.total
    np.testing.assert_allclose(after, before, rtol=1e-6)


def test_12_a_camera_that_no_sample_has_may_be_left_out(small):
    given = small.batch.observation
    masks = {**given.image_masks, "right_wrist_0_rgb": np.zeros(len(given.state), bool)}
    masked = small.observe(image_masks=masks)
    fewer = small.observe(
        images={k: v for k, v in given.images.items() if k != "right_wrist_0_rgb"},
        image_masks={k: v for k, v in masks.items() if k != "right_wrist_0_rgb"},
    )
    fewer.check(small.config)
    alone = see(small.params, fewer, small.draws, small.config, INSULATE).losses
    np.testing.assert_allclose(alone.total, looked_at(small, masked).losses.total, rtol=1e-6)
    with pytest.raises(
        ValueError, match=r"`images` must have the keys .* but got base_0_rgb, left"
    ):
        fewer.observation.check(small.config)
    unmasked = dataclasses.replace(fewer.observation, image_masks=masks)
    with pytest.raises(ValueError, match="`image_masks` must have the keys of `images`"):
        unmasked.check(small.config, every_camera=False)


def test_13_the_first_token_is_predicted_by_the_last_valid_one_before_it(small):
    valid = np.array([[1, 1, 0, 1, 0], [1, 0, 0, 0, 0]], bool)
    targets = sequence.Targets(
        jnp.zeros((2, 3), int), jnp.array([[1, 1, 0], [0, 0, 0]], bool),
        jnp.zeros((2, 2), int), jnp.ones((2, 2), bool),
    )  # fmt: skip
    # places: prefix 0..4, text 5..7, FAST 8..9
    found = sequence.predictors(jnp.asarray(valid), targets)
    assert found.tolist() == [[3, 5, 6, 6, 8], [0, 5, 6, 0, 8]]


def test_13_the_last_token_of_a_sequence_is_supervised_whatever_it_is(small):
    given = small.batch.observation
    for item, last in ((0, 6), (1, 2)):
        changed = given.fast_action_tokens.copy()
        changed[item, last] += 1
        before = looked_at(small).losses.fast
        after = looked_at(small, small.observe(fast_action_tokens=changed)).losses.fast
        assert float(before) != float(after)


def test_14_samples_without_actions_or_targets_count_for_nothing(small):
    blind = dataclasses.replace(small.batch, action_mask=np.array([True, False, True]))
    before, found = gradients(small, part="flow", batch=blind)
    moved = blind.actions.copy()
    moved[1] += 5
    after, same = gradients(small, part="flow", batch=dataclasses.replace(blind, actions=moved))
    assert before == after
    for path in found:
        np.testing.assert_array_equal(found[path], same[path])
    nobody = dataclasses.replace(small.batch, action_mask=np.zeros(3, bool))
    value, found = gradients(small, part="flow", batch=nobody)
    assert value == 0
    assert not any(leaf.any() for leaf in found.values())
    masks = {"fast_action_mask": np.zeros((3, 7), bool), "text_target_mask": np.zeros((3, 4), bool)}
    value, found = gradients(small, part="tokens", batch=small.observe(**masks))
    assert value == 0
    assert all(np.isfinite(leaf).all() and not leaf.any() for leaf in found.values())
    plain = small.batch.without_targets()
    alone = see(small.params, plain, small.draws, small.config, INSULATE).losses
    assert float(alone.tokens) == 0


def test_14_steps_behind_the_end_of_the_episode_are_not_learnt(small):
    pad = np.zeros_like(small.batch.action_is_pad)
    pad[0, 3:] = True
    batch = dataclasses.replace(small.batch, action_is_pad=pad)
    moved = batch.actions.copy()
    moved[0, 3:] = 9.0
    velocity = jnp.asarray(velocities(small, batch))
    errors = flow.squared_errors(velocity, batch, small.draws)
    mean = np.asarray(flow.mean_flow_error(errors, batch, mask_dims=False))
    np.testing.assert_allclose(mean[:, 0], np.asarray(errors)[:, 0, :3].mean((1, 2)), rtol=1e-6)
    dims = np.arange(6) < 4
    batch = dataclasses.replace(batch, action_dims=dims)
    mean = np.asarray(flow.mean_flow_error(errors, batch, mask_dims=True))
    np.testing.assert_allclose(mean[:, 0], np.asarray(errors)[:, 0, :3, :4].mean((1, 2)), rtol=1e-6)


@pytest.mark.parametrize("small", ["pi05_micro"], indirect=True)
def test_15_chunks_and_recomputation_change_neither_value_nor_gradient(small):
    value, found = gradients(small, JOINT)
    other, same = gradients(small, dataclasses.replace(JOINT, token_chunk=2, remat=True))
    np.testing.assert_allclose(other, value, rtol=1e-6)
    assert_close_gradients(same, found, 1e-5)


def test_15_cross_entropy_is_that_of_dense_logits(small):
    outputs = predicting(small, small.batch)
    tokens = np.asarray(sequence.targets_of(small.batch.observation).tokens)
    scores = backbone.score_tokens(small.params, jnp.asarray(outputs), jnp.asarray(tokens), chunk=2)
    table = np.asarray(small.params["PaliGemma"]["llm"]["embedder"]["input_embedding"])
    logits = outputs.astype(np.float64) @ table.T.astype(np.float64)
    logp = logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
    logp = logp - logits.max(-1, keepdims=True)
    expected = -np.take_along_axis(logp, tokens[..., None], -1)[..., 0]
    np.testing.assert_allclose(scores.cross_entropy, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(scores.best, logits.argmax(-1))


def test_15_bfloat16_stays_near_float32(small):
    half = dataclasses.replace(small.config, dtype="bfloat16")
    settings = Objective(knowledge_insulation_lambda=0.5, flow_weight=2.0)
    exact = looked_at(small).losses
    near = see(small.params, small.batch, small.draws, half, settings).losses
    for name in ("tokens", "flow"):
        np.testing.assert_allclose(getattr(near, name), getattr(exact, name), rtol=0.03)
    np.testing.assert_allclose(near.total, 0.5 * near.tokens + 2.0 * near.flow, rtol=1e-6)


def test_18_times_lie_on_the_flow_and_have_the_mean_of_their_distribution(small):
    draws = flow.draw_flow(jax.random.key(0), 200, 100, small.config)
    assert float(draws.time.min()) >= 0.001
    assert float(draws.time.max()) <= 1.0
    # Beta(1.5, 1) has mean 0.6 and deviation 0.262.
    assert abs(float(draws.time.mean()) - (0.6 * 0.999 + 0.001)) < 5 * 0.262 / 20_000**0.5
    assert abs(float(draws.time.std()) - 0.262 * 0.999) < 0.01
    assert abs(float(draws.noise.mean())) < 0.01


def test_18_the_true_velocity_leads_from_noise_to_the_action():
    random = np.random.default_rng(0)
    action, noise = random.normal(size=(2, 4, 3))
    x = noise.copy()
    for _ in range(10):
        x -= 0.1 * (noise - action)  # the flow's velocity is constant along its path
    np.testing.assert_allclose(x, action, atol=1e-12)


def test_errors_by_time_add_up_to_the_loss(small):
    losses = looked_at(small).losses
    counts = np.asarray(losses.flow_count_by_time)
    places = np.clip((small.draws.time * objective.TIME_BINS).astype(int), 0, 9)
    np.testing.assert_array_equal(counts, np.bincount(places.reshape(-1), minlength=10))
    np.testing.assert_allclose(losses.flow_sum_by_time.sum() / 6, losses.flow, rtol=1e-5)


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match=r"`mode` must be one of insulate, .*, but got 'both'"):
        Objective(mode="both")
    with pytest.raises(ValueError, match=r"`flow_weight` must not be negative, but got -1\.0"):
        Objective(flow_weight=-1.0)
    with pytest.raises(ValueError, match="must be positive, but got 0"):
        Objective(flow_samples=0)


def test_targets_without_their_mask_are_refused(small):
    with pytest.raises(ValueError, match="`fast_action_mask` must be given"):
        small.observe(fast_action_mask=None).check(small.config)
    small.batch.check(small.config)
