"""How two checkpoints differ: what is missing, extra, of another shape, and how far values moved.

Tensors are read slice by slice, so that memory stays small whatever the checkpoints' size.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float64, Shaped

from jax_bridge.checkpoints.parts import WRAPPERS, find_family, part_of
from jax_bridge.checkpoints.stored_checkpoint import StoredCheckpoint, dtype_of

_TOPS = ("", "state_dict.", "model_state_dict.")
_PREFIXES = ("", *WRAPPERS, "model.backbone.", "backbone.", "model.model.", "module.model.")
_BFLOAT16 = dtype_of("bfloat16")
Doubles = Float64[np.ndarray, " n"]
NUMBERS = 2**16
"""Of a tensor at a time."""
SHOWN = 40
"""Lines of each list on the page; the JSON has all."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Move:
    """How far one tensor is from where it was."""

    name: str
    part: str
    relative: float
    """Norm of the difference over the norm of the first one's values; infinite from all zeros."""
    largest: float
    """Largest difference of one number."""
    dtypes: tuple[str, str]
    bad: int
    """Numbers that are NaN or infinite in either; they are left out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """What the second checkpoint is, seen from the first."""

    first: str
    second: str
    prefixes: tuple[str, str]
    """What was taken off the names of each so that they meet."""
    missing: list[str]
    """In the first alone."""
    extra: list[str]
    """In the second alone."""
    reshaped: list[tuple[str, tuple[int, ...], tuple[int, ...]]]
    moves: list[Move]
    """The tensors of both, the farthest first."""

    @property
    def moved(self) -> list[Move]:
        """Those that are not equal, number for number."""
        return [move for move in self.moves if move.relative > 0 or move.bad]

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        entry = dataclasses.asdict(self)
        for move in entry["moves"]:
            move["relative"] = move["relative"] if math.isfinite(move["relative"]) else None
        return {**entry, "moved": len(self.moved), "same": len(self.moves) - len(self.moved)}


def compare(
    first: StoredCheckpoint,
    second: StoredCheckpoint,
    *,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> Difference:
    """Compares the names, shapes and values of two checkpoints.

    Args:
        first: where things were.
        second: where they are.
        on_bytes: told of what was read, as it is read.

    Raises:
        ValueError: if they have no tensor name in common.
    """
    prefixes = _meeting(first, second)
    names = [
        {name.removeprefix(prefix): name for name in side.tensors}
        for side, prefix in zip((first, second), prefixes, strict=True)
    ]
    both = [name for name in names[0] if name in names[1]]
    if not both:
        raise ValueError(
            f"`--against` must have tensors of the same names, but {second.path} and {first.path} "
            f"have none in common: {next(iter(second.tensors), 'nothing')!r} and "
            f"{next(iter(first.tensors), 'nothing')!r}, for example."
        )
    family = find_family([*first.tensors, *second.tensors])
    moves: list[Move] = []
    reshaped: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = []
    for name in both:
        shapes = (first.tensors[names[0][name]].shape, second.tensors[names[1][name]].shape)
        if shapes[0] != shapes[1]:
            reshaped.append((name, *shapes))
            continue
        part = part_of(names[0][name], family)
        moves.append(_move(name, part, (first, names[0][name]), (second, names[1][name]), on_bytes))
    return Difference(
        first=str(first.path),
        second=str(second.path),
        prefixes=prefixes,
        missing=[name for name in names[0] if name not in names[1]],
        extra=[name for name in names[1] if name not in names[0]],
        reshaped=reshaped,
        moves=sorted(moves, key=lambda move: (-move.relative, move.name)),
    )


def _meeting(first: StoredCheckpoint, second: StoredCheckpoint) -> tuple[str, str]:
    """The prefixes without which most names meet; none where that is as good."""
    best, found = 0, ("", "")
    for one in _prefixes_of(first):
        bare = {name.removeprefix(one) for name in first.tensors}
        for other in _prefixes_of(second):
            met = sum(name.removeprefix(other) in bare for name in second.tensors)
            if met > best:
                best, found = met, (one, other)
    return found


def _prefixes_of(checkpoint: StoredCheckpoint) -> list[str]:
    every = (top + prefix for top in _TOPS for prefix in _PREFIXES)
    return [p for p in every if any(name.startswith(p) for name in checkpoint.tensors)]


@dataclasses.dataclass
class _Sums:
    """What is added up of two tensors, some numbers at a time: they stay in the cache."""

    norm: float = 0.0
    squares: float = 0.0
    largest: float = 0.0
    bad: int = 0

    @property
    def relative(self) -> float:
        if not self.norm:
            return math.inf if self.squares else 0.0
        return math.sqrt(self.squares / self.norm)

    def add(self, before: Shaped[np.ndarray, " n"], after: Shaped[np.ndarray, " n"]) -> None:
        for start in range(0, before.size, NUMBERS):
            pair = (_double(side[start : start + NUMBERS]) for side in (before, after))
            self._add_some(*pair)

    def _add_some(self, values: Doubles, others: Doubles) -> None:
        with np.errstate(invalid="ignore", over="ignore"):
            delta = others - values
            squares = float(delta @ delta)
        if not math.isfinite(squares):
            good = np.isfinite(values) & np.isfinite(others)
            self.bad += int(good.size - good.sum())
            values, delta = values[good], delta[good]
            squares = float(delta @ delta)
        self.norm += float(values @ values)
        self.squares += squares
        if squares:
            self.largest = max(self.largest, float(delta.max()), -float(delta.min()))


def _double(values: Shaped[np.ndarray, " n"]) -> Doubles:
    if values.dtype == _BFLOAT16:  # its upper half; far quicker than the type's own cast
        values = (values.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float64)


def _move(
    name: str,
    part: str,
    before: tuple[StoredCheckpoint, str],
    after: tuple[StoredCheckpoint, str],
    on_bytes: Callable[[int], None],
) -> Move:
    sums = _Sums()
    step = min(side.row_step(place) for side, place in (before, after))
    slices = (side.blocks(place, step) for side, place in (before, after))
    for a, b in zip(*slices, strict=True):
        on_bytes(a.nbytes + b.nbytes)
        sums.add(a.reshape(-1), b.reshape(-1))
    dtypes = (before[0].tensors[before[1]].dtype, after[0].tensors[after[1]].dtype)
    return Move(
        name=name, part=part, relative=sums.relative, largest=sums.largest, dtypes=dtypes,
        bad=sums.bad,
    )  # fmt: skip


def describe_difference(found: Difference) -> str:
    """A page of Markdown."""
    moved = found.moved
    lines = [
        f"# {found.second} against {found.first}",
        "",
        f"{len(found.moves)} tensors in both, of which {len(moved)} moved and "
        f"{len(found.moves) - len(moved)} are equal; {len(found.missing)} missing, "
        f"{len(found.extra)} extra, {len(found.reshaped)} of another shape.",
    ]
    if any(found.prefixes):
        lines += ["", f"Taken off the names: {found.prefixes[0]!r} and {found.prefixes[1]!r}."]
    lines += _listed("Missing", [f"`{name}`" for name in found.missing])
    lines += _listed("Extra", [f"`{name}`" for name in found.extra])
    lines += _listed(
        "Of another shape", [f"`{n}` {list(a)} -> {list(b)}" for n, a, b in found.reshaped]
    )
    if not moved:
        return "\n".join(lines)
    lines += ["", "## Moved", "", "| tensor | part | relative change | largest | |"]
    lines += ["|---|---|---:|---:|---|"]
    for move in moved[:SHOWN]:
        notes = [] if move.dtypes[0] == move.dtypes[1] else [" -> ".join(move.dtypes)]
        notes += [f"{move.bad} not finite"] if move.bad else []
        lines.append(
            f"| `{move.name}` | {move.part} | {move.relative:.3g} | {move.largest:.3g} | "
            f"{', '.join(notes)} |"
        )
    rest = len(moved) - SHOWN
    return "\n".join([*lines, *([f"\nand {rest} more"] if rest > 0 else [])])


def _listed(title: str, entries: list[str]) -> list[str]:
    if not entries:
        return []
    rest = len(entries) - SHOWN
    more = [f"- and {rest} more"] if rest > 0 else []
    return ["", f"## {title}", "", *(f"- {entry}" for entry in entries[:SHOWN]), *more]
