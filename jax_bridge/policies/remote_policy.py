"""A policy that runs elsewhere, behind openpi's websocket protocol.

Any openpi server gives actions; one of ours gives latents as well, and starts the sampler from the
noise that the caller names, so that a rollout is the same wherever the policy runs.

Letters: h action horizon; a dimensions of a robot action.
"""

import functools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jax_bridge.environments.environment import RobotObservation
from jax_bridge.pi0 import CaptureSpec
from jax_bridge.policies.conventions import Convention, get_convention
from jax_bridge.policies.images import IMAGE_SIZE, parse_image, resize_with_pad
from jax_bridge.policies.policy import PolicyOutput
from jax_bridge.serving.observation_message import blank_observation, write_observation
from jax_bridge.serving.served_policy import PROTOCOL, SERVER
from jax_bridge.serving.server_connection import ServerConnection
from jax_bridge.shards.field import FieldSpec


class RemotePolicy:
    """Asks a policy server.

    Args:
        remote: address of the server, ws://host:port.
        convention: keys of images and state in messages, by name or dotted path. By default the
            server's, or libero where it does not say.
        patience: seconds to wait for a server that is away, at the start and in between.
        timeout: seconds to wait for an answer; a server may have to compile first.

    Raises:
        ValueError: if the address is none.
    """

    def __init__(
        self,
        *,
        remote: str,
        convention: str | None = None,
        patience: float = 60.0,
        timeout: float = 600.0,
    ) -> None:
        self._address = remote
        self._given_convention = None if convention is None else get_convention(convention)
        self._server = ServerConnection(remote, patience=patience, timeout=timeout)

    @functools.cached_property
    def convention(self) -> Convention:
        """The keys of messages.

        Raises:
            ValueError: if the server has another one than was asked for.
        """
        told, given = self._server.metadata.get("convention"), self._given_convention
        if given is None:
            return get_convention(str(told) if self._is_ours else "libero")
        if self._is_ours and told != given.name:
            raise ValueError(
                f"`convention` must be that of the server, {told}, but got {given.name}. Leave it "
                "out."
            )
        return given

    @functools.cached_property
    def action_horizon(self) -> int:
        """How many actions one call gives; a server that does not say is asked once."""
        if self._is_ours:
            return int(self._server.metadata["action_horizon"])
        blank = blank_observation(self.convention, IMAGE_SIZE)
        return len(_actions(self._server.ask(self._message(blank))))

    def describe(self) -> dict[str, Any]:
        """What the server says of its model, and where it is.

        The description of one of our servers is that of the policy itself: the same data set can
        be written with and without a server.
        """
        if self._is_ours:
            return {**self._server.metadata["model"], "address": self._address}
        entry = {
            "policy": "remote",
            "address": self._address,
            "server": self._server.metadata,
            "convention": self.convention.name,
            "action_horizon": self.action_horizon,
        }
        return json.loads(json.dumps(entry, default=str))

    def fields(self, capture: CaptureSpec) -> dict[str, FieldSpec]:
        """Every latent that the server gives; none where it is not one of ours.

        Raises:
            ValueError: if the server captures something else.
        """
        if not self._is_ours or self._server.metadata["capture"] is None:
            return {}
        told = self._server.metadata["capture"]
        if told != capture.to_json():
            raise ValueError(
                "`capture` must be what the server captures, but it was started with another one. "
                "Give `collect` and `serve` the same --capture."
            )
        return self._fields

    def seen_images(self, observation: RobotObservation) -> dict[str, UInt8[np.ndarray, "h w 3"]]:
        """The camera images as they are sent: resized with padding, by camera name."""
        size = int(self._server.metadata.get("image_size", IMAGE_SIZE)) if self._is_ours else 0
        size = size or IMAGE_SIZE
        return {
            name: resize_with_pad(parse_image(image, camera=name), size, size)
            for name, image in observation.images.items()
        }

    def infer(
        self,
        observation: RobotObservation,
        *,
        capture: CaptureSpec | None = None,
        noise_key: Sequence[int | str] = (),
    ) -> PolicyOutput:
        """The next actions, and the latents where the server gives them.

        Raises:
            ConnectionError: if the server stays away.
            ValueError: if the server refuses the observation, or answers what nobody asked.
        """
        message = self._message(observation)
        wants = capture is not None and bool(self.fields(capture))
        if self._is_ours:
            message |= {"collect_latents": wants, "noise_key": list(noise_key)}
        answer = self._server.ask(message)
        latents = self._latents(answer) if wants else {}
        return PolicyOutput(actions=_actions(answer), latents=latents)

    def close(self) -> None:
        """Leaves the server."""
        self._server.close()

    @functools.cached_property
    def _is_ours(self) -> bool:
        told = self._server.metadata
        if told.get("server") != SERVER:
            return False
        if told.get("protocol") != PROTOCOL:
            raise ValueError(
                f"`remote` must be a server of protocol {PROTOCOL}, but got "
                f"{told.get('protocol')!r}. Run the same version of VLA Lens on both sides."
            )
        return True

    @functools.cached_property
    def _fields(self) -> dict[str, FieldSpec]:
        entries = self._server.metadata["fields"]
        return {name: FieldSpec.from_json(name, entry) for name, entry in entries.items()}

    def _message(self, observation: RobotObservation) -> dict[str, Any]:
        return write_observation(observation, self.seen_images(observation), self.convention)

    def _latents(self, answer: dict[str, Any]) -> dict[str, np.ndarray]:
        """Latents in their own types: bfloat16 travels as float32."""
        given = answer.get("latents")
        if not isinstance(given, dict) or set(given) != set(self._fields):
            raise ValueError("The policy server must answer with the latents that it announced.")
        return {name: np.asarray(v).astype(self._fields[name].numpy_dtype)
                for name, v in given.items()}  # fmt: skip


def _actions(answer: dict[str, Any]) -> np.ndarray:
    actions = answer.get("actions")
    if not isinstance(actions, np.ndarray) or actions.ndim != 2 or actions.dtype.kind not in "fiu":
        raise ValueError(
            "The policy server must answer with `actions` [horizon, dimensions], but got "
            f"{getattr(actions, 'shape', type(actions).__name__)}."
        )
    return actions.astype(np.float32)
