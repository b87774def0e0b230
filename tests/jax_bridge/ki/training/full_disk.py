"""Run by a test in a process of its own: the disk is full from the fifth step on."""

import os
import pathlib
import resource
import sys
import time

os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # as in the tests: a program of the same cache
sys.path.insert(0, os.path.dirname(__file__))

from conftest import MemoryStream, make_settings

from jax_bridge.ki.training.trainer import Trainer


class Fill:
    """Lets no file grow beyond 20 kB, once the first checkpoint is whole."""

    def __init__(self, out) -> None:
        self._out = out

    def update(self, step, line) -> None:
        if step != 5:
            return
        while not (self._out / "checkpoints/3").exists():  # it is written beside the steps
            time.sleep(0.01)
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))


def main(out: pathlib.Path) -> None:
    settings = make_settings()
    try:
        Trainer(settings, MemoryStream(settings.model), out, progress=Fill(out)).run()
    except OSError as error:
        sys.stdout.write(f"{error}\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
