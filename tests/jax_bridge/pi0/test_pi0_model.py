"""The model's door: jit, arrays, randomness and what it says of bad input."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_bridge.pi0 import (
    CaptureSpec,
    Pi0,
    Pi0Config,
    check_params,
    model,
    param_shapes,
    params_digest,
)
from jax_bridge.pi0.parameters import leaves


def change(golden, **fields):
    return dataclasses.replace(golden.observation, **fields)


def sample(golden, observation=None, **keywords):
    keywords = {"noise": golden.inputs["sample_noise"], "num_steps": 2, **keywords}
    observation = observation or golden.observation
    return golden.model.sample_actions(golden.params, observation, **keywords)


@pytest.mark.parametrize("micro", ["pi05_micro"], indirect=True)
def test_sampling_is_the_same_inside_another_jit_and_with_jax_arrays(micro):
    plain = sample(micro)
    assert plain.dtype == jnp.float32
    on_device = jax.tree.map(jnp.asarray, micro.observation)
    np.testing.assert_array_equal(plain, sample(micro, on_device))
    outer = jax.jit(
        lambda params, observation, noise: micro.model.sample_actions(
            params, observation, noise=noise, num_steps=2
        )
    )
    wrapped = outer(micro.params, micro.observation, micro.inputs["sample_noise"])
    np.testing.assert_array_equal(plain, wrapped)


@pytest.mark.parametrize("micro", ["pi0_micro"], indirect=True)
def test_other_types_and_orders_of_inputs_give_the_same_actions(micro):
    given = micro.observation
    images = {key: value.astype(np.float64) for key, value in reversed(given.images.items())}
    masks = {key: value.astype(np.uint8) for key, value in reversed(given.image_masks.items())}
    other = change(
        micro,
        images=images,
        image_masks=masks,
        state=given.state.astype(np.float64),
        tokenized_prompt=given.tokenized_prompt.astype(np.int64),
        tokenized_prompt_mask=given.tokenized_prompt_mask.astype(np.uint8),
    )
    noise = micro.inputs["sample_noise"].astype(np.float64)
    np.testing.assert_array_equal(sample(micro), sample(micro, other, noise=noise))


@pytest.mark.parametrize("micro", ["pi05_micro"], indirect=True)
def test_an_equal_call_compiles_nothing(micro):
    """Numpy inputs, another but equal model and another but equal spec, as policies give them."""
    spec = {"names": ["action.x_t.action.tokens"], "flow_times": [1.0]}
    sample(micro, capture=CaptureSpec(**spec))
    compiled = model._sample_actions._cache_size()
    again = dataclasses.replace(micro, model=Pi0(dataclasses.replace(micro.model.config)))
    sample(again, change(micro, state=micro.observation.state + 1), capture=CaptureSpec(**spec))
    assert model._sample_actions._cache_size() == compiled


@pytest.mark.parametrize("micro", ["pi05_micro"], indirect=True)
def test_float32_parameters_are_used_in_a_bfloat16_models_type(micro):
    config = dataclasses.replace(micro.model.config, dtype="bfloat16")
    actions = sample(dataclasses.replace(micro, model=Pi0(config)), num_steps=10)
    assert actions.dtype == jnp.float32
    expected = micro.results["sample_actions"]
    assert np.sqrt(np.square(actions - expected).mean() / np.square(expected).mean()) <= 0.02


@pytest.mark.parametrize("micro", ["pi05_micro"], indirect=True)
def test_loss_takes_noise_and_time_of_any_float_type(micro):
    values = [micro.inputs[name] for name in ("actions", "noise")]
    time = np.array([0.5, 0.25])
    losses = [
        micro.model.flow_loss(
            micro.params, micro.observation, values[0], noise=values[1], time=time.astype(dtype)
        )
        for dtype in (np.float32, np.float64, np.float16)
    ]
    np.testing.assert_array_equal(losses[0], losses[1])
    np.testing.assert_array_equal(losses[0], losses[2])


def test_a_batch_gives_each_item_its_own_result(micro):
    both = sample(micro)
    for i in range(2):
        one = jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], micro.observation)
        alone = sample(micro, one, noise=micro.inputs["sample_noise"][i : i + 1])
        np.testing.assert_allclose(alone[0], both[i], atol=2e-5)


def test_masked_camera_and_padding_have_no_influence(micro):
    images = {key: np.array(value) for key, value in micro.observation.images.items()}
    assert not micro.observation.image_masks["right_wrist_0_rgb"][1]
    images["right_wrist_0_rgb"][1] *= -1
    padded = np.where(
        micro.observation.tokenized_prompt_mask, micro.observation.tokenized_prompt, 7
    )
    np.testing.assert_array_equal(
        sample(micro), sample(micro, change(micro, images=images, tokenized_prompt=padded))
    )


def test_only_pi0_reads_the_state(micro):
    moved = sample(micro, change(micro, state=micro.observation.state + 0.1))
    assert np.array_equal(sample(micro), moved) == micro.model.config.pi05


def test_noise_may_be_drawn_from_a_key(micro):
    first = sample(micro, noise=None, key=jax.random.key(3))
    np.testing.assert_array_equal(first, sample(micro, noise=None, key=jax.random.key(3)))
    assert not np.array_equal(first, sample(micro, noise=None, key=jax.random.key(4)))
    with pytest.raises(ValueError, match="`noise` must be given if `key` is not, but got None"):
        sample(micro, noise=None)


@pytest.mark.parametrize("micro", ["pi05_micro"], indirect=True)
def test_flow_loss_has_gradients_in_every_used_parameter(micro):
    golden = micro
    arguments = (golden.observation, golden.inputs["actions"])
    chosen = {"noise": golden.inputs["noise"], "time": golden.inputs["time"]}
    loss = jax.jit(lambda params: golden.model.flow_loss(params, *arguments, **chosen).mean())
    grads = jax.jit(jax.grad(loss))(golden.params)
    zero = {path for path, grad in leaves(grads) if not np.any(grad)}
    assert zero == {"PaliGemma/llm/final_norm/scale"}


def test_initialisation_depends_on_the_key_alone():
    model = Pi0(Pi0Config.preset("pi05_micro"))
    first = model.init(jax.random.key(1))
    check_params(first, model.config)
    assert params_digest(first) == params_digest(model.init(jax.random.key(1)))
    assert params_digest(first) != params_digest(model.init(jax.random.key(2)))
    half = Pi0(Pi0Config.preset("pi05_micro", dtype="bfloat16")).init(jax.random.key(1))
    assert {leaf.dtype for _, leaf in leaves(half)} == {jnp.dtype("bfloat16")}
    assert params_digest(half) != params_digest(first)


def test_digest_does_not_depend_on_where_or_in_which_order_leaves_lie():
    params = {"b": {"c": np.ones(3, np.float32)}, "a": np.zeros((2, 2), np.float32)}
    turned = {"a": jnp.zeros((2, 2)), "b": {"c": jnp.ones(3)}}
    assert params_digest(params) == params_digest(turned)
    assert params_digest(params) != params_digest({**turned, "a": jnp.zeros((4,))})


def test_a_wrong_parameter_is_named(micro):
    golden = micro
    flat = dict(leaves(golden.params))
    shape = list(param_shapes(golden.model.config)["action_out_proj/bias"])
    wrong = {
        "action_out_proj/bias is missing": {k: v for k, v in flat.items() if "out_proj/b" not in k},
        "surplus/w is extra": {**flat, "surplus/w": np.zeros(1)},
        f"action_out_proj/bias has shape [1] instead of {shape}": {
            **flat,
            "action_out_proj/bias": np.zeros(1, np.float32),
        },
    }
    for message, leaves_ in wrong.items():
        tree = {}
        for path, leaf in leaves_.items():
            place = tree
            for part in path.split("/")[:-1]:
                place = place.setdefault(part, {})
            place[path.split("/")[-1]] = leaf
        with pytest.raises(ValueError, match=re.escape(message)):
            golden.model.sample_actions(
                tree, golden.observation, noise=golden.inputs["sample_noise"]
            )


def test_wrong_inputs_are_named_with_both_shapes(micro):
    images = dict(micro.observation.images)
    flat = {**images, "base_0_rgb": images["base_0_rgb"][0]}
    match = r"`images\['base_0_rgb'\]` must have shape \[2, 224, 224, 3\], but got \[224, 224, 3\]"
    with pytest.raises(ValueError, match=match):
        sample(micro, change(micro, images=flat))
    del images["left_wrist_0_rgb"]
    with pytest.raises(
        ValueError, match=r"`images` must have the keys .*, but got base_0_rgb, right"
    ):
        sample(micro, change(micro, images=images))
    with pytest.raises(ValueError, match=r"`state` must have shape \[2, 32\], but got \[2, 8\]"):
        sample(micro, change(micro, state=micro.observation.state[:, :8]))
    with pytest.raises(ValueError, match=r"`noise` must have shape \[2, 10, 32\], but got \[1, 10"):
        sample(micro, noise=micro.inputs["sample_noise"][:1])
    with pytest.raises(ValueError, match="`num_steps` must be at least 1, but got 0"):
        sample(micro, num_steps=0)
    grey = {key: np.zeros(value.shape, np.uint8) for key, value in micro.observation.images.items()}
    with pytest.raises(ValueError, match=r"`images\['base_0_rgb'\]` must be floats .*got uint8"):
        sample(micro, change(micro, images=grey))
    ids = micro.observation.tokenized_prompt.astype(np.float32)
    with pytest.raises(ValueError, match=r"`tokenized_prompt` must be whole numbers.*got float32"):
        sample(micro, change(micro, tokenized_prompt=ids))


def test_config_says_what_is_wrong_with_it():
    with pytest.raises(ValueError, match=r"`name` must be one of pi0, .*but got 'pi1'"):
        Pi0Config.preset("pi1")
    with pytest.raises(ValueError, match="`dtype` must be one of float32, bfloat16, but got 'fp8'"):
        Pi0Config.preset("pi0_micro", dtype="fp8")
    with pytest.raises(ValueError, match="`action_horizon` must be at least 1, but got 0"):
        Pi0Config.preset("pi0_micro", action_horizon=0)
    config = Pi0Config.preset("pi0_micro")
    deeper = dataclasses.replace(config.action, depth=5)
    with pytest.raises(ValueError, match=r"`action.depth` must equal `vlm.depth`.* got 5 and 4"):
        dataclasses.replace(config, action=deeper)


@pytest.mark.parametrize("name", ["pi0", "pi05", "pi0_micro", "pi05_so400m"])
def test_config_survives_json(name):
    config = Pi0Config.preset(name, dtype="bfloat16", action_horizon=7)
    assert Pi0Config.from_json(config.to_json()) == config
    assert hash(Pi0Config.from_json(config.to_json())) == hash(config)


def test_observation_is_a_pytree_that_keeps_what_is_unknown(micro):
    names = {f.name for f in dataclasses.fields(micro.observation)}
    paths = jax.tree_util.tree_leaves_with_path(micro.observation)
    unknown = {name for name in names if getattr(micro.observation, name) is None}
    assert {"instruction_mask", "state_text_mask", "fast_action_tokens"} <= unknown
    assert {path[0].name for path, _ in paths} == names - unknown
    doubled = jax.tree.map(lambda leaf: np.concatenate([leaf, leaf]), micro.observation)
    assert doubled.state.shape[0] == 4
    assert doubled.instruction_mask is None
