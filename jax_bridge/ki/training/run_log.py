"""The log of a run: TensorBoard, and the same numbers as lines of JSON."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from tensorboardX import SummaryWriter

LINES = "log.jsonl"
TENSORBOARD = "tensorboard"


class RunLog:
    """Writes numbers by name and step.

    Args:
        folder: of the run.
        step: where the run stands; what was logged behind it (by a run that was killed after its
            last checkpoint) is dropped, and written again.
    """

    def __init__(self, folder: pathlib.Path, step: int) -> None:
        self._path = folder / LINES
        if self._path.exists():
            _keep_until(self._path, step)
        self._lines = self._path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / TENSORBOARD), purge_step=step + 1)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._board.close()

    def write(self, step: int, line: Mapping[str, float]) -> None:
        """Logs the numbers of a step."""
        self._lines.write(json.dumps({"step": step, **line}) + "\n")
        self._lines.flush()
        for name, value in line.items():
            self._board.add_scalar(name, value, step)
        self._board.flush()


def read_lines(folder: pathlib.Path) -> list[dict[str, Any]]:
    """All lines of a run's log; a last one that is cut off is left out."""
    path = folder / LINES
    if not path.exists():
        return []
    return [json.loads(line) for line in _whole(path)]


def _whole(path: pathlib.Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [line for line in lines if line.endswith("}\n")]


def _keep_until(path: pathlib.Path, step: int) -> None:
    kept = [line for line in _whole(path) if json.loads(line)["step"] <= step]
    spare = path.with_suffix(".part")
    spare.write_text("".join(kept), encoding="utf-8")
    os.replace(spare, path)


class NoLog:
    """The log of processes that do not write."""

    def __enter__(self) -> "NoLog":
        return self

    def __exit__(self, *_: object) -> None:
        return

    def write(self, step: int, line: Mapping[str, float]) -> None:
        """Writes nothing."""
