"""Capture: it changes no action, keeps identities, and pools what it says it pools."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_bridge.pi0 import CaptureSpec, Pi0, cast_params, sampler
from jax_bridge.pi0.capture_plan import flow_times
from jax_bridge.vocabulary import IMAGE_REGIONS, RESIDUAL_SITES, SAMPLER_SITES, SCALE_SITES

ALL_SITES = (*RESIDUAL_SITES, *SCALE_SITES, *SAMPLER_SITES)
ALL_POOLS = ("tokens", "mean", "last", "max")
EVERYTHING = CaptureSpec(sites=ALL_SITES, pools=ALL_POOLS)
TEXT_PARTS = ("instruction", "state_text")


def observe(golden):
    """The golden's observation, with the parts of the prompt marked."""
    place = np.arange(golden.model.config.max_token_len)[None].repeat(2, axis=0)
    return dataclasses.replace(
        golden.observation,
        instruction_mask=(place >= 2) & (place < np.array([[9], [5]])),
        state_text_mask=(place >= 10) & (place < 14),
    )


def capture(golden, spec, **keywords):
    keywords = {"noise": golden.inputs["sample_noise"], **keywords}
    actions, latents = golden.model.sample_actions(
        golden.params, observe(golden), capture=spec, **keywords
    )
    return np.asarray(actions), {name: np.asarray(value) for name, value in latents.items()}


@pytest.fixture(scope="module")
def everything(micro):
    return capture(micro, EVERYTHING)


@pytest.fixture(scope="module")
def plain(micro):
    noise = micro.inputs["sample_noise"]
    return np.asarray(micro.model.sample_actions(micro.params, observe(micro), noise=noise))


SPECS = {
    "pooled": CaptureSpec.preset("pooled"),
    "tokens": CaptureSpec.preset("tokens"),
    "one expert": CaptureSpec(experts=("vlm",), sites=("mlp_activation",), pools=("max",)),
    "attention": CaptureSpec.preset("attention"),
    "sampler only": CaptureSpec(experts=("action",), sites=("x_t",), flow_times=(0.5,)),
    "chosen layers": CaptureSpec(
        sites=("hidden_states", "pre_mlp_norm_scale", *SAMPLER_SITES),
        pools=("tokens", "max"),
        layers=(3, 1),
        flow_times=(0.3, 0.8),
    ),
}


@pytest.mark.parametrize("name", SPECS)
def test_actions_with_capture_are_bitwise_those_without(micro, plain, name):
    actions, latents = capture(micro, SPECS[name])
    np.testing.assert_array_equal(actions, plain)
    assert latents


def test_capturing_everything_moves_no_action(everything, plain):
    np.testing.assert_array_equal(everything[0], plain)


@pytest.mark.parametrize("name", [*SPECS, "everything"])
def test_latents_have_the_fields_that_the_spec_foretells(micro, everything, name):
    spec = SPECS.get(name, EVERYTHING)
    latents = everything[1] if name == "everything" else capture(micro, spec)[1]
    fields = spec.fields(micro.model.config)
    assert sorted(fields) == sorted(latents)
    for field in fields.values():
        value = latents[field.name]
        assert value.shape == (2, *field.shape), field.name
        assert value.dtype == field.numpy_dtype, field.name
        assert np.isfinite(value.astype(np.float32)).all(), field.name
    total = sum(value[0].nbytes for value in latents.values())
    assert spec.bytes_per_call(micro.model.config) == total


def test_hidden_states_are_post_attn_embedding_plus_the_gated_mlp_output(micro, everything):
    """For both experts; the gate is adaRMS's in π0.5's action expert, and one elsewhere."""
    layers = micro.params["PaliGemma"]["llm"]["layers"]
    latents, config = everything[1], micro.model.config
    for expert, suffix, region in (("vlm", "", "image_base"), ("action", "_1", "action")):
        before, activation, after = (
            latents[f"{expert}.{site}.{region}.tokens"]
            for site in ("post_attn_embedding", "mlp_activation", "hidden_states")
        )
        linear = np.asarray(layers[f"mlp{suffix}"]["linear"])
        branch = np.einsum("bl...tm,lmw->bl...tw", activation, linear)
        if expert == "action" and config.pi05:
            conditions = sampler.prepare_conditions(
                micro.params, jnp.asarray(flow_times(10)), config
            )
            gates = np.split(np.asarray(conditions.layers["norm_mlp"]), 3, axis=-1)[2]
            branch = branch * gates[None, :, :, None, :]
        np.testing.assert_allclose(after, before + branch, atol=5e-5)


def test_each_block_reads_what_the_block_before_wrote(everything):
    """A norm's scale is the RMS of its input: hidden states below, or the attention's sum."""
    latents = everything[1]
    for expert, region in (("vlm", "text"), ("action", "action")):
        for site, source, offset in (
            ("pre_attn_norm_scale", "hidden_states", 1),
            ("pre_mlp_norm_scale", "post_attn_embedding", 0),
        ):
            inputs = latents[f"{expert}.{source}.{region}.tokens"].astype(np.float64)
            rms = np.sqrt(np.square(inputs).mean(axis=-1) + 1e-6)
            scale = latents[f"{expert}.{site}.{region}.tokens"]
            np.testing.assert_allclose(
                scale[:, offset:], rms[:, : rms.shape[1] - offset], rtol=1e-5
            )


def test_pools_are_those_of_the_tokens(micro, everything):
    latents = everything[1]
    regions = (*IMAGE_REGIONS, "text", *TEXT_PARTS, "state", "action")
    checked = 0
    for name in latents:
        words = name.split(".")
        if len(words) != 4 or words[3] == "tokens" or words[2] not in regions:
            continue
        expert, site, region, pool = words
        place = "text" if region in TEXT_PARTS else region
        tokens = latents[f"{expert}.{site}.{place}.tokens"].astype(np.float64)
        tokens = tokens[..., None] if site in SCALE_SITES else tokens
        value = latents[name][..., None] if site in SCALE_SITES else latents[name]
        for item in range(2):
            chosen = tokens[item][..., latents[f"mask.{region}"][item], :]
            expected = (
                np.zeros(value[item].shape) if chosen.shape[-2] == 0 else pooled(chosen, pool)
            )
            np.testing.assert_allclose(value[item], expected, rtol=1e-5, atol=2e-6, err_msg=name)
            checked += 1
    assert checked >= 2 * 5 * 3 * 6


def pooled(tokens, pool):
    if pool == "last":
        return tokens[..., -1, :]
    return tokens.mean(axis=-2) if pool == "mean" else tokens.max(axis=-2)


def test_a_region_without_a_valid_token_gives_zeros_and_says_so(micro, everything):
    latents = everything[1]
    np.testing.assert_array_equal(latents["valid.image_right_wrist"], [True, False])
    for pool in ("mean", "last", "max"):
        value = latents[f"vlm.hidden_states.image_right_wrist.{pool}"]
        assert value[0].any()
        assert not value[1].any()
    assert not latents["mask.image_right_wrist"][1].any()
    noise = micro.inputs["sample_noise"]
    spec = CaptureSpec(names=("vlm.hidden_states.instruction.mean",))
    _, unmarked = micro.model.sample_actions(
        micro.params, micro.observation, noise=noise, capture=spec
    )
    assert not np.asarray(unmarked["valid.instruction"]).any()
    assert not np.asarray(unmarked["vlm.hidden_states.instruction.mean"]).any()


def test_chosen_layers_and_flow_times_are_slices_of_all(micro, everything):
    axes = EVERYTHING.fields(micro.model.config)
    chosen = capture(micro, SPECS["chosen layers"])[1]
    assert len(chosen) >= 18
    for name, value in chosen.items():
        expected = everything[1][name]
        for axis, kept in (("layer", [1, 3]), ("flow_time", [2, 7])):
            if axis in axes[name].axes:
                expected = np.take(expected, kept, axis=1 + axes[name].axes.index(axis))
        np.testing.assert_array_equal(value, expected, err_msg=name)


def test_flow_starts_at_the_noise_and_ends_at_the_actions(micro, everything):
    actions, latents = everything
    states, velocity = (latents[f"action.{site}.action.tokens"] for site in SAMPLER_SITES)
    np.testing.assert_array_equal(states[:, 0], micro.inputs["sample_noise"])
    after = states - np.float32(0.1) * velocity
    np.testing.assert_allclose(after[:, :-1], states[:, 1:], atol=1e-6)
    np.testing.assert_allclose(after[:, -1], actions, atol=1e-6)


@pytest.mark.parametrize("micro", ["pi05_micro"], indirect=True)
def test_bfloat16_latents_keep_the_models_dtype_and_norm_scales_float32(micro):
    config = dataclasses.replace(micro.model.config, dtype="bfloat16")
    golden = dataclasses.replace(
        micro, model=Pi0(config), params=cast_params(micro.params, "bfloat16")
    )
    noise = golden.inputs["sample_noise"]
    plain = golden.model.sample_actions(golden.params, observe(golden), noise=noise, num_steps=2)
    actions, latents = capture(golden, CaptureSpec.preset("pooled"), num_steps=2)
    np.testing.assert_array_equal(actions, plain)
    assert actions.dtype == np.float32
    assert str(latents["vlm.hidden_states.text.mean"].dtype) == "bfloat16"
    assert latents["vlm.pre_attn_norm_scale.text.mean"].dtype == np.float32
    wide = CaptureSpec(names=("vlm.hidden_states.text.mean",), pooled_float32=True)
    value = capture(golden, wide, num_steps=2)[1]["vlm.hidden_states.text.mean"]
    assert value.dtype == np.float32
    narrow = latents["vlm.hidden_states.text.mean"]
    np.testing.assert_array_equal(value.astype(narrow.dtype), narrow)


def test_unselected_layers_and_steps_are_no_output_of_the_compiled_program(micro):
    """The program for one layer at one time holds no array with all layers or all times."""
    spec = CaptureSpec(
        experts=("action",), sites=("mlp_activation",), layers=(2,), flow_times=(0.5,)
    )
    shape = jax.eval_shape(
        lambda p, o, n: micro.model.sample_actions(p, o, noise=n, capture=spec),
        micro.params,
        observe(micro),
        micro.inputs["sample_noise"],
    )[1]["action.mlp_activation.action.tokens"].shape
    assert shape == (2, 1, 1, 10, 128)

    def program(spec):
        sample = functools.partial(micro.model.sample_actions, capture=spec)
        arguments = (micro.params, observe(micro), micro.inputs["sample_noise"])
        return str(jax.make_jaxpr(lambda p, o, n: sample(p, o, noise=n))(*arguments))

    text, whole = program(spec), program(dataclasses.replace(spec, layers=None, flow_times=None))
    tokens, width = micro.model.config.suffix_len, 128
    assert f"f32[10,4,2,10,{width}]" in whole
    for steps, layers in ((10, 4), (10, 1), (1, 4)):
        assert f"f32[{steps},{layers},2,10,{width}]" not in text
        assert f"f32[{steps},{layers},2,{tokens},{width}]" not in text
