"""Latents that earlier scripts left as pickles: read without trusting them, written as shards.

A pickle is a program. `read_pickle` runs none of it: it knows the few calls that arrays, scalars
and plain containers are made of, does them itself, and refuses every other name.
"""

from jax_bridge.old_pickles.failures import RefusedPickleError
from jax_bridge.old_pickles.importing import ImportPlan, ImportReport, import_pickles
from jax_bridge.old_pickles.restricted import read_pickle

__all__ = [
    "ImportPlan",
    "ImportReport",
    "RefusedPickleError",
    "import_pickles",
    "read_pickle",
]
