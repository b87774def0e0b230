"""One demonstration: every frame with the actions that follow it; no policy is asked.

With noise on what is sent, the actions that are kept are those that the demonstrator wanted, at
the states to which the noise led: a policy learns to come back from where it should not be.

Source: Laskey et al. 2017, "DART: Noise Injection for Robust Imitation Learning",
arXiv:1703.09327.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from jax_bridge.demos.chunks import ChunkQueue
from jax_bridge.environments.environment import Environment, RobotObservation, StepResult
from jax_bridge.policies.images import parse_image
from jax_bridge.rollouts.driver import disturbed, noise_generator
from jax_bridge.rollouts.protocol import RolloutProtocol
from jax_bridge.rollouts.steps import Outcome, environment_guard
from jax_bridge.shards import EpisodeRecorder
from jax_bridge.shards.canonical_json import canonical_json


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoFrame:
    """One step that is kept."""

    timestep: int
    observation: RobotObservation
    executed: Float32[np.ndarray, " a"]
    truth: dict[str, Any]


class DemoRecorder:
    """Hands frames to the shard writer as soon as the actions that follow them are known."""

    def __init__(self, episode: EpisodeRecorder, *, horizon: int, images: bool) -> None:
        self._episode = episode
        self._images = images
        self.samples = 0
        self.queue = ChunkQueue[DemoFrame](horizon, self._write)

    def _write(
        self, frame: DemoFrame, chunk: Float32[np.ndarray, "h a"], padding: Bool[np.ndarray, " h"]
    ) -> None:
        seen = frame.observation.images.items() if self._images else ()
        self._episode.append(
            timestep=frame.timestep, state=frame.observation.state, actions=chunk,
            executed=frame.executed, action_is_pad=padding, truth=frame.truth,
            images={name: parse_image(image, camera=name) for name, image in seen},
        )  # fmt: skip
        self.samples += 1


def demonstrate(
    environment: Environment,
    protocol: RolloutProtocol,
    key: tuple[str, int, int],
    recorder: DemoRecorder,
) -> Outcome:
    """Rolls one demonstration out; it ends as a policy's episode does.

    Args:
        environment: is reset first.
        protocol: noise, limits, and every how many steps a frame is kept.
        key: suite, task and episode.
        recorder: takes every step.

    Raises:
        EnvironmentFailureError: if the simulator raised.
        ValueError: if the suite has no demonstrator.
    """
    with environment_guard():
        environment.reset(task_id=key[1], episode=key[2], seed=protocol.seed)
    demonstrator, generator = environment.demonstrator(), noise_generator(protocol, key)
    result, first, timestep = StepResult(success=False), None, 0
    while timestep < protocol.max_steps and not result.done:
        if first is not None and timestep - first >= protocol.after_success:
            break
        with environment_guard():
            wanted = np.array(demonstrator.act(), dtype=np.float32)
            sent = disturbed(wanted, protocol.noise, generator)
            kept = timestep % (protocol.stride or 1) == 0
            frame = _look(environment, timestep, sent) if kept else None
            result = environment.step(sent)
        recorder.queue.push(frame, wanted)
        timestep += 1
        first = timestep if result.success and first is None else first
    recorder.queue.finish()
    return Outcome(
        success=first is not None, success_at_end=result.success, episode_length=timestep
    )


def _look(environment: Environment, timestep: int, sent: Float32[np.ndarray, " a"]) -> DemoFrame:
    truth = environment.truth()
    canonical_json(truth)  # what cannot be stored (NaN) is the simulator's error
    return DemoFrame(
        timestep=timestep, observation=environment.observe(), executed=sent, truth=truth
    )
