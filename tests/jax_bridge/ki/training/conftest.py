"""A tiny model, an endless stream from memory, and a run that is made with them."""

import dataclasses

import numpy as np
import pytest

from jax_bridge.ki.batch import TrainingBatch
from jax_bridge.ki.objective import Objective
from jax_bridge.ki.optimiser import OptimiserConfig
from jax_bridge.ki.training.run_config import RunConfig, TrainSettings
from jax_bridge.ki.training.stream import DataFacts, HostBatch
from jax_bridge.pi0 import Observation, Pi0Config
from jax_bridge.vocabulary import CAMERAS
from tests.quick_compiler import quick_compiler

PROMPT, FAST, DIMS, ROWS = 6, 5, 4, 4


def tiny_model(**changes) -> Pi0Config:
    """Two thin blocks behind 4 image tokens a camera: steps of milliseconds."""
    config = Pi0Config.preset("pi05_micro", max_token_len=PROMPT, action_horizon=3, action_dim=DIMS)
    vlm = dataclasses.replace(
        config.vlm, depth=2, width=16, mlp_dim=32, heads=2, kv_heads=1, head_dim=8
    )
    vision = dataclasses.replace(config.vision, image_size=64, width=16, mlp_dim=32)
    return dataclasses.replace(config, vlm=vlm, action=vlm, vision=vision, vocab_size=64, **changes)


def make_batch(model, number: int, rows: int = ROWS) -> TrainingBatch:
    """A batch that is a function of its number."""
    random = np.random.default_rng([5, number])
    side, keys = model.vision.image_size, [camera.openpi_key for camera in CAMERAS]
    place = np.arange(FAST)[None]
    observation = Observation(
        images={k: random.uniform(-1, 1, (rows, side, side, 3)).astype(np.float32) for k in keys},
        image_masks={k: np.ones(rows, bool) for k in keys},
        state=random.normal(size=(rows, DIMS)).astype(np.float32),
        tokenized_prompt=random.integers(3, 30, (rows, PROMPT)).astype(np.int32),
        tokenized_prompt_mask=np.arange(PROMPT)[None] < random.integers(3, PROMPT + 1, (rows, 1)),
        fast_action_tokens=random.integers(30, 60, (rows, FAST)).astype(np.int32),
        fast_action_mask=place < random.integers(2, FAST + 1, (rows, 1)),
    )
    shape = (rows, model.action_horizon, DIMS)
    return TrainingBatch(
        observation=observation,
        actions=random.normal(size=shape).astype(np.float32),
        action_mask=np.ones(rows, bool),
        action_is_pad=np.zeros(shape[:2], bool),
        action_dims=np.ones(DIMS, bool),
    )


class MemoryStream:
    """Batches by number; the position is the next number."""

    def __init__(self, model, *, poison: int | None = None, kill=None) -> None:
        self.facts = DataFacts(
            description={"fingerprint": "memory"},
            assets={"robot/norm_stats.json": b"{}"},
            policy={"tokenizer": "bytes"},
        )
        self._model, self._next, self._poison, self._kill = model, 0, poison, kill

    def __next__(self) -> HostBatch:
        number = self._next
        self._next += 1
        if self._kill is not None:
            self._kill(number)
        batch = make_batch(self._model, number)
        if number == self._poison:
            batch.actions[1, 0, 0] = np.nan
        keys = tuple(f"memory-t000-e{number:04d}-s{row:04d}" for row in range(ROWS))
        return HostBatch(batch, keys, {"next": self._next}, {"fast_overflow": number})

    def restore(self, position) -> None:
        self._next = position["next"]

    def close(self) -> None:
        pass


def make_settings(model=None, *, objective=None, run=None, **changes) -> TrainSettings:
    settings = TrainSettings(
        model=model or tiny_model(),
        objective=objective or Objective(),
        optimiser=OptimiserConfig(
            peak_learning_rate=1e-3, final_learning_rate=1e-4, warmup_steps=2, decay_steps=50
        ),
        run=RunConfig(
            **{"steps": 6, "batch_size": ROWS, "log_every": 2, "save_every": 3, "keep_last": 2}
            | {"insulation_every": 3}
            | (run or {})
        ),
    )
    return dataclasses.replace(settings, **changes)


@pytest.fixture(autouse=True, scope="module")
def compiled_quickly():
    """See `quick_compiler`; `package` would mean the whole session, since no folder is one."""
    with quick_compiler():
        yield


@pytest.fixture(scope="session")
def memory_stream():
    return MemoryStream


@pytest.fixture(scope="session")
def settings_of():
    return make_settings


@pytest.fixture(scope="session")
def batch_of():
    return make_batch
