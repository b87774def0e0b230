"""Attention from region to region: what is kept is what a look at the whole matrix gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_bridge.pi0 import CaptureSpec, Pi0Config, embedding, gemma, sampler
from jax_bridge.pi0.capture_plan import region_spans
from jax_bridge.pi0.recording import find_regions
from jax_bridge.vocabulary import IMAGE_REGIONS
from tests.jax_bridge.pi0.test_capture import capture, observe

WHOLE = ("vlm.attention.text_to_image_base.tokens", "action.attention.action_to_action.tokens")


@pytest.fixture(scope="module")
def pooled(micro):
    """All pairs pooled, and two of them whole."""
    names = (*CaptureSpec.preset("attention").names, *WHOLE)
    spec = CaptureSpec.preset("attention", names=names)
    return capture(micro, spec, num_steps=2)[1]


def looks(pooled, expert, looking, seen):
    return pooled[f"{expert}.attention.{looking}_to_{seen}.mean"]


def parts(config, expert):
    """Regions that share no token and hold all that an expert's tokens can see."""
    own = [r for r in ("state", "action") if r in region_spans(config)]
    return [*IMAGE_REGIONS, "text", *(own if expert == "action" else [])]


@pytest.mark.parametrize("expert", ["vlm", "action"])
def test_a_region_spends_its_attention_once(micro, pooled, expert):
    everything = parts(micro.model.config, expert)
    for looking in parts(micro.model.config, expert)[-1:]:
        total = sum(looks(pooled, expert, looking, seen) for seen in everything)
        np.testing.assert_allclose(total, 1.0, atol=1e-6)


def test_nobody_looks_at_a_camera_that_is_masked(micro, pooled):
    observation = observe(micro)
    masked = [
        (row, f"image_{key.removesuffix('_rgb').removesuffix('_0')}")
        for key, mask in observation.image_masks.items()
        for row in np.flatnonzero(~np.asarray(mask))
    ]
    assert masked
    for row, region in masked:
        assert (looks(pooled, "action", "action", region)[row] == 0).all()
        assert (looks(pooled, "vlm", region, "text")[row] == 0).all()
        assert not pooled[f"valid.{region}"][row]


def test_pooling_is_that_of_the_whole_matrix(micro, pooled):
    config, observation = micro.model.config, observe(micro)
    params, noise = micro.params, jnp.asarray(micro.inputs["sample_noise"])
    regions = find_regions(observation, config)
    prefix = sampler.run_prefix(
        params, embedding.embed_prefix(params, observation, config), config,
        record=lambda taps: taps["attention"],
    )  # fmt: skip
    suffix = sampler.prepare_suffix(params, prefix, config)
    conditions = sampler.prepare_conditions(params, jnp.ones(2), config)
    first = sampler.velocity(
        params, suffix, jnp.asarray(observation.state), noise, conditions,
        config, record=lambda taps: taps["attention"],
    )  # fmt: skip
    tokens = prefix.mask.shape[1]
    for expert, whole, kept in (
        ("vlm", prefix.recorded, lambda value: value),
        ("action", first.recorded, lambda value: value[:, :, 0]),
    ):
        whole = np.asarray(whole)  # [layers, b, n, t, g, s]
        for looking in ("instruction", "text") if expert == "vlm" else ("action",):
            for seen in ("image_base", "instruction", *(() if expert == "vlm" else ("action",))):
                value = kept(looks(pooled, expert, looking, seen))
                assert value.shape == (2, config.depth, getattr(config, expert).heads)
                for row in range(2):
                    places = [
                        np.flatnonzero(np.asarray(regions[r].mask[row])) + regions[r].span[0]
                        for r in (looking, seen)
                    ]
                    places[1] += tokens if seen == "action" else 0
                    part = whole[:, row][:, :, places[0]][..., places[1]]
                    due = part.sum(-1).mean(2).reshape(config.depth, -1)
                    np.testing.assert_allclose(value[row], due, atol=1e-6)


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_matrix_holds_what_was_pooled_and_zeros_where_nothing_is_valid(micro, pooled, name):
    expert, _, pair, _ = name.split(".")
    looking, seen = pair.split("_to_")
    config, matrix = micro.model.config, pooled[name]
    spec = CaptureSpec(names=(name,)).fields(config, num_steps=2)[name]
    assert spec.axes[-3:] == ("head", "looking", "seen")
    assert matrix.shape == (2, *spec.shape)
    regions = find_regions(observe(micro), config)
    valid, visible = (np.asarray(regions[region].mask) for region in (looking, seen))
    for row in range(2):
        mean = matrix[row].sum(-1)[..., valid[row]].mean(-1)
        np.testing.assert_allclose(mean, looks(pooled, expert, looking, seen)[row], atol=1e-6)
        assert not matrix[row][..., ~valid[row], :].any()
        assert not matrix[row][..., ~visible[row]].any()
    if looking in ("text", "instruction"):  # actions are always valid
        np.testing.assert_array_equal(pooled[f"mask.{looking}"], valid)


def test_whole_matrices_that_would_fill_the_memory_are_refused():
    released = Pi0Config.preset("pi0")
    name = "action.attention.action_to_image_base.tokens"
    every = ("image_base", "image_left_wrist", "image_right_wrist", "text")
    names = tuple(f"vlm.attention.{a}_to_{b}.tokens" for a in every for b in every)
    assert CaptureSpec(names=(name,)).bytes_per_call(released) > 70e6
    with pytest.raises(ValueError, match=r"at most 256 MB of whole attention .*, but got 384 MB"):
        CaptureSpec(names=names).fields(released)
    assert CaptureSpec(names=names, layers=(3, 4)).fields(released)


def test_probabilities_are_those_that_mix_the_values():
    keys = jax.random.split(jax.random.key(0), 3)
    query = jax.random.normal(keys[0], (2, 5, 4, 8))
    key, value = (jax.random.normal(k, (2, 7, 2, 8)) for k in keys[1:])
    mask = jnp.arange(7)[None, None] < jnp.arange(3, 8)[None, :, None]
    attended = gemma.attend(query, key, value, jnp.broadcast_to(mask, (2, 5, 7)))
    mixed = jnp.einsum("bntgs,bsnd->btngd", attended.probabilities, value).reshape(2, 5, -1)
    np.testing.assert_allclose(attended.mixed, mixed, atol=1e-6)
    np.testing.assert_allclose(attended.probabilities.sum(-1), 1.0, atol=1e-6)
    hidden = ~np.broadcast_to(mask[:, None, :, None], attended.probabilities.shape)
    assert (np.asarray(attended.probabilities)[hidden] == 0).all()


def test_pairs_that_cannot_be_are_refused():
    for name in (
        "vlm.attention.text_to_action.mean",
        "action.attention.text_to_action.mean",
        "vlm.attention.text_to_text.max",
    ):
        with pytest.raises(ValueError, match=r"attention of expert|`region`"):
            CaptureSpec(names=(name,))
