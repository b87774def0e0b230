"""Simulators that other processes can make, and a batched policy without a compiler."""

import dataclasses
import os
import signal
import zlib

import numpy as np

from jax_bridge.environments.tabletop import Tabletop
from jax_bridge.policies.policy import PolicyOutput
from jax_bridge.shards import FieldSpec

FIELD = "vlm.hidden_states.text.mean"


class Fragile(Tabletop):
    """A tabletop whose episodes can raise, die or be without a demonstrator."""

    def __init__(self, *, raises=(), dies=(), shy=False):
        super().__init__(image_size=16)
        self._raises, self._dies, self._shy = set(raises), set(dies), shy

    def reset(self, *, task_id, episode, seed):
        super().reset(task_id=task_id, episode=episode, seed=seed)
        self._at, self._steps = episode, 0

    def step(self, action):
        self._steps += 1
        if self._steps == 4 and self._at in self._dies:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._steps == 4 and self._at in self._raises:
            raise RuntimeError("exploded at step 4")
        return super().step(action)

    def demonstrator(self):
        if self._shy:
            raise ValueError("`drive` must be policy here, but got demonstrator.")
        return super().demonstrator()


@dataclasses.dataclass
class RowPolicy:
    """Answers in batches; what it says depends on state, noise key and the row alone."""

    batches: list[list[tuple]] = dataclasses.field(default_factory=list)
    action_horizon = 6

    def describe(self):
        return {"name": "rows"}

    def fields(self, capture):
        spec = FieldSpec(name=FIELD, dtype="float32", shape=(4,), axes=("width",))
        return {FIELD: spec}

    def seen_images(self, observation):
        return observation.images

    def infer(self, observation, *, capture=None, noise_key=()):
        noise = np.random.default_rng(zlib.crc32(repr(tuple(noise_key)).encode()))
        actions = noise.uniform(-1, 1, (6, 7)).astype(np.float32)
        actions[:, 0] = np.clip(10 * observation.state[0], -1, 1)
        latents = {FIELD: observation.state[:4].copy()} if capture is not None else {}
        return PolicyOutput(actions=actions, latents=latents)

    def infer_batch(self, calls, *, capture=None):
        self.batches.append([call and tuple(call.noise_key) for call in calls])
        return [
            call and self.infer(call.observation, capture=capture, noise_key=call.noise_key)
            for call in calls
        ]
