"""A place in a torch model that is read: the input or the output of a module."""

import dataclasses
import difflib
import re
from collections.abc import Sequence
from typing import Any, Literal

from torch import nn

from jax_bridge.shards.field import CONTEXT

_WORD = re.compile(r"[A-Za-z0-9_]+")
MOST_NAMES = 5
"""Near names that an error offers."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CapturePoint:
    """What is read of one module."""

    module: str
    """Its path, as `named_modules` lists it; the empty path is the whole model."""
    side: Literal["input", "output"] = "input"
    argument: int | str = 0
    """Which positional or keyword argument of the input, or which entry of an output that is a
    tuple or a dict."""
    pool: Literal["tokens", "mean", "last", "max"] = "tokens"
    """Over the last axis but one; `tokens` pools nothing."""
    call: int | None = None
    """Which one, where the module is called several times a forward; -1 is the last."""
    name: str | None = None
    """A word for the field in place of the module's path."""

    def __post_init__(self) -> None:
        if not _WORD.fullmatch(self.word):
            raise ValueError(
                f"`name` must be a word of letters, digits and underscores, but got {self.word!r}."
            )

    @property
    def word(self) -> str:
        """The module in a field's name, which has no dots inside a word."""
        return self.name or self.module.replace(".", "_") or "model"

    @property
    def field(self) -> str:
        """The field that it becomes: `context.{module}.{side}.{pool}`."""
        return f"{CONTEXT}.{self.word}.{self.side}.{self.pool}"

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return dataclasses.asdict(self)


def check_points(model: nn.Module, points: Sequence[CapturePoint]) -> None:
    """Refuses places that the model has not, or that would have one name.

    Raises:
        ValueError: naming the nearest modules.
    """
    fields = [point.field for point in points]
    if not points or len(set(fields)) < len(fields):
        raise ValueError(
            f"`points` must name at least one place, each once, but got {fields or 'none'}. Give "
            "two that have one word a `name`."
        )
    for point in points:
        find_module(model, point.module)


def find_module(model: nn.Module, path: str) -> nn.Module:
    """A module by its path.

    Raises:
        ValueError: if there is none; offers the nearest names.
    """
    try:
        return model.get_submodule(path)  # every forward asks: not through all modules' names
    except AttributeError:
        modules = dict(model.named_modules())
    last = path.rpartition(".")[2]
    same_end = [name for name in modules if name.rpartition(".")[2] == last]
    near = same_end or difflib.get_close_matches(path, [*modules], n=MOST_NAMES, cutoff=0.4)
    names = near or [name for name in modules if name and "." not in name]
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    raise ValueError(
        f"`module` must be a path in {type(model).__name__}, but got {path!r}. The nearest are "
        f"{', '.join(names[:MOST_NAMES])}{more}."
    )
