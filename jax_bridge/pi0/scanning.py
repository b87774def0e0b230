"""A scan that keeps some outputs of chosen steps only."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Body = Callable[[Any, Any], tuple[Any, Any, Any]]
"""(carry, x) to (carry, output kept of every step, output kept of chosen steps)."""


def scan_selected(
    body: Body, carry: Any, xs: Any, selected: tuple[int, ...] | None
) -> tuple[Any, Any, Any]:
    """`jax.lax.scan` with a second output that holds only chosen steps.

    Args:
        body: The step.
        carry: What goes from step to step.
        xs: Scanned inputs.
        selected: Ascending step numbers; None keeps every step.

    Returns:
        The last carry, the first output of all steps, the second of the chosen ones.
    """
    length = jax.tree.leaves(xs)[0].shape[0]
    if selected is None or len(selected) == length:
        carry, (outputs, chosen) = jax.lax.scan(_all_steps(body), carry, xs)
        return carry, outputs, chosen
    first = jax.tree.map(lambda leaf: leaf[0], xs)
    _, _, shapes = jax.eval_shape(body, carry, first)
    buffers = jax.tree.map(lambda s: jnp.zeros((len(selected), *s.shape), s.dtype), shapes)
    # An unselected step rewrites its slot's old value: nothing grows with the steps left out.
    slots = [sum(chosen < step for chosen in selected) for step in range(length)]
    slots = jnp.asarray([min(slot, len(selected) - 1) for slot in slots])
    kept = jnp.asarray([step in selected for step in range(length)])
    scanned = (xs, slots, kept)
    (carry, buffers), outputs = jax.lax.scan(_chosen_steps(body), (carry, buffers), scanned)
    return carry, outputs, buffers


def _all_steps(body: Body) -> Callable[[Any, Any], tuple[Any, tuple[Any, Any]]]:
    """The step as `jax.lax.scan` wants it."""

    def step(carry: Any, x: Any) -> tuple[Any, tuple[Any, Any]]:
        carry, output, chosen = body(carry, x)
        return carry, (output, chosen)

    return step


def _chosen_steps(body: Body) -> Callable[[Any, Any], tuple[Any, Any]]:
    """The step with the buffers of chosen outputs in its carry."""

    def step(carry: tuple[Any, Any], scanned: tuple[Any, Any, Any]) -> tuple[Any, Any]:
        carry, buffers = carry
        x, slot, kept = scanned
        carry, output, chosen = body(carry, x)

        def write(buffer: jax.Array, value: jax.Array) -> jax.Array:
            value = jnp.where(kept, value, buffer[slot])
            return jax.lax.dynamic_update_index_in_dim(buffer, value, slot, axis=0)

        return (carry, jax.tree.map(write, buffers, chosen)), output

    return step
