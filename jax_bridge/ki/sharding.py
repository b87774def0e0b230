"""How parameters and batches lie on many devices: a mesh of data x fsdp.

A batch is cut over all devices. Large leaves are cut over `fsdp` along their longest axis that it
divides; small ones lie everywhere. The compiler does the rest: the step is the same function.

Source: Zhao et al. 2023, "PyTorch FSDP", arXiv:2304.11277 (the idea); jax.sharding.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jax_bridge.ki.batch import TrainingBatch

DATA, FSDP = "data", "fsdp"
SMALLEST_CUT = 2**20
"""Numbers; smaller leaves are not cut."""


def make_mesh(fsdp: int = 1, devices: list[Any] | None = None) -> Mesh:
    """A mesh of all devices, `fsdp` of which share each copy of the parameters.

    Raises:
        ValueError: if `fsdp` does not divide their number.
    """
    given = jax.devices() if devices is None else devices
    if fsdp < 1 or len(given) % fsdp:
        raise ValueError(f"`fsdp` must divide the number of devices, {len(given)}, but got {fsdp}.")
    return Mesh(np.asarray(given).reshape(-1, fsdp), (DATA, FSDP))


def leaf_sharding(
    shape: tuple[int, ...], mesh: Mesh, smallest: int = SMALLEST_CUT
) -> NamedSharding:
    """Where a leaf of this shape lies."""
    size = mesh.shape[FSDP]
    fitting = [axis for axis, length in enumerate(shape) if length % size == 0]
    if size == 1 or not fitting or np.prod(shape) < smallest:
        return NamedSharding(mesh, PartitionSpec())
    longest = max(fitting, key=lambda axis: shape[axis])
    names = [FSDP if axis == longest else None for axis in range(len(shape))]
    return NamedSharding(mesh, PartitionSpec(*names))


def state_shardings(state: Any, mesh: Mesh, smallest: int = SMALLEST_CUT) -> Any:
    """A sharding for every leaf of a state: parameters, moments and average alike."""
    return jax.tree.map(lambda leaf: leaf_sharding(tuple(leaf.shape), mesh, smallest), state)


def batch_shardings(batch: TrainingBatch, mesh: Mesh) -> TrainingBatch:
    """Rows are cut over all devices; `action_dims`, which has none, lies everywhere."""
    everywhere, rows = (
        NamedSharding(mesh, spec) for spec in (PartitionSpec(), PartitionSpec((DATA, FSDP)))
    )

    def place(path: Any, _: Any) -> NamedSharding:
        return everywhere if path[0].name == "action_dims" else rows

    return jax.tree_util.tree_map_with_path(place, batch)
