"""From data sets to training batches: what stands in them, their order, and what is refused."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jax_bridge.environments.environment import RobotObservation
from jax_bridge.ki.data.augmentation import AugmentConfig
from jax_bridge.ki.data.data_config import DataConfig, TokenLayout
from jax_bridge.ki.data.opening import open_training_data
from jax_bridge.policies.normalisation import normalise
from jax_bridge.shards import open_dataset
from tests.jax_bridge.ki.data.demo_frames import (
    DIMS,
    attach,
    learn,
    statistics,
    tiny_model,
    write_frames,
)

STILL = AugmentConfig(crop=0.0, rotation=0.0, brightness=0.0, contrast=0.0, saturation=0.0)
MODEL = tiny_model()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two data sets with the same tokenizer and statistics."""
    root = tmp_path_factory.mktemp("frames")
    first = write_frames(root / "first")
    tokenizer = learn(first)
    attach(first, tokenizer)
    attach(write_frames(root / "second", seed=1, episodes=2, cameras=("base",)), tokenizer)
    return root


def opened(folder, *names, mode="insulate", model=MODEL, batch_size=4, **settings):
    paths = [str(folder / name) for name in names or ("first",)]
    ranks = {key: settings.pop(key) for key in ("rank", "world_size") if key in settings}
    data = DataConfig(**{"paths": paths, "threads": 2, "held_out": 0.0, **settings})
    return open_training_data(
        data, model, batch_size=batch_size, seed=3, mode=mode, augment=STILL, **ranks
    )


def taken(stream, count):
    try:
        return [next(stream) for _ in range(count)]
    finally:
        stream.close()


def test_a_row_is_what_the_policy_will_see_and_the_chunk_that_followed(folder):
    data = opened(folder)
    (host,) = taken(data.stream, 1)
    ready = data.prepare(None, host.batch)
    ready.check(MODEL)
    dataset, processor = open_dataset(folder / "first"), data.stream._maker.processor
    keys = dataset.index["key"].to_pylist()
    for place, key in enumerate(host.keys):
        row = keys.index(key)
        state, chunk = (dataset.read_robot(n, rows=[row])[0] for n in ("state", "actions"))
        images = data.stream._source_at(0)[0][place]["images"]
        instruction = dataset.index["instruction"][row].as_py()
        seen = processor.model_inputs(
            RobotObservation(images=images, state=state, instruction=instruction)
        )
        observation = jax.tree.map(lambda x: np.asarray(x)[place], ready.observation)  # noqa: B023
        for camera in ("base_0_rgb", "left_wrist_0_rgb"):
            np.testing.assert_allclose(
                observation.images[camera], seen.images[camera][0], atol=1e-6
            )
            assert observation.image_masks[camera]
        np.testing.assert_allclose(observation.state, seen.state[0], atol=1e-6)
        np.testing.assert_array_equal(observation.tokenized_prompt, seen.tokenized_prompt[0])
        expected = normalise(chunk.astype(np.float64), statistics().actions, "quantile")
        np.testing.assert_allclose(host.batch.actions[place, :, :DIMS], expected, atol=1e-6)
    assert "right_wrist_0_rgb" not in host.batch.observation.images  # no data set has it
    assert not host.batch.actions[..., DIMS:].any()
    assert host.batch.action_dims.tolist() == [True] * DIMS + [False]


def test_fast_targets_decode_to_the_chunk_and_end_in_bar_and_end_mark(folder):
    data = opened(folder)
    (host,) = taken(data.stream, 1)
    maker = data.stream._maker
    tokens, mask = (getattr(host.batch.observation, f"fast_action_{n}") for n in ("tokens", "mask"))
    for place in range(4):
        said = tokens[place][mask[place]]
        assert said[-2:].tolist() == list(maker.fast.end) == [1000 + ord("|"), 1]
        codes = maker.fast.codes.to_codes(said[:-2].astype(np.int64))
        tokenizer = maker.targets[0].tokenizer
        decoded = tokenizer.decode([codes.tolist()], steps=4, dims=DIMS).actions[0]
        assert np.abs(decoded - host.batch.actions[place, :, :DIMS]).max() < 0.25
    assert not tokens[~mask].any()


def test_an_epoch_holds_every_sample_once_and_the_next_another_order(folder):
    keys = [key for host in taken(opened(folder, batch_size=6).stream, 10) for key in host.keys]
    everyone = set(open_dataset(folder / "first").index["key"].to_pylist())
    assert len(everyone) == 30
    assert set(keys[:30]) == set(keys[30:]) == everyone
    assert keys[:30] != keys[30:]


def test_going_on_from_a_position_gives_the_same_batches(folder):
    whole = taken(opened(folder, "first", "second").stream, 12)
    position = json.loads(json.dumps(whole[4].position))
    again = opened(folder, "first", "second").stream
    next(again)
    again.restore(position)
    for expected, found in zip(whole[5:], taken(again, 7), strict=True):
        assert found.keys == expected.keys
        assert found.position == expected.position
        for a, b in zip(jax.tree.leaves(found.batch), jax.tree.leaves(expected.batch), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("world_size", [2, 4])
def test_the_batches_of_all_processes_together_do_not_depend_on_their_number(folder, world_size):
    alone = [host.keys for host in taken(opened(folder).stream, 5)]
    shares = [
        [h.keys for h in taken(opened(folder, rank=rank, world_size=world_size).stream, 5)]
        for rank in range(world_size)
    ]
    together = [tuple(k for share in step for k in share) for step in zip(*shares, strict=True)]
    assert together == alone


def test_a_mixture_keeps_its_shares_and_masks_cameras_that_a_data_set_lacks(folder):
    data = opened(folder, "first", "second", weights=[1.0, 3.0], batch_size=10)
    hosts = taken(data.stream, 16)
    second = [key.startswith("demo1") for host in hosts for key in host.keys]
    assert 0.65 < np.mean(second) < 0.85
    masks = np.concatenate([h.batch.observation.image_masks["left_wrist_0_rgb"] for h in hosts])
    np.testing.assert_array_equal(masks, ~np.asarray(second))


def test_held_out_episodes_are_never_trained_on_and_the_same_at_every_look(folder):
    data = opened(folder, held_out=0.3)
    held = [host.keys for host in data.held_out]
    assert held == [host.keys for host in data.held_out]
    episodes = {key.rsplit("-", 1)[0] for keys in held for key in keys}
    trained = {k.rsplit("-", 1)[0] for h in taken(data.stream, 8) for k in h.keys}
    assert episodes
    assert trained
    assert not episodes & trained
    assert opened(folder).held_out is None


def test_what_does_not_fit_is_left_out_and_counted_where_that_is_asked_for(folder):
    lengths = opened(folder).stream._maker.targets[0].lengths + 2
    limit = int(np.median(lengths))
    with pytest.raises(ValueError, match=rf"must be at least {lengths.max()} for all FAST targets"):
        opened(folder, max_fast_len=limit)
    data = opened(folder, max_fast_len=limit, overflow="leave_out", batch_size=6)
    hosts = taken(data.stream, 5)
    empty = sum(int((~h.batch.observation.fast_action_mask.any(axis=1)).sum()) for h in hosts)
    assert empty == (lengths > limit).sum() == hosts[-1].counts["fast_left_out"] > 0
    with pytest.raises(ValueError, match=r"must hold some FAST targets of .*first, but got 3"):
        opened(folder, max_fast_len=3, overflow="leave_out")


def test_flow_only_needs_no_fast_targets(folder, tmp_path):
    path = write_frames(tmp_path / "plain", episodes=2)
    (path / "norm_stats.json").write_text(json.dumps(statistics().to_json()))
    (host,) = taken(opened(tmp_path, "plain", mode="flow_only").stream, 1)
    assert host.batch.observation.fast_action_tokens is None
    with pytest.raises(FileNotFoundError, match=r"must have FAST targets, but .*fast attach"):
        opened(tmp_path, "plain")


def test_what_a_policy_needs_is_in_the_facts(folder):
    facts = opened(folder).stream.facts
    assert facts.policy["recipe"]["state_in_prompt"]
    assert facts.policy["tokenizer"] == "bytes"
    names = set(facts.assets)
    assert "physical-intelligence/libero/norm_stats.json" in names
    assert "physical-intelligence/libero/fast/tokenizer.json" in names
    json.dumps([facts.description, facts.policy])
    other = opened(folder, "first", "second").stream.facts
    assert other.description != facts.description


def test_openpis_layout_is_learnt_with_action_before_the_codes(folder):
    own = opened(folder).stream._maker
    data = opened(folder, layout=TokenLayout(prompt="openpi_fast"))
    (host,) = taken(data.stream, 1)
    (plain,) = taken(opened(folder).stream, 1)
    words = own.processor.tokenizer
    read, said = host.batch.observation, plain.batch.observation
    start = len(words.encode("Action: ").ids)
    mask = said.fast_action_mask
    for row, valid in enumerate(mask):
        ids = read.fast_action_tokens[row][read.fast_action_mask[row]]
        assert words.decode(ids[:start]) == "Action: "
        np.testing.assert_array_equal(ids[start:], said.fast_action_tokens[row][valid])
        prompt = words.decode(read.tokenized_prompt[row][read.tokenized_prompt_mask[row]])
        assert prompt == prompt.replace("Action: ", "")
        assert prompt.endswith(";\n")
    assert data.stream.facts.policy["prompt_layout"] == "openpi_fast"
    with pytest.raises(
        ValueError, match="`state_in_prompt` must be left out for the prompt layout"
    ):
        TokenLayout(prompt="openpi_fast", state_in_prompt=False)
    with pytest.raises(ValueError, match="`skip` must be at least 0, but got -1"):
        TokenLayout(skip=-1)


DEGENERATE = statistics(q01=0.5, q99=0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"model": dataclasses.replace(MODEL, action_horizon=9)},
            "`model.action_horizon` must be that .* got 9 and .*first holds chunks of 4",
        ),
        (
            {"model": dataclasses.replace(MODEL, action_dim=5)},
            "`model.action_dim` must hold 8 dimensions, those of the robot, but got 5",
        ),
        ({"convention": "droid"}, "must have the state dimensions .* but got droid|action dim"),
        ({"batch_size": 3, "world_size": 2}, "must be a multiple of the 2 processes, but got 3"),
        (
            {"model": dataclasses.replace(MODEL, vocab_size=1500)},
            "`vocab_size` must hold 1256 ids of prompts, 300 FAST codes",
        ),
    ],
)
def test_what_does_not_fit_the_model_or_the_robot_is_named(folder, settings, message):
    with pytest.raises(ValueError, match=message):
        opened(folder, **settings)


@pytest.mark.parametrize("mode", ["insulate", "flow_only"])
def test_statistics_that_do_not_fit_are_named(folder, tmp_path, mode):
    path = tmp_path / "norm_stats.json"
    path.write_text(json.dumps(DEGENERATE.to_json()))
    message = {
        "insulate": "must be those of the FAST targets, but got others",
        "flow_only": "q01 < q99 in every .* got q01 = q99 = 0.5 in dimension 0 of state",
    }[mode]
    with pytest.raises(ValueError, match=message):
        opened(folder, mode=mode, norm_stats=str(path))
    plain = write_frames(tmp_path / "plain", episodes=1)
    with pytest.raises(FileNotFoundError, match=f"Write it with `vla-lens norm-stats {plain}`"):
        opened(tmp_path, "plain", mode="flow_only")


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(
        ValueError, match=r"`weights` must be a positive .* 2 data sets, .* \[1.0\]"
    ):
        DataConfig(paths=["a", "b"], weights=[1.0])
    with pytest.raises(ValueError, match=r"`held_out` must lie in \[0, 1\), but got 1"):
        DataConfig(held_out=1.0)
    with pytest.raises(ValueError, match="`workers` must be at least 0, but got -1"):
        DataConfig(workers=-1)


@pytest.mark.slow
def test_worker_processes_change_no_batch(folder):
    alone = taken(opened(folder, "first", "second").stream, 6)
    data = opened(folder, "first", "second", workers=2)
    data.stream.restore(alone[2].position)
    for expected, found in zip(alone[3:], taken(data.stream, 3), strict=True):
        assert found.keys == expected.keys
        np.testing.assert_array_equal(found.batch.actions, expected.batch.actions)
