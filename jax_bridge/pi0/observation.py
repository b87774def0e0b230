"""What the model reads: images, prompt and robot state, as one pytree.

Letters: b batch; h, w image height and width; l prompt tokens; d action dimensions; f FAST tokens;
u tokens of a learnt text.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_bridge.pi0.config import Pi0Config
from jax_bridge.vocabulary import CAMERAS

ArrayLike = jax.Array | np.ndarray
TARGET_FIELDS = (
    "fast_action_tokens", "fast_action_mask", "text_target_tokens", "text_target_mask",
)  # fmt: skip
"""Fields of an observation that are learnt, not read."""


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, kw_only=True)
class Observation:
    """A batch of model inputs; numpy or jax arrays. `check` says what is wrong with one."""

    images: Mapping[str, ArrayLike]
    """[b, h, w, 3] in [-1, 1], by openpi's camera key (`base_0_rgb`, ...)."""
    image_masks: Mapping[str, ArrayLike]
    """bool [b] a camera: whether the robot has it."""
    state: ArrayLike
    """[b, d], normalised and padded with zeros."""
    tokenized_prompt: ArrayLike
    """int32 [b, l], padded with zeros on the right."""
    tokenized_prompt_mask: ArrayLike
    """bool [b, l], false at padding."""
    instruction_mask: ArrayLike | None = None
    """bool [b, l]: which tokens are words of the instruction. None: nothing is known, and the
    region `instruction` has no valid token."""
    state_text_mask: ArrayLike | None = None
    """bool [b, l]: which tokens are digits of the robot's state (π0.5)."""
    fast_action_tokens: ArrayLike | None = None
    """int32 [b, f], padded with zeros on the right: FAST codes as ids of the embedding table, then
    `|` and the end mark. For training; the sampler never reads them."""
    fast_action_mask: ArrayLike | None = None
    """bool [b, f], false at padding."""
    text_target_tokens: ArrayLike | None = None
    """int32 [b, u], padded on the right: a text that is learnt (the answer of a question), with
    its end mark."""
    text_target_mask: ArrayLike | None = None
    """bool [b, u], false at padding."""

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Any]], None]:
        """Children by field name, for jax."""
        names = [field.name for field in dataclasses.fields(self)]
        return [(jax.tree_util.GetAttrKey(name), getattr(self, name)) for name in names], None

    @classmethod
    def tree_unflatten(cls, _: None, children: Any) -> "Observation":
        """Puts children back; they may be anything jax maps over, so nothing is checked."""
        made = object.__new__(cls)
        for field, child in zip(dataclasses.fields(cls), children, strict=True):
            object.__setattr__(made, field.name, child)
        return made

    def without_targets(self) -> "Observation":
        """The same inputs with nothing to learn."""
        return dataclasses.replace(self, **dict.fromkeys(TARGET_FIELDS))

    def check(self, config: Pi0Config, *, every_camera: bool = True) -> None:
        """Raises if shapes or kinds of numbers do not fit the model.

        Args:
            config: the model's sizes.
            every_camera: whether all of the model's cameras must be there. In training, those that
                no row has may be left out: masked tokens change nothing but the time.

        Raises:
            ValueError: naming the array, what it must be and what it is.
        """
        batch = np.shape(self.state)[0] if np.ndim(self.state) else 0
        side = config.vision.image_size
        cameras = [camera.openpi_key for camera in CAMERAS]
        for given, name in ((self.images, "images"), (self.image_masks, "image_masks")):
            missing, unknown = set(cameras) - set(given), set(given) - set(cameras)
            if unknown or not given or (missing and every_camera):
                raise ValueError(
                    f"`{name}` must have the keys {', '.join(cameras)}, but got "
                    f"{', '.join(sorted(given)) or 'none'}. Give a missing camera as -1 "
                    "everywhere and False in `image_masks`."
                )
        prompt = np.shape(self.tokenized_prompt)
        text = (batch, prompt[1] if len(prompt) == 2 else config.max_token_len)
        expected = {
            "state": (self.state, (batch, config.action_dim)),
            "tokenized_prompt": (self.tokenized_prompt, text),
            "tokenized_prompt_mask": (self.tokenized_prompt_mask, text),
            "instruction_mask": (self.instruction_mask, text),
            "state_text_mask": (self.state_text_mask, text),
        }
        if set(self.images) != set(self.image_masks):
            raise ValueError(
                f"`image_masks` must have the keys of `images`, {', '.join(self.images)}, but got "
                f"{', '.join(self.image_masks)}."
            )
        for key in self.images:
            expected[f"images[{key!r}]"] = (self.images[key], (batch, side, side, 3))
            expected[f"image_masks[{key!r}]"] = (self.image_masks[key], (batch,))
        for name, (value, shape) in expected.items():
            check_shape(name, value, shape)
        self._check_targets(batch)
        self._check_kinds()

    def _check_targets(self, batch: int) -> None:
        """Raises if learnt tokens and their masks do not fit each other."""
        for tokens, mask in (
            ("fast_action_tokens", "fast_action_mask"),
            ("text_target_tokens", "text_target_mask"),
        ):
            ids, valid = getattr(self, tokens), getattr(self, mask)
            if (ids is None) != (valid is None):
                given, missing = (tokens, mask) if valid is None else (mask, tokens)
                raise ValueError(
                    f"`{missing}` must be given with `{given}`, but got None. Give both or none."
                )
            if ids is not None:
                check_shape(tokens, ids, (batch, np.shape(ids)[-1] if np.ndim(ids) else 0))
                check_shape(mask, valid, np.shape(ids))

    def _check_kinds(self) -> None:
        """Raises if pixels are grey levels, or token ids are no whole numbers."""
        for key, image in self.images.items():
            if not jnp.issubdtype(image.dtype, jnp.floating):
                raise ValueError(
                    f"`images[{key!r}]` must be floats in [-1, 1], but got {image.dtype}. Divide "
                    "grey levels by 127.5 and subtract 1."
                )
        if not jnp.issubdtype(self.tokenized_prompt.dtype, jnp.integer):
            raise ValueError(
                "`tokenized_prompt` must be whole numbers, but got "
                f"{self.tokenized_prompt.dtype}. Give token ids as int32."
            )


def check_shape(name: str, value: Any, shape: tuple[int, ...]) -> None:
    """Raises if an array that is there has another shape.

    Raises:
        ValueError: naming the array and both shapes.
    """
    if value is not None and np.shape(value) != shape:
        raise ValueError(
            f"`{name}` must have shape {list(shape)}, but got {list(np.shape(value))}. "
            "The first axis is the batch; sizes come from the model's config."
        )
