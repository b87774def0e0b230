"""Pickles as the earlier scripts wrote them."""

import pickle

import numpy as np
import pytest

LAYERS, WIDTH, TEXT, HORIZON = 3, 8, 48, 10
LABELS = [round(0.1 * tenth, 1) for tenth in range(9, 0, -1)]


def group(random, tokens, width, dtype=np.float32):
    """All sites of one sequence."""
    return {
        "hidden_states": random.normal(size=(LAYERS, 1, tokens, width)).astype(dtype),
        "post_attn_embedding": random.normal(size=(LAYERS, 1, tokens, width)).astype(dtype),
        "pre_attn_norm_scales": random.random((LAYERS, 1, tokens, 1), np.float32),
        "pre_mlp_norm_scales": random.random((LAYERS, 1, tokens), np.float32),
    }


def step(random, dtype=np.float32):
    """One step: a prompt without images, and nine labelled flow steps."""
    return {
        "vlm_layer_output": group(random, TEXT, WIDTH, dtype),
        **{
            f"action_expert_hidden_state_t{label}": group(random, 1 + HORIZON, WIDTH // 2, dtype)
            for label in LABELS
        },
    }


def task(random, episodes=2, steps=2, dtype=np.float32):
    """The content of a file."""
    return {
        "episodes": {
            f"episode_{e}": {
                "rollout_steps": {f"step_{5 * t}": step(random, dtype) for t in range(steps)},
                "metadata": {"success": bool(e % 2), "total_steps": np.int64(5 * steps)},
            }
            for e in range(episodes)
        }
    }


@pytest.fixture
def random():
    """A generator of its own for each test."""
    return np.random.default_rng(0)


@pytest.fixture
def save():
    """Writes a pickle."""

    def save(path, content, protocol=pickle.DEFAULT_PROTOCOL):
        path.write_bytes(pickle.dumps(content, protocol=protocol))
        return path

    return save
