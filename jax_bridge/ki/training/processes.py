"""Several processes that train one model together."""

import os

import jax

ADDRESS, COUNT, NUMBER = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"


def join_processes() -> None:
    """Meets the other processes, before anything of JAX is used.

    A cluster that JAX knows (Slurm, Open MPI, TPU) tells it who they are; elsewhere three variables
    of the environment do.

    Raises:
        ValueError: if one of the three is missing or no number.
    """
    if ADDRESS not in os.environ:
        jax.distributed.initialize()
        return
    given = {name: os.environ.get(name, "") for name in (COUNT, NUMBER)}
    for name, value in given.items():
        if not value.isdigit():
            raise ValueError(f"`{name}` must be a whole number, but got {value!r}. Set it.")
    jax.distributed.initialize(os.environ[ADDRESS], int(given[COUNT]), int(given[NUMBER]))
