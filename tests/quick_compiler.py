"""Programs that run for milliseconds: the compiler need not think about them."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def quick_compiler() -> Iterator[None]:
    """Compiles without most optimisations, and leaves no such program behind.

    jax finds a compiled program by its code and shapes, whatever it was compiled with; whoever
    compares bits afterwards would compare two compilers.
    """
    name = "jax_disable_most_optimizations"
    before = jax.config.read(name)
    jax.config.update(name, True)
    try:
        yield
    finally:
        jax.config.update(name, before)
        jax.clear_caches()
