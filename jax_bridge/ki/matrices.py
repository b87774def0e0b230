"""Which axes of a parameter are a matrix's inputs and outputs, for optimisers that ask.

Source: Jordan et al. 2024, "Muon", kellerjordan.github.io/posts/muon: everything inside the blocks
is moved as matrices; embedding tables, norms, biases and the last layer are not.
"""

import re
from typing import Any

import jax
from optax.contrib import MuonDimensionNumbers

from jax_bridge.ki.parameter_groups import LORA_PREFIX

_INPUTS_AND_OUTPUTS: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = (
    (r"/(pos|input)_embedding$", (), ()),
    (r"^action_out_proj/", (), ()),
    (r"/(scale|bias)$", (), ()),
    (r"/embedding/kernel$", (-4, -3, -2), (-1,)),
    (r"/(query|key|value)/kernel$", (-3,), (-2, -1)),
    (r"/(out/kernel|attn_vec_einsum(_1)?/w)$", (-3, -2), (-1,)),
    (r"/q_einsum(_1)?/w$", (-2,), (-3, -1)),
)
"""Pattern, axes of inputs, axes of outputs; all other leaves are [..., inputs, outputs]."""


def matrix_axes(path: str) -> MuonDimensionNumbers | None:
    """The axes of one leaf that make a matrix; those not named are a stack of matrices.

    Args:
        path: keys joined by "/"; the heads of a layer's attention are one matrix together.

    Returns:
        Axes counted from the last, -1; None for what is no matrix.
    """
    if path.startswith(LORA_PREFIX):
        return MuonDimensionNumbers(-2, -1)
    for pattern, inputs, outputs in _INPUTS_AND_OUTPUTS:
        if re.search(pattern, path):
            return MuonDimensionNumbers(inputs, outputs) if inputs else None
    return MuonDimensionNumbers(-2, -1)


def all_matrix_axes(params: Any) -> Any:
    """`matrix_axes` of every leaf of a tree."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: matrix_axes("/".join(str(part.key) for part in path)), params
    )
