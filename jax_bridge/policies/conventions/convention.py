"""What a data convention says: cameras, dimensions and, for π0 and π0.5, the recipe."""

import dataclasses
from collections.abc import Mapping

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Convention:
    """One robot's layout of observations and actions, as released checkpoints expect it."""

    name: str
    image_keys: Mapping[str, str]
    """Keys of images in openpi's client messages, to the cameras of this robot. The model's other
    cameras are black and masked out."""
    state_key: str
    """Key of the state in openpi's client messages."""
    state_dim: int
    """Dimensions of the robot's state."""
    action_dim: int
    """Dimensions of the robot's action; the model's further ones are dropped."""
    asset_id: str
    """Folder of the statistics: `assets/{asset_id}/norm_stats.json`."""
    pi0: Recipe
    pi05: Recipe

    def __post_init__(self) -> None:
        known = [camera.name for camera in CAMERAS]
        for key, camera in self.image_keys.items():
            if camera not in known:
                raise ValueError(
                    f"`image_keys` must name cameras out of {', '.join(known)}, but got "
                    f"{camera!r} for {key!r}."
                )
        if self.pi0.state_in_prompt:
            raise ValueError("`pi0` must not put the state in its prompt, but got True.")

    @property
    def cameras(self) -> tuple[str, ...]:
        """The robot's cameras, by name."""
        return tuple(self.image_keys.values())

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
