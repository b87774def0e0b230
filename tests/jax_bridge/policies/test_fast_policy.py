"""The backbone acts by itself: its tokens become actions, or are counted as failures."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jax_bridge.environments.tabletop.tabletop import Tabletop
from jax_bridge.interventions import Place, Replacement, save_interventions
from jax_bridge.ki.decoding import Decoded
from jax_bridge.ki.spoken_actions import chunks_of
from jax_bridge.pi0 import CaptureSpec
from jax_bridge.policies import fast_policy
from jax_bridge.policies.fast_policy import FastPolicy
from jax_bridge.policies.pi0_policy import Pi0Policy
from jax_bridge.policies.policy import BatchedPolicy, PolicyCall
from jax_bridge.serving.observation_message import write_observation
from jax_bridge.serving.served_policy import ServedPolicy
from jax_bridge.serving.wire import encode
from tests.small_checkpoint import (
    CHUNKS,
    DIMS,
    LENGTH,
    STEPS,
    TOKENIZER,
    fast_ids,
    statistics,
    write_checkpoint,
)


def spoken(number):
    ids, mask = fast_ids().target(TOKENIZER.encode(CHUNKS[[number]]).codes[0])
    return ids, mask


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("run") / "3")


@pytest.fixture(scope="module")
def observation():
    table = Tabletop(image_size=32)
    table.reset(task_id=0, episode=0, seed=0)
    return table.observe()


def test_what_was_encoded_comes_back_within_the_bound_of_rounding():
    rows = [spoken(number) for number in range(4)]
    ids, mask = (np.stack(parts) for parts in zip(*rows, strict=True))
    found = chunks_of(ids, mask, fast_ids(), TOKENIZER, steps=STEPS, dims=DIMS)
    assert not found.failed.any()
    np.testing.assert_allclose(found.actions, CHUNKS[:4], atol=0.11)


@pytest.mark.parametrize("harm", ["cut", "prompt's word", "one code too many", "nothing"])
def test_a_sequence_that_is_no_chunk_gives_zeros_and_is_marked(harm):
    ids, mask = (part.copy() for part in spoken(1))
    size = int(mask.sum())
    if harm == "cut":
        mask[size - 2 : size] = False
    elif harm == "prompt's word":
        ids[0] = 5
    elif harm == "nothing":
        mask[:] = False
    else:
        ids[1 : size + 1], mask[size] = ids[:size].copy(), True
    found = chunks_of(ids[None], mask[None], fast_ids(), TOKENIZER, steps=STEPS, dims=DIMS)
    assert found.failed.tolist() == [True]
    np.testing.assert_array_equal(found.actions, 0)


def test_weights_that_know_nothing_are_counted_and_move_to_the_middle(checkpoint, observation):
    policy = FastPolicy(checkpoint=str(checkpoint))
    assert isinstance(policy, BatchedPolicy)
    found = policy.infer(observation)
    assert policy.failures == 1
    assert found.actions.shape == (STEPS, DIMS)
    middle = statistics("actions", DIMS)
    np.testing.assert_allclose(found.actions[0], (middle.q01 + middle.q99) / 2, rtol=1e-4)
    entry = policy.describe()
    assert entry["policy"] == "fast"
    assert entry["fast"]["tokenizer"] == json.loads(json.dumps(TOKENIZER.describe()))


def test_what_the_backbone_says_becomes_robot_actions_row_by_row(
    checkpoint, observation, monkeypatch
):
    rows = [spoken(number) for number in (5, 6, 7)]
    ids, mask = (jax.numpy.asarray(np.stack(parts)) for parts in zip(*rows, strict=True))
    said = Decoded(ids, mask)
    monkeypatch.setattr(fast_policy, "_decode", lambda *args, **kwargs: said)
    policy = FastPolicy(checkpoint=str(checkpoint))
    call = PolicyCall(observation, ())
    first, empty, last = policy.infer_batch([call, None, call])
    assert empty is None
    assert policy.failures == 0
    scale = statistics("actions", DIMS)
    for output, number in ((first, 5), (last, 7)):
        wanted = (CHUNKS[number] + 1) / 2 * (scale.q99 - scale.q01) + scale.q01
        np.testing.assert_allclose(output.actions, wanted, atol=0.4)


def test_a_checkpoint_without_fast_says_which_head_it_has(checkpoint, tmp_path, observation):
    bare = tmp_path / "bare"
    (bare / "assets/tabletop").mkdir(parents=True)
    (bare / "params").symlink_to(checkpoint / "params")
    for name in ("model.json", "tabletop/norm_stats.json"):
        (bare / "assets" / name).write_bytes((checkpoint / "assets" / name).read_bytes())
    with pytest.raises(ValueError, match=r"FAST targets, but .* has no assets/tabletop/fast. Its"):
        FastPolicy(checkpoint=str(bare)).infer(observation)


def test_actions_with_capture_are_bitwise_those_without(checkpoint, observation):
    policy = FastPolicy(checkpoint=str(checkpoint))
    spec = CaptureSpec.preset("ar_steps")
    plain = policy.infer(observation)
    captured = policy.infer(observation, capture=spec)
    np.testing.assert_array_equal(plain.actions, captured.actions)
    assert plain.latents == {}
    fields = policy.fields(spec)
    assert {n: (v.shape, v.dtype) for n, v in captured.latents.items()} == {
        n: (field.shape, field.numpy_dtype) for n, field in fields.items()
    }
    steps = captured.latents["mask.fast"].sum()
    assert 0 < steps <= LENGTH
    said = captured.latents["vlm.hidden_states.fast.tokens"][0]
    assert said[:steps].any(axis=1).all()
    assert not said[steps:].any()


def test_it_can_be_served_with_what_it_says(checkpoint, observation):
    policy = FastPolicy(checkpoint=str(checkpoint))
    served = ServedPolicy(
        policy=policy, convention=policy.convention, capture=CaptureSpec.preset("ar_steps")
    )
    assert served.metadata()["convention"] == "tabletop"
    sent = write_observation(observation, observation.images, policy.convention)
    question = served.read(encode({**sent, "collect_latents": True}))
    output, _ = served.infer(question, ("a", 1), records=False)
    assert set(output.latents) == set(served.metadata()["fields"])
    plain = policy.infer(observation)
    np.testing.assert_array_equal(output.actions, plain.actions)


def test_an_intervention_changes_what_is_said_and_stands_in_the_description(
    checkpoint, observation, tmp_path
):
    plain = FastPolicy(checkpoint=str(checkpoint))
    spec, name = CaptureSpec.preset("ar_steps"), "vlm.hidden_states.fast.tokens"
    place = Place(expert="vlm", site="hidden_states", region="fast", pool="mean", layer=0)
    value = np.arange(16, dtype=np.float32)
    save_interventions(tmp_path / "say.safetensors", [Replacement(place=place, value=value)], {})
    changed = FastPolicy(checkpoint=str(checkpoint), intervene=str(tmp_path / "say.safetensors"))
    latents = changed.infer(observation, capture=spec).latents
    np.testing.assert_array_equal(latents[name][0][latents["mask.fast"]][:1], value[None])
    assert len(changed.describe()["interventions"]) == 64
    assert "interventions" not in plain.describe()
    save_interventions(tmp_path / "none.safetensors", [], {})
    empty = FastPolicy(checkpoint=str(checkpoint), intervene=str(tmp_path / "none.safetensors"))
    np.testing.assert_array_equal(
        empty.infer(observation).actions, plain.infer(observation).actions
    )


def test_in_openpis_layout_the_model_says_action_before_the_codes(
    checkpoint, observation, monkeypatch
):
    policy = FastPolicy(checkpoint=str(checkpoint), prompt_layout="openpi_fast")
    words = policy.processor.tokenizer
    assert policy.ids.start == words.encode("Action: ").ids
    asked = []

    def decode(params, inputs, **settings):
        asked.append((inputs, settings))
        ids, mask = policy.ids.target(TOKENIZER.encode(CHUNKS[[4]]).codes[0])
        return Decoded(jax.numpy.asarray(ids[None]), jax.numpy.asarray(mask[None]))

    monkeypatch.setattr(fast_policy, "_decode", decode)
    found = policy.infer(dataclasses.replace(observation, instruction="PUT the Red_Cube on it"))
    assert policy.failures == 0
    scale = statistics("actions", DIMS)
    wanted = (CHUNKS[4] + 1) / 2 * (scale.q99 - scale.q01) + scale.q01
    np.testing.assert_allclose(found.actions, wanted, atol=0.4)
    ((inputs, settings),) = asked
    assert settings["end"] == (words.encode("|").ids[0], words.encode("", eos=True).ids[0])
    read = words.decode(inputs.tokenized_prompt[inputs.tokenized_prompt_mask])
    # The micro model's prompt is cut behind 16 tokens.
    assert read.startswith("Task: put the red cube on it")
    assert policy.describe()["fast"]["prompt_layout"] == "openpi_fast"


def test_codes_in_the_other_layout_are_no_chunk():
    plain = fast_ids()
    other = dataclasses.replace(plain, start=(4, 5))
    (codes,) = TOKENIZER.encode(CHUNKS[[3]]).codes
    for own, foreign in ((plain, other), (other, plain)):
        ids, mask = own.target(codes)
        np.testing.assert_array_equal(own.codes_of(ids[mask]), codes)
        assert foreign.codes_of(ids[mask]) is None
        # Decoding stops at `|`: the end mark need not follow.
        np.testing.assert_array_equal(own.codes_of(ids[mask][:-1]), codes)


def test_an_unknown_layout_is_named(checkpoint):
    with pytest.raises(
        ValueError, match=r"`prompt_layout` must be one of ki, openpi_fast, but got"
    ):
        FastPolicy(checkpoint=str(checkpoint), prompt_layout="pi0_fast")


def test_both_heads_are_asked_in_the_layout_that_the_checkpoint_notes(checkpoint, tmp_path):
    (tmp_path / "assets").mkdir()
    (tmp_path / "params").symlink_to(checkpoint / "params")
    (tmp_path / "assets/tabletop").symlink_to(checkpoint / "assets/tabletop")
    entry = json.loads((checkpoint / "assets/model.json").read_text())
    entry["policy"]["prompt_layout"] = "openpi_fast"
    (tmp_path / "assets/model.json").write_text(json.dumps(entry))
    spoken = FastPolicy(checkpoint=str(tmp_path))
    assert spoken.prompt_layout == "openpi_fast"
    assert spoken.ids.start
    assert Pi0Policy(checkpoint=str(tmp_path)).processor.prompt_layout == "openpi_fast"
    asked = FastPolicy(checkpoint=str(tmp_path), prompt_layout="ki")
    assert asked.processor.prompt_layout == "ki"
    assert not asked.ids.start
