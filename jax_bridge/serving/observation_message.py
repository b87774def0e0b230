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
    no such camera. What the convention calls optional may be left out.

    Raises:
        ValueError: if a key is missing, or is no array or text.
    """
    shown = {
        camera: None
        if key in convention.optional_images and not _is_there(message, key)
        else _array(message, key, optional=True)
        for key, camera in convention.image_keys.items()
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
    ends = np.cumsum(list(convention.state_keys.values()))[:-1]
    parts = np.split(np.asarray(observation.state), ends)
    return {
        **{key: images.get(camera) for key, camera in convention.image_keys.items()},
        **dict(zip(convention.state_keys, parts, strict=True)),
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
    parts = []
    for key, dims in convention.state_keys.items():
        part = _array(message, key)
        if part is not None and part.ndim == 0 and dims == 1:
            part = part[None]
        if part is None or part.shape != (dims,) or not np.isfinite(part).all():
            shape = None if part is None else part.shape
            raise ValueError(
                f"`{key}` must be {dims} finite numbers (convention {convention.name}), but got "
                f"shape {shape}."
            )
        parts.append(part.astype(np.float32))
    return np.concatenate(parts)


def _is_there(message: Mapping[str, Any], key: str) -> bool:
    value: Any = message
    for word in () if key in message else key.split("/"):
        if not isinstance(value, dict) or word not in value:
            return False
        value = value[word]
    return True


def _array(message: Mapping[str, Any], key: str, *, optional: bool = False) -> np.ndarray | None:
    value = _find(message, key)
    if optional and value is None:
        return None
    if isinstance(value, list | float | np.number):  # a gripper may come as one number
        value = _as_array(key, value)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        raise ValueError(f"`{key}` must be an array of numbers, but got {type(value).__name__}.")
    return value


def _as_array(key: str, value: Any) -> np.ndarray:
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
