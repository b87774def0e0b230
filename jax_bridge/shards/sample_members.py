"""Turning one sample into the bytes of its members."""

import dataclasses
import io
import re
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from PIL import Image

from jax_bridge.shards.canonical_json import canonical_json
from jax_bridge.shards.field import FieldSpec
from jax_bridge.shards.safetensors_header import encode_tensors
from jax_bridge.shards.sample_key import MEMBER_WORD
from jax_bridge.shards.tar_layout import padded

OUTCOMES: dict[bool | None, str] = {True: "success", False: "failure", None: "unknown"}
_LONGEST_OUTCOME: dict[str, Any] = {
    "success": False,
    "success_at_end": False,
    "outcome": "unknown",
    "episode_length": 10**9,
}
NO_FIELDS: dict[str, dict[str, np.ndarray]] = {"latents.safetensors": {}}
_COLUMN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageFormat:
    """How camera images are stored."""

    kind: Literal["jpg", "png"] = "jpg"
    """`png` where losslessness is asked."""
    quality: int = 95
    """Of JPEG, 1 to 95."""

    def __post_init__(self) -> None:
        if self.kind not in ("jpg", "png"):
            raise ValueError(f"`kind` must be jpg or png, but got {self.kind!r}.")
        if not 1 <= self.quality <= 95:
            raise ValueError(f"`quality` must lie in 1 to 95, but got {self.quality}.")


def encode_json(entry: Mapping[str, Any], size: int | None = None) -> bytes:
    """A `.json` member that has room for any outcome: padded with spaces to whole tar blocks.

    Args:
        entry: the sample's metadata.
        size: of the member that this one replaces; None for the first writing.
    """
    text = canonical_json(entry).encode()
    if size is None:
        size = padded(len(canonical_json({**entry, **_LONGEST_OUTCOME}).encode()) + 1)
    assert len(text) < size
    return text.ljust(size - 1) + b"\n"


def check_extra(extra: Mapping[str, Any], reserved: frozenset[str]) -> dict[str, Any]:
    """Metadata of the caller's own, which becomes columns of the index.

    Raises:
        ValueError: if a name is taken or no column name, or a value is no scalar.
    """
    for name, value in extra.items():
        if not _COLUMN.fullmatch(name) or name in reserved:
            raise ValueError(
                f"`extra` must have names of letters, digits and underscores that are not taken, "
                f"but got {name!r}."
            )
        if not isinstance(value, str | bool | int | float | np.generic | None):
            raise ValueError(
                f"`extra` must hold scalars, but got {type(value).__name__} for {name!r}. Put "
                "nested values under `truth`."
            )
    return dict(extra)


def encode_latents(
    latents: Mapping[str, Any], fields: Mapping[str, FieldSpec], key: str
) -> dict[str, bytes]:
    """The members that hold a sample's fields, by suffix.

    Raises:
        ValueError: if a field is unknown or missing, or has another dtype or shape than declared.
    """
    unknown, missing = set(latents) - set(fields), set(fields) - set(latents)
    if unknown or missing:
        word, names = ("unknown", unknown) if unknown else ("missing", missing)
        raise ValueError(
            f"`latents` must hold exactly the data set's {len(fields)} fields, but in sample "
            f"{key} {', '.join(sorted(names))} is {word}."
        )
    arrays = {name: np.asarray(value) for name, value in latents.items()}
    for name, array in arrays.items():
        spec = fields[name]
        if array.dtype != spec.numpy_dtype or array.shape != spec.shape:
            raise ValueError(
                f"`latents` must match the declared fields, but in sample {key} {name} is "
                f"{array.dtype} {array.shape} instead of {spec.dtype} {spec.shape}."
            )
    members: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        members.setdefault(fields[name].member, {})[name] = array
    # A data set without fields has an empty member all the same.
    return {suffix: encode_tensors(held) for suffix, held in (members or NO_FIELDS).items()}


def encode_robot(state: Any, actions: Any, executed: Any, action_is_pad: Any) -> bytes | None:
    """The `.robot.safetensors` member; None where nothing is given."""
    given = {"state": state, "actions": actions, "executed": executed}
    arrays: dict[str, np.ndarray] = {
        name: np.asarray(value, np.float32) for name, value in given.items() if value is not None
    }
    if action_is_pad is not None:
        arrays["action_is_pad"] = np.asarray(action_is_pad, np.bool_)
    return encode_tensors(arrays) if arrays else None


def encode_image(camera: str, image: np.ndarray, form: ImageFormat) -> bytes:
    """One camera image.

    Raises:
        ValueError: if the camera's name cannot be part of a member's name.
    """
    if not MEMBER_WORD.fullmatch(camera):
        raise ValueError(
            f"`images` must be keyed by camera names of letters, digits and underscores, but got "
            f"{camera!r}."
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"`images` must be uint8 [height, width, 3], but got {image.dtype} {image.shape} for "
            f"{camera}."
        )
    buffer = io.BytesIO()
    if form.kind == "png":
        Image.fromarray(image).save(buffer, "png")
    else:
        Image.fromarray(image).save(buffer, "jpeg", quality=form.quality)
    return buffer.getvalue()
