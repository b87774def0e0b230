"""The LIBERO simulator behind the environment protocol."""

from jax_bridge.environments.libero.libero import Libero

__all__ = ["Libero"]
