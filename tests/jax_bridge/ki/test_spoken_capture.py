"""Latents of decoding: one token a step, the same as a teacher-forced pass computes."""

import dataclasses
import functools
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jax_bridge.interventions import Place, Replacement
from jax_bridge.ki import sequence
from jax_bridge.ki.decoding import decode_fast
from jax_bridge.ki.spoken_capture import plan_spoken
from jax_bridge.pi0 import CaptureSpec, embedding, gemma
from jax_bridge.pi0.changing import plan_changes
from jax_bridge.pi0.recording import find_regions

LENGTH, LAYERS = 6, (1,)
SITES = (
    "hidden_states", "post_attn_embedding", "mlp_activation", "pre_attn_norm_scale",
    "pre_mlp_norm_scale",
)  # fmt: skip
SEEN = ("image_base", "image_left_wrist", "image_right_wrist", "text", "fast")
LOOKS = tuple(
    f"vlm.attention.fast_to_{seen}.{pool}" for seen in SEEN for pool in ("tokens", "mean")
)
SPEC = CaptureSpec(
    names=LOOKS,
    experts=("vlm",),
    sites=SITES,
    regions=("fast", "text"),
    pools=("tokens", "mean", "last", "max"),
    layers=LAYERS,
)
pytestmark = pytest.mark.parametrize("small", ["pi05_micro"], indirect=True)


@functools.partial(jax.jit, static_argnames=("config", "plan", "places"))
def decode(params, observation, end, *, config, plan, places=None, maps=()):
    changes = None if places is None else (places, maps)
    return decode_fast(
        params, observation, config, length=LENGTH, end=end, plan=plan, changes=changes
    )


@functools.partial(jax.jit, static_argnames="config")
def teacher_forced(params, observation, *, config):
    prefix = embedding.embed_prefix(params, observation, config)
    targets = sequence.targets_of(observation)
    said = embedding.embed_tokens(params, targets.tokens, config)
    positions = sequence.backbone_positions(prefix.mask, targets)
    done = gemma.run_layers(
        gemma.stack_layers(params["PaliGemma"]["llm"], "", config.jax_dtype),
        jax.numpy.concatenate([prefix.tokens, said], axis=1),
        sequence.backbone_attention(prefix.mask, targets),
        gemma.rope(positions, config.vlm.head_dim),
        config.vlm,
        record=lambda taps: {site: taps[site] for site in (*SITES, "attention")},
    )
    return {site: jax.numpy.moveaxis(value, 1, 0) for site, value in done.recorded.items()}


@pytest.fixture(scope="module")
def said(small):
    """What is said where the first row ends early, with capture and without."""
    observation = small.batch.observation
    plan = plan_spoken(SPEC, small.config, LENGTH)
    run = functools.partial(decode, small.params, observation, config=small.config)
    free = np.asarray(run(np.asarray([-1, -1]), plan=None).tokens)
    ends = np.asarray([free[0, 2], -1])
    return SimpleNamespace(
        free=free, ends=ends, plan=plan, observation=observation,
        plain=jax.device_get(run(ends, plan=None)), captured=jax.device_get(run(ends, plan=plan)),
    )  # fmt: skip


def test_tokens_do_not_depend_on_capture(said):
    assert said.plain.latents is None
    np.testing.assert_array_equal(said.plain.tokens, said.captured.tokens)
    np.testing.assert_array_equal(said.plain.mask, said.captured.mask)
    assert said.plain.mask.sum() < said.plain.mask.size


def test_any_of_several_marks_ends_a_sample(small, said):
    swapped = decode(
        small.params, said.observation, said.ends[::-1], config=small.config, plan=None
    )
    np.testing.assert_array_equal(swapped.tokens, said.plain.tokens)
    first = int(np.argmax(said.free[0] == said.ends[0]))
    assert said.plain.mask[0].sum() == first + 1
    assert said.plain.tokens[0, first] == said.ends[0]


def test_latents_are_what_the_plan_promises(said):
    fields = said.plan.fields()
    assert set(fields) == set(said.captured.latents)
    for name, field in fields.items():
        value = said.captured.latents[name]
        assert value.shape == (len(said.captured.tokens), *field.shape), name
        assert value.dtype == field.numpy_dtype, name
    axes = fields["vlm.hidden_states.fast.tokens"].axes
    assert axes == ("layer", "ar_step", "width")
    assert fields["vlm.hidden_states.fast.tokens"].layers == LAYERS
    assert fields["vlm.pre_mlp_norm_scale.fast.tokens"].axes == ("layer", "ar_step")
    assert fields["vlm.hidden_states.fast.mean"].axes == ("layer", "width")
    assert fields["mask.fast"].axes == ("ar_step",)


def test_latents_of_every_step_and_chosen_layer_equal_a_teacher_forced_pass(small, said):
    tokens, mask = said.captured.tokens, said.captured.mask
    asked = dataclasses.replace(
        said.observation.without_targets(), fast_action_tokens=tokens, fast_action_mask=mask
    )
    forced = jax.device_get(teacher_forced(small.params, asked, config=small.config))
    latents = said.captured.latents
    np.testing.assert_array_equal(latents["mask.fast"], mask)
    text = said.observation.tokenized_prompt_mask
    for site in SITES:
        found = latents[f"vlm.{site}.fast.tokens"]
        layers = forced[site][:, list(LAYERS)]
        wanted = layers[:, :, -LENGTH:]
        for row, valid in enumerate(mask):
            np.testing.assert_allclose(
                found[row][:, valid], wanted[row][:, valid], rtol=1e-4, atol=2e-5, err_msg=site
            )
            assert not found[row][:, ~valid].any()
            read = latents[f"vlm.{site}.text.tokens"][row][:, text[row]]
            before = layers[row, :, -LENGTH - text.shape[1] : -LENGTH][:, text[row]]
            np.testing.assert_allclose(read, before, rtol=1e-4, atol=2e-5, err_msg=site)


def test_pools_are_over_the_steps_that_were_needed(said):
    latents, mask = said.captured.latents, said.captured.mask
    for site in SITES:
        tokens = latents[f"vlm.{site}.fast.tokens"]
        for row, valid in enumerate(mask):
            steps = tokens[row][:, valid].astype(np.float64)
            for pool, wanted in (
                ("mean", steps.mean(1)), ("max", steps.max(1)), ("last", steps[:, -1])
            ):  # fmt: skip
                found = latents[f"vlm.{site}.fast.{pool}"][row]
                np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    assert latents["valid.fast"].all()


def test_what_said_tokens_look_at_equals_a_teacher_forced_pass(small, said):
    tokens, mask = said.captured.tokens, said.captured.mask
    asked = dataclasses.replace(
        said.observation.without_targets(), fast_action_tokens=tokens, fast_action_mask=mask
    )
    forced = teacher_forced(small.params, asked, config=small.config)["attention"]
    whole = np.asarray(forced)[:, list(LAYERS)]  # [b, layer, n, t, g, s]
    whole = np.moveaxis(whole, 4, 3).reshape(*whole.shape[:2], -1, *whole.shape[3::2])
    regions = find_regions(said.observation, small.config)
    for row, valid in enumerate(mask):
        steps = whole[row, :, :, -LENGTH:][:, :, valid]  # [layer, head, step, s]
        total = 0
        for seen in SEEN:
            if seen == "fast":
                due = steps[..., -LENGTH:].sum(-1)
            else:
                start, stop = regions[seen].span
                due = steps[..., start:stop][..., np.asarray(regions[seen].mask[row])].sum(-1)
            due = np.moveaxis(due, 1, 2)  # [layer, step, head]
            found = said.captured.latents[f"vlm.attention.fast_to_{seen}.tokens"][row]
            np.testing.assert_allclose(found[:, valid], due, atol=2e-5, err_msg=seen)
            assert not found[:, ~valid].any()
            mean = said.captured.latents[f"vlm.attention.fast_to_{seen}.mean"][row]
            np.testing.assert_allclose(mean, due.mean(1), atol=2e-5, err_msg=seen)
            total = total + found[:, valid]
        np.testing.assert_allclose(total, 1.0, atol=1e-5)


def place(**words):
    known = {"expert": "vlm", "site": "hidden_states", "region": "fast", "pool": "mean"}
    return Place(**{**known, **words})


def test_said_tokens_and_the_prompt_are_changed_as_written_before_anything_reads_them(small, said):
    draws = np.random.default_rng(0).normal(size=(2, 64)).astype(np.float32)
    found = [
        Replacement(place=place(layer=LAYERS[0]), value=draws[0]),
        Replacement(place=place(region="text", layer=0), value=draws[1]),
    ]
    places, maps = plan_changes(found, small.config, 1, speaks=True)
    changed = decode(
        small.params, said.observation, said.ends, config=small.config, plan=said.plan,
        places=places, maps=maps,
    )  # fmt: skip
    name, mask = "vlm.hidden_states.{}.tokens", np.asarray(changed.mask)
    kept = np.moveaxis(np.asarray(changed.latents[name.format("fast")]), 1, 2)[mask]
    np.testing.assert_array_equal(kept, np.broadcast_to(draws[0], kept.shape))
    read = (latents[name.format("text")] for latents in (changed.latents, said.captured.latents))
    assert (np.abs(np.subtract(*map(np.asarray, read))).max(axis=(1, 2, 3)) > 0.01).all()


def test_places_that_a_speaking_backbone_has_not_are_refused(small):
    def plan(found):
        plan_changes([found], small.config, 1, speaks=True)

    vector, block = np.zeros(64, np.float32), np.zeros((LENGTH, 64), np.float32)
    with pytest.raises(ValueError, match=r"`expert` must be one of vlm to be .*got 'action'"):
        plan(Replacement(place=place(expert="action", region="action"), value=vector))
    with pytest.raises(ValueError, match=r"`pool` must not be last in vlm.hidden_states.fast.last"):
        plan(Replacement(place=place(pool="last"), value=vector))
    with pytest.raises(ValueError, match=r"one vector for all tokens that are said, but got 6"):
        plan(Replacement(place=place(), value=block))
    with pytest.raises(ValueError, match=r"`region` must be one of .* but got 'fast'"):
        plan_changes([Replacement(place=place(), value=vector)], small.config, 10)


def test_what_a_backbone_by_itself_has_not_is_refused_or_left_out(small):
    with pytest.raises(ValueError, match=r"got action.velocity.action.tokens: the backbone acts"):
        plan_spoken(CaptureSpec(names=("action.velocity.action.tokens",)), small.config, LENGTH)
    pooled = plan_spoken(CaptureSpec.preset("pooled"), small.config, LENGTH).fields()
    assert {name.split(".")[0] for name in pooled} == {"vlm", "valid"}
    spoken = plan_spoken(CaptureSpec.preset("ar_steps"), small.config, LENGTH).fields()
    assert spoken["vlm.hidden_states.fast.tokens"].shape == (2, LENGTH, 64)
    assert spoken["vlm.attention.fast_to_fast.tokens"].axes == ("layer", "ar_step", "head")


def test_a_policy_that_decodes_nothing_says_which_one_does(small):
    spec = CaptureSpec(names=("vlm.hidden_states.fast.tokens",))
    with pytest.raises(ValueError, match=r"fast.tokens: no token is decoded; --policy fast does"):
        spec.fields(small.config)
