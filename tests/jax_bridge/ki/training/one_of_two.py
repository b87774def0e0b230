"""Run by a test, twice at the same time: one of two processes that train one model."""

import dataclasses
import os
import pathlib
import sys

os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
sys.path.insert(0, os.path.dirname(__file__))

import jax
from conftest import ROWS, MemoryStream, make_settings

from jax_bridge.ki.training.processes import join_processes
from jax_bridge.ki.training.stream import HostBatch
from jax_bridge.ki.training.trainer import Trainer


class Share(MemoryStream):
    """This process's half of every batch."""

    def __next__(self) -> HostBatch:
        host = super().__next__()
        half = ROWS // 2
        own = slice(jax.process_index() * half, (jax.process_index() + 1) * half)
        dims = host.batch.action_dims
        rows = jax.tree.map(lambda x: x[own] if x is not dims else x, host.batch)
        return host._replace(batch=dataclasses.replace(rows, action_dims=dims), keys=host.keys[own])


def main(out: pathlib.Path) -> None:
    join_processes()
    assert jax.process_count() == 2
    for steps in (3, 6):
        settings = make_settings(run={"steps": steps, "fsdp": 2})
        report = Trainer(settings, Share(settings.model), out).run()
        assert report.first_step == (0 if steps == 3 else 3), report
    sys.stdout.write(f"{report.last_line['loss/total']!r}\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
