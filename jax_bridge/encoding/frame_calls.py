"""The policy's answers to recorded frames, in their order."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from jax_bridge.demos.conversion import OUR_CAMERAS
from jax_bridge.demos.placing import PlacedEpisode
from jax_bridge.encoding.plan import EncodePlan
from jax_bridge.environments.environment import RobotObservation
from jax_bridge.episodes import EpisodeReader, EpisodeReadError
from jax_bridge.policies.policy import BatchedPolicy, Policy, PolicyCall, PolicyOutput

FRAMES_AT_ONCE = 16
"""Frames of a camera that are decoded together, at least."""


class EncodedFrame(NamedTuple):
    """What the policy was shown at one step, and what it gave."""

    step: int
    observation: RobotObservation
    executed: Float32[np.ndarray, " a"]
    """The recorded action of this step."""
    output: PolicyOutput


def encoded_frames(
    policy: Policy, plan: EncodePlan, placed: PlacedEpisode, reader: EpisodeReader
) -> Iterator[EncodedFrame]:
    """Shows the policy every chosen frame of an episode.

    Raises:
        EpisodeReadError: if the episode cannot be read, or has no state.
        ValueError: if the policy cannot take such observations.
    """
    actions, states = reader.actions(), reader.state()
    if states is None:
        raise EpisodeReadError(f"{placed.info.source}: it has no state, which the policy reads.")
    cameras = [c.name for c in placed.info.cameras if c.name in OUR_CAMERAS]
    steps = plan.steps(placed)
    count = max(plan.batch, FRAMES_AT_ONCE // plan.batch * plan.batch)
    for first in range(0, len(steps), count):
        some = steps[first : first + count]
        seen = {camera: reader.frames(camera, some) for camera in cameras}
        calls = [
            PolicyCall(
                RobotObservation(
                    images={camera: frames[place] for camera, frames in seen.items()},
                    state=states[step],
                    instruction=placed.instruction,
                ),
                (plan.suite, placed.task_id, placed.number, step),
            )
            for place, step in enumerate(some)
        ]
        for step, call, output in zip(some, calls, _answers(policy, plan, calls), strict=True):
            yield EncodedFrame(step, call.observation, actions[step], output)


def _answers(policy: Policy, plan: EncodePlan, calls: list[PolicyCall]) -> Iterator[PolicyOutput]:
    if plan.batch == 1 or not isinstance(policy, BatchedPolicy):
        for call in calls:
            noise_key = (plan.seed, *call.noise_key)
            yield policy.infer(call.observation, capture=plan.capture, noise_key=noise_key)
        return
    for first in range(0, len(calls), plan.batch):
        rows: list[PolicyCall | None] = [
            call._replace(noise_key=(plan.seed, *call.noise_key))
            for call in calls[first : first + plan.batch]
        ]
        # The batch keeps its size, so that one program does and results do not depend on the rest.
        padded = rows + [None] * (plan.batch - len(rows))
        for output in policy.infer_batch(padded, capture=plan.capture)[: len(rows)]:
            assert output is not None
            yield output
