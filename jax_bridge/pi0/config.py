"""Sizes of a π0 or π0.5 model, and the presets that go by name."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from jax_bridge.vocabulary import CAMERAS

DTYPES: tuple[str, ...] = ("float32", "bfloat16")


def _check_positive(owner: Any) -> None:
    """Raises if an integer field of a dataclass is below one."""
    for field in dataclasses.fields(owner):
        value = getattr(owner, field.name)
        if field.type is int and value < 1:
            raise ValueError(f"`{field.name}` must be at least 1, but got {value}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """SigLIP's vision transformer: no class token, no pooling, one linear head."""

    width: int
    depth: int
    mlp_dim: int
    heads: int
    patch_size: int
    """Side of a square patch, in pixels."""
    image_size: int = 224
    """Side of the square input image, in pixels."""

    def __post_init__(self) -> None:
        _check_positive(self)
        if self.width % self.heads:
            raise ValueError(
                f"`heads` must divide the width {self.width}, but got {self.heads}. "
                "Choose another number of heads."
            )

    @property
    def grid(self) -> int:
        """Patches along one side of the image."""
        return self.image_size // self.patch_size

    @property
    def tokens(self) -> int:
        """Tokens of one image."""
        return self.grid**2

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExpertConfig:
    """One of the two Gemma transformers that share their attention."""

    width: int
    depth: int
    mlp_dim: int
    heads: int
    kv_heads: int
    """Key and value heads; each serves heads / kv_heads query heads."""
    head_dim: int

    def __post_init__(self) -> None:
        _check_positive(self)
        if self.heads % self.kv_heads or self.heads == self.kv_heads:
            raise ValueError(
                f"`kv_heads` must divide the {self.heads} heads and be fewer, but got "
                f"{self.kv_heads}. π0's experts have 1."
            )
        if self.head_dim % 2:
            raise ValueError(f"`head_dim` must be even (RoPE), but got {self.head_dim}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pi0Config:
    """Every size of a model; hashable, so that a compiled program can be kept for it."""

    vision: VisionConfig
    vlm: ExpertConfig
    """Expert 0: PaliGemma's language model."""
    action: ExpertConfig
    """Expert 1: the action expert."""
    vocab_size: int = 257152
    """Rows of the embedding table."""
    action_dim: int = 32
    action_horizon: int = 50
    """Actions in a chunk."""
    max_token_len: int = 48
    """Tokens of the prompt, padding included."""
    pi05: bool = False
    """π0.5: time enters by adaRMS, and the robot's state is text, not a token."""
    dtype: str = "float32"
    """Type of activations and of initialised parameters: `float32` or `bfloat16`."""

    def __post_init__(self) -> None:
        _check_positive(self)
        if self.dtype not in DTYPES:
            raise ValueError(f"`dtype` must be one of {', '.join(DTYPES)}, but got {self.dtype!r}.")
        for size in ("depth", "heads", "kv_heads", "head_dim"):
            if getattr(self.vlm, size) != getattr(self.action, size):
                raise ValueError(
                    f"`action.{size}` must equal `vlm.{size}` (the experts share their "
                    f"attention), but got {getattr(self.action, size)} and "
                    f"{getattr(self.vlm, size)}."
                )

    @classmethod
    def preset(cls, name: str, **changes: Any) -> "Pi0Config":
        """Makes a named configuration.

        Args:
            name: `pi0` or `pi05` (released sizes), or one of these with `_micro`, `_tiny`,
                `_so400m` (small experts behind a small, medium or released-size vision tower), or
                `_tabletop` (a million numbers, to be trained from nothing on two CPU cores).
            **changes: Fields to change, such as `dtype="bfloat16"` or `action_horizon=10`.

        Raises:
            ValueError: if there is no such preset.
        """
        if name not in PRESETS:
            raise ValueError(f"`name` must be one of {', '.join(PRESETS)}, but got {name!r}.")
        return cls(**{**PRESETS[name], **changes})

    @property
    def depth(self) -> int:
        """Blocks of either expert."""
        return self.vlm.depth

    @property
    def image_tokens(self) -> int:
        """Tokens of all cameras together."""
        return len(CAMERAS) * self.vision.tokens

    @property
    def prefix_len(self) -> int:
        """Tokens of images and prompt."""
        return self.image_tokens + self.max_token_len

    @property
    def suffix_len(self) -> int:
        """Tokens of the action expert: the actions, and π0's state before them."""
        return self.action_horizon + (0 if self.pi05 else 1)

    @property
    def jax_dtype(self) -> jnp.dtype:
        """`dtype` as jax knows it."""
        return jnp.dtype(self.dtype)

    def to_json(self) -> dict[str, Any]:
        """A nested dict of plain numbers and words."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "Pi0Config":
        """Reads what `to_json` wrote."""
        nested = {"vision": VisionConfig, "vlm": ExpertConfig, "action": ExpertConfig}
        return cls(**{key: nested[key](**v) if key in nested else v for key, v in entry.items()})


def _gemma(width: int, depth: int, mlp_dim: int, head_dim: int) -> ExpertConfig:
    """An expert with the head counts that all of π0's experts share."""
    return ExpertConfig(
        width=width, depth=depth, mlp_dim=mlp_dim, heads=8, kv_heads=1, head_dim=head_dim
    )


_MICRO_32 = VisionConfig(width=32, depth=1, mlp_dim=128, heads=2, patch_size=32)
_TI_16 = VisionConfig(width=192, depth=12, mlp_dim=768, heads=3, patch_size=16)
_SO400M_14 = VisionConfig(width=1152, depth=27, mlp_dim=4304, heads=16, patch_size=14)
_GEMMA_DUMMY = _gemma(width=64, depth=4, mlp_dim=128, head_dim=16)
_S_96_12 = VisionConfig(
    width=64, depth=1, mlp_dim=128, heads=2, patch_size=12, image_size=96
)  # fmt: skip
_GEMMA_THIN = ExpertConfig(width=96, depth=6, mlp_dim=192, heads=2, kv_heads=1, head_dim=32)
_GEMMA_300M = _gemma(width=1024, depth=18, mlp_dim=4096, head_dim=256)
_GEMMA_2B = _gemma(width=2048, depth=18, mlp_dim=16384, head_dim=256)

_PI0: dict[str, Any] = {"pi05": False, "max_token_len": 48}
_PI05: dict[str, Any] = {"pi05": True, "max_token_len": 200}
_SMALL: dict[str, Any] = {"vlm": _GEMMA_DUMMY, "action": _GEMMA_DUMMY}
_TABLETOP: dict[str, Any] = {
    "vision": _S_96_12, "vlm": _GEMMA_THIN, "action": _GEMMA_THIN, "vocab_size": 1280,
    "action_dim": 8, "action_horizon": 8,
}  # fmt: skip
_SIZES: dict[str, dict[str, Any]] = {
    "": {"vision": _SO400M_14, "vlm": _GEMMA_2B, "action": _GEMMA_300M},
    "_micro": {"vision": _MICRO_32, **_SMALL, "vocab_size": 2048, "action_horizon": 10},
    "_tiny": {"vision": _TI_16, **_SMALL},
    "_so400m": {"vision": _SO400M_14, **_SMALL},
    "_tabletop": _TABLETOP,
}
PRESETS: dict[str, dict[str, Any]] = {
    family + size: {**sizes, **settings}
    for size, sizes in _SIZES.items()
    for family, settings in (("pi0", _PI0), ("pi05", _PI05))
}
"""Fields of every preset, by name."""
