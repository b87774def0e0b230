"""How several policy calls are answered at once: in one program, or row by row.

An accelerator answers a batch in one program. On a CPU the batched products of XLA take several
times longer a row than single ones, so there every row runs by itself, side by side with others.
"""

import concurrent.futures
import os
from collections.abc import Callable, Sequence

import jax

from jax_bridge.policies.policy import PolicyCall, PolicyOutput


def batches_in_one_program() -> bool:
    """Whether the device is faster with whole batches."""
    return jax.default_backend() != "cpu"


def by_row(
    answer: Callable[[PolicyCall], PolicyOutput | None], calls: Sequence[PolicyCall | None]
) -> list[PolicyOutput | None]:
    """Answers every call by itself, on as many cores as there are; empty rows cost nothing."""
    given = [(row, call) for row, call in enumerate(calls) if call is not None]
    outputs: list[PolicyOutput | None] = [None] * len(calls)
    if not given:
        return outputs
    outputs[given[0][0]] = answer(given[0][1])  # alone: the first call ever compiles
    with concurrent.futures.ThreadPoolExecutor(_cores()) as pool:
        rest = pool.map(answer, (call for _, call in given[1:]))
        for (row, _), output in zip(given[1:], rest, strict=True):
            outputs[row] = output
    return outputs


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
