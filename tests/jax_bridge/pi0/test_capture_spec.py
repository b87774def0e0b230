"""What a capture spec names, and what it says of words that do not fit."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from jax_bridge.pi0 import CaptureSpec, Observation, Pi0, Pi0Config, param_shapes
from jax_bridge.pi0.parameters import unflatten
from jax_bridge.shards.field import FieldSpec
from jax_bridge.vocabulary import CAMERAS

PI0, PI05 = Pi0Config.preset("pi0_micro"), Pi0Config.preset("pi05_micro")
MEANS = ("instruction", "text", "image_base", "image_left_wrist", "image_right_wrist")
SCALES = ("pre_attn_norm_scale", "pre_mlp_norm_scale")


@pytest.mark.parametrize("config", [PI0, PI05], ids=["pi0", "pi05"])
def test_pooled_holds_exactly_what_the_design_says(config):
    suffix = ("action",) if config.pi05 else ("state", "action")
    expected = {"vlm.hidden_states.text.last", "action.velocity.action.tokens"}
    for site in ("hidden_states", "post_attn_embedding", *SCALES):
        expected |= {f"vlm.{site}.{region}.mean" for region in MEANS}
        expected |= {f"action.{site}.{region}.mean" for region in suffix}
    expected |= {f"valid.{region}" for region in (*MEANS, *suffix)}
    assert set(CaptureSpec.preset("pooled").fields(config)) == expected


@pytest.mark.parametrize("config", [PI0, PI05], ids=["pi0", "pi05"])
def test_tokens_holds_every_region_once_and_all_masks(config):
    suffix = ("action",) if config.pi05 else ("state", "action")
    prompt = ("text", "instruction", "state_text") if config.pi05 else ("text", "instruction")
    expected = {f"vlm.hidden_states.{region}.tokens" for region in MEANS[1:]}
    expected |= {f"action.hidden_states.{region}.tokens" for region in suffix}
    expected |= {f"mask.{region}" for region in (*MEANS[2:], *prompt, *suffix)}
    assert set(CaptureSpec.preset("tokens").fields(config)) == expected


def test_fields_have_layer_then_flow_time_then_token_then_width():
    fields = CaptureSpec.preset("tokens", layers=(1, 3)).fields(PI0, num_steps=2)
    assert fields["action.hidden_states.action.tokens"] == FieldSpec(
        name="action.hidden_states.action.tokens",
        dtype="float32",
        shape=(2, 2, 10, 64),
        axes=("layer", "flow_time", "token", "width"),
        layers=(1, 3),
        flow_times=(1.0, 0.5),
    )
    assert fields["vlm.hidden_states.text.tokens"].axes == ("layer", "token", "width")
    assert fields["mask.text"] == FieldSpec(
        name="mask.text", dtype="bool", shape=(48,), axes=("token",)
    )
    velocity = CaptureSpec.preset("pooled").fields(PI05)["action.velocity.action.tokens"]
    assert (velocity.axes, velocity.shape) == (("flow_time", "horizon", "dim"), (10, 10, 32))


def test_what_a_preset_names_and_the_model_has_not_is_left_out_and_said():
    assert CaptureSpec.preset("tokens").left_out(PI05) == {
        "action.hidden_states.state.tokens": "π0.5 has no state token"
    }
    assert CaptureSpec.preset("tokens").left_out(PI0) == {}


def test_bytes_per_call_at_released_size_is_known_without_a_model():
    config = Pi0Config.preset("pi0", dtype="bfloat16")
    tokens = 18 * (816 * 2048 + 10 * 51 * 1024) * 2
    masks = 3 * 256 + 2 * 48 + 1 + 50
    assert CaptureSpec.preset("tokens").bytes_per_call(config) == tokens + masks


@pytest.mark.parametrize("name", ["pi0", "pi05"])
@pytest.mark.parametrize("preset", ["pooled", "tokens"])
def test_latents_at_released_size_are_what_the_spec_foretells(name, preset):
    """The experts differ in width there; traced, never computed."""
    config, spec = Pi0Config.preset(name, dtype="bfloat16"), CaptureSpec.preset(preset)
    arrays = {p: jax.ShapeDtypeStruct(s, "bfloat16") for p, s in param_shapes(config).items()}
    cameras = [camera.openpi_key for camera in CAMERAS]
    observation = Observation(
        images=dict.fromkeys(cameras, np.zeros((2, 224, 224, 3), np.float32)),
        image_masks=dict.fromkeys(cameras, np.ones(2, bool)),
        state=np.zeros((2, config.action_dim), np.float32),
        tokenized_prompt=np.zeros((2, config.max_token_len), np.int32),
        tokenized_prompt_mask=np.ones((2, config.max_token_len), bool),
    )
    noise = np.zeros((2, config.action_horizon, config.action_dim), np.float32)
    sample = functools.partial(Pi0(config).sample_actions, noise=noise, capture=spec)
    latents = jax.eval_shape(lambda p, o: sample(p, o)[1], unflatten(arrays), observation)
    found = {name: (value.shape[1:], value.dtype.name) for name, value in latents.items()}
    fields = spec.fields(config).values()
    assert found == {field.name: (field.shape, field.dtype) for field in fields}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"experts": ("brain",)}, "`experts` must be among vlm, action, but got 'brain'"),
        ({"sites": ("logits",)}, "`sites` must be among .*, but got 'logits'"),
        ({"regions": ("sky",)}, "`regions` must be among .*, but got 'sky'"),
        ({"pools": ("median",)}, "`pools` must be among .*, but got 'median'"),
        (
            {"sites": "hidden_states"},
            "`sites` must be a sequence of words, but got 'hidden_states'",
        ),
        (
            {"experts": ("vlm",), "sites": ("hidden_states",), "regions": ("action",)},
            "'vlm' in vlm.hidden_states.action.tokens: expert vlm has the regions image_base",
        ),
        (
            {"sites": ("hidden_states",), "regions": ("text",)},
            "got 'action' in action.hidden_states.text.tokens: expert action has the regions state",
        ),
        (
            {"experts": ("action",), "sites": ("velocity",), "pools": ("mean",)},
            "velocity exists as action.velocity.action.tokens only",
        ),
        (
            {"names": ("vlm.hidden_states.text",)},
            "`names` must have the form .*, but got 'vlm.hidd",
        ),
        ({"names": ("vlm.hidden_states.action.mean",)}, "`region` of expert vlm must be one of"),
        ({"names": ("vlm.x_t.text.mean",)}, "'vlm.x_t.text.mean': x_t exists as action.x_t.action"),
        (
            {"sites": ("attention",)},
            "attention of expert vlm is named vlm.attention.<region>_to_<region>",
        ),
        ({}, "`sites` or `names` must name latents to capture, but got neither"),
        ({"sites": ("hidden_states",), "regions": ()}, "`regions` must name at least one"),
    ],
)
def test_words_that_cannot_go_together_are_an_error(words, message):
    with pytest.raises(ValueError, match=message):
        CaptureSpec(**words)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"sites": None}, "`sites` must be a sequence of words, but got None"),
        ({"names": [3]}, r"`names` must be a sequence of words, but got \[3\]"),
        (
            {"preset": "pooled", "layers": 3},
            "`layers` must be a sequence of whole numbers, .*got 3",
        ),
        ({"preset": "pooled", "layers": [0.5]}, r"whole numbers, but got \[0.5\]"),
        ({"preset": "pooled", "flow_times": ["noise"]}, r"of numbers, but got \['noise'\]"),
    ],
)
def test_values_of_a_wrong_kind_are_an_error(entry, message):
    with pytest.raises(ValueError, match=message):
        CaptureSpec.from_json(entry)


def test_explicit_names_that_this_model_has_not_are_an_error():
    named = CaptureSpec(names=("action.hidden_states.state.mean",))
    words = CaptureSpec(experts=("action",), sites=("hidden_states",), regions=("state",))
    for spec in (named, words):
        assert spec.fields(PI0)
        with pytest.raises(
            ValueError, match=r"action.hidden_states.state.*π0.5 has no state token"
        ):
            spec.fields(PI05)


def test_layers_and_flow_times_that_do_not_exist_are_an_error():
    with pytest.raises(ValueError, match=r"`layers` must lie in 0 ... 3 .*, but got 4"):
        CaptureSpec.preset("pooled", layers=(0, 4)).fields(PI0)
    with pytest.raises(ValueError, match=r"sampler of 10 steps \(1, 0.9, .*\), but got 0.85"):
        CaptureSpec.preset("pooled", flow_times=(0.85,)).fields(PI0)
    with pytest.raises(ValueError, match="`layers` must name at least one layer, but got none"):
        CaptureSpec.preset("pooled", layers=()).fields(PI0)
    with pytest.raises(
        ValueError, match="`name` must be one of pooled, tokens, attention, ar_steps, but got 'all'"
    ):
        CaptureSpec.preset("all")


def test_a_flow_time_means_the_nearest_evaluated_one():
    fields = CaptureSpec.preset("pooled", flow_times=(0.8, 0.1)).fields(PI0)
    times = fields["action.velocity.action.tokens"].flow_times
    assert times == pytest.approx((0.8, 0.1), abs=1e-6)
    assert times[0] != 0.8


@pytest.mark.parametrize(
    "spec",
    [
        CaptureSpec.preset("tokens", layers=[2, 1], flow_times=[0.5]),
        CaptureSpec(experts=["vlm"], sites=["hidden_states"], regions=["text"], pools=["mean"]),
        CaptureSpec.from_json({"preset": "pooled", "layers": np.arange(3), "flow_times": [1]}),
    ],
)
def test_spec_survives_json_and_is_hashable(spec):
    again = CaptureSpec.from_json(spec.to_json())
    assert again == spec
    assert hash(again) == hash(spec)


def test_spec_is_read_from_a_file(tmp_path):
    file = tmp_path / "capture.yaml"
    file.write_text("preset: pooled\nlayers: [0, 3]\n")
    assert CaptureSpec.from_file(file) == CaptureSpec.preset("pooled", layers=(0, 3))
    file.write_text("sites: [hidden_states]\nlayer: 3\n")
    with pytest.raises(ValueError, match=r"must have keys among .*, but got layer"):
        CaptureSpec.from_file(file)
    file.write_text("3: hidden_states\n")
    with pytest.raises(ValueError, match=r"must have keys among .*, but got 3"):
        CaptureSpec.from_file(file)
    file.write_text("- hidden_states\n")
    with pytest.raises(ValueError, match="must hold keys and values, but got list"):
        CaptureSpec.from_file(file)
    file.write_text("layers: [0\n")
    with pytest.raises(ValueError, match=r"capture.yaml must be YAML or JSON, but it is not"):
        CaptureSpec.from_file(file)
    with pytest.raises(
        FileNotFoundError,
        match=r"must be pooled, tokens, attention, ar_steps or a file, but got .*none",
    ):
        CaptureSpec.from_file(tmp_path / "none.yaml")


def test_spec_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError, match="layers"):
        CaptureSpec.preset("pooled").layers = (0,)
