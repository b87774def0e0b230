"""Interventions: nothing changes where nothing is asked, and what is asked is what happens."""

import numpy as np
import pytest

from jax_bridge.interventions import Intervention, Place, Replacement
from jax_bridge.pi0 import CaptureSpec

STEPS = 3
WIDTH = 64


def affine(rank=2, seed=0, scale=0.3, width=WIDTH, **place):
    random = np.random.default_rng(seed)
    words = {"expert": "action", "site": "hidden_states", "region": "action", "pool": "mean"}

    def tensor(*shape):
        return (scale * random.normal(size=shape)).astype(np.float32)

    return Intervention(
        place=Place(**{**words, **place}), u=tensor(width, rank), v=tensor(width, rank), b=tensor(width)
    )  # fmt: skip


def run(micro, interventions=()):
    return micro.model.sample_actions(
        micro.params, micro.observation, noise=micro.inputs["sample_noise"], num_steps=STEPS,
        capture=CaptureSpec.preset("tokens"), interventions=interventions,
    )  # fmt: skip


@pytest.fixture(scope="module")
def plain(micro):
    actions, latents = run(micro)
    return np.asarray(actions), {name: np.asarray(value) for name, value in latents.items()}


def changed(micro, *interventions):
    actions, latents = run(micro, interventions)
    return np.asarray(actions), {name: np.asarray(value) for name, value in latents.items()}


def apply(found, x):
    return x + (x @ found.v) @ found.u.T + found.b


def test_no_intervention_and_one_that_changes_nothing_leave_the_bits(micro, plain):
    zero = affine(rank=0, scale=0.0)
    actions, latents = changed(micro, zero)
    np.testing.assert_array_equal(actions, plain[0])
    for name, value in latents.items():
        np.testing.assert_array_equal(value, plain[1][name], err_msg=name)


def test_one_layer_and_flow_time_are_changed_as_written_and_nothing_before_them(micro, plain):
    found = affine(layer=1, flow_time=float(np.float32(1) - np.float32(1 / 3)))
    actions, latents = changed(micro, found)
    name = "action.hidden_states.action.tokens"
    before, after = plain[1][name], latents[name]  # [b, layer, step, token, width]
    np.testing.assert_array_equal(after[:, :, 0], before[:, :, 0])
    np.testing.assert_array_equal(after[:, 0, 1], before[:, 0, 1])
    np.testing.assert_allclose(after[:, 1, 1], apply(found, before[:, 1, 1]), rtol=1e-5, atol=1e-5)
    assert (after[:, 2:, 1] != before[:, 2:, 1]).any(axis=(0, 2, 3)).all()
    assert (after[:, :, 2] != before[:, :, 2]).any()
    assert np.abs(actions - plain[0]).max() > 1e-3
    for other in (n for n in latents if n.startswith("vlm.")):
        np.testing.assert_array_equal(latents[other], plain[1][other], err_msg=other)


def test_the_backbones_text_is_changed_alone_and_the_action_expert_reads_it(micro, plain):
    found = affine(expert="vlm", region="text", layer=0, site="hidden_states")
    actions, latents = changed(micro, found)
    for region in ("image_base", "image_left_wrist"):
        name = f"vlm.hidden_states.{region}.tokens"
        np.testing.assert_array_equal(latents[name][:, 0], plain[1][name][:, 0])
        assert (latents[name][:, 1] != plain[1][name][:, 1]).any()  # images read the text
    name = "vlm.hidden_states.text.tokens"
    mask = plain[1]["mask.text"]
    before, after = plain[1][name][:, 0], latents[name][:, 0]
    np.testing.assert_allclose(after[mask], apply(found, before[mask]), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(after[~mask], before[~mask])
    assert np.abs(actions - plain[0]).max() > 1e-3


def test_pool_last_changes_the_last_valid_token_alone(micro, plain):
    found = affine(expert="vlm", region="text", pool="last", layer=2)
    _, latents = changed(micro, found)
    name = "vlm.hidden_states.text.tokens"
    before, after = plain[1][name][:, 2], latents[name][:, 2]
    for item, mask in enumerate(plain[1]["mask.text"]):
        last = int(np.flatnonzero(mask)[-1])
        same = (before[item] == after[item]).all(-1)
        assert np.flatnonzero(~same).tolist() == [last]


def test_without_layer_and_time_every_one_is_changed(micro, plain):
    """b alone, everywhere: each layer of each step moves by the sum of the b before it."""
    found = affine(rank=0, scale=1e-2)
    _, latents = changed(micro, found)
    name = "action.hidden_states.action.tokens"
    moved = latents[name][:, 0, 0] - plain[1][name][:, 0, 0]
    np.testing.assert_allclose(moved, np.broadcast_to(found.b, moved.shape), atol=1e-5)
    assert all((latents[name][:, layer, step] != plain[1][name][:, layer, step]).all()
               for layer in range(4) for step in range(STEPS))  # fmt: skip


def test_several_interventions_are_made_one_after_another(micro, plain):
    one, two = affine(layer=1, flow_time=1.0), affine(layer=1, flow_time=1.0, seed=1)
    _, latents = changed(micro, one, two)
    name = "action.hidden_states.action.tokens"
    expected = apply(two, apply(one, plain[1][name][:, 1, 0]))
    np.testing.assert_allclose(latents[name][:, 1, 0], expected, rtol=1e-4, atol=1e-4)


def test_another_samples_latents_are_put_in_token_by_token(micro, plain):
    """With its own values nothing changes; with another row's, that row's follow."""
    name = "vlm.hidden_states.text.tokens"
    place = Place(expert="vlm", site="hidden_states", region="text", pool="tokens", layer=1)
    other = Replacement(place=place, value=plain[1][name][1, 1])
    _, latents = changed(micro, other)
    mask = plain[1]["mask.text"]
    for row in range(2):
        after = latents[name][row, 1]
        np.testing.assert_array_equal(after[mask[row]], plain[1][name][1, 1][mask[row]])
        np.testing.assert_array_equal(after[~mask[row]], plain[1][name][row, 1][~mask[row]])
    np.testing.assert_array_equal(latents[name][:, 0], plain[1][name][:, 0])
    np.testing.assert_array_equal(latents[name][1], plain[1][name][1])
    assert (latents[name][0, 2] != plain[1][name][0, 2]).any()


def test_one_value_takes_the_place_of_every_token_at_its_flow_time_alone(micro, plain):
    value = np.linspace(-1, 1, WIDTH, dtype=np.float32)
    place = Place(
        expert="action", site="hidden_states", region="action", pool="mean", layer=2, flow_time=1.0
    )
    _, latents = changed(micro, Replacement(place=place, value=value))
    name = "action.hidden_states.action.tokens"
    after = latents[name][:, 2, 0]
    np.testing.assert_array_equal(after, np.broadcast_to(value, after.shape))
    assert (latents[name][:, 2, 1] != value).any()
    np.testing.assert_array_equal(latents[name][:, :2, 0], plain[1][name][:, :2, 0])


def test_a_value_of_another_number_of_tokens_is_refused(micro):
    place = Place(expert="action", site="hidden_states", region="action", pool="tokens")
    wrong = Replacement(place=place, value=np.zeros((3, WIDTH), np.float32))
    with pytest.raises(ValueError, match=r"`value` must have 10 tokens.*but got 3"):
        run(micro, (wrong,))


@pytest.mark.parametrize("site", ["post_attn_embedding", "mlp_activation"])
def test_other_sites_of_a_block_are_changed_too(micro, plain, site):
    width = 128 if site == "mlp_activation" else WIDTH
    actions, latents = changed(micro, affine(site=site, layer=3, flow_time=1.0, width=width))
    name = "action.hidden_states.action.tokens"
    np.testing.assert_array_equal(latents[name][:, :3, 0], plain[1][name][:, :3, 0])
    assert (latents[name][:, 3, 0] != plain[1][name][:, 3, 0]).any()
    assert (actions != plain[0]).any()


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({"layer": 4}, r"must lie in 0 \.\.\. 3 .* but got 4"),
        ({"flow_time": 0.5}, "must be evaluated by the sampler of 3 steps"),
        ({"site": "velocity"}, "`site` must be one of hidden_states.*but got 'velocity'"),
        ({"region": "text"}, "`region` must be one of expert action, but got 'text'"),
        ({"expert": "vlm", "region": "text", "flow_time": 1.0}, "`flow_time` must be None"),
        ({"width": 32}, "The numbers must be 64 wide.*but got 32"),
        ({"expert": "head"}, "`expert` must be one of vlm, action"),
    ],
)
@pytest.mark.parametrize("micro", ["pi05_micro"], indirect=True)
def test_a_place_that_the_model_has_not_is_named(micro, place, message):
    with pytest.raises(ValueError, match=message):
        run(micro, [affine(**place)])
