"""Action chunks: what follows a frame, and what is made up behind the end."""

import numpy as np
import pytest

from jax_bridge.demos.chunks import ChunkQueue, action_chunk

ACTIONS = np.arange(10, dtype=np.float32).reshape(5, 2)


@pytest.mark.parametrize("horizon", [1, 3, 5, 9])
def test_a_queue_gives_what_cutting_the_whole_episode_gives(horizon):
    found = []
    queue = ChunkQueue(horizon, lambda *entry: found.append(entry))
    for step, action in enumerate(ACTIONS):
        queue.push(step, action)
        assert len(found) == max(0, step + 2 - horizon)  # no more is held back than must be
    queue.finish()
    assert [frame for frame, _, _ in found] == [0, 1, 2, 3, 4]
    for step, chunk, padding in found:
        expected, behind = action_chunk(ACTIONS, step, horizon)
        assert np.array_equal(chunk, expected)
        assert np.array_equal(padding, behind)


def test_the_last_action_is_repeated_behind_the_end_and_marked():
    chunk, padding = action_chunk(ACTIONS, 3, 4)
    assert chunk[:, 0].tolist() == [6, 8, 8, 8]
    assert padding.tolist() == [False, False, True, True]


def test_frames_that_are_not_kept_still_give_their_actions():
    found = []
    queue = ChunkQueue(2, lambda *entry: found.append(entry))
    for step, action in enumerate(ACTIONS):
        queue.push(step if step % 2 == 0 else None, action)
    queue.finish()
    assert [(frame, chunk[1, 0]) for frame, chunk, _ in found] == [(0, 2), (2, 6), (4, 8)]


def test_a_horizon_without_actions_is_refused():
    with pytest.raises(ValueError, match="`horizon` must be positive, but got 0"):
        ChunkQueue(0, lambda *entry: None)
