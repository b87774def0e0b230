"""An observation as openpi's clients send it, by the keys of a data convention.

Letters: s robot state.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32

from jax_bridge.environments.environment import RobotObservation
from jax_bridge.policies.conventions import Convention

PROMPT = "prompt"


def read_observation(message: Mapping[str, Any], convention: Convention) -> RobotObservation:
    """What a message shows.

    A key with slashes is found as one key or as nested maps. Every camera of the convention must
    be named, since a misspelt key would otherwise be a black image; None says that the robot has
    no such camera.

    Raises:
        ValueError: if a key is missing, or is no array or text.
    """
    shown = {
        camera: _array(message, key, optional=True) for key, camera in convention.image_keys.items()
    }
    return RobotObservation(
        images={camera: image for camera, image in shown.items() if image is not None},
        state=_state(message, convention),
        instruction=_prompt(message),
    )


def write_observation(
    observation: RobotObservation, images: Mapping[str, np.ndarray], convention: Convention
) -> dict[str, Any]:
    """The message that shows an observation.

    Args:
        observation: its state and instruction are sent.
        images: what is sent instead of its images, by camera.
        convention: gives the keys.

    Raises:
        ValueError: if there is an image of a camera that the convention has not.
    """
    unknown = sorted(set(images) - set(convention.cameras))
    if unknown:
        raise ValueError(
            f"`images` must be of the cameras {', '.join(convention.cameras)} (convention "
            f"{convention.name}), but got {', '.join(unknown)}. Choose another convention."
        )
    return {
        **{key: images.get(camera) for key, camera in convention.image_keys.items()},
        convention.state_key: observation.state,
        PROMPT: observation.instruction,
    }


def blank_observation(convention: Convention, image_size: int) -> RobotObservation:
    """Black images and a robot at zero: for a call whose answer nobody acts on."""
    black = np.zeros((image_size, image_size, 3), np.uint8)
    return RobotObservation(
        images=dict.fromkeys(convention.cameras, black),
        state=np.zeros(convention.state_dim, np.float32),
        instruction="do nothing",
    )


def _state(message: Mapping[str, Any], convention: Convention) -> Float32[np.ndarray, " s"]:
    key, dims = convention.state_key, convention.state_dim
    state = _array(message, key)
    if state is None or state.shape != (dims,) or not np.isfinite(state).all():
        shape = None if state is None else state.shape
        raise ValueError(
            f"`{key}` must be {dims} finite numbers (convention {convention.name}), but got shape "
            f"{shape}."
        )
    return state.astype(np.float32)


def _array(message: Mapping[str, Any], key: str, *, optional: bool = False) -> np.ndarray | None:
    value = _find(message, key)
    if optional and value is None:
        return None
    if isinstance(value, list):
        value = _as_array(key, value)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        raise ValueError(f"`{key}` must be an array of numbers, but got {type(value).__name__}.")
    return value


def _as_array(key: str, value: list[Any]) -> np.ndarray:
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"`{key}` must be an array of numbers, but got a ragged list.") from error


def _prompt(message: Mapping[str, Any]) -> str:
    value = _find(message, PROMPT)
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if not isinstance(value, str):
        raise ValueError(f"`{PROMPT}` must be text, but got {type(value).__name__}.")
    return str(value)


def _find(message: Mapping[str, Any], key: str) -> Any:
    if key in message:
        return message[key]
    value: Any = message
    for word in key.split("/"):
        if not isinstance(value, dict) or word not in value:
            raise ValueError(
                f"`{key}` must be in every observation, but got only "
                f"{', '.join(sorted(map(str, message))[:12]) or 'an empty message'}. Send null "
                "for a camera that the robot has not."
            )
        value = value[word]
    return value
