"""From a robot's observation to the model's inputs, and from the model's actions back.

In: images to 224 by 224 in [-1, 1], state normalised, prompt tokenised, state padded. Out:
unnormalised, made absolute where the recipe says so, cut to the robot's dimensions.

Source: openpi, `src/openpi/policies/policy.py` and `src/openpi/policies/libero_policy.py`.
Letters: h action horizon; d dimensions of the model's actions; a of the robot's.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, UInt8

from jax_bridge.environments.environment import RobotObservation
from jax_bridge.pi0.config import Pi0Config
from jax_bridge.pi0.observation import Observation
from jax_bridge.policies.conventions import Convention, Recipe
from jax_bridge.policies.delta_actions import to_absolute
from jax_bridge.policies.images import parse_image, resize_with_pad, to_model_range
from jax_bridge.policies.normalisation import NormStats, normalise, unnormalise
from jax_bridge.policies.tokenizers import Tokenizer, tokenize_prompt
from jax_bridge.vocabulary import CAMERAS


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Processor:
    """Everything between a robot's units and the model's."""

    config: Pi0Config
    convention: Convention
    recipe: Recipe
    tokenizer: Tokenizer
    norm_stats: NormStats | None = None
    """None: states and actions are used as they are."""
    prompt_layout: str = "ki"
    """One of `PROMPT_LAYOUTS`."""
    cameras: tuple[str, ...] | None = None
    """Cameras that are looked at, where weights were trained without the others; None: all."""

    def __post_init__(self) -> None:
        needed = self.tokenizer.vocabulary_size()
        if needed > self.config.vocab_size:
            raise ValueError(
                f"`tokenizer` must have at most {self.config.vocab_size} ids, the rows of the "
                f"model's embedding table, but got {needed}. Choose the tokenizer 'bytes' for a "
                "small model."
            )
        if self.convention.state_dim > self.config.action_dim:
            raise ValueError(
                f"`convention` must have at most {self.config.action_dim} state dimensions for "
                f"this model, but got {self.convention.state_dim} ({self.convention.name})."
            )

    @property
    def state_in_prompt(self) -> bool:
        """Whether the discretised state stands in the prompt."""
        return self.recipe.state_in_prompt or self.prompt_layout == "openpi_fast"

    @property
    def seen_cameras(self) -> tuple[str, ...]:
        """Cameras of the robot that are looked at."""
        known = self.convention.cameras
        return tuple(name for name in known if self.cameras is None or name in self.cameras)

    def model_inputs(self, observation: RobotObservation) -> Observation:
        """A batch of one for the model.

        Raises:
            ValueError: if a camera, an image or the state is not what the convention says.
        """
        images, masks = self._images(observation)
        state = self._state(observation)
        prompt = tokenize_prompt(
            self.tokenizer,
            observation.instruction,
            state=state if self.state_in_prompt else None,
            max_length=self.config.max_token_len,
            prompt_layout=self.prompt_layout,
        )
        padded = np.zeros((1, self.config.action_dim), np.float32)
        padded[0, : state.shape[0]] = state
        return Observation(
            images=images,
            image_masks=masks,
            state=padded,
            tokenized_prompt=prompt.ids[None],
            tokenized_prompt_mask=prompt.mask[None],
            instruction_mask=prompt.instruction_mask[None],
            state_text_mask=prompt.state_mask[None],
        )

    def seen_images(self, observation: RobotObservation) -> dict[str, UInt8[np.ndarray, "h w 3"]]:
        """The camera images as the model sees them, before they become floats, by camera name.

        Raises:
            ValueError: if a camera or an image is not what the convention says.
        """
        self._check_cameras(observation.images)
        size = self.config.vision.image_size
        return {
            name: resize_with_pad(parse_image(image, camera=name), size, size)
            for name, image in observation.images.items()
            if name in self.seen_cameras
        }

    def robot_actions(
        self, actions: Float[np.ndarray, "h d"], observation: RobotObservation
    ) -> Float32[np.ndarray, "h a"]:
        """The model's actions in robot units, beginning at the observed state."""
        statistics = self.norm_stats.actions if self.norm_stats else None
        result = unnormalise(actions, statistics, self.recipe.normalisation)
        if self.recipe.delta_mask is not None:
            state = self._state_in_model_units(observation)
            result = to_absolute(result, state, self.recipe.delta_mask)
        result = result[:, : self.convention.action_dim]
        if self.convention.units is not None:
            result = self.convention.units.actions_to_robot(result)
        return result.astype(np.float32)

    def _images(
        self, observation: RobotObservation
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Images and masks of all cameras of the model, by openpi's keys."""
        seen = self.seen_images(observation)
        size = self.config.vision.image_size
        black = np.zeros((size, size, 3), np.uint8)
        images = {c.openpi_key: to_model_range(seen.get(c.name, black))[None] for c in CAMERAS}
        masks = {c.openpi_key: np.array([c.name in seen]) for c in CAMERAS}
        return images, masks

    def _check_cameras(self, given: dict[str, Any]) -> None:
        unknown = sorted(set(given) - set(self.convention.cameras))
        if unknown or not set(given) & set(self.seen_cameras):
            raise ValueError(
                f"`images` must be of the cameras {', '.join(self.seen_cameras)} (convention "
                f"{self.convention.name}), but got {', '.join(unknown) or 'none'}. Rename or drop "
                "them, or choose another convention."
            )

    def _state(self, observation: RobotObservation) -> Float[np.ndarray, " s"]:
        """The normalised state, not yet padded."""
        state = self._state_in_model_units(observation)
        statistics = self.norm_stats.state if self.norm_stats else None
        return normalise(state, statistics, self.recipe.normalisation)

    def _state_in_model_units(self, observation: RobotObservation) -> Float[np.ndarray, " s"]:
        """The state before normalisation."""
        state = np.asarray(observation.state)
        if state.shape != (self.convention.state_dim,) or not np.isfinite(state).all():
            raise ValueError(
                f"`state` must be {self.convention.state_dim} finite numbers (convention "
                f"{self.convention.name}), but got shape {state.shape}: {state}."
            )
        units = self.convention.units
        return state if units is None else units.state_to_model(state)
