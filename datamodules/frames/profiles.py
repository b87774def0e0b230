"""Profiles: how frames and words become a model's inputs.

A profile is stored with every data set that is captured; vectors of different profiles are not
compared. Letters: h height, w width.

Source: RoboVLMs (commit 8adc1d2), `image_processor` of base_backbone.py and `get_text_function` of
data_utils.py.
"""

import dataclasses
import difflib
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
Pixels = UInt8[np.ndarray, "h w 3"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Profile:
    """One way of pre-processing."""

    name: str
    size: int | None
    """Height and width of the model's images, in pixels; None leaves frames as they are."""
    interpolation: str
    """Of PIL: BICUBIC, BILINEAR, ...; the image is squashed, never cropped."""
    mean: tuple[float, float, float] | None
    """Taken off after division by 255; None leaves pixels in 0 to 1."""
    std: tuple[float, float, float] | None
    prompt: str
    """The words around `{instruction}`."""
    zero_gripper: bool = False
    """Whether a gripper image of zeros stands in for the camera that the robot has not."""

    def to_json(self) -> dict[str, Any]:
        """Plain types, as `dataset.json` holds them."""
        return dataclasses.asdict(self)

    def text(self, instruction: str) -> str:
        """The prompt that is tokenised."""
        return self.prompt.replace("{instruction}", instruction.strip())

    def pixels(
        self, image: Pixels
    ) -> Float32[np.ndarray, "3 height width"] | UInt8[np.ndarray, "3 h w"]:
        """One frame as the model takes it."""
        if self.size is None:
            return np.ascontiguousarray(image.transpose(2, 0, 1))
        resample = Image.Resampling[self.interpolation]
        resized = Image.fromarray(image).convert("RGB").resize((self.size, self.size), resample)
        # The order of these steps is torchvision's: ToTensor, then Normalize, in float32.
        values = np.asarray(resized, np.float32) / np.float32(255)
        if self.mean is not None and self.std is not None:
            values = (values - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return np.ascontiguousarray(values.transpose(2, 0, 1), np.float32)


_ROBOT = "<grounding>An image of a robot {instruction}"
PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            name="upstream", size=224, interpolation="BICUBIC", mean=CLIP_MEAN, std=CLIP_STD,
            prompt=_ROBOT,
        ),
        Profile(
            name="mobile_vla", size=224, interpolation="BILINEAR", mean=None, std=None,
            prompt=_ROBOT, zero_gripper=True,
        ),
        Profile(
            name="raw", size=None, interpolation="BICUBIC", mean=None, std=None,
            prompt="{instruction}",
        ),
    )
}  # fmt: skip
"""A new profile is one entry here."""


def find_profile(name: str) -> Profile:
    """A profile by name.

    Raises:
        ValueError: if there is none of this name.
    """
    if name not in PROFILES:
        near = difflib.get_close_matches(name, PROFILES, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(f"`profile` must be one of {', '.join(PROFILES)}, but got {name!r}.{hint}")
    return PROFILES[name]
