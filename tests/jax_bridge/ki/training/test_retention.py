"""A judge sees the layers of the live parameters, the same samples each time."""

import dataclasses

import numpy as np
import pytest

from jax_bridge.ki.train_step import as_given
from jax_bridge.ki.training.retention import RetentionJudge, RetentionWatcher
from jax_bridge.ki.training.stream import HostBatch
from jax_bridge.ki.training.watcher import Watcher
from jax_bridge.pi0 import Pi0


class Remember:
    """Keeps what it is shown; its score is the distance to what it was shown first."""

    def __init__(self):
        self.seen = []

    def __call__(self, means, keys):
        self.seen.append((means, keys))
        moved = np.abs(means["prompt"] - self.seen[0][0]["prompt"]).max(axis=(1, 2))
        return {f"moved/layer{layer:02d}": float(far) for layer, far in enumerate(moved)}


@pytest.fixture(scope="module")
def held_out(settings_of, batch_of):
    model = settings_of().model
    return [HostBatch(batch_of(model, n), tuple(f"s{n}-{i}" for i in range(4)), {}) for n in (0, 1)]


def test_a_judge_sees_every_layer_of_the_live_parameters(settings_of, held_out):
    model, judge = settings_of().model, Remember()
    watcher = RetentionWatcher(held_out, as_given, model, judge, every=5)
    assert isinstance(watcher, Watcher)
    assert isinstance(judge, RetentionJudge)
    params = Pi0(model).init(0)
    assert watcher.watch(0, params) == {"retention/moved/layer00": 0, "retention/moved/layer01": 0}
    means, keys = judge.seen[0]
    assert keys == ("s0-0", "s0-1", "s0-2", "s0-3", "s1-0", "s1-1", "s1-2", "s1-3")
    assert {name: mean.shape for name, mean in means.items()} == {
        "image": (2, 8, 16), "prompt": (2, 8, 16),
    }  # fmt: skip
    moved = watcher.watch(5, Pi0(model).init(1))
    assert min(moved.values()) > 1e-3

    def padded(one):
        """Other words behind the end of the prompts."""
        given = one.batch.observation
        ids = np.where(given.tokenized_prompt_mask, given.tokenized_prompt, 7)
        observation = dataclasses.replace(given, tokenized_prompt=ids)
        return one._replace(batch=dataclasses.replace(one.batch, observation=observation))

    again = Remember()
    RetentionWatcher(map(padded, held_out), as_given, model, again, every=5).watch(0, params)
    for name, mean in again.seen[0][0].items():
        np.testing.assert_allclose(mean, means[name], rtol=1e-5, atol=1e-6)


def test_settings_without_sense_are_refused(settings_of, held_out):
    model = settings_of().model
    with pytest.raises(ValueError, match="`every` must be at least 1, but got 0"):
        RetentionWatcher(held_out, as_given, model, Remember(), every=0)
    with pytest.raises(ValueError, match="`held_out` must hold samples to judge by, but got none"):
        RetentionWatcher([], as_given, model, Remember(), every=1)
