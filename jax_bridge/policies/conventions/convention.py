"""What a data convention says: cameras, dimensions and, for π0 and π0.5, the recipe.

Letters: s robot state; h action horizon; a dimensions of the robot's action.
"""

import dataclasses
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from jax_bridge.policies.normalisation import NORMALISATIONS
from jax_bridge.vocabulary import CAMERAS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How values were prepared when weights were trained."""

    normalisation: str
    """`z_score` or `quantile`."""
    delta_mask: tuple[bool, ...] | None = None
    """Action dimensions that are relative to the state; None where none is."""
    state_in_prompt: bool = False
    """Whether the discretised state stands in the prompt (π0.5 alone can)."""
    action_horizon: int | None = None
    """Actions in a chunk of the released weights, where it is not the architecture's default."""

    def __post_init__(self) -> None:
        if self.normalisation not in NORMALISATIONS:
            raise ValueError(
                f"`normalisation` must be one of {', '.join(NORMALISATIONS)}, but got "
                f"{self.normalisation!r}."
            )


@runtime_checkable
class Units(Protocol):
    """How a robot's own units become those that weights were trained with, and back."""

    def state_to_model(self, state: Float[np.ndarray, " s"]) -> Float[np.ndarray, " s"]:
        """The robot's state in the units of the training data, before normalisation."""
        ...

    def actions_to_robot(self, actions: Float[np.ndarray, "h a"]) -> Float[np.ndarray, "h a"]:
        """Actions in the units of the training data (unnormalised, absolute) as the robot's."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Convention:
    """One robot's layout of observations and actions, as released checkpoints expect it."""

    name: str
    image_keys: Mapping[str, str]
    """Keys of images in openpi's client messages, to the cameras of this robot. The model's other
    cameras are black and masked out."""
    state_keys: Mapping[str, int]
    """Keys of the state's parts in openpi's client messages, in order, with their dimensions."""
    action_dim: int
    """Dimensions of the robot's action; the model's further ones are dropped."""
    asset_id: str
    """Folder of the statistics: `assets/{asset_id}/norm_stats.json`."""
    pi0: Recipe
    pi05: Recipe
    optional_images: tuple[str, ...] = ()
    """Keys of `image_keys` that a message may leave out; null is allowed for all of them."""
    units: Units | None = None
    """None: the robot's units are those of the training data."""

    def __post_init__(self) -> None:
        known = [camera.name for camera in CAMERAS]
        for key, camera in self.image_keys.items():
            if camera not in known:
                raise ValueError(
                    f"`image_keys` must name cameras out of {', '.join(known)}, but got "
                    f"{camera!r} for {key!r}."
                )
        unknown = [key for key in self.optional_images if key not in self.image_keys]
        if unknown:
            raise ValueError(f"`optional_images` must name `image_keys`, but got {unknown[0]!r}.")
        if not self.state_keys or min(self.state_keys.values()) < 1:
            raise ValueError(
                f"`state_keys` must give each part its dimensions, but got {dict(self.state_keys)}."
            )
        if self.pi0.state_in_prompt:
            raise ValueError("`pi0` must not put the state in its prompt, but got True.")

    @property
    def cameras(self) -> tuple[str, ...]:
        """The robot's cameras, by name."""
        return tuple(self.image_keys.values())

    @property
    def state_dim(self) -> int:
        """Dimensions of the robot's state."""
        return sum(self.state_keys.values())

    def recipe(self, *, pi05: bool, trained: bool) -> Recipe:
        """How to prepare values for π0 or π0.5.

        Random weights (not `trained`) have learnt no convention: nothing is relative, and π0.5
        reads the state in its prompt, which is its general form.
        """
        recipe = self.pi05 if pi05 else self.pi0
        if trained:
            return recipe
        return dataclasses.replace(
            recipe, delta_mask=None, state_in_prompt=pi05, action_horizon=None
        )
