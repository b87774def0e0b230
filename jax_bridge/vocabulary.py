"""The words of VLA Lens: experts, sites, regions, pools and cameras.

Everything that names a latent (field names in shards, flags of the command line, axes of a
figure) takes its words from here, so that one thing has one name.
"""

import dataclasses

EXPERTS: tuple[str, ...] = ("vlm", "action")
"""`vlm`: the vision-language model (PaliGemma, Expert 0); `action`: Action Expert, Expert 1."""

RESIDUAL_SITES: tuple[str, ...] = ("hidden_states", "post_attn_embedding", "mlp_activation")
"""Sites with a width: after the block, after attention + first residual, inside the MLP."""

SCALE_SITES: tuple[str, ...] = ("pre_attn_norm_scale", "pre_mlp_norm_scale")
"""RMS of a norm's input, `sqrt(mean(x²) + 1e-6)`, float32, one number a token."""

SAMPLER_SITES: tuple[str, ...] = ("x_t", "velocity")
"""The flow-matching sampler's state and the expert's output; these have no layer."""

SITES: tuple[str, ...] = (*RESIDUAL_SITES, *SCALE_SITES, "attention", *SAMPLER_SITES)

POOLS: tuple[str, ...] = ("tokens", "mean", "last", "max")
"""`tokens` (none), mean over valid tokens, last valid token, maximum over valid tokens."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Camera:
    """One camera under the three names it goes by."""

    name: str
    """In shards and environments: the member `.{name}.jpg`."""
    openpi_key: str
    """In openpi's observation."""
    region: str
    """The region of its tokens."""


CAMERAS: tuple[Camera, ...] = (
    Camera(name="base", openpi_key="base_0_rgb", region="image_base"),
    Camera(name="left_wrist", openpi_key="left_wrist_0_rgb", region="image_left_wrist"),
    Camera(name="right_wrist", openpi_key="right_wrist_0_rgb", region="image_right_wrist"),
)
"""The cameras in the order in which their tokens stand in the prefix."""

IMAGE_REGIONS: tuple[str, ...] = tuple(camera.region for camera in CAMERAS)
TEXT_REGIONS: tuple[str, ...] = ("text", "instruction", "state_text")
"""All of the prompt; the instruction's words alone; the state's digits alone (π0.5)."""

REGIONS_OF_EXPERT: dict[str, tuple[str, ...]] = {
    "vlm": (*IMAGE_REGIONS, *TEXT_REGIONS),
    "action": ("state", "action"),
}
REGIONS: tuple[str, ...] = (*REGIONS_OF_EXPERT["vlm"], *REGIONS_OF_EXPERT["action"])

SPOKEN_REGIONS: tuple[str, ...] = ("fast",)
"""Tokens that the backbone says rather than reads, one a decoding step: their fields have the axis
`ar_step` in the place of `token`. Only a policy that decodes has them."""
