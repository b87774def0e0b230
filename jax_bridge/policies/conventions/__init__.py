"""Data conventions: how a robot's observations and actions are laid out for a checkpoint."""

from jax_bridge.policies.conventions.convention import Convention, Recipe, Units
from jax_bridge.policies.conventions.registry import CONVENTIONS, get_convention

__all__ = ["CONVENTIONS", "Convention", "Recipe", "Units", "get_convention"]
