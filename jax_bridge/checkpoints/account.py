"""What a checkpoint holds, as JSON and as a page: parts, a tree of tensors, counts and bytes."""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any

from jax_bridge.checkpoints.parts import find_family, part_of
from jax_bridge.checkpoints.stored_checkpoint import StoredCheckpoint, StoredTensor

_NUMBER = re.compile(r"(?<![^./])\d+(?![^./])")
"""A whole part of a name that is a number: the place in a stack of blocks."""
SHOWN_UNSAFE = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """Tensors of one name but for the number of their block, all of one shape and type."""

    pattern: str
    dtype: str
    shape: tuple[int, ...]
    tensors: int

    @property
    def count(self) -> int:
        """Numbers in all of them."""
        return self.tensors * math.prod(self.shape)


def account(checkpoint: StoredCheckpoint) -> dict[str, Any]:
    """Everything that the table of contents tells, for JSON."""
    family = find_family(checkpoint.tensors)
    parts: dict[str, list[StoredTensor]] = collections.defaultdict(list)
    dtypes: dict[str, list[StoredTensor]] = collections.defaultdict(list)
    for tensor in checkpoint.tensors.values():
        parts[part_of(tensor.name, family)].append(tensor)
        dtypes[tensor.dtype].append(tensor)
    return {
        "path": str(checkpoint.path),
        "format": checkpoint.format,
        "family": family,
        **_sums(checkpoint.tensors.values()),
        "parts": {part: _sums(tensors) for part, tensors in sorted(parts.items())},
        "dtypes": {dtype: _sums(tensors) for dtype, tensors in sorted(dtypes.items())},
        "unsafe_globals": list(checkpoint.unsafe),
        "entries": [
            {
                "name": tensor.name,
                "part": part_of(tensor.name, family),
                "dtype": tensor.dtype,
                "shape": list(tensor.shape),
            }
            for tensor in checkpoint.tensors.values()
        ],
    }


def _sums(tensors: Any) -> dict[str, int]:
    listed = list(tensors)
    return {
        "tensors": len(listed),
        "parameters": sum(tensor.count for tensor in listed),
        "bytes": sum(tensor.nbytes for tensor in listed),
    }


def describe(checkpoint: StoredCheckpoint) -> str:
    """A page of Markdown: the parts as a table, the tensors as a tree."""
    found = account(checkpoint)
    lines = [
        f"# {found['path']}",
        "",
        f"{found['format']}, {found['family'] or 'no model that is known by its names'}: "
        f"{found['tensors']:,} tensors, {found['parameters']:,} parameters, "
        f"{readable(found['bytes'])}",
        "",
        "| part | tensors | parameters | bytes |",
        "|---|---:|---:|---:|",
    ]
    for part, sums in {**found["parts"], "all": found}.items():
        lines.append(
            f"| {part} | {sums['tensors']:,} | {sums['parameters']:,} | {readable(sums['bytes'])} |"
        )
    types = (f"{name} {sums['parameters']:,}" for name, sums in found["dtypes"].items())
    lines += ["", f"Types: {', '.join(types) or 'none'}"]
    if checkpoint.unsafe:
        more = len(checkpoint.unsafe) - SHOWN_UNSAFE
        lines += ["", "The pickle names what it should not (none of it was run):", ""]
        lines += [f"- `{name}`" for name in checkpoint.unsafe[:SHOWN_UNSAFE]]
        lines += [f"- and {more} more"] if more > 0 else []
    return "\n".join([*lines, "", "```", *tree_lines(checkpoint), "```"])


def kinds(checkpoint: StoredCheckpoint) -> list[Kind]:
    """The tensors, those of a stack of equal blocks taken together, in the order of the names."""
    found: dict[tuple[str, str, tuple[int, ...]], int] = collections.Counter(
        (_NUMBER.sub("*", tensor.name), tensor.dtype, tensor.shape)
        for tensor in checkpoint.tensors.values()
    )
    return [
        Kind(pattern=pattern, dtype=dtype, shape=shape, tensors=number)
        for (pattern, dtype, shape), number in sorted(found.items())
    ]


def tree_lines(checkpoint: StoredCheckpoint) -> Iterator[str]:
    """The tree, a line a folder or kind of tensor; `*` stands for the number of a block."""
    mark = "/" if checkpoint.format == "orbax" else "."
    listed = kinds(checkpoint)
    below: dict[str, int] = collections.Counter()
    for kind in listed:
        words = kind.pattern.split(mark)
        for depth in range(1, len(words)):
            below[mark.join(words[:depth])] += kind.count
    before: list[str] = []
    for kind in listed:
        *folders, name = kind.pattern.split(mark)
        shared = 0
        while shared < min(len(folders), len(before)) and folders[shared] == before[shared]:
            shared += 1
        for depth in range(shared, len(folders)):
            count = below[mark.join(folders[: depth + 1])]
            yield f"{'  ' * depth}{folders[depth]}{mark}  {count:,}"
        times = f" x {kind.tensors}" if kind.tensors > 1 else ""
        yield f"{'  ' * len(folders)}{name}  {list(kind.shape)} {kind.dtype}{times}"
        before = folders


def readable(size: int) -> str:
    """Bytes for people."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:,.2f} {unit}"
    return f"{size} bytes"
