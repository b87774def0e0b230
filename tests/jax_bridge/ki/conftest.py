"""A small model and a ragged batch: masked cameras, padded prompts, text and FAST targets."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jax_bridge.ki.batch import TrainingBatch
from jax_bridge.ki.flow import FlowDraws
from jax_bridge.pi0 import Observation, Pi0, Pi0Config
from jax_bridge.vocabulary import CAMERAS
from tests.quick_compiler import quick_compiler

BATCH, PROMPT, TEXT, FAST = 3, 12, 4, 7


def padded(random, lengths, size, low, high):
    mask = np.arange(size)[None] < np.asarray(lengths)[:, None]
    return np.where(mask, random.integers(low, high, (len(lengths), size)), 0).astype(
        np.int32
    ), mask


def make_batch(config, seed=0) -> TrainingBatch:
    random = np.random.default_rng(seed)
    side = config.vision.image_size
    keys = [camera.openpi_key for camera in CAMERAS]
    prompt, prompt_mask = padded(random, [5, 12, 8], PROMPT, 3, 1200)
    text, text_mask = padded(random, [0, 2, 4], TEXT, 3, 1200)
    fast, fast_mask = padded(random, [7, 3, 0], FAST, 1300, 1900)
    observation = Observation(
        images={k: random.uniform(-1, 1, (BATCH, side, side, 3)).astype(np.float32) for k in keys},
        image_masks={k: np.array([True, True, i != 2]) for i, k in enumerate(keys)},
        state=random.normal(size=(BATCH, config.action_dim)).astype(np.float32),
        tokenized_prompt=prompt,
        tokenized_prompt_mask=prompt_mask,
        fast_action_tokens=fast,
        fast_action_mask=fast_mask,
        text_target_tokens=text,
        text_target_mask=text_mask,
    )
    return TrainingBatch(
        observation=observation,
        actions=random.normal(size=(BATCH, config.action_horizon, config.action_dim)).astype("f4"),
        action_mask=np.ones(BATCH, bool),
        action_is_pad=np.zeros((BATCH, config.action_horizon), bool),
        action_dims=np.ones(config.action_dim, bool),
    )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Small:
    config: Pi0Config
    params: dict
    batch: TrainingBatch
    draws: FlowDraws

    def observe(self, **changes):
        observation = dataclasses.replace(self.batch.observation, **changes)
        return dataclasses.replace(self.batch, observation=observation)


@pytest.fixture(scope="module", params=["pi05_micro", "pi0_micro"])
def small(request) -> Small:
    config = Pi0Config.preset(request.param, max_token_len=PROMPT, action_horizon=5, action_dim=6)
    expert = dataclasses.replace(config.vlm, depth=2)
    vision = dataclasses.replace(config.vision, image_size=64)  # four tokens a camera
    config = dataclasses.replace(config, vlm=expert, action=expert, vision=vision)
    random = np.random.default_rng(7)
    draws = FlowDraws(
        jnp.asarray(random.normal(size=(2, BATCH, 5, 6)), jnp.float32),
        jnp.asarray(random.uniform(0.05, 1, (2, BATCH)), jnp.float32),
    )
    params = Pi0(config).init(0)
    return Small(config=config, params=params, batch=make_batch(config), draws=draws)


@pytest.fixture(scope="module")
def quick_programs():
    """For programs that run a few times: the compiler need not think about them."""
    with quick_compiler():
        yield
