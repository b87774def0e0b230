"""The built-in simulator: a small table, numpy only."""

from jax_bridge.environments.tabletop.tabletop import Tabletop

__all__ = ["Tabletop"]
