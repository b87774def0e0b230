"""What a torch model is given: frames, tokens, and where they come from.

Letters: b batch, l frames of the history, h height, w width, n tokens.
"""

from typing import NamedTuple

from jaxtyping import Float32, Int64, UInt8
from torch import Tensor


class FrameSample(NamedTuple):
    """Which frame a row of a batch is, and what is known of its episode."""

    suite: str
    task_id: int
    episode: int
    timestep: int
    instruction: str
    """The task's own words, without the prompt around them."""
    task_name: str | None
    success: bool | None
    episode_length: int
    seed: int | None
    last: bool
    """Whether no other frame of this episode follows."""


class FrameBatch(NamedTuple):
    """Some frames whose prompts have equally many tokens."""

    images: dict[str, Float32[Tensor, "b l 3 h w"] | UInt8[Tensor, "b l 3 h w"]]
    """By camera, `base` and perhaps `gripper`, oldest frame of the history first; uint8 under
    the profile `raw`."""
    tokens: Int64[Tensor, "b n"] | None
    """None where no tokenizer was given."""
    prompts: list[str]
    """What was tokenised."""
    samples: list[FrameSample]
