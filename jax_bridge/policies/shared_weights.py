"""A policy's weights on several devices of one host, for models that one device cannot hold.

Large leaves are cut along their longest axis, as in training; the compiler does the rest.
"""

from collections.abc import Callable

import jax

from jax_bridge.ki.sharding import leaf_sharding, make_mesh

Place = Callable[[str, tuple[int, ...]], jax.sharding.Sharding]
"""(path, shape) of a leaf to where it lies."""


def share_leaves(devices: int) -> Place:
    """Where each leaf lies, on the first devices of this host.

    Raises:
        ValueError: if there are not so many.
    """
    there = jax.local_devices()
    if devices > len(there):
        raise ValueError(
            f"`devices` must be at most {len(there)}, the devices of this host, but got {devices}."
        )
    mesh = make_mesh(devices, there[:devices])
    return lambda path, shape: leaf_sharding(shape, mesh)
