"""One training batch; the same feeds every mode.

Letters: b batch; h action horizon; a action dimensions.
"""

import dataclasses
from typing import Any

import jax

from jax_bridge.pi0.config import Pi0Config
from jax_bridge.pi0.observation import ArrayLike, Observation, check_shape


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingBatch:
    """Inputs, FAST and text targets (in the observation), and action chunks."""

    observation: Observation
    actions: ArrayLike
    """[b, h, a], normalised and padded with zeros; zeros for a sample without actions."""
    action_mask: ArrayLike
    """bool [b]: which samples have actions (vision-language data have none)."""
    action_is_pad: ArrayLike
    """bool [b, h]: steps behind the end of the episode; they are not learnt."""
    action_dims: ArrayLike
    """bool [a]: dimensions that the robot has."""

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Any]], None]:
        """Children by field name, for jax."""
        names = [field.name for field in dataclasses.fields(self)]
        return [(jax.tree_util.GetAttrKey(name), getattr(self, name)) for name in names], None

    @classmethod
    def tree_unflatten(cls, _: None, children: Any) -> "TrainingBatch":
        """Puts children back; they may be anything jax maps over, so nothing is checked."""
        made = object.__new__(cls)
        for field, child in zip(dataclasses.fields(cls), children, strict=True):
            object.__setattr__(made, field.name, child)
        return made

    def check(self, config: Pi0Config) -> None:
        """Raises if shapes do not fit the model.

        Raises:
            ValueError: naming the array, what it must be and what it is.
        """
        self.observation.check(config, every_camera=False)
        batch, steps, dims = self.size, config.action_horizon, config.action_dim
        check_shape("actions", self.actions, (batch, steps, dims))
        check_shape("action_mask", self.action_mask, (batch,))
        check_shape("action_is_pad", self.action_is_pad, (batch, steps))
        check_shape("action_dims", self.action_dims, (dims,))

    @property
    def size(self) -> int:
        """Samples."""
        return self.observation.state.shape[0]

    def without_targets(self) -> "TrainingBatch":
        """The same batch with nothing for the backbone to learn."""
        return dataclasses.replace(self, observation=self.observation.without_targets())
