"""The backbone acts by itself: its tokens become actions, or are counted as failures."""

import json

import jax
import numpy as np
import pytest

from jax_bridge.environments.tabletop.tabletop import Tabletop
from jax_bridge.ki.decoding import Decoded
from jax_bridge.ki.spoken_actions import chunks_of
from jax_bridge.policies import fast_policy
from jax_bridge.policies.fast_policy import FastPolicy
from jax_bridge.policies.policy import BatchedPolicy, PolicyCall
from tests.small_checkpoint import (
    CHUNKS,
    DIMS,
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
