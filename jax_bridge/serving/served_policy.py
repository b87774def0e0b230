"""A policy as a server holds it: what it tells clients first, and one answer a message.

Nothing here knows of the network.
"""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

from jax_bridge.environments.environment import RobotObservation
from jax_bridge.pi0 import CaptureSpec
from jax_bridge.policies.conventions import Convention
from jax_bridge.policies.policy import Policy, PolicyOutput
from jax_bridge.serving.client_words import ClientWords, read_words
from jax_bridge.serving.observation_message import blank_observation, read_observation
from jax_bridge.serving.wire import decode, encode
from jax_bridge.shards import DatasetInfo

SERVER, PROTOCOL = "vla-lens", 1
"""What a server of ours says of itself; PROTOCOL counts up when its words change."""
FIRST_SIZE = 224
"""Height and width of the black images that ask a policy which size it sees, in pixels."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """One message, read."""

    words: ClientWords
    observation: RobotObservation | None
    """None where the message only ends an episode."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServedPolicy:
    """A policy, the keys of its clients' messages, and the latents that it can give."""

    policy: Policy
    convention: Convention
    capture: CaptureSpec | None
    """None: this server gives actions alone."""

    def metadata(self) -> dict[str, Any]:
        """What every client is told first."""
        blank = blank_observation(self.convention, FIRST_SIZE)
        sizes = {image.shape[0] for image in self.policy.seen_images(blank).values()}
        fields = self.policy.fields(self.capture) if self.capture else {}
        return {
            "server": SERVER,
            "protocol": PROTOCOL,
            "action_horizon": self.policy.action_horizon,
            "convention": self.convention.name,
            "cameras": list(self.convention.cameras),
            "image_size": max(sizes),
            "capture": self.capture.to_json() if self.capture else None,
            "fields": {name: spec.to_json() for name, spec in fields.items()},
            "model": self.policy.describe(),
        }

    def dataset_info(self) -> DatasetInfo:
        """What `dataset.json` says of what clients ask.

        Raises:
            ValueError: if this server captures nothing.
        """
        if self.capture is None:
            raise ValueError("`capture` must name latents where shards are written, but got none.")
        return DatasetInfo(
            fields=self.policy.fields(self.capture),
            capture=self.capture.to_json(),
            model=self.policy.describe(),
            environment={"name": SERVER, "convention": self.convention.name},
            seed=0,
        )

    def warm_up(self) -> None:
        """Compiles what calls will need."""
        blank = blank_observation(self.convention, FIRST_SIZE)
        self.policy.infer(blank)
        if self.capture is not None:
            self.policy.infer(blank, capture=self.capture)

    def read(self, content: bytes | str) -> Question:
        """Reads a message.

        Raises:
            ValueError: if it is not what this server understands.
        """
        if isinstance(content, str):
            raise ValueError("A message must be binary (msgpack), but got text.")
        message = decode(content)
        words = read_words(message)
        if words.collect_latents and self.capture is None:
            raise ValueError(
                "`collect_latents` must be false here, but got true: this server captures nothing. "
                "Start it with --capture pooled."
            )
        if words.end_episode is not None:
            return Question(words=words, observation=None)
        return Question(words=words, observation=read_observation(message, self.convention))

    def infer(
        self, question: Question, noise_key: tuple[int | str, ...], *, records: bool
    ) -> tuple[PolicyOutput, float]:
        """The policy's output and the seconds that it took.

        Raises:
            ValueError: if the observation is not what the policy reads.
        """
        assert question.observation is not None
        wants = records or question.words.collect_latents
        start = time.perf_counter()
        output = self.policy.infer(
            question.observation,
            capture=self.capture if wants else None,
            noise_key=question.words.noise_key or noise_key,
        )
        return output, time.perf_counter() - start


def encode_answer(
    output: PolicyOutput, timing: Mapping[str, float], *, with_latents: bool
) -> bytes:
    """The answer to an observation, in openpi's form."""
    answer: dict[str, Any] = {
        "actions": output.actions,
        "policy_timing": {"infer_ms": timing["infer_ms"]},
        "server_timing": dict(timing),
    }
    if with_latents:
        answer["latents"] = output.latents
    return encode(answer)
